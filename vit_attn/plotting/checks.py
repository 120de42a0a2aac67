"""Checks of what is to be drawn, with one-line errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_attn.errors import UserError


def check_picture(image: Any) -> None:
    """Check that an image is a picture: uint8 of shape (height, width, 3).

    Raises:
        UserError: If it is not.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"a picture must be an array (height, width, 3), got {_found(image)}")
    if image.dtype != np.uint8:
        raise UserError(f"a picture must hold whole numbers from 0 to 255 (uint8), got {image.dtype}")


def check_values(values: Any, axes: int, name: str = "values") -> None:
    """Check that a colour scale can show an array.

    Raises:
        UserError: If it is empty or not finite, or if it has another number of axes.
    """
    if not isinstance(values, np.ndarray) or values.ndim != axes or not values.size or values.dtype.kind not in "fiu":
        raise UserError(f"{name} must be an array of {axes} axes with numbers, got {_found(values)}")
    if not np.isfinite(values).all():
        raise UserError(f"{name} hold NaN or infinity, which no colour stands for")


def check_maps(maps: Sequence[Any], image: Any) -> None:
    """Check that maps can be drawn over a picture.

    Raises:
        UserError: If there are none, if their grids differ, or if a grid has more cells than the picture has pixels.
    """
    if not maps:
        raise UserError("at least one map must be drawn, got none")
    for overlaid in maps:
        check_values(overlaid.patches, 2, "a map's patches")
    grids = {overlaid.patches.shape for overlaid in maps}
    if len(grids) > 1:
        raise UserError(f"maps of one grid are drawn together, got {', '.join(map(str, sorted(grids)))}")
    (rows, cols) = grids.pop()
    if rows > image.shape[0] or cols > image.shape[1]:
        raise UserError(f"a picture of {image.shape[0]} by {image.shape[1]} pixels has no {rows} by {cols} patches")


def _found(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else type(value).__name__
