"""Image classification task: loss, metrics, optimiser and schedule. It never draws."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from vit_attn.checkpoints.contents import SETTINGS_KEY
from vit_attn.checkpoints.finetune import build_start, resolve_start
from vit_attn.checkpoints.model_card import DATA_ARGS, DATA_KEY
from vit_attn.checkpoints.own_parts import PARTS_KEY, parts_of
from vit_attn.errors import UserError
from vit_attn.model.build import Options, build_net, without_pretrained
from vit_attn.training.batch_checks import check_images, explaining
from vit_attn.training.checkpoint_io import check_shapes
from vit_attn.training.compiling import CompileMode, compile_step
from vit_attn.training.data_fit import describe_data, fit_to_data, network_sizes
from vit_attn.training.ema import EMA, averaged_networks, check_decay
from vit_attn.training.evaluated_module import Batch, EvaluatedModule
from vit_attn.training.freezing import FreezeSchedule, TrainScope, Tuning
from vit_attn.training.gated_module import GatedModule
from vit_attn.training.loss import class_weight_tensor, logits_and_loss
from vit_attn.training.metrics import batch_accuracy, is_measured_step
from vit_attn.training.optimizers import build_optimizer, check_settings
from vit_attn.training.patch_schedule import PatchSchedule
from vit_attn.training.schedule import build_scheduler, set_scheduled_rates
from vit_attn.training.sharding import shard
from vit_attn.training.step_seed import seed_step
from vit_attn.training.whitening import check_whitening, whiten_patch_embedding

LOGGED = {
    **{"train/loss": "min", "train/accuracy": "max", "train/grad_norm": "min"},
    **{"val/loss": "min", "val/accuracy": "max"},
}
"""Scalars logged in training, which a callback can monitor, each with the direction that is better."""


class Classifier(GatedModule, EvaluatedModule):
    """Image classification by any network in timm's registry, ours (``vit_attn_*``) among them.

    Args:
        arch: Name in timm's registry; by default the network of ``weights``, or ``vit_attn_tiny_patch4_32``.
        arch_options: Arguments of the network to change, such as ``embed_dim``, ``depth``, ``num_heads`` or
            ``global_pool``.
        weights: Initial weights: a checkpoint or an export of ours, whose network is built; a name in timm's registry,
            such as ``vit_small_patch16_224``; or another file of weights, or its address (``https://…``), which needs
            ``arch``. Positions and patches are resampled and a head of other classes is left out, as a line says. By
            default random.
        num_classes: Number of classes. On the command line it comes from the data; in Python it is by default that of
            the weights, or 10.
        img_size: Height and width of the images in pixels, or the side of a square. On the command line it comes from
            the data; in Python it is by default that of the weights, or 32.
        in_chans: Channels of the images. On the command line they come from the data; in Python they are by default
            those of the weights, or 3.
        optimizer: A name of ``timm.optim.list_optimizers()``, such as ``adamw`` or ``muon``.
        lr: Learning rate at the end of the warm-up; Muon needs about ten times AdamW's.
        weight_decay: Weight decay; norms, biases, positions and prefix tokens have none.
        warmup: Fraction of the steps over which the learning rate rises from 0.
        decay: Shape of its fall to 0 after that.
        label_smoothing: Fraction of each target that is spread over all classes; in training only.
        compile: Whether network and loss are compiled for training, as one graph; validation runs the network as it
            is. The gain on a GPU is not measured yet.
        compile_mode: Mode of the compiler: ``default``, or ``reduce-overhead`` or ``max-autotune``, which replay CUDA
            graphs. Their gain is not measured yet.
        train: Trained part: ``all``, ``head`` for a linear probe, or a number of last blocks with the layers after
            them. The rest is frozen, in evaluation mode.
        probe: Fraction of the run that is a linear probe, in which the head alone trains, before the rest does too;
            both phases have their own warm-up and fall.
        layer_decay: Factor between the learning rates of a block and of the next one; the head has ``lr``. 0.65 to 0.9
            is usual for fine-tuning, 1 gives all the same rate.
        class_weights: Weight of each class in the training loss; on the command line they come from the data.
        ema: Decay of an exponential moving average of the weights per step, such as 0.999; the average is then
            validated, logged and saved instead of the weights. None keeps no average.
        coarse_patch_size: Side, in pixels, of the patches at the beginning of the run, such as 8 for a network with
            patches of 4: a quarter of the tokens. Its own patches follow, resampled. None has its own all along.
        coarse_until: Fraction of the run's steps with coarse patches.
        whiten: Standard deviation of a token's channels under an initial patch embedding that whitens the patches of
            the training images, such as 0.5; 0 for a random patch embedding. Not with ``weights``.
        nonfinite: Reaction to an update that is not finite, which is never applied: ``stop`` ends the run within 50
            steps with the weights before it; ``skip`` leaves the update out and counts it.

    Raises:
        UserError: If the network or the optimiser does not exist, if the network cannot be built as asked, if the
            weights do not fit it, or if it has no such parts to train.
    """

    def __init__(  # noqa: PLR0913  one argument per setting of the recipe
        self,
        arch: str | None = None,
        arch_options: Options | None = None,
        weights: str | Path | None = None,
        num_classes: int | None = None,
        img_size: tuple[int, int] | list[int] | int | None = None,
        in_chans: int | None = None,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.05,
        decay: Literal["cosine", "linear"] = "cosine",
        label_smoothing: float = 0.1,
        compile: bool = False,
        compile_mode: CompileMode = "default",
        train: TrainScope = "all",
        probe: float = 0.0,
        layer_decay: float = 1.0,
        class_weights: list[float] | None = None,
        ema: float | None = None,
        coarse_patch_size: int | None = None,
        coarse_until: float = 0.0,
        whiten: float = 0.0,
        nonfinite: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_settings(lr=lr, weight_decay=weight_decay, warmup=warmup, label_smoothing=label_smoothing)
        if ema is not None:
            check_decay(ema)
        source = None if weights is None else str(weights)
        tuning, start = Tuning(train, probe, layer_decay), resolve_start(source, arch, arch_options)
        sizes = num_classes, img_size, in_chans = network_sizes(start, num_classes, img_size, in_chans)
        class_weight = class_weight_tensor(class_weights, num_classes)
        self.hparams.update(zip(DATA_ARGS, sizes, strict=True))
        self.hparams["arch"], self.hparams["arch_options"] = start.arch, without_pretrained(start.arch_options)
        self.hparams["weights"] = None  # a checkpoint brings its own, wherever they came from
        self.start = start.weights
        self.net, changes = build_start(start, num_classes, img_size, in_chans)
        for change in changes:
            rank_zero_info(f"{self.start}: {change}")
        self.patches = PatchSchedule(self.net, coarse_patch_size, coarse_until)
        options = start.arch_options
        self.patches.begin(None if self.start else lambda patches: build_net(start.arch, *sizes, options | patches))
        check_whitening(self.net, whiten, self.start)
        build_optimizer(self.net, optimizer, lr, weight_decay, layer_decay)  # fails before the data is loaded
        self.freeze_schedule = FreezeSchedule(self.net, tuning)
        self.probe_steps: int | None = None
        self.is_untrained = True
        self.data_state: dict[str, Any] | None = None
        self.seed, self.logits_and_loss = 0, logits_and_loss
        self.register_buffer("class_weights", class_weight, persistent=False)
        self.create_metrics(num_classes)

    def setup(self, stage: str) -> None:
        """Freeze what does not train yet; compile network and loss, as a function, so that parameters keep names."""
        strategy = self.trainer.strategy if self._trainer else None
        self.patches.check_trainer(self._trainer)
        if stage != "fit":
            return
        self.probe_steps, self.patches.steps, self.seed = None, None, torch.initial_seed() % 2**63
        self.freeze_schedule.start(strategy)
        if self.hparams["whiten"] and self.is_untrained:  # a resumed run loads its weights after this
            nets, data = [self.net, *averaged_networks(self._trainer)], getattr(self._trainer, "datamodule", None)
            whiten_patch_embedding(nets, data, self.hparams["whiten"])
        self.is_untrained = False
        if self.hparams["compile"]:
            self.logits_and_loss = compile_step(logits_and_loss, self.hparams["compile_mode"], self._trainer)

    def configure_callbacks(self) -> list[L.Callback]:
        """Fit the network to the data before it is copied; average the weights during training if ``ema`` is set."""
        if self.trainer.state.fn == "fit" and self.is_untrained:
            fit_to_data(self, self.hparams, getattr(self.trainer, "datamodule", None))
        ema = self.hparams["ema"]
        return [EMA(ema)] if ema is not None and self.trainer.state.fn == "fit" else []

    def configure_model(self) -> None:
        """Shard the network if the strategy has a device mesh."""
        if self.device_mesh is not None:
            shard(self.net, self.device_mesh)

    def on_fit_start(self) -> None:
        """Describe the data for checkpoints, unless the data module does it."""
        self.data_state = describe_data(getattr(self.trainer, "datamodule", None), self.net, self.hparams)

    def on_train_start(self) -> None:
        """Set frozen modules to evaluation, and restore the phase and learning rate of a resumed run."""
        self.freeze_schedule.set_eval()
        self._end_linear_probe_when_due()
        self.start_gate(self.hparams["nonfinite"], self.net.buffers())
        set_scheduled_rates([config.scheduler for config in self.trainer.lr_scheduler_configs])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Check the first batch; end probe and coarse patches at their last step; seed the step."""
        self.check_first("train", batch)
        self._end_linear_probe_when_due()
        if self.patches.change_when_due(self.trainer, self, self.hparams["compile"]) and self.gate is not None:
            self.gate.find_tensors_again()
        seed_step(self.seed, self.trainer.fit_loop.total_batch_idx, self.trainer.global_rank, self.device)

    def _end_linear_probe_when_due(self) -> None:
        if self.freeze_schedule.in_linear_probe and self.trainer.global_step >= (self.probe_steps or 0):
            self.freeze_schedule.unfreeze(self.trainer.strategy, self)
            if 0 < self.trainer.global_step == self.probe_steps:
                rank_zero_info(f"step {self.probe_steps}: the linear probe of the head ends, the rest trains from here")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy with class weights and smoothing; targets are class indices (B,) or fractions (B, classes)."""
        weights: Any = self.class_weights
        with explaining(batch, self.hparams):
            images, targets = batch
            check_images(images)
            logits, loss = self.logits_and_loss(self.net, images, targets, weights, self.hparams["label_smoothing"])
        self.log("train/loss", loss)
        if self._trainer is not None and is_measured_step(self._trainer):
            self.log("train/accuracy", batch_accuracy(logits, targets))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser, and its schedule by step over the whole run."""
        settings, total = self.hparams, self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise UserError("the learning rate needs to know the length of the run: set trainer.max_epochs")
        with self.freeze_schedule.unfrozen():
            optimizer = build_optimizer(
                self.net, settings["optimizer"], settings["lr"], settings["weight_decay"], settings["layer_decay"]
            )
        if self.probe_steps is None:  # a longer run that is resumed does not start its linear probe again
            self.probe_steps = int(settings["probe"] * total)
        self.patches.plan(total)
        scheduler = build_scheduler(optimizer, int(total), self.probe_steps, settings["warmup"], settings["decay"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the lengths of the phases, the size of coarse patches, the seed, the data and the user's modules."""
        if DATA_KEY not in checkpoint and self.data_state is not None:
            checkpoint[DATA_KEY] = self.data_state
        checkpoint["probe_steps"], checkpoint["step_seed"] = self.probe_steps, self.seed
        data = getattr(self._trainer, "datamodule", None)
        if parts := parts_of(self.hparams["arch"], self.hparams["arch_options"], data):
            checkpoint[PARTS_KEY] = parts
        checkpoint[SETTINGS_KEY] = dict(getattr(data, "evaluation_settings", {}))
        self.patches.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the run's phases, the patches and the seed; refuse a checkpoint that does not fit the network.

        Raises:
            UserError: If the data have other classes, or if a weight is missing, unknown or of another shape.
        """
        data: L.LightningDataModule | None = getattr(self._trainer, "datamodule", None)
        if data is not None and (state := checkpoint.get(type(data).__qualname__)):
            data.load_state_dict(state)  # before the weights, whose head's shape would say less about other classes
        self.probe_steps, self.is_untrained = checkpoint.get("probe_steps"), False
        self.seed = checkpoint.get("step_seed", self.seed)
        self.patches.load(checkpoint, self._trainer)
        if "state_dict" in checkpoint:  # else a strategy that shards has loaded the weights, each device its own part
            check_shapes(self.state_dict(), checkpoint["state_dict"], self.hparams["arch"])
