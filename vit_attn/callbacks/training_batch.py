"""Figure of the first training batch, as the network is given it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vit_attn.callbacks.attention_callback import BackgroundWriter, run_name, tensorboard_writers
from vit_attn.callbacks.attention_logger.figures import add_picture
from vit_attn.callbacks.pixels import pictures_of, pixels_of
from vit_attn.callbacks.trainer_state import is_trial
from vit_attn.data_protocol import ProbeData
from vit_attn.files import whole_file
from vit_attn.plotting.gallery import draw_gallery

SHOWN = 12
"""Images of the batch that are drawn."""
FILE_NAME = "train_batch.png"
LEAST_FRACTION = 0.005
"""Smallest fraction of a class that is written, in whole per cent."""


class TrainingBatch(L.Callback):
    """Draws images of the first batch after augmentation, with their labels, for TensorBoard and ``train_batch.png``.

    Of images that were mixed, the classes stand with their fractions. The batch is the first of the run, from whatever
    loader, so that a resumed run does not draw another.
    """

    def __init__(self) -> None:
        self.background = BackgroundWriter("the first training batch")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the first images of the run's first batch to the host, and draw them in the background."""
        if trainer.global_step or trainer.fit_loop.total_batch_idx or is_trial(trainer):
            return
        writers, data = tensorboard_writers(trainer), getattr(trainer, "datamodule", None)
        if not writers or not isinstance(data, ProbeData):
            return
        images, targets = batch
        pixels = pixels_of(images[:SHOWN].detach(), data).cpu()
        captions = [target_caption(target, data.class_names) for target in targets[:SHOWN].cpu()]
        self.background.submit(0, self._draw, writers, pixels, captions, len(images))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait until the figure is written."""
        self.background.finish()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Wait until the figure is written."""
        self.background.finish()

    def _draw(
        self,
        writers: Sequence[SummaryWriter],
        pixels: UInt8[Tensor, "B C height width"],
        captions: Sequence[str],
        count: int,
    ) -> None:
        of = f"{len(captions)} of the {count} images" if len(captions) < count else f"the {count} images"
        heading = f"{run_name(writers[0])}\n{of} of the first training batch, after augmentation, with their labels"
        picture = draw_gallery(pictures_of(pixels), captions, heading)
        for writer in writers:
            add_picture(writer, "train/batch", picture, 0)
        with whole_file(Path(writers[0].log_dir, FILE_NAME), "figure") as file:
            Image.fromarray(picture).save(file, "PNG", compress_level=1)


def target_caption(target: Tensor, class_names: Sequence[str]) -> str:
    r"""Name the class of a target; of fractions of classes, up to three of the largest.

    >>> import torch
    >>> target_caption(torch.tensor(1), ["cat", "dog"]), target_caption(torch.tensor([0.3, 0.7]), ["cat", "dog"])
    ('dog', '70% dog\n30% cat')
    """
    if not target.is_floating_point():
        return class_names[int(target)]
    fractions, classes = target.sort(descending=True)
    pairs = [pair for pair in zip(fractions.tolist(), classes.tolist(), strict=True) if pair[0] >= LEAST_FRACTION][:3]
    if len(pairs) == 1:
        return class_names[pairs[0][1]]
    return "\n".join(f"{fraction:.0%} {class_names[index]}" for fraction, index in pairs)
