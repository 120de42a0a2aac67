"""Registry of attribution methods: an entry makes a method known to commands, logger, tab and docs.

A method registers itself in the file that computes it, which lies in this package or is imported by the user:

    @attribution_method(
        "squared", label="last layer, squared", reference="own idea", needs_gradients=False, class_specific=False
    )
    def last_layer_squared(inputs, queries):
        return raw_rows(inputs.recording, queries=queries).square()
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.errors import UserError, did_you_mean


class AttributionInput(NamedTuple):
    """What a method computes maps from.

    Args:
        net: The network, in evaluation.
        images: Normalised images.
        recording: Its attention on these images; with gradients where a method asks for them.
        target: The class of each image that class-specific methods are for.
    """

    net: nn.Module
    images: Float[Tensor, "B C height width"]
    recording: Recording
    target: Int64[Tensor, " B"]


@runtime_checkable
class Attribution(Protocol):
    """Rows over all tokens, prefix tokens first, for each query; by default for what the network pools."""

    def __call__(self, inputs: AttributionInput, queries: Sequence[int] | None) -> Float[Tensor, "_ Q N"]:
        """One row a query of each image, or one for all images where it is the same."""
        ...


@dataclass(frozen=True)
class AttributionMethod:
    """An attribution method and what must be known to use it.

    Args:
        name: By which options name it, such as ``rollout_max``.
        label: By which tables and figures name it, such as ``rollout, max``.
        compute: The method.
        reference: The paper, with its arXiv number.
        needs_gradients: Whether the recording must have gradients.
        class_specific: Whether the map is for a class.
        has_query: Whether it answers for any query token; without, it has one row for the whole image.
        drawn: Whether the logger and ``attend`` draw it unless told otherwise.
        supports: Whether a network has what the method needs.
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


METHODS: dict[str, AttributionMethod] = {}
"""All methods by name, class-agnostic ones first; complete once :func:`attribution_methods` was called."""


def attribution_method(name: str, **properties: object) -> Callable[[Attribution], Attribution]:
    """Register the decorated function; the keywords are fields of :class:`AttributionMethod`.

    Raises:
        UserError: If there is a method of that name or label already.
    """

    def register(compute: Attribution) -> Attribution:
        method = AttributionMethod(name=name, compute=compute, **properties)  # pyrefly: ignore[bad-argument-type]
        if any(name == other.name or method.label == other.label for other in METHODS.values()):
            raise UserError(f"there is an attribution method {name!r} ({method.label}) already")
        METHODS[name] = method
        return compute

    return register


def attribution_methods() -> dict[str, AttributionMethod]:
    """All methods by name: class-agnostic ones first, then class-specific ones, those without a query last."""
    package = importlib.import_module(__package__ or "")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    ordered = sorted(METHODS.values(), key=lambda method: (method.class_specific, not method.has_query))
    return {method.name: method for method in ordered}


def find_method(name: str) -> AttributionMethod:
    """The method of a name, or of a label.

    Raises:
        UserError: If there is none.
    """
    known = attribution_methods()
    for method in known.values():
        if name in (method.name, method.label):
            return method
    raise UserError(f"unknown attribution method {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")
