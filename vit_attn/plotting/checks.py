"""What cannot be drawn, told in one line."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_attn.errors import UserError


def check_picture(image: Any) -> None:
    """Refuse what are no pixels.

    Raises:
        UserError: If it is no picture (height, width, 3) of whole numbers from 0 to 255.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"a picture must be an array (height, width, 3), got {_found(image)}")
    if image.dtype != np.uint8:
        raise UserError(f"a picture must hold whole numbers from 0 to 255 (uint8), got {image.dtype}")


def check_values(values: Any, axes: int, name: str = "values") -> None:
    """Refuse an array that a colour scale cannot show.

    Raises:
        UserError: If it is empty, of another number of axes, or not finite.
    """
    if not isinstance(values, np.ndarray) or values.ndim != axes or not values.size or values.dtype.kind not in "fiu":
        raise UserError(f"{name} must be an array of {axes} axes with numbers, got {_found(values)}")
    if not np.isfinite(values).all():
        raise UserError(f"{name} hold NaN or infinity, which no colour stands for")


def check_maps(maps: Sequence[Any], image: Any) -> None:
    """Refuse maps that cannot lie over a picture.

    Raises:
        UserError: If there are none, or if their grids differ or have more cells than the picture pixels.
    """
    if not maps:
        raise UserError("at least one map must be drawn, got none")
    for each in maps:
        check_values(each.patches, 2, "a map's patches")
    grids = {each.patches.shape for each in maps}
    if len(grids) > 1:
        raise UserError(f"maps of one grid are drawn together, got {', '.join(map(str, sorted(grids)))}")
    (rows, cols) = grids.pop()
    if rows > image.shape[0] or cols > image.shape[1]:
        raise UserError(f"a picture of {image.shape[0]} by {image.shape[1]} pixels has no {rows} by {cols} patches")


def _found(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else type(value).__name__
