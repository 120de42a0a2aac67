"""A network and one picture, as a question is asked about them."""

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.tokens import prefix_names


@dataclass(frozen=True)
class Subject:
    """Network and picture of a question.

    Args:
        net: The network, in evaluation mode.
        images: The picture as the network gets it, normalised, as a batch of one.
        recording: Attention of the network on it, without any cut and with gradients.
        logits: Output of that forward.
        model: Name or path that :func:`open_network` was called with.
        weights: File of weights that it was called with, or ``none``; None for the network's own.
        img_size: Side of the images in pixels that it was called with; None for the network's own.
        picture: File of the picture; the name of one that the page sent.
        fit: How the picture became the network's input, one of ``FITS``.
        is_sent: Whether the page sent the picture, so that no file is known.
    """

    net: nn.Module
    images: Float[Tensor, "1 C height width"]
    recording: Recording
    logits: Float[Tensor, "1 classes"]
    model: str
    weights: str | None
    img_size: int | None
    picture: str
    fit: str = "auto"
    is_sent: bool = False

    @cached_property
    def heads(self) -> list[int]:
        """Number of heads of each layer."""
        return [layer.calls[0].q.shape[1] for layer in self.recording]

    @cached_property
    def prefix(self) -> list[str]:
        """Names of the prefix tokens."""
        return prefix_names(self.net, self.recording.num_prefix_tokens)
