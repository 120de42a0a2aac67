"""Checks of the settings of a data module."""

from collections.abc import Sequence

from vit_attn.errors import UserError


def check_minimum(low: int, **settings: float | None) -> None:
    """Refuse settings below a minimum; None is not checked.

    Raises:
        UserError: If one is; the message has its name.
    """
    for name, value in settings.items():
        if value is not None and value < low:
            raise UserError(f"{name} must be at least {low}, got {value}")


def height_and_width(img_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Read the size of images in pixels: a side, or height and width; None stays.

    >>> height_and_width(224), height_and_width([160, 224])
    ((224, 224), (160, 224))

    Raises:
        UserError: If it is neither, or below 1.
    """
    if img_size is None:
        return None
    sides = [img_size, img_size] if isinstance(img_size, int) else list(img_size)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"img_size must be a side in pixels, or height and width as [160,224], got {img_size}")
    return sides[0], sides[1]


def batch_that_fits(batch_size: int, images: int, ranks: int) -> int:
    """Return the batch size that a rank can fill: the one that was asked for, or all its images.

    >>> batch_that_fits(128, 60, 1), batch_that_fits(128, 60, 2), batch_that_fits(32, 60, 1)
    (60, 30, 32)

    Raises:
        UserError: If there are no images, or fewer than ranks.
    """
    if not images:
        raise UserError("there are no training images: add some, or hold out fewer with data.held_out")
    if images < ranks:
        raise UserError(f"{images} training images are fewer than the {ranks} devices: train on fewer devices")
    return min(batch_size, images // ranks)
