"""Content of a Lightning checkpoint of ours, with a one-line error for each way in which it can be invalid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vit_attn.checkpoints.finite import refuse_not_finite
from vit_attn.errors import UserError, shortened

HYPER_PARAMETERS = "hyper_parameters"
RUN_KEY = "vit_attn"
SETTINGS_KEY = "data_settings"
"""Key of the settings that choose the images of the training's data set, for evaluation on the same."""
"""Key of a checkpoint for the run that wrote it."""
PATCH_SIZE = "patch_size"
"""Key of a checkpoint for the side of the patches in pixels, where training still had coarse ones."""
WRITTEN_BY = "pytorch-lightning_version"
FOR_RESUMING = ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
"""Keys that a run is resumed from, besides the weights."""


def is_ours(checkpoint: Mapping[str, Any]) -> bool:
    """Return true if a checkpoint names its network, as those of ``Classifier`` do."""
    stored = checkpoint.get(HYPER_PARAMETERS)
    return isinstance(stored, Mapping) and "arch" in stored


def hyperparameters_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Read the hyperparameters of ``Classifier`` from a checkpoint.

    Args:
        checkpoint: Content of the file.
        path: The file, for messages.

    Raises:
        UserError: If it is no checkpoint of ours, or if a hyperparameter of the network is missing or of another type.
    """
    _refuse_old(checkpoint, path)
    if not is_ours(checkpoint):
        raise UserError(
            f"{path} is not a whole checkpoint of vit-attn: it does not say which network it is of "
            f"({HYPER_PARAMETERS}.arch); name the network with --model or --arch and the file with --weights"
        )
    stored = dict(checkpoint[HYPER_PARAMETERS])
    for name, (expected, is_valid) in EXPECTED.items():
        if name not in stored:
            raise UserError(f"{path} is not a whole checkpoint of vit-attn: {HYPER_PARAMETERS}.{name} is missing")
        if not is_valid(stored[name]):
            raise UserError(
                f"{path}: {HYPER_PARAMETERS}.{name} must be {expected}, got {shortened(repr(stored[name]), 80)}"
            )
    options = stored.get("arch_options")
    if not (options is None or isinstance(options, Mapping)):
        raise UserError(
            f"{path}: {HYPER_PARAMETERS}.arch_options must be options by name, got {shortened(repr(options), 80)}"
        )
    return stored


def weights_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Read the state dict from a checkpoint of ours, under the parameter names of ``Classifier``.

    Raises:
        UserError: If there is none, or if it holds NaN, infinity or anything but tensors.
    """
    state = checkpoint.get("state_dict")
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path} is not a whole checkpoint of vit-attn: it has no weights (state_dict)")
    if wrong := [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]:
        raise UserError(f"{path}: state_dict must hold tensors, but {wrong[0]} is a {type(state[wrong[0]]).__name__}")
    refuse_not_finite(state, path)
    return dict(state)


def refuse_unloadable(checkpoint: Mapping[str, Any], path: str | Path, resume: bool) -> None:
    """Refuse a checkpoint that Lightning cannot load.

    Args:
        checkpoint: Content of the file.
        path: The file, for messages.
        resume: Whether a run is to be resumed, which needs more than weights.

    Raises:
        UserError: If a key is missing.
    """
    if not isinstance(checkpoint.get(WRITTEN_BY), str):
        raise UserError(
            f"{path} is not a whole checkpoint: it does not say which Lightning wrote it ({WRITTEN_BY}), without "
            "which Lightning cannot load it"
        )
    missing = [name for name in FOR_RESUMING if name not in checkpoint] if resume else []
    if missing:
        raise UserError(
            f"{path} holds weights without the state of a run ({', '.join(missing)}), so none can be resumed from it: "
            f"to start a new run from its weights, use --model.weights={path} instead of --ckpt_path"
        )


def _refuse_old(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    version = checkpoint.get(WRITTEN_BY)
    if isinstance(version, str) and version.partition(".")[0] in ("0", "1"):
        raise UserError(
            f"{path} was written by Lightning {version}, but vit-attn needs checkpoints of Lightning 2.6 or later. Its "
            "weights can still be loaded: name the file with --weights, or --model.weights for fit, and name its "
            "network too"
        )


def is_count(value: Any) -> bool:
    """Return true for a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_size(value: Any) -> bool:
    """Return true for a height and a width in pixels."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(is_count, value))


EXPECTED = {
    "arch": ("a name", lambda value: isinstance(value, str)),
    "num_classes": ("a number of at least 1", is_count),
    "in_chans": ("a number of at least 1", is_count),
    "img_size": ("height and width in pixels", is_size),
}
"""Hyperparameters that every checkpoint has: their type in words, and a check."""
