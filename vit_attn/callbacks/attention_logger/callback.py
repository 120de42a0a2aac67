"""Where the network looks, in TensorBoard, from step 0 to the end of the training."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from vit_attn.attention_maps.evaluation.baselines import Judgement
from vit_attn.attention_maps.evaluation.ground_truth import why_ground_truth_is_unused
from vit_attn.attention_maps.methods.measures import measure
from vit_attn.attention_maps.methods.rollout import rollout
from vit_attn.attention_maps.precision import NotFinite
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.tokens import prefix_names
from vit_attn.attention_maps.summary import AttentionSummary, summaries_of
from vit_attn.callbacks.attention_callback import AttentionCallback, evaluating, net_of
from vit_attn.callbacks.attention_logger.figures import METHODS, add_picture, pictures, pointing, snapshot
from vit_attn.callbacks.attention_logger.snapshot import (
    AttentionSnapshot,
    judge_views,
    judged_scalars,
    patch_size,
    relevance_between,
)
from vit_attn.callbacks.attention_logger.tab import AttentionTab
from vit_attn.callbacks.cost_meter import CostMeter
from vit_attn.errors import UserError, did_you_mean


class AttentionLogger(AttentionCallback):
    """Draws the attention of the same validation images again and again while a network trains.

    For each image, of what the network pools (CLS, the mean over the patches, or a pool by attention): relevance for
    the predicted class, the last layer's attention and attention rollout, over the image; every layer and head on a
    sheet; and the token-to-token matrix of each layer, heads averaged. For each layer: entropy, distance, sink mass and
    prefix mass of its heads, as curves of their mean and as histograms. Where the data set knows the answer: the share
    of the images in which each method's top patch is it. All but relevance look at attention alone and do not know
    which class was predicted.

    For the tab Attention, where every patch can be asked: all heads' maps, relevance between all tokens, predictions
    and what deletion and insertion say of each method, as long as the run's budget of bytes lasts; what is left out is
    said there and in the terminal.

    It needs a TensorBoard logger, a task with its network as ``net``, and a data module with ``probe(count)``,
    ``normalize(images)``, ``class_names``, ``img_size`` and ``in_chans``. The pictures show the weights that the
    validation of the same step measures, averaged ones where a callback averages them. The network, its modes,
    gradients and random state are left as they were. Pictures are drawn beside the training, in a thread of their own.

    Args:
        num_images: Number of images; 0 turns the callback off.
        every_n_epochs: Epochs from one logging to the next; the untrained network, as step 0, and the last epoch are
            always logged.
        every_n_steps: Steps from one logging to the next, instead of epochs.
        layers: Numbers of the layers that are drawn, from 1; -1 is the last, -2 the one before it; all by default.
        methods: What is drawn over the images, of ``relevance``, ``last layer`` and ``rollout``.
        faithfulness_every: Every so many loggings, and at the last, deletion and insertion of patches by relevance, the
            last layer and rollout (mean, maximum and minimum of heads) are measured beside eight random orders and
            centre first, on at most eight of the images, at 140 forwards each (154
            with a pool by attention); 0 for never.
        tab_megabytes: What a run may write for the tab Attention, in 1e6 bytes; 0 leaves the tab out. TensorBoard keeps
            it in memory while it shows the run.
        max_cost: Share of the run's time that logging may take, drawing included; where it would take more, loggings
            but the first and last are left out.
    """

    def __init__(
        self,
        num_images: int = 8,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        layers: list[int] | None = None,
        methods: tuple[str, ...] | list[str] = METHODS,
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
        for method in methods:
            if method not in METHODS:
                raise UserError(
                    f"methods must be of {', '.join(METHODS)}, got {method!r}{did_you_mean(method, METHODS)}"
                )
        if not 0 < max_cost <= 1 or not methods:
            raise UserError(f"max_cost must be in (0, 1] and methods at least one, got {max_cost} and {list(methods)}")
        super().__init__(CostMeter(max_cost), every_n_epochs)
        self.num_images, self.every_n_steps = num_images, every_n_steps
        for name, value in (("faithfulness_every", faithfulness_every), ("tab_megabytes", tab_megabytes)):
            if value < 0:
                raise UserError(f"{name} must be at least 0, got {value}")
        self.layers, self.methods, self.faithfulness_every = layers, tuple(methods), faithfulness_every
        self.tab_megabytes, self.tab, self.loggings = tab_megabytes, AttentionTab(tab_megabytes), 0
        self.told = ""

    def state_dict(self) -> dict[str, Any]:
        """How often was logged, and what of the budget is left, so that a resumed run goes on alike."""
        return {"loggings": self.loggings, "budget": vars(self.tab.budget).copy()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; a budget that was changed is begun anew."""
        self.loggings = state_dict["loggings"]
        if state_dict["budget"]["total"] == self.tab.budget.total:
            vars(self.tab.budget).update(state_dict["budget"])

    def check(self, data: Any, pl_module: L.LightningModule) -> None:
        """Record a blank image to no file, so that what cannot be drawn is refused before anything is written.

        Raises:
            UserError: If the data module, the task or the network is not of the kind that this callback can draw.
        """
        if not self.num_images:
            return
        if not all(hasattr(data, name) for name in ("probe", "normalize", "class_names", "img_size", "in_chans")):
            raise UserError("AttentionLogger needs a data module with what ImageData has: probe(), normalize(), …")
        net = net_of(pl_module)
        device = next(net.parameters()).device  # in setup the module is not yet where it says
        blank = torch.zeros(1, data.in_chans, *data.img_size, device=device)
        try:
            with evaluating(net), torch.inference_mode(False), torch.enable_grad():
                with record(net, gradients=True) as recording:
                    pl_module(blank.clone())
            rollout(recording)
        except UserError as error:
            raise UserError(f"{error}; to train without pictures of it: --attention.num_images=0") from error
        depth = len(recording)
        if outside := [layer for layer in self.layers or () if not 1 <= abs(layer) <= depth]:
            raise UserError(f"attention.layers must be in 1..{depth}, or -{depth}..-1 from the last, got {outside}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check, on every rank, for those who do not come from the command line."""
        if stage == "fit":
            self.check(getattr(trainer, "datamodule", None), pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the network as it starts."""
        self.meter.start()
        self.logged = None
        if trainer.global_step == 0:
            self.log_attention(trainer, pl_module, always=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log between validations, if that was asked for."""
        ends = trainer.global_step >= trainer.estimated_stepping_batches  # the end has a logging of its own
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0 and not ends:
            self.log_attention(trainer, pl_module)

    def at_epoch(self, epoch: int) -> bool:
        """Never where steps count."""
        return self.every_n_steps is None and super().at_epoch(epoch)

    def log_attention(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Record on every rank, since sharded networks need all; write on the first."""
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not self.num_images or (trainer.world_size == 1 and not writers):
            return
        if not self.due(trainer, always):
            return
        with self.meter.spending():
            data: Any = getattr(trainer, "datamodule", None)
            probe = data.probe(self.num_images)
            images = data.normalize(probe.images.to(pl_module.device))
            recording, logits = self._record(trainer, pl_module, images)
            if (said := why_ground_truth_is_unused(probe, recording)) and said != self.told:
                rank_zero_info(f"AttentionLogger: {said}")
                self.told = said
            self.tab.prefix_names = prefix_names(net_of(pl_module), recording.num_prefix_tokens)
            try:
                views = summaries_of(recording, logits)
                between = relevance_between(recording, logits) if self.tab_megabytes else None
                judgement = self._judge(trainer, pl_module, images, recording, views, last=always)
            except NotFinite as error:
                rank_zero_warn(f"no pictures of attention at step {trainer.global_step}: {error}")
                return
            if not (writers and trainer.is_global_zero):
                return
            step, recording = trainer.global_step, recording.on_host()
            taken = AttentionSnapshot(step, recording, logits.cpu(), views, between, judgement, probe, always)
            self.drawer.draw(step, self._draw, writers, taken, data.class_names)

    def _record(self, trainer: L.Trainer, pl_module: L.LightningModule, images: Tensor) -> tuple[Recording, Tensor]:
        net = net_of(pl_module)
        with evaluating(net), torch.inference_mode(False), torch.enable_grad():
            with trainer.precision_plugin.forward_context(), record(net, gradients=True) as recording:
                logits = pl_module(images.clone())  # one made in inference mode could not enter a graph
        return recording, logits.detach()

    def _judge(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        images: Tensor,
        recording: Recording,
        views: list[AttentionSummary],
        last: bool,
    ) -> Judgement | None:
        """What deletion and insertion say of each method, every so many times and at the last."""
        number, self.loggings = self.loggings, self.loggings + 1
        if not self.faithfulness_every or (number % self.faithfulness_every and not last):
            return None
        net = net_of(pl_module)
        with evaluating(net), trainer.precision_plugin.forward_context():
            return judge_views(net, images.to(next(net.parameters()).dtype), recording, views)

    def _layer_indices(self) -> list[int] | None:
        """The layers that are drawn as indices from 0, or from the last."""
        return None if self.layers is None else [layer - 1 if layer > 0 else layer for layer in self.layers]

    def _draw(self, writers: Sequence[Any], taken: AttentionSnapshot, class_names: Sequence[str]) -> None:
        """Everything of one step, away from the training."""
        with self.meter.spending(more=True):
            drawn = snapshot(taken.recording, taken.views, self._layer_indices())
            numbers = measure(taken.recording, patch_size(taken.probe.images, taken.recording))
            for writer in writers:
                for layer in drawn.layers:
                    for name, by_layer in numbers.items():
                        heads = by_layer[layer].cpu()
                        writer.add_scalar(f"attention_{name}/layer_{layer + 1}", heads.mean(), taken.step)
                        writer.add_histogram(f"attention_{name}_of_heads/layer_{layer + 1}", heads, taken.step)
                for name, share in pointing(drawn, taken.probe).items():
                    writer.add_scalar(f"attention_pointing/{name}", share, taken.step)
                for name, area in judged_scalars(taken.judgement).items() if taken.judgement else ():
                    writer.add_scalar(name, area, taken.step)
            for tag, picture in pictures(drawn, taken.probe, class_names, self.methods):
                for writer in writers:
                    add_picture(writer, tag, picture, taken.step)
            if self.tab_megabytes:
                self.tab.write(writers[0], taken, class_names)
