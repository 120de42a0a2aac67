"""Checks of the vision transformer's options."""

from timm.layers import PatchEmbed

from vit_attn.errors import UserError, did_you_mean
from vit_attn.model.stem import ConvStem

POOLS = ("token", "avg", "map", "")
POSITIONS = ("learn", "sincos", "rope", "none")
STEMS = {"linear": PatchEmbed, "conv": ConvStem}


def check_sizes(img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> None:
    """Check that patches divide the image.

    Raises:
        UserError: If they do not.
    """
    (height, width), (rows, cols) = (
        (size, size) if isinstance(size, int) else tuple(size) for size in (img_size, patch_size)
    )
    if min(rows, cols) < 1 or height % rows or width % cols or not (height and width):
        patch = f"{rows}" if rows == cols else f"{rows}x{cols}"
        raise UserError(f"img_size must be a multiple of patch_size, got img_size={height}x{width}, patch_size={patch}")


def check_network_options(stem: str, pos_embed: str, embed_dim: int, depth: int, drop_path_rate: float) -> None:
    """Check that the choices exist and the numbers are in their ranges.

    Raises:
        UserError: If one does not exist or is outside.
    """
    if stem not in STEMS:
        raise UserError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}{did_you_mean(stem, STEMS)}")
    if pos_embed not in POSITIONS:
        hint = did_you_mean(pos_embed, POSITIONS)
        raise UserError(f"pos_embed must be one of {', '.join(POSITIONS)}, got {pos_embed!r}{hint}")
    if pos_embed == "sincos" and embed_dim % 4:
        raise UserError(f"pos_embed='sincos' needs embed_dim to be a multiple of 4, got {embed_dim}")
    for name, size in (("embed_dim", embed_dim), ("depth", depth)):
        if size < 1:
            raise UserError(f"{name} must be at least 1, got {size}")
    if not 0 <= drop_path_rate < 1:
        raise UserError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")


def check_pool(global_pool: str, class_token: bool) -> None:
    """Check that the network can pool its tokens so.

    Raises:
        UserError: If there is no such pooling, or if it needs a CLS token.
    """
    if global_pool not in POOLS:
        raise UserError(f"global_pool must be one of {', '.join(map(repr, POOLS))}, got {global_pool!r}")
    if global_pool == "token" and not class_token:
        raise UserError("global_pool='token' needs class_token=True; without CLS use global_pool='avg'")
