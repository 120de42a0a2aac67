"""Names of tokens: CLS, R1, or a patch by its row and column, counted from 1."""

import re
from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor, nn

from vit_attn.attention_maps.recording.attention_modules import module_names
from vit_attn.attention_maps.recording.layout import HasTokenLayout, TokenLayout
from vit_attn.errors import UserError, did_you_mean

CLS = ("cls_token", "class_token", "class_embedding")
"""Names of the parameter that holds CLS tokens, in a network or in a module within it."""
DISTILLATION = ("dist_token", "distillation_token")
DETECTION = ("detection_tokens",)
REGISTERS = ("reg_token", "register_tokens")
PATCH = re.compile(r"(\d+)\s*[,;x]\s*(\d+)")


def prefix_names(net: nn.Module, count: int) -> list[str]:
    """Name the tokens that are no patches.

    CLS and DIST come first where the network has them, then its detection tokens D1, D2, … and registers R1, R2, ….

    Args:
        net: The network.
        count: Number of prefix tokens.
    """
    cls_tokens, distillation, detection, others = _count_tokens(net, (CLS, DISTILLATION, DETECTION, REGISTERS))
    if not (cls_tokens or distillation or detection or others) and not _declares_no_cls(net):
        cls_tokens = 1  # a network that does not tell
    names = ["CLS"] if cls_tokens == 1 else [f"CLS{i + 1}" for i in range(cls_tokens)]
    if distillation:
        names.append("DIST")
    names += [f"D{i + 1}" for i in range(detection)]
    registers = max(0, count - len(names))
    return [*names, *(f"R{i + 1}" for i in range(registers))][:count]


def _count_tokens(net: nn.Module, kinds: Sequence[tuple[str, ...]]) -> list[int]:
    """Count the tokens of each kind, in the first parameter of its names in the network or in a module within it."""
    names = frozenset(name for kind in kinds for name in kind)
    counts = [0] * len(kinds)
    for module in module_names(net):
        # a missing attribute takes a module as long as ten of these
        if all(names.isdisjoint(own) for own in (module._parameters, module._buffers, vars(module), _of_class(module))):
            continue
        for kind, of_kind in enumerate(kinds):
            found = [each for name in of_kind if isinstance(each := getattr(module, name, None), Tensor)]
            if found and not counts[kind]:
                counts[kind] = found[0].shape[-2] if found[0].ndim > 1 else 1
    return counts


def _of_class(module: nn.Module) -> frozenset[str]:
    return _attributes(type(module))


@lru_cache(maxsize=256)
def _attributes(kind: type) -> frozenset[str]:
    """Names of all attributes of a class."""
    return frozenset(dir(kind))


def _declares_no_cls(net: nn.Module) -> bool:
    """Tell whether the network has a CLS attribute that is None."""
    return any(getattr(module, name, True) is None for module in net.modules() for name in CLS)


def token_name(token: int, layout: HasTokenLayout, prefix: list[str]) -> str:
    """Name a token as a person reads it.

    >>> token_name(0, TokenLayout(1, (2, 3), "token"), ["CLS"]), token_name(6, TokenLayout(1, (2, 3), "token"), ["CLS"])
    ('CLS', 'row 2, column 3')
    """
    if token < layout.num_prefix_tokens:
        return prefix[token]
    row, col = divmod(token - layout.num_prefix_tokens, layout.grid_size[1])
    return f"row {row + 1}, column {col + 1}"


def find_token(text: str, layout: TokenLayout, prefix: list[str]) -> int:
    """Find the index of the token that a person names.

    Args:
        text: ``ROW,COLUMN`` from 1, the name of a prefix token, or an index from 0.
        layout: Token layout of the network.
        prefix: Names of its prefix tokens.

    Raises:
        UserError: If there is no such token.

    >>> [find_token(text, TokenLayout(1, (2, 3), "token"), ["CLS"]) for text in ("CLS", "1,1", "2,3", "6")]
    [0, 1, 6, 6]
    """
    rows, cols = layout.grid_size
    tokens = layout.num_prefix_tokens + rows * cols
    if patch := PATCH.fullmatch(text.strip()):
        row, col = int(patch[1]), int(patch[2])
        if 1 <= row <= rows and 1 <= col <= cols:
            return layout.num_prefix_tokens + (row - 1) * cols + col - 1
        raise UserError(f"the query must be a patch in rows 1..{rows}, columns 1..{cols}, got {row},{col}")
    by_name = {name.lower(): index for index, name in enumerate(prefix)}
    if (index := by_name.get(text.strip().lower())) is not None:
        return index
    if re.fullmatch(r"-?\d{1,9}", text.strip()):
        if -tokens <= int(text) < tokens:
            return int(text) % tokens
        raise UserError(f"queries must be tokens in 0..{tokens - 1}, got [{int(text)}]: or name a patch by ROW,COLUMN")
    known = ", ".join(["ROW,COLUMN from 1,1", *prefix])
    raise UserError(f"the query must be {known}, got {text!r}{did_you_mean(text, prefix)}")
