"""Scalars and histograms of a snapshot: measures of the heads, the pointing game, deletion and insertion."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.evaluation.baselines import Judgement
from vit_attn.attention_maps.methods.measures import measure
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.callbacks.tags import ATTENTION as GROUP

UNITS = {
    "entropy": "entropy_nats",
    "distance": "distance_pixels",
    "sink_mass": "sink_mass_fraction",
    "prefix_mass": "prefix_mass_fraction",
}
"""Measures of heads, and their tags, which have the unit."""

HeadMeasures = dict[str, Float[Tensor, "layers heads"]]
"""Measures of each layer and head, mean over the images, by the names of ``MEASURES``."""


def write_scalars(writers: Sequence[SummaryWriter], snapshot: AttentionSnapshot, layers: Sequence[int]) -> HeadMeasures:
    """Write all scalars and histograms of a step; returns the measures of all heads.

    Args:
        writers: Writers of event files.
        snapshot: Snapshot of the step.
        layers: Indices of the layers whose heads are measured.
    """
    measured = measure(snapshot.recording, patch_size(snapshot.probe.images, snapshot.recording))
    measures = {UNITS[name]: by_layer for name, by_layer in measured.items()}
    if not snapshot.recording.num_prefix_tokens:
        del measures[UNITS["prefix_mass"]]
    scalars = pointing(snapshot) | (faithfulness(snapshot.comparison) if snapshot.comparison else {})
    for writer in writers:
        for layer in layers:
            for name, by_layer in measures.items():
                heads = by_layer[layer].cpu()
                writer.add_scalar(f"{GROUP}/{name}/layer_{layer + 1}", heads.mean(), snapshot.step)
                writer.add_histogram(f"{GROUP}/{name}_of_heads/layer_{layer + 1}", heads, snapshot.step)
        for name, value in scalars.items():
            writer.add_scalar(name, value, snapshot.step)
    return measured


def pointing(snapshot: AttentionSnapshot) -> dict[str, float]:
    """Return the fraction of images in which each method's top-ranked patch is in the answer region, and chance.

    Images without the answer region do not count; without any that has it, nothing is returned.
    """
    answers = {i: truth.regions.get(truth.answer, ()) for i, truth in enumerate(snapshot.ground_truth or ())}
    answers = {i: answer for i, answer in answers.items() if answer}
    if not answers:
        return {}
    prefix = snapshot.recording.num_prefix_tokens
    scores = {}
    for method, rows in snapshot.rows.items():
        hits = [int(rows[i, prefix:].argmax()) in answer for i, answer in answers.items()]
        scores[f"{GROUP}/pointing_fraction/{method.name}"] = sum(hits) / len(hits)
    patches = snapshot.recording.num_tokens - prefix
    chance = sum(len(set(answer)) for answer in answers.values()) / len(answers) / patches
    return scores | {f"{GROUP}/pointing_fraction/chance": chance}


def faithfulness(comparison: Judgement) -> dict[str, float]:
    """Return areas under deletion and insertion by method, of centre first and the mean of random orders."""
    scalars = {}
    for label, measures in comparison.overall.items():
        name = label.replace(", ", "_").replace(" ", "_")
        for measure_name, each in measures.items():
            scalars[f"{GROUP}/{measure_name}_area/{name}"] = each.value
            scalars[f"{GROUP}/{measure_name}_area/random"] = each.random
            scalars[f"{GROUP}/{measure_name}_area/centre_first"] = each.centre
    return scalars


def patch_size(images: Tensor, recording: Recording) -> tuple[float, float]:
    """Return height and width of a patch in pixels of these images."""
    if recording.patch_size is not None:
        return recording.patch_size
    rows, cols = recording.grid_size
    return images.shape[-2] / rows, images.shape[-1] / cols
