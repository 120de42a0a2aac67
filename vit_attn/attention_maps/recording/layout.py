"""Description of a network's tokens, and the registry of those that were given by hand."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.errors import UserError

UNKNOWN_POOL = "a pool by attention and perhaps more"
"""``global_pool`` of a network with an attention pool, if the output may depend on more than that, or not on it."""
FIRST_QUERY = ("prr token", "map token")
"""``global_pool`` of an attention pool with several queries, of which the head reads the first."""
ATTENTION_POOLS = ("map", "prr avg", UNKNOWN_POOL, *FIRST_QUERY)


@runtime_checkable
class HasTokenLayout(Protocol):
    """Token layout, recording or attention summary: the grid of patches and their size in pixels."""

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        ...

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    @property
    def patch_size(self) -> tuple[int, int] | None:
        """Height and width of a patch in pixels; none if unknown."""
        ...


@runtime_checkable
class HasPooling(HasTokenLayout, Protocol):
    """Token layout or recording: the pooling, too."""

    @property
    def num_tokens(self) -> int:
        """Number of prefix tokens and patches."""
        ...

    @property
    def global_pool(self) -> str:
        """Pooling, as in ``Recording``."""
        ...

    @property
    def pool_include_prefix(self) -> bool:
        """True if prefix tokens are pooled, too."""
        ...

    @property
    def pooled(self) -> Float[Tensor, " N"] | None:
        """Fraction of each token in the pooled features, where ``global_pool`` does not determine it."""
        ...


class TokenLayout(NamedTuple):
    """Token layout of one forward; names and meanings as in ``Recording``.

    Attributes:
        num_prefix_tokens: Number of tokens that are no patches, such as CLS and registers.
        grid_size: Rows and columns of patches.
        global_pool: Pooling, as in ``Recording``; "" if it is not known. A recording with gradients measures it.
        pool_include_prefix: Whether prefix tokens are pooled, too.
        patch_size: Height and width of a patch in pixels; none if unknown.
        pooled: Fraction of each token in the pooled features, where ``global_pool`` does not determine it.
        order: Index in the network of each token: prefix tokens first, then the patches row by row; by default they are
            in this order. Maps, queries and cuts are in this order, too.
        num_padding_tokens: Number of further tokens in the network, to which no token attends; maps leave them out.
    """

    num_prefix_tokens: int
    grid_size: tuple[int, int]
    global_pool: str = ""
    pool_include_prefix: bool = False
    patch_size: tuple[int, int] | None = None
    pooled: Float[Tensor, " N"] | None = None
    order: Sequence[int] | None = None
    num_padding_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """Number of prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    @property
    def pools_by_attention(self) -> bool:
        """True if the last attention is a pool and not a layer."""
        return is_attention_pool(self.global_pool)


def is_attention_pool(global_pool: str) -> bool:
    """Tell whether a ``global_pool`` is by attention: from one query, from several, or from all tokens to all."""
    return global_pool in ATTENTION_POOLS


LayoutFunction = Callable[[Any, Any], TokenLayout]
_BY_HAND: dict[type[nn.Module], LayoutFunction] = {}


def register_layout(network_class: Any, layout: LayoutFunction | TokenLayout) -> None:
    """Give the token layout of a class of networks that does not say it itself; subclasses inherit it.

    Recordings, cuts, summaries and evaluation use it from then on. The number of tokens is checked in each forward, and
    a recording with gradients measures the pooling, so that ``global_pool`` may be left out.

    Args:
        network_class: The class; what is registered for it again replaces the earlier.
        layout: Function that returns the layout for a network and its images, or a mapping with the patches that it was
            called with; or one layout for all.

    Raises:
        UserError: If it is not the class of a network.

    >>> class Own(nn.Module):
    ...     patch = 16
    >>> register_layout(Own, lambda net, images: TokenLayout(1, (images.shape[2] // net.patch, images.shape[3] // 16)))
    """
    if not isinstance(network_class, type) or not issubclass(network_class, nn.Module) or network_class is nn.Module:
        raise UserError(f"register_layout takes the class of a network, got {type(network_class).__name__}")
    _BY_HAND[network_class] = (lambda net, images: layout) if isinstance(layout, TokenLayout) else layout


def is_registered(net: object) -> bool:
    """Tell whether the layout of the network's class was given by hand."""
    return any(each in _BY_HAND for each in type(net).__mro__)


def registered_layout(net: nn.Module, images: Tensor | Mapping[str, Tensor]) -> TokenLayout | None:
    """Get the layout that was given by hand for the network's class or the closest base of it; None if none was.

    Raises:
        UserError: If the function does not return a layout.
    """
    function = next((_BY_HAND[each] for each in type(net).__mro__ if each in _BY_HAND), None)
    if function is None:
        return None
    layout, name = function(net, images), type(net).__name__
    if not isinstance(layout, TokenLayout):
        raise UserError(f"the layout registered for {name} must be a TokenLayout, got {type(layout).__name__}")
    try:
        rows, cols = map(operator.index, layout.grid_size)
        prefix, padding = map(operator.index, (layout.num_prefix_tokens, layout.num_padding_tokens))
        order = None if layout.order is None else tuple(map(operator.index, layout.order))
    except (TypeError, ValueError) as error:
        raise UserError(f"the layout registered for {name} has numbers of tokens that are none: {error}") from error
    if min(rows, cols) < 1 or min(prefix, padding) < 0:
        raise UserError(f"the layout registered for {name} has {prefix} prefix tokens, {rows} rows and {cols} columns")
    layout = layout._replace(grid_size=(rows, cols), num_prefix_tokens=prefix, num_padding_tokens=padding, order=order)
    total = layout.num_tokens + padding
    if order is not None and (len(set(order)) != layout.num_tokens or len(order) != layout.num_tokens):
        raise UserError(f"the order registered for {name} must list {layout.num_tokens} tokens once, got {len(order)}")
    if order is not None and not 0 <= min(order) <= max(order) < total:
        raise UserError(f"the order registered for {name} must be of tokens in 0..{total - 1}")
    if order is None and padding:
        raise UserError(f"the layout registered for {name} has padding tokens: say in its order which ones are not")
    return layout
