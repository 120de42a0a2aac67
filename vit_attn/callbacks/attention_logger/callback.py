"""Callback that logs attention to TensorBoard, from step 0 to the end of training."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.evaluation.ground_truth import why_ground_truth_is_unused
from vit_attn.attention_maps.methods.registry import AttributionInput, drawn_methods, find_method
from vit_attn.attention_maps.methods.rollout import rollout
from vit_attn.attention_maps.precision import NotFinite
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.callbacks.attention_callback import (
    AttentionCallback,
    evaluating,
    forward_of,
    net_of,
    run_name,
    tensorboard_writers,
)
from vit_attn.callbacks.attention_logger.figures import add_picture, figures
from vit_attn.callbacks.attention_logger.scalars import write_scalars
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, SnapshotOptions
from vit_attn.callbacks.attention_logger.tab import AttentionTab
from vit_attn.callbacks.attention_logger.targets import other_methods, supported
from vit_attn.callbacks.cost_meter import CostMeter
from vit_attn.callbacks.probe_images import probe_data
from vit_attn.data_protocol import ProbeData
from vit_attn.errors import UserError
from vit_attn.training.data_members import img_size_of, in_chans_of, names_of_classes

NO_LOGGER = "attention is not logged, since the run has no TensorBoard logger"
"""Message of a run whose attention nothing would write."""


class AttentionLogger(AttentionCallback):
    """Logs attention on the same validation images again and again while a network trains.

    For each image, of the row that the network pools (CLS, the mean over the patches, or a pool by attention): its map
    by each of ``methods`` over the image; every layer and head on a sheet; and the token-to-token matrix of each layer,
    heads averaged. For each layer: entropy, distance, sink mass and prefix mass of its heads, as curves of their mean
    and as histograms. Where the data set has ground truth: the fraction of images in which each method's top-ranked
    patch is in the answer region. Class-agnostic methods, such as rollout, do not know which class was predicted.

    For the Attention tab, where any token can be the query: all heads' maps and measures, relevance between all tokens,
    the pooled row's map by every registered method that takes the network, class-specific ones for up to three classes,
    queries and keys of some images, predictions, and deletion and insertion of the drawn methods and of baselines, as
    long as the run's budget of bytes lasts; the tab and the terminal state what is left out.

    It needs a TensorBoard logger; a task with its network as ``net`` or ``model``, or as its only part; and images:
    those of a data module that has what :class:`~vit_attn.data_protocol.ProbeData` names, else some from all over the
    validation loader. Pictures show the weights that the validation of the same step measures, averaged ones where a
    callback averages them. The network, its modes, gradients and random state are left as they were. Pictures are drawn
    in a background thread while training goes on.

    Args:
        num_images: Number of images; 0 turns the callback off.
        every_n_epochs: Epochs from one logging to the next; the untrained network, as step 0, and the last epoch are
            always logged.
        every_n_steps: Steps from one logging to the next, instead of epochs.
        layers: Numbers of the layers that are drawn, from 1; -1 is the last, -2 the one before it; all by default.
        methods: Attribution methods that are drawn over the images, by name, such as ``relevance``, ``last_layer``,
            ``rollout`` (the default) and ``legrad``; any registered method can be named.
        faithfulness_every: Every so many loggings, and at the last, deletion and insertion of patches by relevance, the
            last layer, rollout (mean, maximum and minimum of heads) and other ``methods`` are compared with eight
            random orders and centre first, on at most eight of the images, at 140 forwards each (14 more for each
            other method and for a pool by attention); 0 for never.
        tab_megabytes: Budget of a run for the Attention tab, in 1e6 bytes; 0 leaves the tab out. TensorBoard keeps it
            in memory while it shows the run. Where it is short, maps are written in fewer levels, then of fewer images.
        max_cost: Fraction of the run's time that logging may take, drawing included; beyond it, loggings but the first
            and last are left out.
    """

    def __init__(
        self,
        num_images: int = 8,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        layers: list[int] | None = None,
        methods: tuple[str, ...] | list[str] | None = None,
        faithfulness_every: int = 5,
        tab_megabytes: float = 256,
        max_cost: float = 0.02,
    ) -> None:
        if num_images < 0 or every_n_epochs < 1:
            raise UserError(
                f"num_images must be at least 0 and every_n_epochs at least 1, got {num_images} and {every_n_epochs}"
            )
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"every_n_steps must be at least 1, got {every_n_steps}")
        if not 0 < max_cost <= 1 or (methods is not None and not methods):
            raise UserError(f"max_cost must be in (0, 1] and methods at least one, got {max_cost} and {methods}")
        for name, value in (("faithfulness_every", faithfulness_every), ("tab_megabytes", tab_megabytes)):
            if value < 0:
                raise UserError(f"{name} must be at least 0, got {value}")
        super().__init__(CostMeter(max_cost), every_n_epochs)
        self.num_images, self.every_n_steps, self.layers = num_images, every_n_steps, layers
        self.methods = None if methods is None else tuple(dict.fromkeys(find_method(name) for name in methods))
        self.faithfulness_every, self.tab_megabytes = faithfulness_every, tab_megabytes
        self.tab, self.loggings = AttentionTab(tab_megabytes), 0
        self.reported = ""
        self.data: ProbeData | None = None
        """Where the images come from, from ``setup`` on."""

    def state_dict(self) -> dict[str, Any]:
        """Return the number of loggings and what is left of the budget, so that a resumed run continues alike."""
        return {"loggings": self.loggings, "budget": vars(self.tab.budget).copy()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state; a budget that was changed begins anew."""
        self.loggings = state_dict["loggings"]
        if state_dict["budget"]["total"] == self.tab.budget.total:
            vars(self.tab.budget).update(state_dict["budget"])

    def check(self, data: object, pl_module: L.LightningModule) -> None:
        """Record a blank image to no file, so that what cannot be drawn is refused before anything is written.

        Raises:
            UserError: If the data module, the task or the network lacks what this callback or a named method needs.
        """
        if not self.num_images:
            return
        net, forward = net_of(pl_module), forward_of(pl_module)
        device = next(net.parameters()).device  # in setup the module is not yet on the device that it names
        blank = torch.zeros(1, in_chans_of(data), *img_size_of(data), device=device)
        try:
            with evaluating(net), torch.inference_mode(False), torch.enable_grad():
                with record(net, gradients=True) as recording:
                    logits = logits_of(forward(blank.clone())).detach()
                rollout(recording)
                for method in self.methods or ():
                    if not method.supports(net):
                        raise UserError(f"attention.methods: {method.label} does not support {type(net).__name__}")
                    method.compute(AttributionInput(net, blank, recording, logits.argmax(dim=-1)), None)
        except UserError as error:
            raise UserError(
                f"{error}; to train without pictures of it: --attention.num_images=0, or num_images=0 in Python"
            ) from error
        depth = len(recording)
        if outside := [layer for layer in self.layers or () if not 1 <= abs(layer) <= depth]:
            raise UserError(f"attention.layers must be in 1..{depth}, or -{depth}..-1 from the last, got {outside}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the images, and check on every rank, for runs that do not come from the command line."""
        if stage == "fit" and self.num_images:
            self.data = probe_data(trainer, "AttentionLogger")
            self.check(self.data, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the untrained network."""
        self.meter.start()
        self.last_logged_step = None
        if self.num_images and trainer.is_global_zero and not tensorboard_writers(trainer):
            self._report(NO_LOGGER)
        if trainer.global_step == 0:
            self.log_attention(trainer, pl_module, always=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log every ``every_n_steps`` steps, where that is set."""
        ends = trainer.global_step >= trainer.estimated_stepping_batches  # the end is logged by itself
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0 and not ends:
            self.log_attention(trainer, pl_module)

    def logs_epoch(self, epoch: int) -> bool:
        """Test whether attention is logged at the end of an epoch: never where steps are counted."""
        return self.every_n_steps is None and super().logs_epoch(epoch)

    def log_attention(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Take a snapshot on every rank, since sharded networks need all; write it on the first."""
        writers = tensorboard_writers(trainer)
        if not self.num_images or (trainer.world_size == 1 and not writers) or not self.should_log(trainer, always):
            return
        data = self.data = self.data or probe_data(trainer, "AttentionLogger")
        with self.meter.spending():
            options = self.snapshot_options(net_of(pl_module), last=always)
            precision, step = trainer.precision_plugin.forward_context, trainer.global_step
            try:
                snapshot = AttentionSnapshot.take(pl_module, data, options, precision, step, always)
            except NotFinite as error:
                rank_zero_warn(f"no pictures of attention at step {step}: {error}")
                return
            self.loggings += 1
            self._report(why_ground_truth_is_unused(snapshot.probe, snapshot.recording))
            if writers:
                names = names_of_classes(data.class_names, snapshot.logits.shape[1])
                self.background.submit(step, self._write, writers, snapshot.on_host(), names)

    def snapshot_options(self, net: nn.Module, last: bool) -> SnapshotOptions:
        """Choose what the next snapshot has: maps are compared with baselines every ``faithfulness_every`` loggings."""
        every = self.faithfulness_every
        methods = dict.fromkeys([*(self.methods or ()), *supported(net, drawn_methods())])
        comparison = every > 0 and (self.loggings % every == 0 or last)
        if not self.tab_megabytes:
            return SnapshotOptions(self.num_images, tuple(methods), comparison=comparison)
        others = other_methods(net, methods)
        return SnapshotOptions(self.num_images, tuple(methods), True, comparison, others, targets=True)

    def _report(self, message: str) -> None:
        """Log a message in the terminal once."""
        if message and message != self.reported:
            rank_zero_info(f"AttentionLogger: {message}")
            self.reported = message

    def _write(self, writers: Sequence[SummaryWriter], snapshot: AttentionSnapshot, class_names: Sequence[str]) -> None:
        """Write a snapshot's scalars, figures and tab, in the background."""
        with self.meter.spending(continued=True):
            layers = self._layer_indices(len(snapshot.recording))
            measures = write_scalars(writers, snapshot, layers)
            for tag, picture in figures(snapshot, class_names, self.methods, layers, run_name(writers[0])):
                for writer in writers:
                    add_picture(writer, tag, picture, snapshot.step)
            if self.tab_megabytes:
                self.tab.write(writers[0], snapshot, class_names, measures)

    def _layer_indices(self, depth: int) -> list[int]:
        """Return the layers that are drawn, as indices from 0."""
        return [range(depth)[layer - 1 if layer > 0 else layer] for layer in self.layers or range(1, depth + 1)]
