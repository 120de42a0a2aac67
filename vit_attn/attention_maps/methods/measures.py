"""A number for each head: how wide it attends, how far, and how much of it goes to one token and to the prefix."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.checks import check_weights, whole
from vit_attn.attention_maps.precision import in_float32, product
from vit_attn.attention_maps.recording.recording import Layer, Recording
from vit_attn.errors import UserError

Weights = Float[Tensor, "B H N N"]
Heads = Float[Tensor, "B H"]

MEASURES = ("entropy", "distance", "sink_mass", "prefix_mass")


def entropy(weights: Weights, normalised: bool = False) -> Heads:
    """Mean over queries of −Σ a ln a, in nats; divided by ln N if ``normalised``: 0 is one key, 1 all alike.

    >>> round(entropy(torch.full((1, 1, 4, 4), 0.25)).item(), 4), entropy(torch.eye(4)[None, None]).item()
    (1.3863, 0.0)
    """
    check_weights(weights)
    nats = torch.special.entr(weights).sum(dim=-1).mean(dim=-1)
    return nats / max(math.log(weights.shape[-1]), 1e-30) if normalised else nats  # one key alone is no choice: 0


def attention_distance(weights: Weights, grid_size: tuple[int, int], patch_size: tuple[float, float] | float) -> Heads:
    """Mean distance between a patch's centre and those of the patches that it attends to, in pixels.

    What goes to prefix tokens is left out, and each row divided by what remains; a row of which nothing remains counts
    for nothing.

    Args:
        weights: Attention, prefix tokens first.
        grid_size: Rows and columns of patches.
        patch_size: Height and width of a patch in pixels.

    Raises:
        UserError: If the weights are not of all tokens of this grid, or if a size is not above 0.

    References:
        Dosovitskiy 2020, arXiv 2010.11929, section 4.5 ("mean attention distance").
    """
    check_weights(weights)
    rows, cols = (whole("grid_size", size) for size in grid_size)
    prefix = weights.shape[-1] - rows * cols
    if prefix < 0 or weights.shape[-1] != weights.shape[-2]:
        raise UserError(f"weights {tuple(weights.shape)} are not of all tokens of a grid of {grid_size} patches")
    among = weights[..., prefix:, prefix:]
    pixels = pixel_distances(grid_size, patch_size).to(weights.device)
    left = among.sum(dim=-1)
    each = (among * pixels).sum(dim=-1) / left.clamp_min(torch.finfo(weights.dtype).tiny)
    counted = (left > 1e-6).to(weights.dtype)
    return (each * counted).sum(dim=-1) / counted.sum(dim=-1).clamp_min(1.0)


def pixel_distances(grid_size: tuple[int, int], patch_size: tuple[float, float] | float) -> Float[Tensor, "P P"]:
    """Euclidean distances between the centres of all patches, in pixels."""
    height, width = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    if not all(isinstance(side, (int, float)) and 0 < side < math.inf for side in (height, width)):
        raise UserError(f"patch_size must be pixels above 0, or height and width as a tuple, got {patch_size!r}")
    rows, cols = (torch.arange(whole("grid_size", size), dtype=torch.float32, device="cpu") for size in grid_size)
    centres = torch.cartesian_prod(rows * height, cols * width).view(-1, 2)
    return torch.cdist(centres, centres)


def sink_mass(weights: Weights) -> Heads:
    """Largest mean of a column: the share of all attention that the most attended token gets; 1/N if all are alike.

    A large one says that a head is concentrated on a token in this image. Whether that token is a sink, attended to
    whatever the image shows, only other images can say.
    """
    check_weights(weights)
    return weights.mean(dim=-2).amax(dim=-1)


def prefix_mass(weights: Weights, num_prefix_tokens: int) -> Heads:
    """Share of all attention that goes to CLS and registers."""
    check_weights(weights)
    if whole("num_prefix_tokens", num_prefix_tokens, least=0) > weights.shape[-1]:
        raise UserError(f"num_prefix_tokens must be in 0..{weights.shape[-1]}, got {num_prefix_tokens}")
    return weights[..., :num_prefix_tokens].sum(dim=-1).mean(dim=-1)


@in_float32
def measure(
    recording: Recording, patch_size: tuple[float, float] | float = 1.0
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Each of ``MEASURES`` by layer and head, averaged over the images; weights are formed a few images at a time.

    Args:
        recording: Forwards of a network whose layers have equally many heads.
        patch_size: Height and width of a patch in pixels, for the distance.

    Raises:
        UserError: If they have not, or if nothing was recorded.
    """
    recording.check_heads()
    by_layer = [_measure_layer(layer, recording, patch_size) for layer in recording]
    return {name: torch.stack([each[name] for each in by_layer]) for name in MEASURES}


def _measure_layer(
    layer: Layer, recording: Recording, patch_size: tuple[float, float] | float
) -> dict[str, Float[Tensor, " heads"]]:
    parts: dict[str, list[Tensor]] = {name: [] for name in MEASURES}
    for call in layer.calls:
        for images, _ in call.parts():
            weights = call.part(images).weights()
            parts["entropy"].append(entropy(weights))
            parts["distance"].append(attention_distance(weights, recording.grid_size, patch_size))
            parts["sink_mass"].append(sink_mass(weights))
            parts["prefix_mass"].append(prefix_mass(weights, recording.num_prefix_tokens))
    return {name: torch.cat(of_images).mean(dim=0) for name, of_images in parts.items()}


@in_float32
def divergence(one: Recording, other: Recording) -> Float[Tensor, "layers heads"]:
    """How differently two networks attend on the same images: Jensen–Shannon divergence of their rows, in nats.

    0 where a head of both looks alike, ln 2 where they look at different tokens; the mean over images and queries.

    Args:
        one: A network, such as the source of a fine-tuning.
        other: The other, with as many layers, heads and tokens, on the same images.

    Raises:
        UserError: If they have other layers, heads, tokens or images, or unequally many heads from layer to layer.

    References:
        Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    alike = [(len(each), each.batch_size, each.num_prefix_tokens, *each.grid_size) for each in (one, other)]
    if alike[0] != alike[1]:
        told = " and ".join(map(str, alike))
        raise UserError(
            f"recordings of as many layers, images, prefix tokens, rows and columns are compared, got {told}"
        )
    for mine, theirs in zip(one, other, strict=True):
        heads = mine.calls[0].q.shape[1], theirs.calls[0].q.shape[1]
        if heads[0] != heads[1]:
            raise UserError(f"{mine.name} has {heads[0]} heads, {theirs.name} has {heads[1]}")
    one.check_heads()
    return torch.stack([_apart(*layers) for layers in zip(one, other, strict=True)])


def _apart(one: Layer, other: Layer) -> Float[Tensor, " heads"]:
    apart = []
    for p, q in zip(_weights_of_each_image(one), _weights_of_each_image(other), strict=True):
        apart.append(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)
    return torch.cat(apart).clamp_min(0.0).mean(dim=0)


def _weights_of_each_image(layer: Layer) -> Iterator[Float[Tensor, "1 H N N"]]:
    for call in layer.calls:
        for image in range(call.q.shape[0]):
            yield call.part(slice(image, image + 1)).weights()


def position_similarity(net: Any) -> Float[Tensor, "P P"]:
    """Cosine similarity between the position embeddings of all patches.

    Raises:
        UserError: If the network adds no positions to its patches.

    References:
        Dosovitskiy 2020, arXiv 2010.11929, figure 7.
    """
    places = getattr(net, "pos_embed", None)
    known = getattr(getattr(net, "patch_embed", None), "num_patches", 0)
    if not isinstance(places, Tensor) or places.ndim != 3 or not 0 < known <= places.shape[1] or places.is_meta:
        raise UserError(f"{type(net).__name__} adds no position embeddings to its patches")
    each = F.normalize(places.detach()[0, -known:].float(), dim=-1)
    return product(each, each.mT)
