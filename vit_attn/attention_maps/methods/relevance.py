"""Where a token looks, weighed by what that did to a target: attention with gradients.

The gradient of a target by the weights of a layer is dO · Vᵀ, with dO its gradient by what the attention gave and V the
values: no map enters the network's graph. None of these methods is invariant to the scale of the target, so a target
is to be stated beside its map.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_method
from vit_attn.attention_maps.precision import exact, in_float32, product
from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.targets import Target


@in_float32
def relevance(
    recording: Recording, target: Target = None, queries: Sequence[int] | None = None
) -> Float[Tensor, "B Q N"]:
    """Chefer's relevance: rows of (I + Ā_L) ⋯ (I + Ā_1), with Ā = mean over heads of relu(A ⊙ ∂target/∂A).

    A pool by attention comes first, with its own Ā and no identity: its query is no token.

    Args:
        recording: Forwards of a network, recorded with gradients.
        target: A class, one class an image, or a function of the network's output to one number an image; by default
            the class that the network names.
        queries: Token indices, prefix tokens first; by default the row that the network pools.

    Raises:
        UserError: If gradients were not recorded, or if a query or class does not exist.

    References:
        Chefer 2021, "Generic attention-model explainability", arXiv 2103.15679, section 3.1.
    """
    return _propagate(recording, target, queries, lambda rows, attended: rows + product(rows, attended))


@in_float32
def grad_rollout(
    recording: Recording, target: Target = None, queries: Sequence[int] | None = None
) -> Float[Tensor, "B Q N"]:
    """Gradient rollout: rollout of the mean over heads of relu(A ⊙ ∂target/∂A) instead of the mean of A; rows sum to 1.

    Args:
        recording: Forwards of a network, recorded with gradients.
        target: What gradients are of, as for :func:`relevance`.
        queries: Token indices, prefix tokens first; by default the row that the network pools.

    Raises:
        UserError: If gradients were not recorded, or if a query or class does not exist.

    References:
        Abnar & Zuidema 2020, arXiv 2005.00928, section 3, for rollout; Chefer 2020, arXiv 2012.09838, section 3.2, for
        the weighing.
    """

    def step(rows: Tensor, attended: Tensor) -> Tensor:
        share = rows / (1 + attended.sum(dim=-1)).unsqueeze(-2)
        return product(share, attended) + share

    rows = _propagate(recording, target, queries, step)
    return rows / rows.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def weight_gradient(call: AttentionCall, output_gradient: Float[Tensor, "B H M Dv"]) -> Float[Tensor, "B H M N"]:
    """Gradient by the weights of a call, from the gradient by what it gave; 0 where that is zero whatever they are."""
    with exact(), torch.no_grad():
        by_weights = product(output_gradient.float(), call.v.float().mT)
        return by_weights if call.zero_rows is None else by_weights.masked_fill_(call.zero_rows, 0.0)


def attended(call: AttentionCall, output_gradient: Float[Tensor, "B H M Dv"]) -> Float[Tensor, "B M N"]:
    """Mean over heads of relu(A ⊙ G)."""
    return (call.weights() * weight_gradient(call, output_gradient)).relu_().mean(dim=1)


def _propagate(
    recording: Recording,
    target: Target,
    queries: Sequence[int] | None,
    step: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "B Q N"]:
    """Rows from the last layer to the first, forward by forward and a few images at a time."""
    asked = None if queries is None else recording.query_rows(queries)
    by_layer = recording.output_gradients(target)
    if asked is None and recording.pool is None:
        asked = recording.query_rows()
    results = []
    for number, forward in enumerate(recording.forwards):
        calls = [call for _, call in forward.calls]
        for images, _ in calls[0].parts():
            part = [call.part(images) for call in calls]
            gradients = [of_layer[number][images] for of_layer in by_layer]
            rows = asked
            if rows is None:
                rows = recording.pad_pooled(attended(part[-1], gradients[-1]))
            for layer in reversed(range(len(recording))):
                rows = step(rows, attended(part[layer], gradients[layer]))
            results.append(rows.expand(part[0].q.shape[0], -1, -1))
    return torch.cat(results)


@attribution_method(
    "gradient_rollout",
    label="gradient rollout",
    reference="Abnar & Zuidema 2020, arXiv 2005.00928; Chefer 2020, arXiv 2012.09838, section 3.2",
    needs_gradients=True,
    class_specific=True,
)
def gradient_rollout(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B Q N"]:
    """Gradient rollout for the target class."""
    return grad_rollout(inputs.recording, inputs.target, queries)


@attribution_method(
    "relevance",
    label="relevance",
    reference="Chefer 2021, arXiv 2103.15679, section 3.1",
    needs_gradients=True,
    class_specific=True,
    drawn=True,
)
def chefer_relevance(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B Q N"]:
    """Relevance for the target class."""
    return relevance(inputs.recording, inputs.target, queries)
