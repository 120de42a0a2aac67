"""Settings and results of a run for TensorBoard's tab HParams, a table over all runs."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

API: Any = api_pb2
DATA: Any = plugin_data_pb2  # generated modules, which a type checker sees nothing of
Value = float | str | None
BEST, LOSS = "final/best_val_accuracy", "final/val_loss"
METRICS = {
    BEST: "best val accuracy",
    LOSS: "last val loss",
    "test/accuracy": "test accuracy",
}
"""Tags of the scalars that are the table's results, and their headings; ``test`` writes the last."""
TRAINER = ("max_epochs", "max_steps", "precision", "strategy", "accumulate_grad_batches", "gradient_clip_val")
ELSEWHERE = frozenset({"root", "download", "seed", "num_workers"})
"""Settings of the data that change no result, or that the run's own seed sets."""

NUMBERS = frozenset(
    {
        "seed",
        "parameters",
        *(
            f"model.{name}"
            for name in ("lr", "weight_decay", "warmup", "label_smoothing", "probe", "layer_decay", "ema")
        ),
        *(f"data.{name}" for name in ("batch_size", "memory_budget_gb", "img_size", "channels")),
        *(f"data.augment.{name}" for name in ("crop_padding", "flip", "rand_augment", "trivial_augment")),
        *(f"data.augment.{name}" for name in ("colour_jitter", "cutout", "erase", "random_resized_crop")),
        *(f"data.augment.{name}" for name in ("mixup", "cutmix", "mix_until")),
        *(f"trainer.{name}" for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val")),
    }
)
"""Settings that are numbers, or not given. The kind is one for all runs: the tab cannot sort numbers among words."""
FIRST = frozenset({"data.dataset", "model.arch", "model.lr", "seed", "trainer.max_epochs"})
"""Settings that the tab shows at first: it shows five, and those that are said to differ come first."""


class HParams(L.Callback):
    """Fills the tab: settings at the start of a run, results at its end, in the run's own events.

    Lightning's logger would write the metrics at the start, as they are then, under the name ``hp_metric``.

    Args:
        settings: What to show of the configuration, by name.
        begins: Whether the run begins here; the events of one that goes on have its settings.
    """

    def __init__(self, settings: Mapping[str, Value], begins: bool = True) -> None:
        self.settings, self.begins = dict(settings), begins
        self.results: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The results so far."""
        return dict(self.results)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the results of the run; another run that begins from its state has its own."""
        self.results = {} if self.begins else dict(state_dict)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the best accuracy, whatever checkpoints are kept by, and the last loss."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        accuracy, loss = (trainer.callback_metrics.get(name) for name in ("val/accuracy", "val/loss"))
        if accuracy is not None:
            self.results[BEST] = max(float(accuracy), self.results.get(BEST, 0.0))
        if loss is not None:
            self.results[LOSS] = float(loss)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the settings; without them a run that breaks off would not be in the table."""
        if not self.begins:
            return
        parameters = sum(each.numel() for each in pl_module.parameters())
        settings = self.settings | {"parameters": parameters}
        start = DATA.SessionStartInfo()
        for name, value in settings.items():
            if (plain := _value(name, value)) is not None:
                setattr(start.hparams[name], "number_value" if name in NUMBERS else "string_value", plain)
        infos = [API.HParamInfo(name=name, type=_kind(name), differs=name in FIRST) for name in settings]
        metrics = [
            API.MetricInfo(name=API.MetricName(tag=tag), display_name=heading) for tag, heading in METRICS.items()
        ]
        experiment = API.Experiment(hparam_infos=infos, metric_infos=metrics)
        _write(trainer, metadata.EXPERIMENT_TAG, DATA.HParamsPluginData(experiment=experiment))
        _write(trainer, metadata.SESSION_START_INFO_TAG, DATA.HParamsPluginData(session_start_info=start))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the results."""
        for writer in _writers(trainer):
            for tag, value in self.results.items():
                writer.add_scalar(tag, value, trainer.global_step)
        end = DATA.SessionEndInfo(status=API.STATUS_SUCCESS)
        _write(trainer, metadata.SESSION_END_INFO_TAG, DATA.HParamsPluginData(session_end_info=end))


def chosen_settings(config: Any) -> dict[str, Value]:
    """The settings that matter to results, under the same names for all runs: the tab takes its columns from one.

    A number that is not given is None, any other such setting ``none``; options of the network are one setting.

    Args:
        config: The configuration of ``fit``, with ``model``, ``data``, ``trainer`` and ``seed_everything``.
    """
    model, data = (dict(config[group].as_dict()) for group in ("model", "data"))
    options = model.pop("arch_options", None) or {}
    model["arch_options"] = ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
    augment, trainer = data.pop("augment", None) or {}, config["trainer"].as_dict()
    settings = {
        "seed": config["seed_everything"],
        **{f"model.{name}": value for name, value in model.items()},
        **{f"data.{name}": value for name, value in data.items() if name not in ELSEWHERE},
        **{f"data.augment.{name}": value for name, value in augment.items()},
        **{f"trainer.{name}": trainer.get(name) for name in TRAINER},
    }
    return {name: _value(name, value) for name, value in settings.items()}


def _value(name: str, value: Any) -> Value:
    if name in NUMBERS:
        return None if value is None else float(value)
    return "none" if value in (None, "") else str(value)


def _kind(name: str) -> int:
    return API.DATA_TYPE_FLOAT64 if name in NUMBERS else API.DATA_TYPE_STRING


def _writers(trainer: L.Trainer) -> list[Any]:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def _write(trainer: L.Trainer, tag: str, content: Any) -> None:
    summary = Summary.Value(tag=tag, tensor=metadata.NULL_TENSOR, metadata=metadata.create_summary_metadata(content))
    for writer in _writers(trainer):
        writer._get_file_writer().add_summary(Summary(value=[summary]))
