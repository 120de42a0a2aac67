"""What one logging takes from the network while training waits; the rest is done from it elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.faithfulness import deletion, insertion, order_of, random_patches
from vit_attn.attention_maps.recording import Recording
from vit_attn.attention_maps.relevance import relevance
from vit_attn.attention_maps.view import View
from vit_attn.callbacks.attention_pictures import MOST_TOKENS


@dataclass(frozen=True)
class Taken:
    """What one logging took from the network, in the host's memory, to be drawn and written when there is time."""

    step: int
    recording: Recording
    logits: Tensor
    views: list[View]
    relevance: Float[np.ndarray, "B N N"] | None
    verdicts: list[dict[str, float]] | None
    probe: Any
    always: bool
    """Whether it is the first or the last."""


def relevance_between(recording: Recording, logits: Tensor) -> Float[np.ndarray, "B N N"] | None:
    """Relevance of every token to every other for the predicted class; none for more tokens than a page shows."""
    if recording.num_tokens > MOST_TOKENS:
        return None
    every = relevance(recording, logits.argmax(dim=-1), range(recording.num_tokens))
    return (every - torch.eye(recording.num_tokens, device=every.device)).clamp_min(0.0).cpu().numpy()


def verdicts_of(net: nn.Module, images: Tensor, views: Sequence[View], steps: int = 8) -> list[dict[str, float]]:
    """Areas under deletion and insertion by each view's relevance, and in random order, an image each.

    Args:
        net: The network, in evaluation.
        images: Normalised images.
        views: What the network looks at in them.
        steps: Points of each curve.
    """
    maps = torch.from_numpy(np.stack([view.patches(view.relevance).ravel() for view in views]))
    target = torch.tensor([view.predicted for view in views], device=images.device)
    areas = {}
    for prefix, order in (
        ("", order_of(maps)),
        ("random_", order_of(random_patches((len(maps), maps.shape[1]), seed=0))),
    ):
        areas[f"{prefix}deletion"] = deletion(net, images, order, target, steps).area.tolist()
        areas[f"{prefix}insertion"] = insertion(net, images, order, target, steps).area.tolist()
    return [{name: each[i] for name, each in areas.items()} for i in range(len(views))]


def patch_size(images: Tensor, recording: Recording) -> tuple[float, float]:
    """Height and width of a patch in pixels of these images."""
    if recording.patch_size is not None:
        return recording.patch_size
    rows, cols = recording.grid_size
    return images.shape[-2] / rows, images.shape[-1] / cols
