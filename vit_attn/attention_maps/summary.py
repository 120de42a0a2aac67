"""Attention summary of an image: rows of all heads, rollout, relevance and the predicted probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.checks import call_network, check_images, class_targets
from vit_attn.attention_maps.methods.registry import AttributionInput, AttributionMethod
from vit_attn.attention_maps.methods.relevance import relevance
from vit_attn.attention_maps.methods.rollout import rollout
from vit_attn.attention_maps.precision import exact, in_float32, product
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.targets import Target, logits_of
from vit_attn.attention_maps.summary_html import LEAST_TIMES, Panel, panels_html

SUMMARY_FIELDS = {"last_layer": "last", "rollout": "rollout", "relevance": "relevance"}
"""Methods whose rows an :class:`AttentionSummary` has; its relevance is without the identity of the query."""

MAX_MATRIX_TOKENS = 400
"""Tokens above which a token-to-token matrix has more cells than a picture has pixels, and is left out."""


@dataclass(frozen=True)
class AttentionSummary:
    """Attention of one query of one image, over all tokens, prefix tokens first.

    Args:
        heads: The query's row in each layer and head; for the pooled row, the tokens' rows weighted as the pool does.
        last: The last layer's row, heads averaged; for an attention pool, its own row.
        rollout: Attention rollout of the query.
        relevance: Chefer's relevance of the query for the target, without the query's identity.
        probabilities: Probabilities of the classes.
        target: Class that relevance is for; -1 for a function.
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Tokens before the patches.
        query: Index of the query token; -1 is the pooled row.
        patch_size: Height and width of a patch in pixels, the first at the image's upper left; None if unknown.
        pool: Whether ``last`` is the row of an attention pool.
    """

    heads: Float[np.ndarray, "L H N"]
    last: Float[np.ndarray, " N"]
    rollout: Float[np.ndarray, " N"]
    relevance: Float[np.ndarray, " N"]
    probabilities: Float[np.ndarray, " classes"]
    target: int
    grid_size: tuple[int, int]
    num_prefix_tokens: int
    query: int = -1
    patch_size: tuple[int, int] | None = None
    pool: bool = False

    @property
    def predicted(self) -> int:
        """Predicted class."""
        return int(self.probabilities.argmax())

    def patches(self, row: Float[np.ndarray, "... N"]) -> Float[np.ndarray, "... rows cols"]:
        """Select the patches of a row, as a grid."""
        return row[..., self.num_prefix_tokens :].reshape(*row.shape[:-1], *self.grid_size)

    def __repr__(self) -> str:
        layers, heads, tokens = self.heads.shape
        return (
            f"AttentionSummary(predicted={self.predicted}, {self._chance(self.predicted)}; target={self.target}, "
            f"query={self.query}, {layers} layers, {heads} heads, {tokens} tokens, grid_size={self.grid_size}, "
            f"num_prefix_tokens={self.num_prefix_tokens})"
        )

    def _repr_html_(self) -> str:
        """Show the last layer, rollout and relevance as small maps, in a notebook."""
        query = "what the network pools" if self.query < 0 else f"token {self.query}"
        heading = f"Predicted: class {self.predicted}, {self._chance(self.predicted)}. Attention of {query}:"
        explained = f"for class {self.target}, {self._chance(self.target)}"
        panels = [
            self._panel("pool" if self.pool else "last layer", self.last, "" if self.pool else "mean of heads"),
            self._panel("rollout", self.rollout, "mean of heads"),
            Panel("relevance", self.patches(self.relevance), explained if self.target >= 0 else "for a function"),
        ]
        return panels_html(heading, panels)

    def _chance(self, index: int) -> str:
        return f"probability {self.probabilities[index]:.3f}"

    def _panel(self, title: str, row: Float[np.ndarray, " N"], note: str) -> Panel:
        """Map of a row of attention, on a scale on which uniform attention is dark."""
        prefix = self.num_prefix_tokens
        parts = [note, f"{row[:prefix].sum():.1%} on prefix tokens" if prefix else ""]
        return Panel(title, self.patches(row), "; ".join(filter(None, parts)), min(1.0, LEAST_TIMES / len(row)))


def summarize(
    net: nn.Module,
    images: Float[Tensor, "B C height width"] | Mapping[str, Tensor],
    query: int | None = None,
    target: Target = None,
) -> list[AttentionSummary]:
    """Record a network on images and summarise the attention of one query of each.

    Parameters, their gradients, modes, hooks and random state stay as they are; use a network in evaluation mode.

    Args:
        net: Any network that :func:`record` takes, with a head.
        images: Normalised images, or patches: all the named tensors that the network takes, such as the dictionary of
            timm's NaFlexViT or what Hugging Face's image processor returns for SigLIP 2.
        query: Index of a token, prefix tokens first; by default the pooled row.
        target: Target of relevance; by default the predicted class.

    Raises:
        UserError: If the network cannot be recorded, if its layers have unequally many heads, or if the query or class
            does not exist.
    """
    recording, logits = record_logits(net, images)
    return summaries_of(recording, logits, query, target)


def record_logits(
    net: nn.Module, images: Float[Tensor, "B C height width"] | Mapping[str, Tensor]
) -> tuple[Recording, Float[Tensor, "B classes"]]:
    """Record a network on images, with gradients; returns its logits, too. Errors as for :func:`summarize`."""
    check_images(net, images, or_patches=True)
    with torch.inference_mode(False), torch.enable_grad(), record(net, gradients=True) as recording:
        images = outside_inference(images)
        logits = logits_of(call_network(net, images)).detach()
    return recording, logits


def outside_inference(images: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Copy tensors that were made in inference mode, as they cannot enter a graph."""
    if isinstance(images, Tensor):
        return images.clone() if images.is_inference() else images
    return {name: each.clone() if each.is_inference() else each for name, each in images.items()}


def method_rows(
    method: AttributionMethod,
    inputs: AttributionInput,
    summaries: Sequence[AttentionSummary],
    queries: Sequence[int] | None = None,
) -> Float[np.ndarray, "B N"]:
    """Row of each image by a method, from its summary where that has it.

    Args:
        method: The method.
        inputs: Network, images, recording and target classes.
        summaries: Summary of each image, of the same query and target.
        queries: Index of the query token; by default the pooled row.

    Raises:
        UserError: If the method does not support the network or a query.
    """
    if method.name in SUMMARY_FIELDS:
        return np.stack([getattr(summary, SUMMARY_FIELDS[method.name]) for summary in summaries])
    return method.rows(inputs, queries)[:, 0].float().cpu().numpy()


def summaries_of(
    recording: Recording, logits: Float[Tensor, "B classes"], query: int | None = None, target: Target = None
) -> list[AttentionSummary]:
    """Summarise a recording with gradients; arguments and errors as for :func:`summarize`."""
    with exact():
        return _summaries_of(recording, logits, query, target)


def _summaries_of(
    recording: Recording, logits: Float[Tensor, "B classes"], query: int | None, target: Target
) -> list[AttentionSummary]:
    classes = logits.argmax(dim=-1) if target is None else target
    queries = None if query is None else recording.token_indices([query])
    heads = head_rows(recording, query)
    pooled = query is None and recording.pool is not None
    rows = {
        "heads": heads,
        "last": recording.query_rows()[:, 0] if pooled else heads[:, -1].mean(dim=1),
        "rollout": rollout(recording, queries)[:, 0],
        "relevance": query_relevance(recording, classes, queries),
        "probabilities": logits.float().softmax(dim=-1),
    }
    arrays = {name: tensor.cpu().numpy() for name, tensor in rows.items()}
    targets = [-1] * len(logits) if callable(target) else class_targets(classes, len(logits), logits.device).tolist()
    return [
        AttentionSummary(
            **{name: array[i] for name, array in arrays.items()},
            target=targets[i],
            grid_size=recording.grid_size,
            num_prefix_tokens=recording.num_prefix_tokens,
            query=-1 if queries is None else queries[0],
            patch_size=recording.patch_size,
            pool=pooled,
        )
        for i in range(len(logits))
    ]


def query_relevance(recording: Recording, target: Target, queries: Sequence[int] | None = None) -> Float[Tensor, "B N"]:
    """Compute the relevance of one query, without its identity; arguments and errors as for :func:`relevance`."""
    rows = relevance(recording, target, queries)[:, 0]
    if queries is not None or recording.pool is None:
        rows = rows - recording.query_rows(queries)[:, 0]  # without the identity of the product
    return rows.clamp_min(0.0)


def token_relevance(recording: Recording, logits: Tensor) -> Float[np.ndarray, "B N N"] | None:
    """Compute relevance of every token to every other for the predicted class; none for many tokens."""
    if recording.num_tokens > MAX_MATRIX_TOKENS:
        return None
    rows = relevance(recording, logits.argmax(dim=-1), range(recording.num_tokens))
    return (rows - torch.eye(recording.num_tokens, device=rows.device)).clamp_min(0.0).cpu().numpy()


@in_float32
def head_rows(recording: Recording, query: int | None = None) -> Float[Tensor, "B L H N"]:
    """Attention row of a query, or of what the network pools, in every layer and head.

    Raises:
        UserError: If layers have unequally many heads, or if the query does not exist.
    """
    recording.check_heads()
    rows = recording.query_rows(None if query is None else [query]).unsqueeze(1)  # (1 or B, 1, 1, N)
    layers = []
    for layer in recording:
        parts, first = [], 0
        for call in layer.calls:
            for images, _ in call.parts():
                weights = call.part(images).weights()
                chosen = rows if len(rows) == 1 else rows[first + images.start : first + images.start + len(weights)]
                parts.append(product(chosen, weights)[:, :, 0])
            first += call.q.shape[0]
        layers.append(torch.cat(parts))
    return torch.stack(layers, dim=1)
