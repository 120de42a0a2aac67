"""LeGrad: sensitivity of each layer's own reading of a class to the attention on each token."""

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
"""Parts of a network by which each layer's tokens are read."""
SAME_READING = 1e-3
"""Of the largest logit: what is computed twice may differ so much."""


@in_float32
def legrad(net: Any, images: Float[Tensor, "B C height width"], target: Target = None) -> Float[Tensor, "B N"]:
    """LeGrad: how sensitive each layer's own reading of the target is to attention on each token, over all queries.

    For each layer, the target is computed from that layer's tokens through the final norm, pool and head; relu of its
    gradient by the layer's weights is averaged over heads and queries, and layers are summed. The attention itself is
    not multiplied in, and there is no query.

    Args:
        net: A network of ours or timm's, with ``blocks``, ``norm`` and ``forward_head``.
        images: Normalised images.
        target: What gradients are of, as for :func:`relevance`; by default the class that the whole network names.

    Raises:
        UserError: If the network has no such parts, if it computes its output otherwise, or if a class does not exist.

    References:
        Bousselham 2024, "LeGrad", arXiv 2404.03214, section 3.2.
    """
    if not has_readable_layers(net):
        raise UserError(
            f"legrad needs a network with blocks, norm and forward_head, as timm's have, got {type(net).__name__}"
        )
    check_images(net, images)
    images = images.clone() if images.is_inference() else images  # one made in inference mode cannot enter a graph
    blocks = TokenReadout(maxlen=None)
    with torch.enable_grad(), record(net, gradients=True) as recording, blocks.attached(net.blocks):
        blocks.start()
        logits = call_network(net, images)
        tokens = list(blocks.candidates)
    _check_reading(net, recording, tokens, logits)
    classes = logits.argmax(dim=-1) if target is None else target
    total = torch.zeros(len(images), recording.num_tokens, device=images.device, dtype=torch.float32)
    for layer, of_layer in zip(recording, tokens, strict=True):
        call = layer.calls[0]
        with torch.enable_grad():
            value = target_value(net.forward_head(net.norm(of_layer)), classes, slice(0, len(images))).sum()
        kept: Any = call.output
        (gradient,) = gradients_of(value, [kept])
        for images_, _ in call.parts():
            by_weights = weight_gradient(call.part(images_), gradient[images_])
            total[images_] += by_weights.relu_().mean(dim=(1, 2))
    return total


def _check_reading(net: Any, recording: Recording, tokens: list[Tensor], logits: Any) -> None:
    """Whether the network itself reads its last tokens as each layer's are read."""
    if len(tokens) == len(recording) and isinstance(logits, Tensor):
        with torch.no_grad():
            found = net.forward_head(net.norm(tokens[-1]))
        apart = (found - logits).abs().amax() if found.shape == logits.shape else torch.inf
        if not apart > SAME_READING * logits.abs().amax():  # NaN is told below
            return
    raise UserError(
        f"legrad reads each layer by forward_head(norm(tokens)), but {type(net).__name__} gives other logits than that "
        "of its last block: use relevance, or call net.eval() if it drops anything"
    )


def has_readable_layers(net: nn.Module) -> bool:
    """Whether the network has the parts by which each layer's tokens are read."""
    return all(hasattr(net, name) for name in NEEDED)


@attribution_method(
    "legrad",
    label="LeGrad",
    reference="Bousselham 2024, arXiv 2404.03214, section 3.2",
    needs_gradients=True,
    class_specific=True,
    has_query=False,
    supports=has_readable_layers,
)
def legrad_map(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Float[Tensor, "B 1 N"]:
    """LeGrad for the target class."""
    return legrad(inputs.net, inputs.images, inputs.target).unsqueeze(1)
