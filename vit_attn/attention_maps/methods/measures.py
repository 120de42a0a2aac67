"""Measures of heads: entropy, distance, sink mass and prefix mass; and the divergence of two networks."""

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
    """Entropy −Σ a ln a in nats, mean over queries; divided by ln N if ``normalised``: 0 is one key, 1 is uniform.

    >>> round(entropy(torch.full((1, 1, 4, 4), 0.25)).item(), 4), entropy(torch.eye(4)[None, None]).item()
    (1.3863, 0.0)
    """
    check_weights(weights)
    nats = torch.special.entr(weights).sum(dim=-1).mean(dim=-1)
    return nats / max(math.log(weights.shape[-1]), 1e-30) if normalised else nats  # one key alone is no choice: 0


def attention_distance(weights: Weights, grid_size: tuple[int, int], patch_size: tuple[float, float] | float) -> Heads:
    """Mean distance in pixels between a patch's centre and the centres of the patches that it attends to.

    Attention to prefix tokens is left out and each row renormalised; a row that attends to prefix tokens only does not
    count.

    Args:
        weights: Attention, prefix tokens first.
        grid_size: Rows and columns of patches.
        patch_size: Height and width of a patch in pixels.

    Raises:
        UserError: If the weights are not of all tokens of this grid, or if a size is not positive.

    References:
        Dosovitskiy 2020, arXiv 2010.11929, section 4.5 ("mean attention distance").
    """
    check_weights(weights)
    rows, cols = (whole("grid_size", size) for size in grid_size)
    prefix = weights.shape[-1] - rows * cols
    if prefix < 0 or weights.shape[-1] != weights.shape[-2]:
        raise UserError(f"weights {tuple(weights.shape)} are not of all tokens of a grid of {grid_size} patches")
    patches = weights[..., prefix:, prefix:]
    pixels = pixel_distances(grid_size, patch_size).to(weights.device)
    mass = patches.sum(dim=-1)
    distances = (patches * pixels).sum(dim=-1) / mass.clamp_min(torch.finfo(weights.dtype).tiny)
    counted = (mass > 1e-6).to(weights.dtype)
    return (distances * counted).sum(dim=-1) / counted.sum(dim=-1).clamp_min(1.0)


def pixel_distances(grid_size: tuple[int, int], patch_size: tuple[float, float] | float) -> Float[Tensor, "P P"]:
    """Euclidean distances between the centres of all patches, in pixels."""
    height, width = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    if not all(isinstance(side, (int, float)) and 0 < side < math.inf for side in (height, width)):
        raise UserError(f"patch_size must be pixels above 0, or height and width as a tuple, got {patch_size!r}")
    rows, cols = (torch.arange(whole("grid_size", size), dtype=torch.float32, device="cpu") for size in grid_size)
    centres = torch.cartesian_prod(rows * height, cols * width).view(-1, 2)
    return torch.cdist(centres, centres)


def sink_mass(weights: Weights) -> Heads:
    """Fraction of all attention on the most attended token, the largest column mean; 1/N for uniform attention.

    A large value means that the head is concentrated on one token in this image. Only other images can tell whether
    that token is a sink, attended to whatever the image shows.
    """
    check_weights(weights)
    return weights.mean(dim=-2).amax(dim=-1)


def prefix_mass(weights: Weights, num_prefix_tokens: int) -> Heads:
    """Fraction of all attention on CLS and registers."""
    check_weights(weights)
    if whole("num_prefix_tokens", num_prefix_tokens, least=0) > weights.shape[-1]:
        raise UserError(f"num_prefix_tokens must be in 0..{weights.shape[-1]}, got {num_prefix_tokens}")
    return weights[..., :num_prefix_tokens].sum(dim=-1).mean(dim=-1)


@in_float32
def measure(
    recording: Recording, patch_size: tuple[float, float] | float = 1.0
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Measure every layer and head by all of ``MEASURES``, averaged over the images.

    Weights are formed a few images at a time.

    Args:
        recording: Forwards of a network whose layers have equally many heads.
        patch_size: Height and width of a patch in pixels, for the distance.

    Raises:
        UserError: If numbers of heads differ between layers, or if nothing was recorded.
    """
    recording.check_heads()
    by_layer = [_measure_layer(layer, recording, patch_size) for layer in recording]
    return {name: torch.stack([values[name] for values in by_layer]) for name in MEASURES}


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
    return {name: torch.cat(values).mean(dim=0) for name, values in parts.items()}


@in_float32
def divergence(one: Recording, other: Recording) -> Float[Tensor, "layers heads"]:
    """Jensen–Shannon divergence of two networks' attention rows on the same images, in nats.

    Mean over images and queries; 0 for heads with equal rows, ln 2 for heads that attend to different tokens.

    Args:
        one: Recording of a network, such as the source of a fine-tuning.
        other: Recording of a network with as many layers, heads and tokens, on the same images.

    Raises:
        UserError: If layers, heads, tokens or images differ in number, or heads from layer to layer.

    References:
        Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    sizes = [(len(net), net.batch_size, net.num_prefix_tokens, *net.grid_size) for net in (one, other)]
    if sizes[0] != sizes[1]:
        raise UserError(
            "recordings of as many layers, images, prefix tokens, rows and columns are compared, got "
            f"{sizes[0]} and {sizes[1]}"
        )
    for a, b in zip(one, other, strict=True):
        heads = a.calls[0].q.shape[1], b.calls[0].q.shape[1]
        if heads[0] != heads[1]:
            raise UserError(f"{a.name} has {heads[0]} heads, {b.name} has {heads[1]}")
    one.check_heads()
    return torch.stack([_layer_divergence(*layers) for layers in zip(one, other, strict=True)])


def _layer_divergence(one: Layer, other: Layer) -> Float[Tensor, " heads"]:
    by_image = []
    for p, q in zip(_weights_by_image(one), _weights_by_image(other), strict=True):
        by_image.append(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)
    return torch.cat(by_image).clamp_min(0.0).mean(dim=0)


def _weights_by_image(layer: Layer) -> Iterator[Float[Tensor, "1 H N N"]]:
    for call in layer.calls:
        for image in range(call.q.shape[0]):
            yield call.part(slice(image, image + 1)).weights()


def position_similarity(net: Any) -> Float[Tensor, "P P"]:
    """Cosine similarity between the position embeddings of all patches.

    Raises:
        UserError: If the network adds no position embeddings to its patches.

    References:
        Dosovitskiy 2020, arXiv 2010.11929, figure 7.
    """
    embedding = getattr(net, "pos_embed", None)
    patches = getattr(getattr(net, "patch_embed", None), "num_patches", 0)
    if (
        not isinstance(embedding, Tensor)
        or embedding.ndim != 3
        or not 0 < patches <= embedding.shape[1]
        or embedding.is_meta
    ):
        raise UserError(f"{type(net).__name__} adds no position embeddings to its patches")
    unit = F.normalize(embedding.detach()[0, -patches:].float(), dim=-1)
    return product(unit, unit.mT)
