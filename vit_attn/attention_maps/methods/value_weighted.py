"""Value-weighted attention: the norm of what a query fetches from each token, instead of the weight alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_method
from vit_attn.attention_maps.precision import in_float32, product
from vit_attn.attention_maps.recording.attention_call import WORKSPACE, AttentionCall
from vit_attn.attention_maps.recording.attention_modules import attention_modules
from vit_attn.attention_maps.recording.recording import Layer, Recording
from vit_attn.errors import UserError

PROJECTIONS = ("proj", "out_proj", "o_proj")
"""Names of the output projection in attention modules of ours and timm's, torchvision's, and some of Hugging Face's."""
BEFORE_PROJECTION = ("norm", "sub_norm", "gate")
"""Names of timm's modules that change the heads' outputs before the projection; in pools, a norm comes after it."""


@in_float32
def value_weighted(
    net: nn.Module, recording: Recording, layer: int = -1, queries: Sequence[int] | None = None
) -> Float[Tensor, "B Q N"]:
    """Norm of the vector that each query fetches from each token: ‖Σ over heads of weight · value · W_O‖.

    The value, with its bias, is projected by the head's part of the output projection W_O, as it enters the residual
    stream; W_O's bias belongs to no token and is left out, and so is a LayerScale after it. A token that is attended to
    but has a small value, as sinks often have, gets little. Rows do not sum to 1. Of a mix of rows, such as the mean
    over the patches, the vectors are summed before the norm is taken.

    Args:
        net: The recorded network.
        recording: Forwards of the network.
        layer: Index of the layer; -1 is the last.
        queries: Token indices, prefix tokens first; by default the row that the network pools: of an attention pool,
            with its own values and projection, where ``layer`` is the last.

    Raises:
        UserError: If the layer or a query does not exist, or if its module has no output projection by a known name
            right after the heads: without one, lengths of values in different heads cannot be compared.

    References:
        Kobayashi 2020, "Attention is not only a weight", arXiv 2004.10102, section 3.2.
    """
    found, rows = recording[layer], recording.query_rows(queries)
    if queries is None and recording.pool is not None and layer in (-1, len(recording) - 1):
        found, rows = recording.pool, None
    projection = output_projection(net, found.name)
    if projection is None:
        raise UserError(f"{found.name} of {type(net).__name__} has no output projection right after its heads")
    weight: Tensor = projection.weight.detach()
    if hasattr(weight, "full_tensor"):  # sharded over devices, each of which computes the whole map
        weight = weight.full_tensor()
    return _layer_norms(found, weight, rows, recording)


def _layer_norms(
    layer: Layer, weight: Float[Tensor, "D HDv"], rows: Float[Tensor, "_ Q N"] | None, recording: Recording
) -> Float[Tensor, "B Q N"]:
    results, start = [], 0
    for call in layer.calls:
        for images, _ in call.parts():
            part = call.part(images)
            if rows is None:  # the pool's own rows, mixed as the head reads them
                weights = torch.stack([recording.pad_pooled(each) for each in part.weights().unbind(dim=1)], dim=1)
            else:
                chosen = rows if len(rows) == 1 else rows[start : start + len(part.q)]
                weights = product(chosen.unsqueeze(1), part.weights())
            results.append(_norms(weights, projected_values(part, weight, weights.shape[-1])))
            start += len(part.q)
    return torch.cat(results)


def projected_values(call: AttentionCall, weight: Float[Tensor, "D HDv"], tokens: int) -> Float[Tensor, "B N H D"]:
    """Project the value of each token and head as the output projection does; zeros for tokens before the call's."""
    heads, channels = call.v.shape[1], call.v.shape[3]
    if weight.shape[1] != heads * channels:
        raise UserError(f"the output projection takes {weight.shape[1]} channels, not {heads} heads of {channels}")
    by_head = weight.float().unflatten(1, (heads, channels)).permute(1, 2, 0)  # (H, Dv, D)
    projected = product(call.v.float(), by_head).transpose(1, 2)
    missing = projected.new_zeros(len(projected), tokens - projected.shape[1], *projected.shape[2:])
    return torch.cat([missing, projected], dim=1)


def _norms(weights: Float[Tensor, "B H Q N"], values: Float[Tensor, "B N H D"]) -> Float[Tensor, "B Q N"]:
    """Norms of the weighted sums over heads, a few queries at a time."""
    size = max(1, WORKSPACE // (len(values) * values.shape[1] * values.shape[3]))
    parts = [product(part.permute(0, 3, 2, 1), values).norm(dim=-1) for part in weights.split(size, dim=2)]
    return torch.cat(parts, dim=2).mT


def output_projection(net: nn.Module, name: str) -> nn.Linear | None:
    """Find the linear layer that projects the heads' outputs of an attention module.

    Args:
        net: The network.
        name: Name of the attention module.

    Returns:
        The layer; none if it has no known name, or if a norm or a gate comes before it.
    """
    net = getattr(net, "_orig_mod", net)  # compiled
    module, parent = net.get_submodule(name), net.get_submodule(name.rpartition(".")[0])
    is_pool = "pool" in type(module).__name__.lower()
    between = [getattr(module, each, None) for each in BEFORE_PROJECTION if not (is_pool and each == "norm")]
    if any(isinstance(each, nn.Module) and not isinstance(each, nn.Identity) for each in between):
        return None
    candidates = [getattr(module, each, None) for each in PROJECTIONS]
    candidates.append(getattr(getattr(parent, "output", None), "dense", None))  # Hugging Face's ViT
    return next((each for each in candidates if isinstance(each, nn.Linear)), None)


def has_output_projections(net: nn.Module) -> bool:
    """Test whether the output projections of a network's last layer and pool are found."""
    try:
        names = list(attention_modules(getattr(net, "_orig_mod", net)).values())
    except UserError:
        return False
    return all(output_projection(net, name) is not None for name in names[-2:])


@attribution_method(
    "value_weighted",
    label="value-weighted",
    reference="Kobayashi 2020, arXiv 2004.10102, section 3.2",
    needs_gradients=False,
    class_specific=False,
    supports=has_output_projections,
    colour="#009e73",
)
def value_weighted_map(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B Q N"]:
    """Value-weighted attention of the last layer, or of the attention pool."""
    return value_weighted(inputs.net, inputs.recording, queries=queries)
