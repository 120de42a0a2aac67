"""What a checkpoint of ours holds, and one line for each way in which a file is none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vit_attn.checkpoints.finite import refuse_not_finite
from vit_attn.errors import UserError, shortened

HYPER_PARAMETERS = "hyper_parameters"
RUN_KEY = "vit_attn"
"""Key of a checkpoint under which it says of what run it is."""
WRITTEN_BY = "pytorch-lightning_version"
FOR_RESUMING = ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
"""What a checkpoint has beside weights, from which a run goes on."""


def is_ours(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint names a network, as those of ``Classifier`` do."""
    stored = checkpoint.get(HYPER_PARAMETERS)
    return isinstance(stored, Mapping) and "arch" in stored


def hyperparameters_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The settings of the network that a checkpoint was made with.

    Args:
        checkpoint: What :func:`vit_attn.checkpoints.io.read_checkpoint` gives.
        path: Its file.

    Raises:
        UserError: If it is not a checkpoint of ours, or if a setting is missing or of another kind.
    """
    _refuse_old(checkpoint, path)
    if not is_ours(checkpoint):
        raise UserError(
            f"{path} is not a whole checkpoint of vit-attn: it does not say which network it is of "
            f"({HYPER_PARAMETERS}.arch); name the network with --model or --arch and the file with --weights"
        )
    stored = dict(checkpoint[HYPER_PARAMETERS])
    for name, (kind, fits) in KINDS.items():
        if name not in stored:
            raise UserError(f"{path} is not a whole checkpoint of vit-attn: {HYPER_PARAMETERS}.{name} is missing")
        if not fits(stored[name]):
            raise UserError(
                f"{path}: {HYPER_PARAMETERS}.{name} must be {kind}, got {shortened(repr(stored[name]), 80)}"
            )
    options = stored.get("arch_options")
    if not (options is None or isinstance(options, Mapping)):
        raise UserError(
            f"{path}: {HYPER_PARAMETERS}.arch_options must be options by name, got {shortened(repr(options), 80)}"
        )
    return stored


def weights_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of ours, under the names of the task's.

    Raises:
        UserError: If there are none, or if they are not finite.
    """
    state = checkpoint.get("state_dict")
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path} is not a whole checkpoint of vit-attn: it has no weights (state_dict)")
    if wrong := [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]:
        raise UserError(f"{path}: state_dict must hold tensors, but {wrong[0]} is a {type(state[wrong[0]]).__name__}")
    refuse_not_finite(state, path)
    return dict(state)


def refuse_unloadable(checkpoint: Mapping[str, Any], path: str | Path, resume: bool) -> None:
    """Refuse what Lightning cannot go on with.

    Args:
        checkpoint: What the file holds.
        path: The file.
        resume: Whether a run is to be resumed from it, which takes more than weights.

    Raises:
        UserError: If something is missing.
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
            f"to start a new run from its weights, --model.weights={path} instead of --ckpt_path"
        )


def _refuse_old(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    version = checkpoint.get(WRITTEN_BY)
    if isinstance(version, str) and version.partition(".")[0] in ("0", "1"):
        raise UserError(
            f"{path} was written by Lightning {version}, and checkpoints of vit-attn are of 2.6 and later: its weights "
            "alone can be had, with --weights, or for fit with --model.weights, beside the name of their network"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_size(value: Any) -> bool:
    """Whether this is a height and a width in pixels."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_count, value))


KINDS = {
    "arch": ("a name", lambda value: isinstance(value, str)),
    "num_classes": ("a number of at least 1", _is_count),
    "in_chans": ("a number of at least 1", _is_count),
    "img_size": ("height and width in pixels", is_size),
}
