"""What one logging takes from the network while training waits; the rest is done from it elsewhere."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.baselines import Judgement, judge_maps
from vit_attn.attention_maps.methods.relevance import relevance
from vit_attn.attention_maps.methods.rollout import FUSIONS, raw_rows, rollout
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.callbacks.attention_logger.figures import MOST_TOKENS
from vit_attn.tb_plugin.summary import POOLED_LAYER

MOST_JUDGED = 8
"""Images on which maps are judged, so that a judgement takes at most 1,232 forwards of an image."""


@dataclass(frozen=True)
class AttentionSnapshot:
    """What one logging took from the network, in the host's memory, to be drawn and written when there is time."""

    step: int
    recording: Recording
    logits: Tensor
    views: list[AttentionSummary]
    relevance: Float[np.ndarray, "B N N"] | None
    judgement: Judgement | None
    probe: Any
    always: bool
    """Whether it is the first or the last."""


def relevance_between(recording: Recording, logits: Tensor) -> Float[np.ndarray, "B N N"] | None:
    """Relevance of every token to every other for the predicted class; none for more tokens than a page shows."""
    if recording.num_tokens > MOST_TOKENS:
        return None
    every = relevance(recording, logits.argmax(dim=-1), range(recording.num_tokens))
    return (every - torch.eye(recording.num_tokens, device=every.device)).clamp_min(0.0).cpu().numpy()


def judge_views(net: nn.Module, images: Tensor, recording: Recording, views: list[AttentionSummary]) -> Judgement:
    """What deletion and insertion say of each way in which the tab shows the pooled row through all layers.

    Args:
        net: The network, in evaluation.
        images: Normalised images, of which the first ``MOST_JUDGED`` are judged.
        recording: How it looked at them, with gradients.
        views: The same, by image.
    """
    rows = {
        "relevance": torch.from_numpy(np.stack([view.relevance for view in views])),
        "last layer": torch.from_numpy(np.stack([view.last for view in views])),
        **{f"rollout, {fusion}": rollout(recording, fusion=fusion)[:, 0] for fusion in FUSIONS},
    }
    if recording.pool is not None:  # the last layer's row is then the pool's own; the tab shows its mix of the layer's
        rows[POOLED_LAYER] = raw_rows(recording)[:, 0]
    prefix, judged = recording.num_prefix_tokens, images[:MOST_JUDGED]
    maps = {name: each[: len(judged), prefix:].detach().float() for name, each in rows.items()}
    target = torch.tensor([view.predicted for view in views[: len(judged)]], device=images.device)
    return judge_maps(net, judged, maps, target)


def judged_scalars(judgement: Judgement) -> dict[str, float]:
    """Areas by measure and method, beside centre first and the mean of random orders."""
    scalars = {}
    for method, measures in judgement.overall.items():
        for measure, each in measures.items():
            name = method.replace(", ", "_").replace(" ", "_")
            scalars[f"attention_{measure}/{name}"] = each.value
            scalars[f"attention_{measure}/random"] = each.random
            scalars[f"attention_{measure}/centre_first"] = each.centre
    return scalars


def patch_size(images: Tensor, recording: Recording) -> tuple[float, float]:
    """Height and width of a patch in pixels of these images."""
    if recording.patch_size is not None:
        return recording.patch_size
    rows, cols = recording.grid_size
    return images.shape[-2] / rows, images.shape[-1] / cols
