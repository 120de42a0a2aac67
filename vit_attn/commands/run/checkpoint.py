"""Checkpoints of runs: their settings, and the folder of the run."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from vit_attn.checkpoints.contents import RUN_KEY, hyperparameters_of, refuse_unloadable, weights_of
from vit_attn.checkpoints.io import card_of_checkpoint, read_checkpoint
from vit_attn.data.checks import height_and_width
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.normalization import find_statistics
from vit_attn.errors import UserError
from vit_attn.model.build import without_pretrained


def run_folder(ckpt_path: str | None) -> Path | None:
    """Find the folder of the run that wrote a checkpoint; None if the checkpoint was moved out of it."""
    folder = Path(ckpt_path).parent.parent if ckpt_path else Path()
    return folder if ckpt_path and (folder / "config.yaml").is_file() else None


def apply_checkpoint(command: str, settings: Namespace, path: str) -> dict[str, Any]:
    """Set the settings that a checkpoint determines: weights, normalisation, and the images' size and channels.

    Args:
        command: ``fit`` to resume a run, or ``validate``, ``test`` or ``predict``.
        settings: Settings of the command, which are changed.
        path: The checkpoint.

    Returns:
        Hyperparameters of the network in the checkpoint.

    Raises:
        UserError: If it is no complete checkpoint of ours, if its weights are not finite, if no run can be resumed
            from it, or if the user asks for another image size.
    """
    checkpoint = read_checkpoint(path)
    card = card_of_checkpoint(checkpoint, path)
    refuse_unloadable(checkpoint, path, resume=command == "fit")
    weights_of(checkpoint, path)
    model, data = settings.model, settings.get("data", Namespace())  # a class of one's own may take nothing
    model.arch_options, model.weights = without_pretrained(model.arch_options), None
    if data.get("normalize") is not None and not _is_known(data.normalize):
        data.normalize = path  # the checkpoint has the values, even if the file they came from is gone
    height, width = card.img_size
    if "channels" not in data:
        return hyperparameters_of(checkpoint, path)  # a data module of one's own, whose images are as they are
    if data.img_size is not None and height_and_width(data.img_size) != (height, width):
        raise UserError(
            f"{path} is of a network for images of {height}x{width} pixels, and data.img_size={data.img_size} asks for "
            "others: leave it out"
        )
    if command != "fit":
        data.img_size = height if height == width else [height, width]
        data.channels = card.in_chans if data.channels is None else data.channels
    return hyperparameters_of(checkpoint, path)


def _is_known(statistics: str) -> bool:
    try:
        find_statistics(statistics, DATASETS)
    except UserError:
        return False
    return True


def read_run(path: Path) -> dict[str, Any]:
    """Read from a checkpoint its run: settings, data set, steps done and planned; empty for those of old versions.

    Args:
        path: The checkpoint.

    Raises:
        UserError: If there is no such file, or if it is no complete checkpoint of ours.
    """
    if not path.exists():
        raise UserError(f"checkpoint not found: {path}")
    checkpoint = read_checkpoint(path)
    run, steps = checkpoint.get(RUN_KEY, {}), {name: checkpoint.get(name) for name in ("global_step", "epoch")}
    if not isinstance(run, dict) or not all(isinstance(each, int) for each in steps.values()):
        raise UserError(f"{path} is not a whole checkpoint of vit-attn: it does not say its step")
    return run | steps
