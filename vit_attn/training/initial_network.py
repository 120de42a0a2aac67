"""Network that a training starts with: random, pretrained by timm, or from a file of weights."""

from dataclasses import dataclass

from torch import nn

from vit_attn.checkpoints.weights import load_weights
from vit_attn.model.build import Options, build_net
from vit_attn.model.pretrained import changes_of_pretrained, names_network


@dataclass(frozen=True)
class InitialNetwork:
    """Network with its initial weights.

    Args:
        net: The network.
        weights: Name, file or address of its weights; None for random ones.
        changes: Sentences about what was changed in the weights to fit the network.
    """

    net: nn.Module
    weights: str | None
    changes: list[str]


def build_initial_network(
    arch: str, num_classes: int, img_size: tuple[int, int], in_chans: int, options: Options, weights: str | None
) -> InitialNetwork:
    """Build a network and load its initial weights.

    Args:
        arch: A registered name.
        num_classes: Number of logits.
        img_size: Height and width of the images in pixels.
        in_chans: Channels of the images.
        options: Further arguments of the network.
        weights: A name of timm's registry, a file or an address; None for random weights.

    Raises:
        UserError: If there is no such network, or if the weights do not fit it.
    """
    if weights is not None and names_network(weights) and arch.partition(".")[0] == weights.partition(".")[0]:
        arch, options, weights = weights, {**options, "pretrained": True}, None
    net = build_net(arch, num_classes, img_size, in_chans, options)
    if options.get("pretrained") and weights is None:
        return InitialNetwork(net, arch, changes_of_pretrained(net, num_classes, img_size))
    return InitialNetwork(net, weights, load_weights(net, weights) if weights is not None else [])
