"""Tokens by name: CLS, R1, or a patch by its row and column, counted from 1 as everywhere that a person reads."""

import re

from torch import Tensor, nn

from vit_attn.attention_maps.recording.token_layout import TokenLayout
from vit_attn.errors import UserError, did_you_mean

CLS = ("cls_token", "class_token", "class_embedding")
"""Parameters that are CLS, or several of it, wherever a network or its embeddings have them."""
DISTILLATION = ("dist_token", "distillation_token")
REGISTERS = ("reg_token", "register_tokens")
PLACE = re.compile(r"(\d+)\s*[,;x]\s*(\d+)")


def prefix_names(net: nn.Module, count: int) -> list[str]:
    """Names of the tokens before the patches: CLS and DIST where the network has them, and its registers R1, R2, ….

    Args:
        net: The network.
        count: How many there are.
    """
    several, others = _tokens_of(net, CLS), _tokens_of(net, DISTILLATION + REGISTERS)
    if not several and not others and not _says_none(net):
        several = 1  # a network that does not tell
    names = ["CLS"] if several == 1 else [f"CLS{i + 1}" for i in range(several)]
    if _tokens_of(net, DISTILLATION):
        names.append("DIST")
    registers = max(0, count - len(names))
    return [*names, *(f"R{i + 1}" for i in range(registers))][:count]


def _tokens_of(net: nn.Module, names: tuple[str, ...]) -> int:
    """How many tokens the first parameter of these names holds, of the network or of a module within it."""
    for module in net.modules():
        for name in names:
            found = getattr(module, name, None)
            if isinstance(found, Tensor):
                return found.shape[-2] if found.ndim > 1 else 1
    return 0


def _says_none(net: nn.Module) -> bool:
    """Whether a network says that it has no CLS."""
    return any(getattr(module, name, True) is None for module in net.modules() for name in CLS)


def token_name(token: int, layout: TokenLayout, prefix: list[str]) -> str:
    """What a person calls a token.

    >>> token_name(0, Layout(1, (2, 3), "token"), ["CLS"]), token_name(6, Layout(1, (2, 3), "token"), ["CLS"])
    ('CLS', 'row 2, column 3')
    """
    if token < layout.num_prefix_tokens:
        return prefix[token]
    row, col = divmod(token - layout.num_prefix_tokens, layout.grid_size[1])
    return f"row {row + 1}, column {col + 1}"


def find_token(text: str, layout: TokenLayout, prefix: list[str]) -> int:
    """The index of the token that a person names.

    Args:
        text: ``ROW,COLUMN`` from 1, the name of a prefix token, or the index that Python has, from 0.
        layout: The tokens of the network.
        prefix: Names of its prefix tokens.

    Raises:
        UserError: If no token is called so.

    >>> [find_token(text, Layout(1, (2, 3), "token"), ["CLS"]) for text in ("CLS", "1,1", "2,3", "6")]
    [0, 1, 6, 6]
    """
    rows, cols = layout.grid_size
    tokens = layout.num_prefix_tokens + rows * cols
    if place := PLACE.fullmatch(text.strip()):
        row, col = int(place[1]), int(place[2])
        if 1 <= row <= rows and 1 <= col <= cols:
            return layout.num_prefix_tokens + (row - 1) * cols + col - 1
        raise UserError(f"the query must be a patch in rows 1..{rows}, columns 1..{cols}, got {row},{col}")
    named = {name.lower(): index for index, name in enumerate(prefix)}
    if (index := named.get(text.strip().lower())) is not None:
        return index
    if re.fullmatch(r"-?\d{1,9}", text.strip()):
        if -tokens <= int(text) < tokens:
            return int(text) % tokens
        raise UserError(f"queries must be tokens in 0..{tokens - 1}, got [{int(text)}]: or name a patch by ROW,COLUMN")
    known = ", ".join(["ROW,COLUMN from 1,1", *prefix])
    raise UserError(f"the query must be {known}, got {text!r}{did_you_mean(text, prefix)}")
