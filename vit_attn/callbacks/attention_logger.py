"""Where the network looks, in TensorBoard, from step 0 to the end of the training."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from vit_attn.attention_maps.measures import measure
from vit_attn.attention_maps.record import record
from vit_attn.attention_maps.recording import Recording
from vit_attn.attention_maps.rollout import rollout
from vit_attn.attention_maps.view import views_of
from vit_attn.callbacks.attention_pictures import METHODS, Snapshot, pictures, snapshot
from vit_attn.errors import UserError, did_you_mean


class AttentionLogger(L.Callback):
    """Draws the attention of the same validation images again and again while a network trains.

    For each image, of what the network pools (CLS, the mean over the patches, or a pool by attention): the last layer's
    attention, attention rollout and relevance for the predicted class, over the image; every layer and head on a sheet;
    and the token-to-token matrix of each layer, heads averaged. For each layer: entropy, distance, sink mass and prefix
    mass of its heads, as curves of their mean and as histograms. Where the data set knows the answer: the share of the
    images in which each method's top patch is it. All but relevance look at attention alone and do not know which class
    was predicted.

    It needs a TensorBoard logger, a task with its network as ``net``, and a data module with ``probe(count)``,
    ``normalize(images)``, ``class_names``, ``img_size`` and ``in_chans``. The pictures show the weights that the
    validation of the same step measures, averaged ones where a callback averages them. The network, its modes,
    gradients and random state are left as they were. Pictures are drawn beside the training, in a thread of their own.

    Args:
        num_images: Number of images; 0 turns the callback off.
        every_n_epochs: Epochs from one logging to the next; the untrained network, as step 0, and the last epoch are
            always logged.
        every_n_steps: Steps from one logging to the next, instead of epochs.
        layers: Numbers of the layers that are drawn, from 0; negative ones count from the last; all by default.
        methods: What is drawn over the images, of ``last layer``, ``rollout`` and ``relevance``.
        max_cost: Share of the run's time that logging may take, drawing included; when it took more, loggings but the
            first and last are left out until it has not.
    """

    def __init__(
        self,
        num_images: int = 8,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        layers: list[int] | None = None,
        methods: tuple[str, ...] | list[str] = METHODS,
        max_cost: float = 0.02,
    ) -> None:
        if num_images < 0 or every_n_epochs < 1:
            raise UserError(
                f"num_images must be at least 0 and every_n_epochs at least 1, got {num_images} and {every_n_epochs}"
            )
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"every_n_steps must be at least 1, got {every_n_steps}")
        for method in methods:
            if method not in METHODS:
                raise UserError(
                    f"methods must be of {', '.join(METHODS)}, got {method!r}{did_you_mean(method, METHODS)}"
                )
        if not 0 < max_cost <= 1 or not methods:
            raise UserError(f"max_cost must be in (0, 1] and methods at least one, got {max_cost} and {list(methods)}")
        self.num_images, self.every_n_epochs, self.every_n_steps = num_images, every_n_epochs, every_n_steps
        self.layers, self.methods = layers, tuple(methods)
        self.meter = CostMeter(max_cost)
        self.drawer: ThreadPoolExecutor | None = None
        self.drawings: list[Future[None]] = []

    def check(self, data: Any, pl_module: L.LightningModule) -> None:
        """Record a blank image to no file, so that what cannot be drawn is refused before anything is written.

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
        depth = len(recording)
        if outside := [layer for layer in self.layers or () if not -depth <= layer < depth]:
            raise UserError(f"attention.layers must be in 0..{depth - 1}, got {outside}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check, on every rank, for those who do not come from the command line."""
        if stage == "fit":
            self.check(getattr(trainer, "datamodule", None), pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the network as it starts."""
        self.meter.start()
        if trainer.global_step == 0:
            self._log(trainer, pl_module, always=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log between validations, if that was asked for."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the network that is about to be validated; averaged weights are in place by now."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        epoch, last = trainer.current_epoch + 1, trainer.current_epoch + 1 == trainer.max_epochs
        if last or (self.every_n_steps is None and epoch % self.every_n_epochs == 0):
            self._log(trainer, pl_module, always=last)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Wait for the last pictures, also after a failed run."""
        if self.drawer is not None:
            self.drawer.shutdown(wait=True)
            self.drawer = None
        for drawing in self.drawings:
            if error := drawing.exception():
                rank_zero_warn(f"pictures of attention could not be drawn: {error}")
        self.drawings = []

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Record on every rank, since sharded networks need all; write on the first."""
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not self.num_images or (trainer.world_size == 1 and not writers):
            return
        if not trainer.strategy.broadcast(always or self.meter.affords()):
            return
        with self.meter.spending():
            data: Any = getattr(trainer, "datamodule", None)
            probe = data.probe(self.num_images)
            recording, logits = self._record(trainer, pl_module, data.normalize(probe.images.to(pl_module.device)))
            if not (writers and trainer.is_global_zero):
                return
            taken = snapshot(recording, views_of(recording, logits), self.layers)
            numbers = measure(recording, _patch_size(probe.images, recording))
        job = (writers, trainer.global_step, taken, numbers, probe, data.class_names)
        self.drawer = self.drawer or ThreadPoolExecutor(1, "attention-pictures")
        self.drawings.append(self.drawer.submit(self._draw, *job))

    def _record(self, trainer: L.Trainer, pl_module: L.LightningModule, images: Tensor) -> tuple[Recording, Tensor]:
        net = _net(pl_module)
        with _evaluating(net), torch.inference_mode(False), torch.enable_grad():
            with trainer.precision_plugin.forward_context(), record(net, gradients=True) as recording:
                logits = pl_module(images.clone())  # one made in inference mode could not enter a graph
        return recording, logits.detach()

    def _draw(
        self,
        writers: Sequence[Any],
        step: int,
        taken: Snapshot,
        numbers: dict[str, Tensor],
        probe: Any,
        class_names: Sequence[str],
    ) -> None:
        with self.meter.spending():
            for writer in writers:
                for name, by_layer in numbers.items():
                    for layer, heads in zip(taken.layers, by_layer[list(taken.layers)].cpu(), strict=True):
                        writer.add_scalar(f"attention_{name}/layer_{layer}", heads.mean(), step)
                        writer.add_histogram(f"attention_{name}_of_heads/layer_{layer}", heads, step)
                for name, share in pointing(taken, probe).items():
                    writer.add_scalar(f"attention_pointing/{name}", share, step)
            for tag, picture in pictures(taken, probe, class_names, self.methods):
                for writer in writers:
                    writer.add_image(tag, picture, step, dataformats="HWC")


class CostMeter:
    """Time spent, as a share of the time since the start; several threads may spend at once.

    Args:
        most: Share above which nothing more is afforded.
    """

    def __init__(self, most: float) -> None:
        self.most, self.spent, self.began, self.told = most, 0.0, time.monotonic(), False

    def start(self) -> None:
        """Count from now."""
        self.began, self.spent = time.monotonic(), 0.0

    def affords(self) -> bool:
        """Whether the share is still below its bound; that it is not is told once."""
        share = self.spent / max(1e-9, time.monotonic() - self.began)
        if share > self.most and not self.told:
            self.told = True
            rank_zero_info(
                f"attention: logging took {share:.1%} of the time so far, more than {self.most:.1%}; some loggings are "
                f"left out. To have all: --attention.max_cost=1"
            )
        return share <= self.most

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time inside the ``with`` block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - begin


def pointing(taken: Snapshot, probe: Any) -> dict[str, float]:
    """Share of the images in which the top patch of each method is the answer; nothing where it is not known."""
    if probe.answers is None:
        return {}
    hits: dict[str, list[bool]] = {method: [] for method in METHODS}
    for view, answer in zip(taken.views, probe.answers, strict=True):
        for method, row in zip(METHODS, (view.last, view.rollout, view.relevance), strict=True):
            hits[method].append(int(row[view.num_prefix_tokens :].argmax()) == answer.bought)
    patches = view.patches(view.last).size
    return {method.replace(" ", "_"): sum(found) / len(found) for method, found in hits.items()} | {
        "chance": 1 / patches
    }


def _patch_size(images: Tensor, recording: Recording) -> tuple[float, float]:
    rows, cols = recording.grid_size
    return images.shape[-2] / rows, images.shape[-1] / cols


def _net(pl_module: L.LightningModule) -> nn.Module:
    net = getattr(pl_module, "net", None)
    if not isinstance(net, nn.Module):
        raise UserError("AttentionLogger needs a task with its network as `net`, as Classifier has")
    return net


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
