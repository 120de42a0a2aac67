"""Registry of attribution methods, from which commands, the logger, the tab and the docs take their lists.

A method registers itself in the file that computes it: a file in this package, or any module that was imported.

    @attribution_method(
        "squared", label="last layer, squared", reference="own idea", needs_gradients=False, class_specific=False
    )
    def last_layer_squared(inputs, queries):
        return raw_rows(inputs.recording, queries=queries).square()
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.errors import UserError, did_you_mean

PACKAGE = "vit_attn.attention_maps.methods"
RESERVED = {
    "random": "random",
    "centre_first": "centre first",
    "chance": "chance",
    "last_layer_pooled": "last layer, pooled",
}
"""Names and labels of baselines and of other rows of the same tables, which no method may have."""


class AttributionInput(NamedTuple):
    """Inputs of an attribution method.

    Args:
        net: The network, in evaluation mode.
        images: Normalised images.
        recording: The network's attention on these images; with gradients for methods that need them.
        target: Class of each image that a class-specific map is for.
    """

    net: nn.Module
    images: Float[Tensor, "B C height width"]
    recording: Recording
    target: Int64[Tensor, " B"]


@runtime_checkable
class Attribution(Protocol):
    """A function that computes rows over all tokens, prefix tokens first."""

    def __call__(self, inputs: AttributionInput, queries: Sequence[int] | None) -> Float[Tensor, "_ Q N"]:
        """One row per query and image, or per query where all images share it; by default for the pooled row."""
        ...


@dataclass(frozen=True)
class AttributionMethod:
    """An attribution method and its properties.

    Args:
        name: Name in options, such as ``rollout_max``.
        label: Name in tables and figures, such as ``rollout, max``.
        compute: The method.
        reference: The paper, with its arXiv id.
        needs_gradients: Whether the recording must hold gradients, as ``record(net, gradients=True)`` makes it.
        class_specific: Whether the map depends on the target class.
        has_query: Whether there is a row for any query token; otherwise there is one for the whole image.
        drawn: Whether the logger and ``attend`` draw it by default.
        supports: Tests whether a network has what the method needs.
        colour: Colour of its curves, such as ``#0072b2``; by default one that no other method has.
        dashes: Line style of its curves, as matplotlib writes it.
    """

    name: str
    label: str
    compute: Attribution
    reference: str
    needs_gradients: bool
    class_specific: bool
    has_query: bool = True
    drawn: bool = False
    supports: Callable[[nn.Module], bool] = lambda net: True
    colour: str | None = None
    dashes: str = "-"

    def rows(self, inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B Q N"]:
        """Rows of every image, without a graph; by default the one of what the network pools.

        Raises:
            UserError: If the network or a query is not supported.
        """
        if not self.supports(inputs.net):
            raise UserError(f"{self.label} does not support {type(inputs.net).__name__}")
        if queries is not None and not self.has_query:
            raise UserError(f"{self.label} has one map for the whole image and none for queries, got {list(queries)}")
        return self.compute(inputs, queries).detach().expand(len(inputs.images), -1, -1)


METHODS: dict[str, AttributionMethod] = {}
"""Registered methods by name, in the order of imports: :func:`attribution_methods` completes and sorts them."""


def attribution_method(name: str, **properties: object) -> Callable[[Attribution], Attribution]:
    """Register the decorated function as an attribution method.

    Args:
        name: Name in options.
        properties: The other fields of :class:`AttributionMethod`.

    Raises:
        UserError: If the name is not of lower-case letters, digits and ``_``, or if a method or a baseline has the name
            or the label.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"a method's name must be of lower-case letters, digits and _, got {name!r}")

    def register(compute: Attribution) -> Attribution:
        method = AttributionMethod(name=name, compute=compute, **properties)  # pyrefly: ignore[bad-argument-type]
        known = RESERVED | {other.name: other.label for other in METHODS.values()}
        for other, label in known.items():
            if {name, method.label} & {other, label}:
                kind = "a baseline or row" if other in RESERVED else "an attribution method"
                raise UserError(f"there is {kind} {other!r} ({label}) already, got {name!r} ({method.label})")
        METHODS[name] = method
        return compute

    return register


def attribution_methods() -> dict[str, AttributionMethod]:
    """All methods by name, in an order that does not depend on imports.

    Class-agnostic methods come first, those without a query last, this package's before others; methods of a module
    stay in the order of their definitions.
    """
    for module in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__, f"{PACKAGE}."):
        importlib.import_module(module.name)

    def position(method: AttributionMethod) -> tuple[bool, bool, bool, str]:
        module = method.compute.__module__
        return method.class_specific, not method.has_query, not module.startswith(f"{PACKAGE}."), module

    return {method.name: method for method in sorted(METHODS.values(), key=position)}


def drawn_methods() -> tuple[AttributionMethod, ...]:
    """Methods that the logger and ``attend`` draw by default, class-specific ones first."""
    drawn = [method for method in attribution_methods().values() if method.drawn]
    return tuple(sorted(drawn, key=lambda method: not method.class_specific))


def find_method(name: str) -> AttributionMethod:
    """Find a method by its name or label.

    Raises:
        UserError: If there is none.
    """
    known = attribution_methods()
    for method in known.values():
        if name in (method.name, method.label):
            return method
    raise UserError(f"unknown attribution method {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")
