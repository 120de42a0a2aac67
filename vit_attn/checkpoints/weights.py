"""Reading, writing and loading of weights, in our files and timm's; nothing is ever unpickled."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from vit_attn.checkpoints.finite import refuse_not_finite
from vit_attn.checkpoints.io import find_card, read_checkpoint, read_safetensors
from vit_attn.checkpoints.paths import describe_missing, looks_like_path, weights_file
from vit_attn.errors import UserError, did_you_mean, path_hint
from vit_attn.files import WriteError
from vit_attn.model.downloads import downloaded
from vit_attn.model.pretrained import head_warning, names_network, pretrained_weights

WRAPPERS = ("state_dict_ema", "state_dict", "model")
"""Keys of the state dict in checkpoints of timm, Lightning and others."""


def save_weights(net: nn.Module, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a network's state dict as safetensors; timm's network of that architecture loads it strictly.

    Args:
        net: The network.
        path: The file.
        metadata: Header of the file.

    Raises:
        WriteError: If it cannot be written, as on a full disk.
    """
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    try:
        safetensors.torch.save_file(state, str(path), metadata)
    except safetensors.SafetensorError as error:  # no OSError, whatever the system says
        raise WriteError(f"{path} could not be written: {error}") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, of a checkpoint of ours or of a file of timm's, by name.

    Args:
        path: A file, a folder of an export, an ``https://`` or ``http://`` address, or a name in timm's registry.
            Downloads are cached in the hubs' folders, unless they are refused.

    Raises:
        UserError: If there is no such file or name, if it holds no weights, or if reading it would run code.
    """
    if names_network(path):
        with pretrained_weights(str(path)):
            return timm.create_model(str(path), pretrained=True).state_dict()
    if str(path).startswith(("https://", "http://")):
        with downloaded(str(path)) as file:
            return read_weights(file)
    path = weights_file(path) or Path(path)
    if path.is_dir():
        raise UserError(describe_missing(path))
    if not path.exists():
        raise UserError(f"weights not found: {path}{path_hint(path) or _network_hint(path)}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)[1]
    content = read_checkpoint(path)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no weights")
    if any(name.startswith("net.") for name in tensors):  # a checkpoint of Classifier
        tensors = {name.removeprefix("net."): tensor for name, tensor in tensors.items() if name.startswith("net.")}
    return tensors


def _network_hint(path: Path) -> str:
    """Make a hint for a path that looks like a misspelt name of a network."""
    if looks_like_path(str(path)):
        return ""
    return did_you_mean(path.name.partition(".")[0], timm.list_models()) or ", neither a file nor a network's name"


def load_weights(net: nn.Module, path: str | Path) -> list[str]:
    """Load weights into a network; patch and position embeddings are resampled to its sizes.

    Args:
        net: A vision transformer of ours or of timm.
        path: Source of the weights, as :func:`read_weights` takes it.

    Returns:
        A sentence for each change. The head of a network with another number of classes is not loaded.

    Raises:
        UserError: If a name is missing or unknown, if a shape cannot be resampled, or if a number is not finite.
    """
    theirs, ours, changes = read_weights(path), net.state_dict(), []
    adapt: Any = checkpoint_filter_fn
    try:
        adapted: dict[str, Tensor] = adapt(_resample_positions(theirs, net, path), net)
    except Exception as error:  # timm's filter assumes valid shapes
        raise UserError(
            f"the patches and positions of {path} cannot be resampled to the network's: {error}; is the file of "
            "that network?"
        ) from error
    refuse_not_finite({name: theirs.get(name, tensor) for name, tensor in adapted.items()}, path)
    for name in ("patch_embed.proj.weight", "pos_embed"):
        if name in theirs and name in adapted and theirs[name].shape != adapted[name].shape:
            changes.append(f"{name} was resampled from {tuple(theirs[name].shape)} to {tuple(adapted[name].shape)}")
    if "head.weight" in ours and _shape(adapted, "head.weight") != _shape(ours, "head.weight"):
        classes = adapted["head.weight"].shape[0] if "head.weight" in adapted else "no"
        changes.append(head_warning(classes, len(ours["head.weight"])))
        adapted |= {name: ours[name] for name in ("head.weight", "head.bias")}
    elif "head.weight" not in ours and "head.weight" in adapted:
        changes.append(f"the head of {adapted['head.weight'].shape[0]} classes was left out")
        adapted = {name: tensor for name, tensor in adapted.items() if not name.startswith("head.")}
    load_exactly(net, adapted, path)
    return changes


def _resample_positions(theirs: dict[str, Tensor], net: Any, path: str | Path) -> dict[str, Tensor]:
    """Resample positions of images that are not square, which timm's filter would take for square ones.

    Args:
        theirs: The weights.
        net: The network that gets them.
        path: Their source, whose model card has the size of its images.
    """
    positions, card = theirs.get("pos_embed"), find_card(path)
    if positions is None or card is None or card.img_size[0] == card.img_size[1] or "pos_embed" not in net.state_dict():
        return theirs
    prefix = 0 if getattr(net, "no_embed_class", False) else getattr(net, "num_prefix_tokens", 1)
    height, width = card.img_size
    rows = round(((positions.shape[1] - prefix) * height / width) ** 0.5)
    before = [rows, (positions.shape[1] - prefix) // rows]
    resampled = resample_abs_pos_embed(positions, list(net.patch_embed.grid_size), before, num_prefix_tokens=prefix)
    return theirs | {"pos_embed": resampled}


def load_exactly(net: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load weights of exactly this network.

    Args:
        net: The network.
        state: Its weights by name.
        path: Their file, for messages.

    Raises:
        UserError: If a name is missing or unknown, or if a shape differs.
    """
    _refuse_mismatch(net.state_dict(), state, path)
    net.load_state_dict(state)


def _refuse_mismatch(ours: dict[str, Tensor], theirs: dict[str, Tensor], path: str | Path) -> None:
    problems = []
    for problem, names in (("missing", ours.keys() - theirs.keys()), ("unknown", theirs.keys() - ours.keys())):
        if names:
            some = ", ".join(sorted(names)[:4]) + (" …" if len(names) > 4 else "")
            problems.append(f"{len(names)} {problem} ({some})")
    other = [name for name in ours if name in theirs and ours[name].shape != theirs[name].shape]
    problems += [f"{name} is {_shape(theirs, name)}, not {_shape(ours, name)}" for name in other[:4]]
    if problems:
        raise UserError(f"the weights of {path} do not fit the network: {'; '.join(problems)}")


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
