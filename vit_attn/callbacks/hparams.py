"""Hyperparameters and results of a run for TensorBoard's HParams tab, a table over all runs."""

import inspect
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from vit_attn.callbacks.tags import FINAL
from vit_attn.callbacks.throughput import MINUTES, SPEED
from vit_attn.checkpoints.model_card import DATA_ARGS
from vit_attn.model.vit import VisionTransformer

API: Any = api_pb2
DATA: Any = plugin_data_pb2  # generated modules, in which a type checker finds no names
Value = float | str | None
BEST_ACCURACY, LAST_LOSS = f"{FINAL}/best_val_accuracy", f"{FINAL}/val_loss"
METRICS = {
    BEST_ACCURACY: "best val accuracy",
    LAST_LOSS: "last val loss",
    "test/accuracy": "test accuracy",
    SPEED: "images/s",
    MINUTES: "minutes",
}
"""Scalar tags of the result columns, and their headings; the command ``test`` writes the last one."""
TRAINER_SETTINGS = (
    *("max_epochs", "max_steps", "precision", "strategy"),
    *("accumulate_grad_batches", "gradient_clip_val"),
)
EXCLUDED_DATA_SETTINGS = frozenset({"root", "download", "seed", "num_workers"})
"""Settings of the data that do not change results, or that follow from the run's seed."""


def _is_number(parameter: inspect.Parameter) -> bool:
    return any(word in str(parameter.annotation) for word in ("int", "float"))


ARCH_COLUMNS = {
    name: _is_number(parameter)
    for name, parameter in inspect.signature(VisionTransformer).parameters.items()
    if name not in DATA_ARGS
}
"""Options of our networks, each a column in every run, and whether it is a number."""
NUMERIC = frozenset(
    {
        "seed",
        *(f"model.arch_options.{name}" for name, is_number in ARCH_COLUMNS.items() if is_number),
        "parameters",
        *(
            f"model.{name}"
            for name in ("lr", "weight_decay", "warmup", "label_smoothing", "probe", "layer_decay", "ema")
        ),
        *("model.coarse_patch_size", "model.coarse_until", "model.whiten"),
        *(
            f"data.{name}"
            for name in ("batch_size", "memory_budget_gb", "img_size", "img_width", "channels", "held_out")
        ),
        *(f"data.augment.{name}" for name in ("crop_padding", "flip", "rand_augment", "trivial_augment")),
        *(f"data.augment.{name}" for name in ("colour_jitter", "cutout", "erase", "random_resized_crop")),
        *(f"data.augment.{name}" for name in ("mixup", "cutmix", "mix_until")),
        *(f"trainer.{name}" for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val")),
    }
)
"""Settings that are a number or unset in every run: the tab cannot sort a column that mixes numbers and texts."""
SHOWN_FIRST = frozenset({"data.dataset", "model.arch", "model.lr", "seed", "trainer.max_epochs"})
"""Settings that are visible when the tab opens: it shows five, those marked as differing between runs first."""


class HParams(L.Callback):
    """Writes hyperparameters at the start of a run and results at its end to the run's TensorBoard events.

    Lightning's own logger would write the metrics at the start, before there are results, under ``hp_metric``.

    Args:
        settings: Hyperparameters by name, as :func:`select_hparams` gives them.
        resumed: Whether the run is resumed, so that its events already contain its hyperparameters.
    """

    def __init__(self, settings: Mapping[str, Value], resumed: bool = False) -> None:
        self.settings, self.resumed = dict(settings), resumed
        self.results: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the results so far."""
        return dict(self.results)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the results of a resumed run; a new run that starts from its state has its own."""
        current = {f"{FINAL}/{tag.partition('/')[2]}": value for tag, value in state_dict.items()}  # once final/…
        self.results = current if self.resumed else {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the best accuracy, whichever metric chooses checkpoints, and the last loss."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        accuracy, loss = (trainer.callback_metrics.get(name) for name in ("val/accuracy", "val/loss"))
        if accuracy is not None:
            self.results[BEST_ACCURACY] = max(float(accuracy), self.results.get(BEST_ACCURACY, 0.0))
        if loss is not None:
            self.results[LAST_LOSS] = float(loss)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the hyperparameters, so that a run that breaks off is in the table too."""
        if self.resumed:
            return
        parameters = sum(each.numel() for each in pl_module.parameters())
        settings = self.settings | {"parameters": parameters}
        start = DATA.SessionStartInfo()
        for name, value in settings.items():
            if (plain := _value(name, value)) is not None:
                setattr(start.hparams[name], "number_value" if name in NUMERIC else "string_value", plain)
        infos = [API.HParamInfo(name=name, type=_type(name), differs=name in SHOWN_FIRST) for name in settings]
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


def select_hparams(config: Any) -> dict[str, Value]:
    """Select the settings that affect results, under the same names in every run, since all runs share the columns.

    An unset number is None and any other unset setting ``none``. Each option of our networks is a setting of its own;
    those of other networks are one text. The size of images is a height and a width.

    Args:
        config: Configuration of ``fit``, with ``model``, ``data``, ``trainer`` and ``seed_everything``.
    """
    model, data = (dict(config[group].as_dict()) if group in config else {} for group in ("model", "data"))
    options = model.pop("arch_options", None) or {}
    others = {name: value for name, value in options.items() if name not in ARCH_COLUMNS}
    model["arch_options"] = ", ".join(f"{name}={value}" for name, value in sorted(others.items()))
    model |= {f"arch_options.{name}": options.get(name) for name in ARCH_COLUMNS}
    size = data.get("img_size")
    data["img_size"], data["img_width"] = size if isinstance(size, list) else (size, size)
    augment, trainer = data.pop("augment", None) or {}, config["trainer"].as_dict()
    settings = {
        "seed": config["seed_everything"],
        **{f"model.{name}": value for name, value in model.items()},
        **{f"data.{name}": value for name, value in data.items() if name not in EXCLUDED_DATA_SETTINGS},
        **{f"data.augment.{name}": value for name, value in augment.items()},
        **{f"trainer.{name}": trainer.get(name) for name in TRAINER_SETTINGS},
    }
    return {name: _value(name, value) for name, value in settings.items()}


def _value(name: str, value: Any) -> Value:
    if name in NUMERIC:
        return None if value is None else float(value)
    return "none" if value in (None, "") else str(value)


def _type(name: str) -> int:
    return API.DATA_TYPE_FLOAT64 if name in NUMERIC else API.DATA_TYPE_STRING


def _writers(trainer: L.Trainer) -> list[Any]:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def _write(trainer: L.Trainer, tag: str, content: Any) -> None:
    summary = Summary.Value(tag=tag, tensor=metadata.NULL_TENSOR, metadata=metadata.create_summary_metadata(content))
    for writer in _writers(trainer):
        writer._get_file_writer().add_summary(Summary(value=[summary]))
