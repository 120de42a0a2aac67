"""Maps that the tab shows beside the drawn ones: other methods, and class-specific ones for several target classes."""

import contextlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.methods.registry import (
    AttributionInput,
    AttributionMethod,
    attribution_methods,
    find_method,
)
from vit_attn.attention_maps.summary import query_relevance
from vit_attn.errors import UserError
from vit_attn.tb_plugin.inputs import COMPUTED_BY_PAGE

MAX_TARGETS = 3
"""Target classes an image: the predicted class, the runner-up, and the label or the third."""

Rows = Float[np.ndarray, "B N"]


def choose_targets(logits: Float[Tensor, "B classes"], labels: Int64[Tensor, " B"]) -> Int64[Tensor, "B T"]:
    """Choose target classes of each image: predicted class, runner-up, and the label, or the third where it is one.

    >>> choose_targets(torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(2, -1), torch.tensor([3, 0])).tolist()
    [[0, 1, 3], [0, 1, 2]]
    """
    best = logits.argsort(dim=-1, descending=True, stable=True)[:, :MAX_TARGETS]
    if best.shape[1] < MAX_TARGETS:
        return best
    label = labels.to(best.device)[:, None]
    others = (best[:, :2] != label).all(dim=1, keepdim=True) & (label >= 0) & (label < logits.shape[1])
    return torch.cat([best[:, :2], torch.where(others, label, best[:, 2:])], dim=1)


def other_methods(net: nn.Module, drawn: Collection[AttributionMethod]) -> tuple[AttributionMethod, ...]:
    """Methods whose maps the tab alone shows: those that support the network, are not drawn, and not computed there."""
    known = {find_method(name) for name in COMPUTED_BY_PAGE} | {*drawn}
    return tuple(method for method in supported(net, attribution_methods().values()) if method not in known)


def supported(net: nn.Module, methods: Iterable[AttributionMethod]) -> list[AttributionMethod]:
    """Return the methods that support a network."""
    return [method for method in methods if method.supports(net)]


def rows_where_supported(
    methods: Sequence[AttributionMethod], inputs: AttributionInput
) -> dict[AttributionMethod, Rows]:
    """Map of the pooled row of each image, without the methods that refuse this network."""
    rows = {}
    for method in methods:
        with contextlib.suppress(UserError):
            rows[method] = _rows(method, inputs)
    return rows


def rows_by_target(
    rows: dict[AttributionMethod, Rows], inputs: AttributionInput, targets: Int64[Tensor, "B T"]
) -> dict[AttributionMethod, Float[np.ndarray, "B T N"]]:
    """Compute the maps of class-specific methods for each target class.

    Args:
        rows: Maps for the first target, the class that the network predicts.
        inputs: Network, images and recording.
        targets: Classes of each image.
    """
    others = [inputs._replace(target=target) for target in targets.unbind(dim=1)[1:]]
    return {
        method: np.stack([first, *(_rows(method, other) for other in others)], axis=1)
        for method, first in rows.items()
        if method.class_specific
    }


def _rows(method: AttributionMethod, inputs: AttributionInput) -> Rows:
    """Map of the pooled row; relevance is without the identity of its query, as in a summary."""
    if method.name == "relevance":
        return query_relevance(inputs.recording, inputs.target).cpu().numpy()
    return method.rows(inputs)[:, 0].float().cpu().numpy()
