"""What a checkpoint says of itself, and the run beside it."""

from pathlib import Path
from typing import Any

from vit_attn.checkpoints.contents import RUN_KEY, hyperparameters_of, refuse_unloadable, weights_of
from vit_attn.checkpoints.header import header_of
from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.checkpoints.stored_network import check_hyperparameters
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.normalization import find_statistics
from vit_attn.errors import UserError
from vit_attn.model.build import without_pretrained


def run_folder(ckpt_path: str | None) -> Path | None:
    """The folder of the run that wrote a checkpoint, if it still lies in one."""
    folder = Path(ckpt_path).parent.parent if ckpt_path else Path()
    return folder if ckpt_path and (folder / "config.yaml").is_file() else None


def take_checkpoint(verb: str, settings: Any, path: str) -> dict[str, Any]:
    """Fill in what a checkpoint brings by itself, which is weights, normalisation, and size and channels of the images.

    Args:
        verb: ``fit``, to resume a run, or what measures it.
        settings: Of the run; they are changed.
        path: The checkpoint.

    Returns:
        The settings of the network that the checkpoint was made with.

    Raises:
        UserError: If there is no such file, if it is no whole checkpoint of ours, if its weights are not finite, if no
            run can be resumed from it, or if it is of images of another size than was asked for.
    """
    if not Path(path).exists():
        raise UserError(f"checkpoint not found: {path}")
    checkpoint = read_checkpoint(path)
    header_of(checkpoint, Path(path))
    stored, model, data = hyperparameters_of(checkpoint, path), settings.model, settings.data
    check_hyperparameters(Path(path), stored)
    refuse_unloadable(checkpoint, path, resume=verb == "fit")
    weights_of(checkpoint, path)
    model.arch_options, model.weights = without_pretrained(model.arch_options), None
    if data.normalize is not None and not _is_known(data.normalize):
        data.normalize = path  # which keeps what its images were normalised by, wherever its source has gone
    (height, width), channels = stored["img_size"], stored["in_chans"]
    if data.img_size is not None and not data.img_size == height == width:
        raise UserError(
            f"{path} is of a network for images of {height}x{width} pixels, and data.img_size={data.img_size} asks for "
            "others: leave it out"
        )
    if verb != "fit":
        data.img_size = height if height == width else None
        data.channels = channels if data.channels is None else data.channels
    return stored


def _is_known(statistics: str) -> bool:
    try:
        find_statistics(statistics, DATASETS)
    except UserError:
        return False
    return True


def read_run(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its run: settings, data, the steps it has taken and has to take; empty for older ones.

    Raises:
        UserError: If there is no such file, or if it is no whole checkpoint of ours.
    """
    if not path.exists():
        raise UserError(f"checkpoint not found: {path}")
    checkpoint = read_checkpoint(path)
    run, steps = checkpoint.get(RUN_KEY, {}), {name: checkpoint.get(name) for name in ("global_step", "epoch")}
    if not isinstance(run, dict) or not all(isinstance(each, int) for each in steps.values()):
        raise UserError(f"{path} is not a whole checkpoint of vit-attn: it does not say its step")
    return run | steps
