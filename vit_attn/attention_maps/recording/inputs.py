"""Inputs of a network: images, or patches with their positions."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vit_attn.errors import UserError, some_of

Inputs = Tensor | dict[str, Tensor]
"""Images (B, C, height, width), or the named tensors of a call with patches."""
SHAPES, COORDINATES = "spatial_shapes", "patch_coord"
"""Arguments with the grid of patches: Hugging Face's rows and columns, and timm's row and column of each patch."""


class PatchGrid(NamedTuple):
    """Grid of the patches that a network was given instead of images.

    Args:
        grid_size: Rows and columns.
        positions: Index of each patch of the grid, row by row, among those given; the others are padding.
        count: Number of patches that were given, padding included.
    """

    grid_size: tuple[int, int]
    positions: tuple[int, ...]
    count: int


def find_inputs(net: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Inputs:
    """Find the images, or the patches, that a network is called with.

    Images are the first tensor of four axes, or else the first tensor.

    Raises:
        UserError: If there are none, or if the network needs more than it was given.
    """
    given = _named_arguments(net, inputs, keywords)
    tensors = {name: each for name, each in given.items() if isinstance(each, Tensor)}
    name = type(net).__name__
    if not tensors:
        types = ", ".join(type(each).__name__ for each in (*inputs, *keywords.values())) or "nothing"
        hint = ": unpack it, net(**inputs)" if any(isinstance(each, Mapping) for each in inputs) else ""
        raise UserError(f"{name} must be called with a tensor of images, got {types}{hint}")
    if COORDINATES in tensors or SHAPES in tensors:
        return tensors
    images = next((each for each in tensors.values() if each.ndim == 4), next(iter(tensors.values())))
    if images.ndim in (3, 5) and COORDINATES in _parameters(net):
        raise UserError(f"{name} takes patches with their positions: call it with patch_coord and patch_valid, too")
    return images


def _named_arguments(net: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arguments as the network's forward does, those in a dictionary by their keys."""
    parameters, given = _parameters(net), {}
    try:
        given = inspect.signature(net.forward).bind_partial(*inputs, **keywords).arguments
    except (TypeError, ValueError):  # the network itself says so
        return dict(enumerate(inputs)) | dict(keywords)  # pyrefly: ignore[bad-return]
    needed = [name for name, each in parameters.items() if each.default is each.empty and each.kind not in (2, 4)]
    missing = [name for name in needed if name not in given]
    if SHAPES in parameters and given.get(SHAPES) is None:
        missing = [name for name in ("pixel_attention_mask", SHAPES) if given.get(name) is None]
    if missing and given:
        raise UserError(
            f"{type(net).__name__} needs {', '.join(missing)} beside {', '.join(given)}: call net(**inputs) with all "
            "that its image processor returns"
        )
    named: dict[str, Any] = {}
    for name, each in given.items():
        kind = parameters[name].kind
        if kind == inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}{index}": part for index, part in enumerate(each)}
        elif isinstance(each, Mapping) and (kind == inspect.Parameter.VAR_KEYWORD or COORDINATES in each):
            named |= each
        else:
            named[name] = each
    return named


def _parameters(net: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(net.forward).parameters
    except (TypeError, ValueError):
        return {}


def takes_keywords(net: nn.Module, images: Tensor | Mapping[str, Tensor]) -> bool:
    """Tell whether these are named tensors, and the network's forward has arguments of their names."""
    return isinstance(images, Mapping) and all(name in _parameters(net) for name in images)


def patches_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """Get the patches (B, N, …) among the named tensors of a call."""
    found = [inputs[name] for name in ("patches", "pixel_values", "x") if name in inputs]
    return found[0] if found else next(iter(inputs.values()))


def count_images(inputs: Inputs) -> int:
    """Count the images of a call."""
    return len(inputs if isinstance(inputs, Tensor) else patches_of(inputs))


def patch_grid(inputs: Mapping[str, Tensor]) -> PatchGrid:
    """Find the grid of the patches that a network is called with.

    Raises:
        UserError: If the images have several grids, or if patches are missing in one.
    """
    count = patches_of(inputs).shape[1]
    if COORDINATES in inputs:
        return _grid_of_coordinates(inputs[COORDINATES], inputs.get("patch_valid"), count)
    shapes, mask = inputs[SHAPES], inputs.get("pixel_attention_mask")
    grids = sorted({(int(rows), int(cols)) for rows, cols in shapes.tolist()})
    _check_one_grid(grids)
    rows, cols = grids[0]
    if rows * cols > count:
        raise UserError(f"{SHAPES} says {rows * cols} patches, got {count}")
    expected = torch.arange(count) < rows * cols
    if mask is not None and not (mask.bool().cpu() == expected).all():
        raise UserError(f"pixel_attention_mask must be 1 for the first {rows * cols} patches of each image, and else 0")
    return PatchGrid((rows, cols), tuple(range(rows * cols)), count)


def _grid_of_coordinates(coordinates: Tensor, valid: Tensor | None, count: int) -> PatchGrid:
    coordinates = coordinates.cpu()
    known = (coordinates >= 0).all(dim=-1) if valid is None else valid.bool().cpu()
    places = [[tuple(at) for at in each[is_patch].tolist()] for each, is_patch in zip(coordinates, known, strict=True)]
    if any(not each for each in places):
        raise UserError("patch_valid leaves an image without patches")
    _check_one_grid(sorted({(max(at[0] for at in each) + 1, max(at[1] for at in each) + 1) for each in places}))
    if any(each != places[0] for each in places) or not (known == known[0]).all():
        raise UserError("patch_coord must list the patches of all images in the same order")
    rows, cols = max(at[0] for at in places[0]) + 1, max(at[1] for at in places[0]) + 1
    index = dict(zip(places[0], known[0].nonzero()[:, 0].tolist(), strict=True))
    cells = [(row, col) for row in range(rows) for col in range(cols)]
    if len(places[0]) != len(cells) or any(cell not in index for cell in cells):
        raise UserError(
            f"patch_coord must name each patch of {rows} rows and {cols} columns once, got {len(places[0])} patches"
        )
    return PatchGrid((rows, cols), tuple(index[cell] for cell in cells), count)


def _check_one_grid(grids: list[tuple[int, int]]) -> None:
    if len(grids) > 1:
        raise UserError(f"the images have several grids of patches, {some_of(grids)}: record those of one at a time")
