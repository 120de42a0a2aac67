"""What a checkpoint says of itself, and the run beside it."""

from pathlib import Path
from typing import Any

import torch

from vit_attn.callbacks.run_checkpoint import RUN_KEY
from vit_attn.data.sources import SOURCES
from vit_attn.data.statistics import find_statistics
from vit_attn.errors import UserError
from vit_attn.task import without_pretrained


def run_folder(ckpt_path: str | None) -> Path | None:
    """The folder of the run that wrote a checkpoint, if it still lies in one."""
    folder = Path(ckpt_path).parent.parent if ckpt_path else Path()
    return folder if ckpt_path and (folder / "config.yaml").is_file() else None


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """The settings of the network that a checkpoint was made with.

    Raises:
        UserError: If there is no such file, or if it is no whole checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        return dict(checkpoint["hyper_parameters"])
    except Exception as error:  # a damaged file can fail in any way that unpickling can
        raise UserError(f"{path} is not a whole checkpoint of vit-attn ({type(error).__name__})") from error


def take_checkpoint(verb: str, settings: Any, path: str) -> dict[str, Any]:
    """Fill in what a checkpoint brings by itself, which is weights, normalisation, and size and channels of the images.

    Args:
        verb: ``fit``, to resume a run, or what measures it.
        settings: Of the run; they are changed.
        path: The checkpoint.

    Returns:
        The settings of the network that the checkpoint was made with.

    Raises:
        UserError: If there is no such file, or if it is no whole checkpoint of ours.
    """
    stored, model, data = read_hyperparameters(Path(path)), settings.model, settings.data
    model.arch_options, model.weights = without_pretrained(model.arch_options), None
    if data.normalize is not None and not _is_known(data.normalize):
        data.normalize = path  # which keeps what its images were normalised by, wherever its source has gone
    if verb != "fit":
        (height, width), channels = stored["img_size"], stored["in_chans"]
        data.img_size = height if data.img_size is None and height == width else data.img_size
        data.channels = channels if data.channels is None else data.channels
    return stored


def _is_known(statistics: str) -> bool:
    try:
        find_statistics(statistics, SOURCES)
    except UserError:
        return False
    return True


def read_run(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its run: settings, data, the steps it has taken and has to take; empty for older ones.

    Raises:
        UserError: If there is no such file, or if it is no whole checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        run = dict(checkpoint.get(RUN_KEY, {}))
        return run | {name: int(checkpoint[name]) for name in ("global_step", "epoch")}
    except Exception as error:  # a damaged file can fail in any way that unpickling can
        raise UserError(f"{path} is not a whole checkpoint of vit-attn ({type(error).__name__})") from error
