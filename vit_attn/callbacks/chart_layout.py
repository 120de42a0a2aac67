"""Layout of TensorBoard's tab *Custom Scalars*: charts of several curves."""

import lightning as L

from vit_attn.callbacks.attention_callback import tensorboard_writers
from vit_attn.callbacks.attention_logger.scalars import UNITS
from vit_attn.callbacks.learning_rates import RATE
from vit_attn.callbacks.tags import ATTENTION, LEARNING_RATE, THROUGHPUT

Layout = dict[str, dict[str, list[str]]]

TRAINING: Layout = {
    "training": {
        "loss": ["train/loss", "val/loss"],
        "accuracy": ["train/accuracy", "val/accuracy"],
        "learning rate": [RATE, rf"{LEARNING_RATE}/.*"],
        "fraction of the time": [rf"{THROUGHPUT}/(input|logging|validation|checkpoint)_fraction"],
    }
}
"""Charts of every run: regular expressions of tags by chart, by category."""
NAMES = {
    "entropy": "entropy of heads, nats, by layer",
    "distance": "distance of attention, pixels, by layer",
    "sink_mass": "attention on the strongest key, fraction, by layer",
    "prefix_mass": "attention on prefix tokens, fraction, by layer",
}
DIVERGENCE = "divergence from the source, nats, by layer"
ATTENTION_CHARTS: Layout = {
    "attention": {
        **{NAMES[measure]: [rf"{ATTENTION}/{tag}/layer_\d+"] for measure, tag in UNITS.items()},
        "pointing game, fraction of images, by method": [rf"{ATTENTION}/pointing_fraction/.*"],
        "deletion, area (low is good), by method": [rf"{ATTENTION}/deletion_area/.*"],
        "insertion, area (high is good), by method": [rf"{ATTENTION}/insertion_area/.*"],
        DIVERGENCE: [rf"{ATTENTION}/divergence_nats/layer_\d+"],
    }
}


class ChartLayout(L.Callback):
    """Writes the layout of *Custom Scalars*, in which a chart has a measure of all layers, or of all methods.

    Charts of what the run does not log are left out: of prefix tokens that the network does not have, and of a source
    where it starts from random weights. TensorBoard merges the layouts of all runs.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the layout."""
        left_out = set()
        if getattr(getattr(pl_module, "net", None), "num_prefix_tokens", None) == 0:
            left_out.add(NAMES["prefix_mass"])
        if not getattr(pl_module, "start", None):
            left_out.add(DIVERGENCE)
        layout = {
            category: {title: ["Multiline", tags] for title, tags in charts.items() if title not in left_out}
            for category, charts in (TRAINING | ATTENTION_CHARTS).items()
        }
        for writer in tensorboard_writers(trainer):
            writer.add_custom_scalars(layout)
