"""Network and images that maps are evaluated on, and the network's logits."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.checks import call_network, check_images, check_logits, whole
from vit_attn.attention_maps.evaluation.ground_truth import GroundTruthPatches
from vit_attn.attention_maps.recording.knockout import knockout
from vit_attn.attention_maps.recording.targets import logits_of

Images = Float[Tensor, "B C height width"]
Classes = Int64[Tensor, " B"]


class EvalBatch(NamedTuple):
    """A network and the images that its maps are evaluated on.

    Args:
        net: A classifier in evaluation mode.
        images: Normalised images.
        labels: Their classes; None where they are unknown.
        ground_truth: Patches that are known to matter; None where the data set does not know them.
    """

    net: nn.Module
    images: Images
    labels: Classes | None = None
    ground_truth: GroundTruthPatches | None = None

    def part(self, images: slice) -> "EvalBatch":
        """Select images, with what is known of them."""
        truth = self.ground_truth
        if truth is not None:
            truth = replace(truth, regions={name: mask[images] for name, mask in truth.regions.items()})
        return EvalBatch(self.net, self.images[images], None if self.labels is None else self.labels[images], truth)


def logits_by_batch(
    net: nn.Module,
    images: Images,
    batch: int = 128,
    edges: Bool[Tensor, "_ N N"] | None = None,
    pool: Bool[Tensor, "_ pooled"] | None = None,
) -> Float[Tensor, "B classes"]:
    """Logits without a graph, a few images at a time.

    Args:
        net: A classifier in evaluation mode.
        images: Normalised images.
        batch: Images at a time.
        edges: Attention edges to knock out, of each image or of all, as for :func:`knockout`.
        pool: Tokens to knock out of an attention pool, of each image or of all.

    Raises:
        UserError: If the network does not take the images.
    """
    check_images(net, images)
    batch, parts = whole("batch", batch), []
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        with torch.no_grad():
            if edges is None and pool is None:
                parts.append(logits_of(call_network(net, images[part])).float())
                continue
            chosen = (None if x is None else x if len(x) == 1 else x[part] for x in (edges, pool))
            cut, cut_pool = chosen
            with knockout(net, cut, pool=cut_pool):
                parts.append(logits_of(call_network(net, images[part])).float())
    return torch.cat(parts)


def predicted_classes(net: nn.Module, images: Images, batch: int = 128) -> Classes:
    """Classes that a network predicts.

    Raises:
        UserError: If the network does not take the images, or gives NaN.
    """
    return check_logits(logits_by_batch(net, images, batch)).argmax(dim=-1)
