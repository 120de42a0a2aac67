"""Checks of the settings of a data module."""

from vit_attn.errors import UserError


def check_minimum(low: int, **settings: float | None) -> None:
    """Refuse settings below a minimum; None is not checked.

    Raises:
        UserError: If one is; the message has its name.
    """
    for name, value in settings.items():
        if value is not None and value < low:
            raise UserError(f"{name} must be at least {low}, got {value}")


def check_batch_size(batch_size: int, images: int, ranks: int) -> None:
    """Refuse a batch that a rank cannot fill.

    Raises:
        UserError: If so.
    """
    if batch_size > images // ranks:
        each = f"the {images} training images" if ranks == 1 else f"each device's part of {images} training images"
        raise UserError(f"batch_size={batch_size} is larger than {each}: set --data.batch_size")
