"""LeGrad: gradients of each layer's own prediction with respect to its attention."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.checks import call_network, check_images
from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_method
from vit_attn.attention_maps.methods.relevance import weight_gradient
from vit_attn.attention_maps.precision import in_float32
from vit_attn.attention_maps.recording.readout import TokenReadout
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.targets import Target, gradients_of, target_value
from vit_attn.errors import UserError

NEEDED = ("blocks", "norm", "forward_head")
"""Parts of a network that turn each layer's tokens into logits."""
LOGIT_TOLERANCE = 1e-3
"""Largest difference, relative to the largest logit, between the network's logits and those of its last tokens."""


@in_float32
def legrad(net: Any, images: Float[Tensor, "B C height width"], target: Target = None) -> Float[Tensor, "B N"]:
    """LeGrad: sensitivity of each layer's own logit of the target to the attention on each token, over all queries.

    For each layer, the target is computed from that layer's tokens through the final norm, pool and head; relu of its
    gradient with respect to the layer's weights is averaged over heads and queries, and layers are summed. The gradient
    is not multiplied by the attention, and there is no query.

    Args:
        net: A network of ours or timm's, with ``blocks``, ``norm`` and ``forward_head``.
        images: Normalised images.
        target: Target of the gradients, as for :func:`relevance`; by default the class that the whole network predicts.

    Raises:
        UserError: If the network lacks these parts or computes its logits in another way, or if a class does not exist.

    References:
        Bousselham 2024, "LeGrad", arXiv 2404.03214, section 3.2.
    """
    if not has_readable_layers(net):
        raise UserError(
            f"legrad needs a network with blocks, norm and forward_head, as timm's have, got {type(net).__name__}"
        )
    check_images(net, images)
    images = images.clone() if images.is_inference() else images  # inference tensors cannot enter a graph
    recording, tokens, logits = _record_tokens(net, images)
    _check_logits_of_tokens(net, recording, tokens, logits)
    classes = logits.argmax(dim=-1) if target is None else target
    total = torch.zeros(len(images), recording.num_tokens, device=images.device, dtype=torch.float32)
    for layer, layer_tokens in zip(recording, tokens, strict=True):
        call = layer.calls[0]
        with torch.enable_grad():
            value = target_value(net.forward_head(net.norm(layer_tokens)), classes, slice(0, len(images))).sum()
        output: Any = call.output
        (output_gradient,) = gradients_of(value, [output])
        for part, _ in call.parts():
            gradient = weight_gradient(call.part(part), output_gradient[part])
            total[part] += gradient.relu_().mean(dim=(1, 2))
    return total


def _record_tokens(net: Any, images: Tensor) -> tuple[Recording, list[Tensor], Any]:
    """Record a network with gradients; also each block's tokens, and its output."""
    blocks = TokenReadout(maxlen=None)
    with torch.enable_grad(), record(net, gradients=True) as recording, blocks.attached(net.blocks):
        blocks.start()
        logits = call_network(net, images)
        return recording, list(blocks.candidates), logits


def _check_logits_of_tokens(net: Any, recording: Recording, tokens: list[Tensor], logits: Any) -> None:
    """Check that norm and head give the network's own logits from its last tokens."""
    if len(tokens) == len(recording) and isinstance(logits, Tensor):
        with torch.no_grad():
            found = net.forward_head(net.norm(tokens[-1]))
        difference = (found - logits).abs().amax() if found.shape == logits.shape else torch.inf
        if not difference > LOGIT_TOLERANCE * logits.abs().amax():  # NaN is refused later
            return
    raise UserError(
        f"legrad reads each layer by forward_head(norm(tokens)), but {type(net).__name__} gives other logits than that "
        "of its last block: use relevance, or call net.eval() if it drops anything"
    )


def has_readable_layers(net: nn.Module) -> bool:
    """Test a network for the parts that turn each layer's tokens into logits, whole on this device."""
    if not all(hasattr(net, name) for name in NEEDED):
        return False
    return not any(hasattr(each, "to_local") for each in net.parameters())  # shards are gathered in its forward alone


@attribution_method(
    "legrad",
    label="LeGrad",
    reference="Bousselham 2024, arXiv 2404.03214, section 3.2",
    needs_gradients=False,  # it records the network again
    class_specific=True,
    has_query=False,
    supports=has_readable_layers,
    colour="#cc79a7",
)
def legrad_map(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B 1 N"]:
    """LeGrad for the target class."""
    return legrad(inputs.net, inputs.images, inputs.target).unsqueeze(1)
