"""Writing snapshots for the Attention tab, within a run's budget of bytes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.methods.registry import AttributionMethod, find_method
from vit_attn.attention_maps.recording.token_layout import crop_to_patches
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.tb_plugin.inputs import COMPUTED_BY_PAGE
from vit_attn.tb_plugin.summary import Faithfulness, MethodRows, TabImages, Tokens, bytes_of_image, write_attention

MIN_STEPS = 16
"""Steps that must fit into the budget; else fewer images are kept."""


class Budget:
    """Selection of the steps that are written, when their number is not known and the bytes are limited.

    Every step until half of the budget is used, every second one until half of what is left is used, and so on: dense
    where networks change fastest, never over the budget, and with room for the last step.

    >>> budget = Budget(100)
    >>> [step for step in range(40) if budget.grants(10)]
    [0, 1, 2, 3, 4, 6, 8, 10, 12]
    """

    def __init__(self, total: int) -> None:
        self.total = self.left = total
        self.stride, self.seen = 1, 0

    def grants(self, size: int, last: bool = False) -> bool:
        """Decide whether a step of ``size`` bytes is written; ``last`` means that no other will come."""
        due = self.seen % self.stride == 0 or last
        self.seen += 1
        if not due or self.left < (size if last else 2 * size):  # room is kept for the last step
            return False
        self.left -= size
        while 0 < self.left <= self.total / 2 / self.stride:
            self.stride *= 2
        return True


class AttentionTab:
    """Writer of one run's steps for the Attention tab.

    Args:
        megabytes: Budget of the run, in 1e6 bytes.
    """

    def __init__(self, megabytes: float) -> None:
        self.budget = Budget(int(megabytes * 1e6))
        self.reported = ""

    def write(self, writer: SummaryWriter | Path, snapshot: AttentionSnapshot, class_names: Sequence[str]) -> int:
        """Write a step if the budget has room for it; returns the bytes that were written.

        Args:
            writer: Writer of event files, or a folder.
            snapshot: Snapshot of the step.
            class_names: Names of the classes.
        """
        recording, images = snapshot.recording, snapshot.probe.images
        methods = _methods(snapshot)
        size = bytes_of_image(
            [layer.calls[0].q.shape[1] for layer in recording],
            recording.num_tokens,
            images[0, 0].numel(),
            snapshot.token_relevance is not None,
            sum(method.rows is not None for method in methods),
        )
        count = max(1, min(len(images), int(self.budget.total // (MIN_STEPS * size))))
        granted = self.budget.grants(count * size, snapshot.always)
        note = self._note(count, len(images), count * size)
        if not granted:
            return 0
        return write_attention(
            writer,
            snapshot.step,
            _images(snapshot, class_names, count),
            snapshot.logits[:count].float().softmax(dim=-1).numpy(),
            (layer.weights()[:count].cpu().numpy() for layer in recording),
            _tokens(snapshot, count),
            None if snapshot.token_relevance is None else snapshot.token_relevance[:count],
            [_first(method, count) for method in methods],
            _faithfulness(snapshot, count),
            note,
        )

    def _note(self, kept: int, images: int, size: int) -> str:
        """Describe what is left out, for the page; a change is also reported in the terminal."""
        parts = [f"{kept} of {images} images"] if kept < images else []
        if size > self.budget.total:
            parts = [f"no step fits: one takes {size / 1e6:.0f} MB"]
        elif self.budget.stride > 1:
            parts.append(f"from here on one of {self.budget.stride} logged steps")
        note = f"To stay within {self.budget.total / 1e6:g} MB: {', '.join(parts)}." if parts else ""
        if note and note != self.reported:
            rank_zero_info(f"Attention tab. {note}")
            self.reported = note
        return note


def _methods(snapshot: AttentionSnapshot) -> list[MethodRows]:
    """Return the methods that the page computes, and the maps of the snapshot's others."""
    computed = [_method(find_method(name)) for name in COMPUTED_BY_PAGE]
    others = {method: rows for method, rows in snapshot.rows.items() if method.name not in COMPUTED_BY_PAGE}
    return computed + [_method(method, rows) for method, rows in others.items()]


def _method(method: AttributionMethod, rows: np.ndarray | None = None) -> MethodRows:
    return MethodRows(method.name, method.label, method.reference, method.class_specific, method.has_query, rows)


def _first(method: MethodRows, count: int) -> MethodRows:
    return method if method.rows is None else dataclasses.replace(method, rows=method.rows[:count])


def _images(snapshot: AttentionSnapshot, class_names: Sequence[str], count: int) -> TabImages:
    pixels = snapshot.probe.images[:count].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    pixels = np.ascontiguousarray(crop_to_patches(pixels, snapshot.recording))
    labels = snapshot.probe.labels[:count].tolist()
    if snapshot.ground_truth is None:
        return TabImages(pixels, labels, class_names)
    truths = snapshot.ground_truth[:count]
    regions, answers = [truth.regions for truth in truths], [truth.answer for truth in truths]
    return TabImages(pixels, labels, class_names, regions, answers)


def _tokens(snapshot: AttentionSnapshot, count: int) -> Tokens:
    recording, pooled_relevance = snapshot.recording, None
    if recording.pool is not None and snapshot.token_relevance is not None:
        pooled_relevance = np.stack([summary.relevance for summary in snapshot.summaries[:count]])
    return Tokens(
        recording.grid_size,
        recording.num_prefix_tokens,
        recording.query_rows()[:, 0].float().cpu().numpy()[:count],
        prefix_names=snapshot.prefix_names,
        layer_names=[layer.name for layer in recording],
        pooled_relevance=pooled_relevance,
    )


def _faithfulness(snapshot: AttentionSnapshot, count: int) -> Faithfulness | None:
    comparison = snapshot.comparison
    if comparison is None:
        return None
    compared = len(comparison.by_image)
    by_image = [*comparison.by_image, *({} for _ in range(count - compared))]
    return Faithfulness(comparison.orders, compared, comparison.overall, by_image[:count])
