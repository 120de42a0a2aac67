"""Where the network looks, in TensorBoard, from step 0 to the end of the training."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from vit_attn.attention_maps.overlay import Map, Mark, draw_matrices, draw_overlays
from vit_attn.attention_maps.record import Recording, record
from vit_attn.attention_maps.rollout import fuse, raw_rows, rollout
from vit_attn.callbacks.attention_tab import AttentionTab
from vit_attn.errors import UserError


class AttentionLogger(L.Callback):
    """Draws the attention of the same validation images again and again while a network trains.

    For each image: what the row that the network pools (CLS, or the mean over the patches) attends to in the last
    layer, or what a pool by attention attends to; and attention rollout through all layers, over the image; and the
    token-to-token matrix of each layer, heads averaged. All look at attention alone: they do not know which class was
    predicted.

    For the tab Attention, where every patch can be asked: all heads' maps and the predictions, as long as the run's
    budget of bytes lasts; what is left out is said there and in the terminal.

    It needs a TensorBoard logger, a task with its network as ``net``, and a data module with ``probe(count)``,
    ``normalize(images)``, ``class_names``, ``img_size`` and ``in_chans``.
    The pictures show the weights that the validation of the same step measures, averaged ones where a callback
    averages them. The network, its modes, gradients and random state are left as they were.

    Args:
        num_images: Number of images; 0 turns the callback off.
        every_n_epochs: Epochs from one picture to the next; the untrained network, as step 0, and the last epoch are
            always drawn.
        tab_megabytes: What a run may write for the tab Attention, in 1e6 bytes; 0 leaves the tab out. TensorBoard keeps
            it in memory while it shows the run.
    """

    def __init__(self, num_images: int = 8, every_n_epochs: int = 1, tab_megabytes: float = 256) -> None:
        if num_images < 0 or every_n_epochs < 1:
            raise UserError(
                f"num_images must be at least 0 and every_n_epochs at least 1, got {num_images} and {every_n_epochs}"
            )
        if tab_megabytes < 0:
            raise UserError(f"tab_megabytes must be at least 0, got {tab_megabytes}")
        self.num_images, self.every_n_epochs, self.tab_megabytes = num_images, every_n_epochs, tab_megabytes
        self.tab = AttentionTab(tab_megabytes)

    def check(self, data: Any, pl_module: L.LightningModule) -> None:
        """Draw a blank image to no file, so that what cannot be drawn is refused before anything is written.

        Raises:
            UserError: If the data module, the task or the network is not of the kind that this callback can draw.
        """
        if not self.num_images:
            return
        if not all(hasattr(data, name) for name in ("probe", "normalize", "class_names", "img_size", "in_chans")):
            raise UserError("AttentionLogger needs a data module with what ImageData has: probe(), normalize(), …")
        net = _net(pl_module)
        blank = torch.zeros(1, data.in_chans, *data.img_size, device=pl_module.device)
        try:
            with _evaluating(net), record(net) as recording:
                pl_module(blank)
            rollout(recording)
        except UserError as error:
            raise UserError(f"{error}; to train without pictures of it: --attention.num_images=0") from error

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check, on every rank, for those who do not come from the command line."""
        if stage == "fit":
            self.check(getattr(trainer, "datamodule", None), pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the network as it starts."""
        if trainer.global_step == 0:
            self._log(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the network that is about to be validated; averaged weights are in place by now."""
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        if trainer.state.fn == "fit" and not trainer.sanity_checking and due:
            self._log(trainer, pl_module)

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not (self.num_images and writers and trainer.is_global_zero):
            return
        data: Any = getattr(trainer, "datamodule", None)
        net = _net(pl_module)
        probe = data.probe(self.num_images)
        images = data.normalize(probe.images.to(pl_module.device))
        with _evaluating(net), trainer.precision_plugin.forward_context(), record(net) as recording:
            logits = pl_module(images)
        predicted = logits.argmax(dim=-1).tolist()
        pictures = {
            "attention": overlays(recording, probe, predicted, data.class_names),
            "attention_matrices": matrices(recording, probe, predicted, data.class_names),
        }
        for writer in writers:
            for kind, each in pictures.items():
                for i, picture in enumerate(each):
                    writer.add_image(f"{kind}/image_{i}", picture, trainer.global_step, dataformats="HWC")
        if self.tab_megabytes:
            last = trainer.current_epoch + 1 == trainer.max_epochs and trainer.global_step > 0
            self.tab.write(writers[0], trainer.global_step, probe, data.class_names, logits, recording, last)


def _net(pl_module: L.LightningModule) -> nn.Module:
    net = getattr(pl_module, "net", None)
    if not isinstance(net, nn.Module):
        raise UserError("AttentionLogger needs a task with its network as `net`, as Classifier has")
    return net


def overlays(
    recording: Recording, probe: Any, predicted: Sequence[int], class_names: Sequence[str], dpi: int = 100
) -> list[np.ndarray]:
    """A picture an image: over it the attention of the last layer or pool, and the rollout of the pooled row.

    Args:
        recording: One forward of the probe images.
        probe: Their ``images`` (uint8), ``labels`` and, where known, ``answers``.
        predicted: The class that the network gave each.
        class_names: Names of the classes.
        dpi: Pixels an inch; 100 is for TensorBoard.
    """
    pooled = {"last layer": raw_rows(recording)} if recording.pool is None else {"pool": recording.query_rows()}
    rows = {name: row[:, 0] for name, row in (pooled | {"rollout": rollout(recording)}).items()}
    pictures = []
    for i, image in enumerate(probe.images):
        maps = [_map(name, row[i], recording) for name, row in rows.items()]
        title = _title(probe, i, predicted, class_names, "\n")
        pictures.append(draw_overlays(_pixels(image), title, maps, _marks(probe, i), dpi))
    return pictures


def matrices(
    recording: Recording, probe: Any, predicted: Sequence[int], class_names: Sequence[str]
) -> list[np.ndarray]:
    """A picture an image: every token against every token, a matrix a layer, heads averaged; arguments as above."""
    maps = torch.stack([fuse(layer.weights()) for layer in recording], dim=1).cpu().numpy()
    prefix = recording.num_prefix_tokens
    titles = (_title(probe, i, predicted, class_names, " ") for i in range(len(maps)))
    return [draw_matrices(each, prefix, title) for each, title in zip(maps, titles, strict=True)]


def _title(probe: Any, index: int, predicted: Sequence[int], class_names: Sequence[str], between: str) -> str:
    label, guess = int(probe.labels[index]), predicted[index]
    return f"{class_names[label]}{between}→ {class_names[guess]} {'✓' if guess == label else '✗'}"


def _map(name: str, row: Tensor, recording: Recording) -> Map:
    values, prefix = row.cpu().numpy(), recording.num_prefix_tokens
    return Map(name, values[prefix:].reshape(recording.grid_size), float(values[:prefix].sum()))


def _marks(probe: Any, index: int) -> list[Mark]:
    if probe.answers is None:
        return []
    answer = probe.answers[index]
    return [Mark("bought", answer.bought), Mark("buyer", answer.buyer, "dotted")]


def _pixels(image: Tensor) -> np.ndarray:
    """(height, width, 3) of an image of one or three channels."""
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; afterwards every module is in the mode that it was in."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
