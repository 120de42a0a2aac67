"""What fine-tuning changed in where a network looks, in TensorBoard."""

import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from vit_attn.attention_maps.methods.measures import divergence
from vit_attn.attention_maps.methods.rollout import rollout
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import crop_to_patches
from vit_attn.attention_maps.summary import head_rows
from vit_attn.callbacks.attention_callback import AttentionCallback, evaluating, net_of
from vit_attn.callbacks.attention_logger.figures import add_picture
from vit_attn.callbacks.cost_meter import CostMeter
from vit_attn.errors import UserError
from vit_attn.plotting.canvas import Picture
from vit_attn.plotting.comparison import draw_heads, draw_side_by_side
from vit_attn.plotting.overlay import AttentionMap


class FinetuneComparison(AttentionCallback):
    """Compares attention of the network that a fine-tuning starts from with what becomes of it, on the same images.

    ``attention_divergence/layer_1`` and so on are the Jensen–Shannon divergence of their attention, in nats, from 0
    where both look alike to ln 2 = 0.69; a picture has it for each head, and others show the last layer and the rollout
    of both over the images. It is on where a run starts from weights, and off where only the head trains, since
    attention stays as it was. The source is recorded once, as the run starts; a run that is resumed records it from its
    weights again, if they can still be had. Training is left as it would be without.

    Args:
        num_images: Number of validation images; 0 turns it off.
        every_n_epochs: Epochs from one comparison to the next; the last epoch is always compared.
        max_cost: Share of the run's time that it may take, drawing included; where it would take more, comparisons but
            the last are left out.
    """

    def __init__(self, num_images: int = 4, every_n_epochs: int = 1, max_cost: float = 0.01) -> None:
        if num_images < 0 or every_n_epochs < 1:
            raise UserError(
                f"num_images must be at least 0 and every_n_epochs at least 1, got {num_images} and {every_n_epochs}"
            )
        if not 0 < max_cost <= 1:
            raise UserError(f"max_cost must be in (0, 1], got {max_cost}")
        super().__init__(CostMeter(max_cost, "comparison"), every_n_epochs)
        self.num_images = num_images
        self.source: str | None = None
        self.before: Recording | None = None

    def state_dict(self) -> dict[str, Any]:
        """The name of what the run started from; its weights stay where they are."""
        return {"source": self.source} if self.source else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The name of what the run started from before it was resumed."""
        self.source = state_dict.get("source")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note what the run starts from."""
        self.source, self.before = getattr(pl_module, "start", None), None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the source, which the network still is unless the run is resumed."""
        self.meter.start()
        self.logged = None
        if not (self.num_images and self.source) or pl_module.hparams.get("train") == "head":
            return
        try:
            with self.meter.spending():
                source = pl_module if trainer.global_step == 0 else self._source_again(pl_module)
                self.before, *_ = self._record(trainer, source)
        except UserError as error:
            rank_zero_warn(f"the comparison with {self.source} is off: {error}")
            return
        if trainer.global_step == 0:
            self.log_attention(trainer, pl_module, always=True)

    def _source_again(self, pl_module: L.LightningModule) -> L.LightningModule:
        """The task as it was before its first step, but for its head, with the random state left as it is."""
        settings = {name: value for name, value in pl_module.hparams.items() if not name.startswith("_")}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what had to be changed was said when the run began
            source = type(pl_module)(**settings | {"weights": self.source})
        parameter = next(pl_module.parameters())
        return source.to(parameter.device, parameter.dtype)

    def _record(self, trainer: L.Trainer, task: L.LightningModule) -> tuple[Recording, Tensor, Any]:
        """Attention on the probe images, in the host's memory, the logits, and the images."""
        data, net = _data(trainer), net_of(task)
        probe = data.probe(self.num_images)
        images = probe.images.to(next(net.parameters()).device)
        with evaluating(net), torch.inference_mode(False), torch.enable_grad():  # which tell what a network reads
            with trainer.precision_plugin.forward_context(), record(net) as recording:
                logits = task(data.normalize(images).clone())
        return recording.on_host(), logits.detach(), probe

    def log_attention(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Record on every rank, since sharded networks need all; write on the first."""
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if self.before is None or (trainer.world_size == 1 and not writers) or not self.due(trainer, always):
            return
        with self.meter.spending():
            after, logits, probe = self._record(trainer, pl_module)
            if writers and trainer.is_global_zero:
                step, names, guesses = trainer.global_step, _data(trainer).class_names, logits.argmax(dim=-1).tolist()
                self.drawer.draw(step, self._draw, writers, step, self.before, after, guesses, probe, names)

    def _draw(
        self,
        writers: Sequence[Any],
        step: int,
        before: Recording,
        after: Recording,
        guesses: list[int],
        probe: Any,
        class_names: Sequence[str],
    ) -> None:
        """Everything of one step, away from the training."""
        with self.meter.spending(more=True):
            apart = divergence(before, after).cpu()
            pictures = {"attention_divergence/heads": draw_heads(apart.numpy(), "divergence from the source", "nats")}
            for i, picture in enumerate(_side_by_side(before, after, probe, guesses, class_names)):
                pictures[f"attention_source_and_tuned/image_{i + 1}"] = picture
            for writer in writers:
                for layer, heads in enumerate(apart):
                    writer.add_scalar(f"attention_divergence/layer_{layer + 1}", heads.mean(), step)
                    writer.add_histogram(f"attention_divergence_of_heads/layer_{layer + 1}", heads, step)
                for tag, picture in pictures.items():
                    add_picture(writer, tag, picture, step)


def _data(trainer: L.Trainer) -> Any:
    """The data module.

    Raises:
        UserError: If it has no images to look at.
    """
    data = getattr(trainer, "datamodule", None)
    if not all(hasattr(data, name) for name in ("probe", "normalize", "class_names")):
        raise UserError("it needs a data module with what ImageData has: probe(), normalize() and class_names")
    return data


def _side_by_side(
    before: Recording, after: Recording, probe: Any, guesses: Sequence[int], class_names: Sequence[str]
) -> list[Picture]:
    networks = {"source": _rows(before), "tuned": _rows(after)}
    pictures = []
    for i, (label, guess) in enumerate(zip(probe.labels.tolist(), guesses, strict=True)):
        title = f"{class_names[label]}\n→ {class_names[guess]} {'✓' if guess == label else '✗'}"
        maps = {
            network: [_map(name, row[i], before) for name, row in rows.items()] for network, rows in networks.items()
        }
        image = crop_to_patches(probe.images[i].expand(3, -1, -1).permute(1, 2, 0).numpy(), after)
        pictures.append(draw_side_by_side(image, title, maps))
    return pictures


def _rows(recording: Recording) -> dict[str, np.ndarray]:
    """Where what is pooled looks, by image."""
    pooled = recording.pool is not None
    last = recording.query_rows()[:, 0] if pooled else head_rows(recording)[:, -1].mean(dim=1)
    return {"pool" if pooled else "last layer": last.cpu().numpy(), "rollout": rollout(recording)[:, 0].cpu().numpy()}


def _map(name: str, row: np.ndarray, recording: Recording) -> AttentionMap:
    prefix = recording.num_prefix_tokens
    return AttentionMap(name, row[prefix:].reshape(recording.grid_size), float(row[:prefix].sum()))
