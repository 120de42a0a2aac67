"""Writing snapshots for the Attention tab, within a run's budget of bytes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.methods.registry import find_method
from vit_attn.attention_maps.recording.token_layout import crop_to_patches
from vit_attn.callbacks.attention_logger.budget import FEWER_BITS, MIN_STEPS, Budget, choose_counts
from vit_attn.callbacks.attention_logger.scalars import HeadMeasures
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.reports.tab_inputs import head_measures, queries_keys
from vit_attn.tb_plugin.inputs import COMPUTED_BY_PAGE
from vit_attn.tb_plugin.queries_keys import bytes_of_queries_keys
from vit_attn.tb_plugin.summary import (
    Faithfulness,
    MethodRows,
    TabImages,
    Tokens,
    bytes_of_image,
    write_attention,
)


class AttentionTab:
    """Writer of one run's steps for the Attention tab.

    Args:
        megabytes: Budget of the run, in 1e6 bytes.
    """

    def __init__(self, megabytes: float) -> None:
        self.budget = Budget(int(megabytes * 1e6))
        self.reported = ""

    def write(
        self,
        writer: SummaryWriter | Path,
        snapshot: AttentionSnapshot,
        class_names: Sequence[str],
        measures: HeadMeasures | None = None,
    ) -> int:
        """Write a step if the budget has room for it; returns the bytes that were written.

        Args:
            writer: Writer of event files, or a folder.
            snapshot: Snapshot of the step.
            class_names: Names of the classes.
            measures: Measures of each layer and head.
        """
        methods = _methods(snapshot)
        whole, most = len(snapshot.probe.images), self.budget.total // MIN_STEPS
        for bits in (8, FEWER_BITS):
            of_image, of_vectors = _sizes(snapshot, methods, bits)
            count, vectors = choose_counts(whole, of_image, of_vectors, most)
            if count == whole:
                break
        size = count * of_image + vectors * of_vectors
        granted = self.budget.grants(size, snapshot.always)
        note = self._note(count, whole, size, bits, granted)
        if not granted:
            return 0
        images = tab_images(snapshot, class_names, count)
        written = write_snapshot(writer, snapshot, images, measures, vectors, note, bits)
        self.budget.give_back(size - written)
        return written

    def _note(self, kept: int, images: int, size: int, bits: float, granted: bool) -> str:
        """Describe what is left out, for the page; a change is also reported in the terminal."""
        parts = [f"at most {bits:g} bits a weight"] if bits < 8 else []
        parts += [f"{kept} of {images} images"] if kept < images else []
        if size > self.budget.total:
            parts = [f"no step fits: one takes {size / 1e6:.0f} MB"]
        elif not granted and self.budget.left < size:
            parts.append("no further step is written")
        elif self.budget.stride > 1:
            parts.append(f"from here on one of {self.budget.stride} logged steps")
        note = f"To stay within {self.budget.total / 1e6:g} MB: {', '.join(parts)}." if parts else ""
        if note and note != self.reported:
            rank_zero_info(f"Attention tab. {note}")
            self.reported = note
        return note


def write_snapshot(
    writer: SummaryWriter | Path,
    snapshot: AttentionSnapshot,
    images: TabImages,
    measures: HeadMeasures | None = None,
    vectors: int = 0,
    note: str = "",
    bits: float = 8,
) -> int:
    """Write a step for the Attention tab, whatever it takes; returns the bytes that were written.

    Args:
        writer: Writer of event files, or a folder.
        snapshot: Snapshot of the step, on the host.
        images: Its first images, or all, by :func:`tab_images`.
        measures: Measures of each layer and head.
        vectors: Number of images whose queries and keys are written, the first ones.
        note: What was left out, for the page.
        bits: Mean bits of an attention weight.
    """
    recording, count = snapshot.recording, len(images.pixels)
    return write_attention(
        writer,
        snapshot.step,
        images,
        snapshot.logits[:count].float().softmax(dim=-1).numpy(),
        (layer.weights()[:count].cpu().numpy() for layer in recording),
        _tokens(snapshot, count),
        None if snapshot.token_relevance is None else snapshot.token_relevance[:count],
        [_first(method, count) for method in _methods(snapshot)],
        _faithfulness(snapshot, count),
        note,
        None if measures is None else head_measures(measures, recording.num_tokens),
        queries_keys(recording, vectors) if vectors else None,
        bits,
    )


def _sizes(snapshot: AttentionSnapshot, methods: Sequence[MethodRows], bits: float) -> tuple[int, int]:
    """Return the bytes of an image, and those of its queries and keys."""
    calls, tokens = [layer.calls[0] for layer in snapshot.recording], snapshot.recording.num_tokens
    rows = sum(method.rows is not None for method in methods)
    rows += sum(method.target_rows.shape[1] for method in methods if method.target_rows is not None)
    of_image = bytes_of_image(
        [call.q.shape[1] for call in calls],
        tokens,
        snapshot.probe.images[0, 0].numel(),
        snapshot.token_relevance is not None,
        rows,
        bits,
    )
    return of_image, sum(bytes_of_queries_keys(call.q.shape[1], tokens, call.q.shape[3]) for call in calls)


def _methods(snapshot: AttentionSnapshot) -> list[MethodRows]:
    """Return the methods that the page computes, and the maps of the snapshot's others."""
    methods = dict.fromkeys(find_method(name) for name in COMPUTED_BY_PAGE) | snapshot.rows | snapshot.tab_rows
    return [
        MethodRows(
            method.name,
            method.label,
            method.reference,
            method.class_specific,
            method.has_query,
            None if method.name in COMPUTED_BY_PAGE else rows,
            snapshot.target_rows.get(method),
        )
        for method, rows in methods.items()
    ]


def _first(method: MethodRows, count: int) -> MethodRows:
    rows, by_target = (None if each is None else each[:count] for each in (method.rows, method.target_rows))
    return dataclasses.replace(method, rows=rows, target_rows=by_target)


def tab_images(
    snapshot: AttentionSnapshot, class_names: Sequence[str], count: int, names: Sequence[str] | None = None
) -> TabImages:
    """Return the first images of a snapshot as the tab takes them.

    Args:
        snapshot: Snapshot of the step.
        class_names: Names of the classes.
        count: Number of images.
        names: Name of each image, such as that of its file.
    """
    pixels = snapshot.probe.images[:count].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    pixels = np.ascontiguousarray(crop_to_patches(pixels, snapshot.recording))
    labels = snapshot.probe.labels[:count].tolist()
    targets = None if snapshot.targets is None else snapshot.targets[:count]
    if snapshot.ground_truth is None:
        return TabImages(pixels, labels, class_names, targets=targets, names=names)
    truths = snapshot.ground_truth[:count]
    regions, answers = [truth.regions for truth in truths], [truth.answer for truth in truths]
    return TabImages(pixels, labels, class_names, regions, answers, targets, names)


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
