"""Networks by their names in timm's registry."""

import contextlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from vit_attn.errors import UserError, did_you_mean
from vit_attn.model.pretrained import pretrained_weights
from vit_attn.model.vit import VisionTransformer

Options = dict[str, bool | int | float | str | list[int] | None]
"""Arguments of a network, as a configuration file can hold them."""

TIMMS_OWN = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments that timm adds to those of a network."""


def build_net(
    arch: str, num_classes: int, img_size: tuple[int, int], in_chans: int, options: Mapping[str, Any]
) -> nn.Module:
    """Build the network ``arch`` of timm's registry; with random weights, unless ``options`` has ``pretrained``.

    Args:
        arch: A registered name.
        num_classes: Number of logits.
        img_size: Height and width of the images in pixels.
        in_chans: Channels of the images.
        options: Further arguments of the network.

    Raises:
        UserError: If there is no such network, or if it does not take these options.
    """
    if not timm.is_model(arch):
        raise UserError(f"unknown network {arch!r}{_name_hint(arch)}")
    try:
        with pretrained_weights(arch) if options.get("pretrained") else contextlib.nullcontext():
            return timm.create_model(arch, num_classes=num_classes, img_size=img_size, in_chans=in_chans, **options)
    except UserError:
        raise
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown and unknown[1] == "img_size":
            raise UserError(f"{arch} is not a vision transformer whose image size can be chosen") from error
        if unknown and unknown[1] in TIMMS_OWN:
            raise UserError(
                f"{arch}: it passes on {unknown[1]}, which timm.models.build_model_with_cfg takes: call that, "
                f"or take {', '.join(TIMMS_OWN)} as arguments and do not pass them on"
            ) from error
        if unknown:
            ours = inspect.signature(VisionTransformer).parameters if arch.startswith("vit_attn_") else ()
            hint = did_you_mean(unknown[1], ours)
            raise UserError(f"arch_options: {arch} has no option {unknown[1]!r}{hint}") from error
        for name, value in options.items():
            usual = inspect.signature(VisionTransformer).parameters.get(name)
            if isinstance(value, str) and usual and type(usual.default) in (int, float):
                raise UserError(f"arch_options.{name} must be a number, got {value!r}") from error
        raise UserError(f"{arch} cannot be built with {options}: {error}") from error


def _name_hint(name: str) -> str:
    """Suggest names of timm's registry; for a name of a hub the one that shares most of its parts."""
    if "/" not in name:
        ours, all_names = timm.list_models("vit_attn_*"), timm.list_models()
        hint = did_you_mean(name, ours if name.startswith("vit_attn") else all_names) or did_you_mean(name, ours)
        return f"{hint}; ours are {', '.join(ours)}; --import names the module of one of your own"
    if timm.is_model(last := name.rpartition("/")[2].partition(".")[0]):
        return f": networks have timm's names, did you mean {name.rpartition('/')[2]!r}?"
    wanted = set(re.split(r"[^a-z0-9]+", last.lower()))

    def likeness(known: str) -> float:
        parts = set(known.split("_"))
        return len(parts & wanted) / len(parts | wanted)

    near = max(timm.list_models(), key=likeness)
    hint = f", did you mean {near!r}?" if likeness(near) >= 0.4 else ""
    return f", which is no name of timm's: networks have timm's names, not those of a hub{hint}"


def without_pretrained(options: Options | None) -> Options:
    """Drop ``pretrained`` from the options of a network whose weights come from elsewhere."""
    return {name: value for name, value in (options or {}).items() if name != "pretrained"}
