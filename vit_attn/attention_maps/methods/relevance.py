"""Class-specific maps from attention weighted by its gradients: gradient rollout and Chefer's relevance.

The gradient of a target with respect to the weights of a layer is dO · Vᵀ, where dO is its gradient with respect to the
attention's output and V the values: no map enters the network's graph. Neither method is invariant to the scale of the
target, so state the target with the map.
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

    Where the network has an attention pool, propagation starts from its Ā, without identity: its query is no token.

    Args:
        recording: Forwards of a network, recorded with gradients.
        target: A class, a class per image, or a function from the network's output to a number per image; by default
            the predicted class.
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
    """Gradient rollout: rollout with the mean over heads of relu(A ⊙ ∂target/∂A) instead of A; rows sum to 1.

    Args:
        recording: Forwards of a network, recorded with gradients.
        target: Target of the gradients, as for :func:`relevance`.
        queries: Token indices, prefix tokens first; by default the row that the network pools.

    Raises:
        UserError: If gradients were not recorded, or if a query or class does not exist.

    References:
        Abnar & Zuidema 2020, arXiv 2005.00928, section 3, for rollout; Chefer 2020, arXiv 2012.09838, section 3.2, for
        the weighing.
    """

    def step(rows: Tensor, attended: Tensor) -> Tensor:
        normalised = rows / (1 + attended.sum(dim=-1)).unsqueeze(-2)
        return product(normalised, attended) + normalised

    rows = _propagate(recording, target, queries, step)
    return rows / rows.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def weight_gradient(call: AttentionCall, output_gradient: Float[Tensor, "B H M Dv"]) -> Float[Tensor, "B H M N"]:
    """Gradient with respect to a call's weights, from that with respect to its output; 0 for ablated heads."""
    with exact(), torch.no_grad():
        gradient = product(output_gradient.float(), call.v.float().mT)
        return gradient if call.zero_rows is None else gradient.masked_fill_(call.zero_rows, 0.0)


def weighted_attention(call: AttentionCall, output_gradient: Float[Tensor, "B H M Dv"]) -> Float[Tensor, "B M N"]:
    """Mean over heads of relu(A ⊙ G)."""
    return (call.weights() * weight_gradient(call, output_gradient)).relu_().mean(dim=1)


def _propagate(
    recording: Recording,
    target: Target,
    queries: Sequence[int] | None,
    step: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "B Q N"]:
    """Propagate rows from the last layer to the first, forward by forward and a few images at a time."""
    start = None if queries is None else recording.query_rows(queries)
    by_layer = recording.output_gradients(target)
    if start is None and recording.pool is None:
        start = recording.query_rows()
    results = []
    for number, forward in enumerate(recording.forwards):
        calls = [call for _, call in forward.calls]
        for images, _ in calls[0].parts():
            part = [call.part(images) for call in calls]
            gradients = [of_layer[number][images] for of_layer in by_layer]
            rows = start
            if rows is None:
                rows = recording.pad_pooled(weighted_attention(part[-1], gradients[-1]))
            for layer in reversed(range(len(recording))):
                rows = step(rows, weighted_attention(part[layer], gradients[layer]))
            results.append(rows.expand(part[0].q.shape[0], -1, -1))
    return torch.cat(results)


@attribution_method(
    "gradient_rollout",
    label="gradient rollout",
    reference="Abnar & Zuidema 2020, arXiv 2005.00928; Chefer 2020, arXiv 2012.09838, section 3.2",
    needs_gradients=True,
    class_specific=True,
    colour="#e69f00",
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
    colour="#d55e00",
    dashes="--",
)
def chefer_relevance(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B Q N"]:
    """Relevance for the target class."""
    return relevance(inputs.recording, inputs.target, queries)
