"""What a step writes for the Attention tab, within a run's budget of bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vit_attn.attention_maps.evaluation.ground_truth import patches_of_region
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import crop_to_patches
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.tb_plugin.summary import ProbeImages, Tokens, Verdicts, bytes_of_image, write_attention

STEPS_AT_LEAST = 16
"""Steps that must fit into the budget; else fewer images are kept."""


class Budget:
    """Which steps are written, when the number of steps is not known and the bytes are limited.

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
        """Whether a step of ``size`` bytes is written; ``last`` says that no other will come."""
        due = self.seen % self.stride == 0 or last
        self.seen += 1
        if not due or self.left < (size if last else 2 * size):  # room is kept for the last step
            return False
        self.left -= size
        while 0 < self.left <= self.total / 2 / self.stride:
            self.stride *= 2
        return True


class AttentionTab:
    """Writes steps of one run for the Attention tab.

    Args:
        megabytes: Budget of the run.
    """

    def __init__(self, megabytes: float) -> None:
        self.budget = Budget(int(megabytes * 1e6))
        self.told = ""
        self.prefix_names: list[str] | None = None
        """Names of the tokens before the patches; by default CLS, then R1, R2, …."""

    def write(self, writer: Any, taken: AttentionSnapshot, class_names: Sequence[str]) -> int:
        """Write a step if the budget has room for it; returns the bytes that were written.

        Args:
            writer: Of event files.
            taken: What one logging took from the network.
            class_names: Names of the classes.
        """
        recording, probe = taken.recording, taken.probe
        heads = [layer.calls[0].q.shape[1] for layer in recording]
        related = taken.relevance is not None
        each = bytes_of_image(heads, recording.num_tokens, probe.images[0, 0].numel(), related)
        count = max(1, min(len(probe.images), int(self.budget.total // (STEPS_AT_LEAST * each))))
        granted = self.budget.grants(count * each, taken.always)
        note = self._note(count, len(probe.images), count * each)
        if not granted:
            return 0
        return write_attention(
            writer,
            taken.step,
            _images(probe, class_names, count, recording),
            taken.logits[:count].float().softmax(dim=-1).cpu().numpy(),
            (layer.weights()[:count].cpu().numpy() for layer in recording),
            _tokens(taken, count, self.prefix_names),
            None if taken.relevance is None else taken.relevance[:count],
            _verdicts(taken, count),
            note,
        )

    def _note(self, kept: int, images: int, step: int) -> str:
        """What is thinned out; told once in the terminal, and with each step on the page."""
        parts = [f"{kept} of {images} images"] if kept < images else []
        if step > self.budget.total:
            parts = [f"no step fits: one takes {step / 1e6:.0f} MB"]
        elif self.budget.stride > 1:
            parts.append(f"from here on one of {self.budget.stride} logged steps")
        note = f"To stay within {self.budget.total / 1e6:g} MB: {', '.join(parts)}." if parts else ""
        if note and note != self.told:
            rank_zero_info(f"Attention tab. {note}")
            self.told = note
        return note


def _images(probe: Any, class_names: Sequence[str], count: int, recording: Recording) -> ProbeImages:
    pixels = crop_to_patches(probe.images[:count].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy(), recording)
    answers = None
    bought, buyer = (patches_of_region(probe, recording, name) for name in ("bought", "buyer"))
    if bought is not None and buyer is not None:
        answers = [{"bought": coin, "buyer": who} for coin, who in zip(bought[:count], buyer[:count], strict=True)]
    return ProbeImages(np.ascontiguousarray(pixels), probe.labels[:count].tolist(), class_names, answers)


def _tokens(taken: AttentionSnapshot, count: int, prefix_names: list[str] | None) -> Tokens:
    recording = taken.recording
    pooled_relevance = None
    if recording.pool is not None and taken.relevance is not None:
        pooled_relevance = np.stack([view.relevance for view in taken.views[:count]])
    return Tokens(
        recording.grid_size,
        recording.num_prefix_tokens,
        recording.query_rows()[:, 0].float().cpu().numpy()[:count],
        prefix_names=prefix_names,
        layer_names=[layer.name for layer in recording],
        pooled_relevance=pooled_relevance,
    )


def _verdicts(taken: AttentionSnapshot, count: int) -> Verdicts | None:
    judged = taken.judgement
    if judged is None:
        return None
    by_image = [*judged.by_image, *({} for _ in range(count - len(judged.by_image)))]
    return Verdicts(judged.orders, len(judged.by_image), judged.overall, by_image[:count])
