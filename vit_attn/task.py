"""The task: name the class of an image. It trains and measures; it never draws."""

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import lightning as L
import numpy as np
import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vit_attn.checkpoints.finetune import Start, resolve_start
from vit_attn.checkpoints.weights import load_weights
from vit_attn.errors import UserError, did_you_mean
from vit_attn.model import VisionTransformer
from vit_attn.model.pretrained import changes_of_pretrained, pretrained_weights
from vit_attn.training.ema import EMA, check_decay
from vit_attn.training.finite import UpdateGate, gradient_norm
from vit_attn.training.freezing import FreezeSchedule, TrainScope, Tuning
from vit_attn.training.loss import weighted_cross_entropy, weights_of_classes
from vit_attn.training.optimizers import build_optimizer
from vit_attn.training.schedule import phased
from vit_attn.training.sharding import shard

Options = dict[str, bool | int | float | str | list[int] | None]
LOGGED = {"train/loss": "min", "val/loss": "min", "val/accuracy": "max"}
"""What is logged while a network trains, and which end of it is better: what a callback can watch."""


class Classifier(L.LightningModule):
    """Image classification by any network of timm's registry, ours among them.

    Args:
        arch: A registered name; ``timm.list_models("vit_attn_*")`` has ours. By default the network that the weights
            say they are of, and ``vit_attn_tiny_patch4_32`` for random ones.
        arch_options: What to change in it, such as ``embed_dim``, ``depth``, ``num_heads`` or ``global_pool``.
        weights: What to start from: a checkpoint or an export of ours, whose network is taken; a name of timm's
            registry, such as ``vit_small_patch16_224``; or another file of weights, or its address (``https://…``),
            which needs ``arch``. Positions and patches are resampled and a head of other classes left out, which is
            said.
        num_classes: Number of classes; on the command line it comes from the data.
        img_size: Height and width of the images in pixels; on the command line it comes from the data.
        in_chans: Channels of the images; on the command line it comes from the data.
        optimizer: A name of ``timm.optim.list_optimizers()``, such as ``adamw`` or ``muon``.
        lr: Learning rate at the end of the warm-up; Muon wants about ten times AdamW's.
        weight_decay: Weight decay; norms, biases, positions and prefix tokens have none.
        warmup: Share of the steps over which the learning rate rises from 0.
        decay: How it falls to 0 after that.
        label_smoothing: Share of each target that is spread over all classes.
        compile: Whether the network is compiled for training; on a GPU its gain is not measured yet.
        train: What trains: ``all``, ``head`` for a linear probe, or a number of last blocks and what follows them. The
            rest stays as it was, in evaluation.
        probe: Share of the run in which the head alone trains, before the rest does too; each part has its own warm-up
            and fall.
        layer_decay: By what the learning rate of a block is smaller than that of the next one; the head has ``lr``.
            0.65 to 0.9 is usual for fine-tuning, 1 has all alike.
        class_weights: Weight of each class in the loss; on the command line they come from the data.
        ema: Share of the old average that each step keeps in an exponential moving average of the weights, such as
            0.999; the average is then validated, logged and saved instead of the weights. None keeps no average.
        nonfinite: What follows an update that is not finite, which is never applied: ``stop`` ends the run within 50
            steps with the weights before it; ``skip`` leaves it out and counts.

    Raises:
        UserError: If the network or the optimiser does not exist, if the network cannot be built as asked, if the
            weights do not fit it, or if it has no such parts to train.
    """

    def __init__(  # noqa: PLR0913  one argument a setting of the recipe
        self,
        arch: str | None = None,
        arch_options: Options | None = None,
        weights: str | None = None,
        num_classes: int = 10,
        img_size: tuple[int, int] = (32, 32),
        in_chans: int = 3,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.05,
        decay: Literal["cosine", "linear"] = "cosine",
        label_smoothing: float = 0.1,
        compile: bool = False,
        train: TrainScope = "all",
        probe: float = 0.0,
        layer_decay: float = 1.0,
        class_weights: list[float] | None = None,
        ema: float | None = None,
        nonfinite: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(lr=lr, weight_decay=weight_decay, warmup=warmup, label_smoothing=label_smoothing)
        if ema is not None:
            check_decay(ema)
        tuning, weigh = Tuning(train, probe, layer_decay), weights_of_classes(class_weights, num_classes)
        start = resolve_start(weights, arch, arch_options)
        self.hparams["arch"], self.hparams["arch_options"] = start.arch, without_pretrained(start.arch_options)
        self.hparams["weights"] = None  # a checkpoint brings its own, wherever they came from
        self.start = start.weights
        self.net, changes = _build_started(start, num_classes, img_size, in_chans)
        for change in changes:
            rank_zero_warn(f"{self.start}: {change}")
        build_optimizer(self.net, optimizer, lr, weight_decay, layer_decay)  # told before the data is loaded
        self.parts = FreezeSchedule(self.net, tuning)
        self.probe_steps: int | None = None
        self.gate: UpdateGate | None = None
        self.seed = 0
        self.register_buffer("class_weights", weigh, persistent=False)
        # averages of images, on all devices: lightning's own of a number takes the mean batch size for a whole number
        self.val_loss, self.test_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def setup(self, stage: str) -> None:
        """Freeze what does not train yet; compile the network, in place so that its parameters keep their names."""
        if stage != "fit":
            return
        self.probe_steps, self.seed = None, torch.initial_seed() % 2**63
        self.parts.begin(self.trainer.strategy if self._trainer else None)
        if self.hparams["compile"]:
            self.net.compile()

    def configure_callbacks(self) -> list[L.Callback]:
        """Average the weights, if that is asked for, while they are trained."""
        ema = self.hparams["ema"]
        return [EMA(ema)] if ema is not None and self.trainer.state.fn == "fit" else []

    def configure_model(self) -> None:
        """Shard the network where the strategy asks for it."""
        if self.device_mesh is not None:
            shard(self.net, self.device_mesh)

    def on_train_start(self) -> None:
        """Rest what is frozen; a run that is resumed after its probe is past it, and has the rate of its schedule."""
        self.parts.rest()
        self._leave_probe()
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # skips bad steps of its own
        sticky = self.hparams["nonfinite"] == "stop" and not scaled
        self.gate = UpdateGate(self.device, sticky, self.net.buffers())
        _set_rates(self.trainer.lr_scheduler_configs)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the rest train from the step on that ends the probe; what a step draws depends on its number alone."""
        self._leave_probe()
        address = (self.seed, self.trainer.fit_loop.total_batch_idx, self.trainer.global_rank)
        seed = int(np.random.SeedSequence(address).generate_state(1, np.uint64)[0] >> 1)
        # torch.manual_seed asks all kinds of devices, which takes longer
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, by the norm that decides whether the step is applied."""
        norm = gradient_norm(self.trainer.precision_plugin.main_params(optimizer))
        if self.gate is not None:
            self.gate.before_step(optimizer, norm)
        plain = isinstance(self.trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        plain &= getattr(self.trainer.precision_plugin, "scaler", None) is None
        if plain and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            parameters = list(self.trainer.precision_plugin.main_params(optimizer))
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step, and undo it on the device if it was not finite."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.gate is not None:
            self.gate.after_step(getattr(optimizer, "optimizer", optimizer), self.trainer.global_step + 1)

    def _leave_probe(self) -> None:
        if self.parts.probing and self.trainer.global_step >= (self.probe_steps or 0):
            self.parts.end_probe(self.trainer.strategy, self)
            if self.trainer.global_step == self.probe_steps:
                rank_zero_info(f"step {self.probe_steps}: the probe of the head ends, the rest trains from here")

    def forward(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B classes"]:
        """Logits of normalised images."""
        return self.net(images.to(next(self.net.parameters()).dtype))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy; targets are class indices (B,) or mixed shares (B, classes)."""
        images, targets = batch
        weights: Any = self.class_weights
        loss = weighted_cross_entropy(self(images), targets, weights, self.hparams["label_smoothing"])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss without smoothing, and top-1 accuracy."""
        self._measure("val", self.val_loss, self.val_accuracy, batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Float[Tensor, "B classes"]:
        """Loss without smoothing, and top-1 accuracy; the logits, for callbacks that measure more."""
        return self._measure("test", self.test_loss, self.test_accuracy, batch)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Float[Tensor, "B classes"]:
        """Probabilities of the classes."""
        images, _ = batch
        return self(images).float().softmax(dim=-1)

    def _measure(
        self, stage: str, loss: MeanMetric, accuracy: MulticlassAccuracy, batch: tuple[Tensor, Tensor]
    ) -> Tensor:
        images, labels = batch
        logits = self(images)
        accuracy(logits, labels)
        loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True)
        return logits

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser, and its schedule by step over the whole run."""
        settings, total = self.hparams, self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise UserError("the learning rate needs to know the length of the run: set trainer.max_epochs")
        with self.parts.all_that_will_train():
            optimizer = build_optimizer(
                self.net, settings["optimizer"], settings["lr"], settings["weight_decay"], settings["layer_decay"]
            )
        if self.probe_steps is None:  # a longer run that is resumed does not begin its probe again
            self.probe_steps = int(settings["probe"] * total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: phased(step, int(total), self.probe_steps or 0, settings["warmup"], settings["decay"]),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the length of the probe, and by what the steps draw."""
        checkpoint["probe_steps"], checkpoint["step_seed"] = self.probe_steps, self.seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of other classes, or of another network by the first name that does not fit.

        Raises:
            UserError: If the data refuse the classes, or if a name is missing, unknown or of another shape.
        """
        data: Any = getattr(self._trainer, "datamodule", None)
        if data is not None and (card := checkpoint.get(type(data).__qualname__)):
            data.load_state_dict(card)  # lightning loads it after the weights, of which the head would tell less
        self.probe_steps = checkpoint.get("probe_steps")
        self.seed = checkpoint.get("step_seed", self.seed)
        if "state_dict" not in checkpoint:  # a strategy that shards has loaded the weights, each device its own part
            return
        ours, theirs = self.state_dict(), checkpoint["state_dict"]
        for name in (*ours, *theirs):
            mine, other = (tuple(state[name].shape) if name in state else None for state in (ours, theirs))
            if mine != other:
                raise UserError(
                    f"the checkpoint is of another network than {self.hparams['arch']} with these options: {name} has "
                    f"shape {other or 'none'} in the checkpoint and {mine or 'none'} here"
                )


def without_pretrained(options: Options | None) -> Options:
    """Options of a network whose weights come from elsewhere."""
    return {name: value for name, value in (options or {}).items() if name != "pretrained"}


def _set_rates(configs: Sequence[Any]) -> None:
    """Give the optimisers the rates that their schedules have at this step; a resumed optimiser has those of before."""
    for config in configs:
        scheduler = config.scheduler
        if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            rates = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, base, share in rates:
                group["lr"] = base * share(scheduler.last_epoch)


def _build_started(
    start: Start, num_classes: int, img_size: tuple[int, int], in_chans: int
) -> tuple[nn.Module, list[str]]:
    """The network with the weights that it starts from, and a sentence for each change to them."""
    if start.pretrained and start.weights:
        options = {**start.arch_options, "pretrained": True}
        net = build_net(start.weights, num_classes, img_size, in_chans, options)
        return net, changes_of_pretrained(net, num_classes, img_size)
    net = build_net(start.arch, num_classes, img_size, in_chans, start.arch_options)
    return net, load_weights(net, start.weights) if start.weights else []


def _check(lr: float, weight_decay: float, warmup: float, label_smoothing: float) -> None:
    if lr <= 0:
        raise UserError(f"lr must be above 0, got {lr}")
    if weight_decay < 0:
        raise UserError(f"weight_decay must be at least 0, got {weight_decay}")
    for name, value in (("warmup", warmup), ("label_smoothing", label_smoothing)):
        if not 0 <= value < 1:
            raise UserError(f"{name} must be in [0, 1), got {value}")


def build_net(
    arch: str, num_classes: int, img_size: tuple[int, int], in_chans: int, options: Mapping[str, Any]
) -> nn.Module:
    """The network ``arch`` of timm's registry, with random weights.

    Raises:
        UserError: If there is no such network, or if it does not take these options.
    """
    if not timm.is_model(arch):
        ours, all_names = timm.list_models("vit_attn_*"), timm.list_models()
        hint = did_you_mean(arch, ours) or did_you_mean(arch, all_names)
        raise UserError(f"unknown network {arch!r}{hint}; ours are {', '.join(ours)}")
    try:
        with pretrained_weights(arch) if options.get("pretrained") else contextlib.nullcontext():
            return timm.create_model(arch, num_classes=num_classes, img_size=img_size, in_chans=in_chans, **options)
    except UserError:
        raise
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown and unknown[1] == "img_size":
            raise UserError(f"{arch} is not a vision transformer whose image size can be chosen") from error
        if unknown:
            ours = inspect.signature(VisionTransformer).parameters if arch.startswith("vit_attn_") else ()
            hint = did_you_mean(unknown[1], ours)
            raise UserError(f"arch_options: {arch} has no option {unknown[1]!r}{hint}") from error
        raise UserError(f"{arch} cannot be built with {options}: {error}") from error
