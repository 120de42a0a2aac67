"""Comparison of attention before and after fine-tuning, in TensorBoard."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.methods.measures import divergence
from vit_attn.attention_maps.methods.rollout import rollout
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.summary import head_rows
from vit_attn.callbacks.attention_callback import (
    AttentionCallback,
    evaluating,
    net_of,
    network_name,
    run_name,
    tensorboard_writers,
)
from vit_attn.callbacks.attention_logger.figures import add_picture, figure_heading, prediction_line, visible_pixels
from vit_attn.callbacks.cost_meter import CostMeter
from vit_attn.callbacks.probe_images import probe_data
from vit_attn.callbacks.tags import ATTENTION as GROUP
from vit_attn.console import without_messages
from vit_attn.data_protocol import ProbeData, ProbeImages
from vit_attn.errors import UserError
from vit_attn.plotting.comparison import draw_heads, draw_side_by_side
from vit_attn.plotting.method_maps import weights_map
from vit_attn.plotting.scale import Picture
from vit_attn.training.data_members import names_of_classes
from vit_attn.training.patch_schedule import match_patches

WITHOUT_COARSE_PATCHES = {"coarse_patch_size": None, "coarse_until": 0.0}
"""Settings of ``Classifier`` with which a network begins with its own patches."""


class FinetuneComparison(AttentionCallback):
    """Compares attention before and after fine-tuning, on the same images.

    ``vit_attention/divergence_nats/layer_1`` and so on are the Jensen–Shannon divergence between the attention of the
    source and of the tuned network, in nats, from 0 where both attend alike to ln 2 = 0.69. A picture shows it for each
    head; others show the last layer and the rollout of both over the images. The callback is active where a run starts
    from weights, and inactive where only the head trains, since attention does not change then. The source is recorded
    once, as the run starts; a resumed run records it from its weights again, if they still exist. Training itself is
    unchanged.

    Args:
        num_images: Number of validation images; 0 turns the callback off.
        every_n_epochs: Epochs from one comparison to the next; the last epoch is always compared.
        max_cost: Fraction of the run's time that comparisons may take, drawing included; beyond it, comparisons but
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
        self.active = False
        self.before: Recording | None = None
        """The source's attention, on the rank that writes."""
        self.grid_size: tuple[int, int] | None = None
        """Rows and columns of patches in it, on every rank."""
        self.data: ProbeData | None = None
        """Where the images come from."""

    def state_dict(self) -> dict[str, Any]:
        """Return the name of the source; its weights stay where they are."""
        return {"source": self.source} if self.source else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the name of the source of the run that is resumed."""
        self.source = state_dict.get("source")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the source that the run starts from."""
        self.source, self.active, self.before = getattr(pl_module, "start", None), False, None
        self.data = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the source: the network as it is, or its weights again where the run is resumed."""
        self.meter.start()
        self.last_logged_step = None
        if not (self.num_images and self.source) or pl_module.hparams.get("train") == "head":
            return
        self._record_source(trainer, pl_module)
        if trainer.global_step == 0:
            self.log_attention(trainer, pl_module, always=True)

    def _data(self, trainer: L.Trainer) -> ProbeData:
        self.data = self.data or probe_data(trainer, "FinetuneComparison")
        return self.data

    def _record_source(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the source with the patches that the network has now; without its weights the callback is off."""
        try:
            with self.meter.spending():
                source = pl_module if trainer.global_step == 0 else self._reload_source(pl_module)
                before, *_ = self._record(trainer, source)
                self.active, self.grid_size = True, before.grid_size
                self.before = before.on_host() if tensorboard_writers(trainer) else None
        except UserError as error:
            self.active = False
            rank_zero_warn(f"the comparison with {self.source} is off: {error}")

    def _reload_source(self, pl_module: L.LightningModule) -> L.LightningModule:
        """Build the task as it was before its first step, but for its head; the random state is left as it is."""
        settings = {name: value for name, value in pl_module.hparams.items() if not name.startswith("_")}
        changes: dict[str, Any] = {"weights": self.source}
        changes |= {name: value for name, value in WITHOUT_COARSE_PATCHES.items() if name in settings}
        with torch.random.fork_rng(devices=[]), without_messages():  # they were those of the start of the run
            source = type(pl_module)(**settings | changes)
            match_patches(net_of(source), net_of(pl_module))
        parameter = next(pl_module.parameters())
        return source.to(parameter.device, parameter.dtype)

    def _record(self, trainer: L.Trainer, task: L.LightningModule) -> tuple[Recording, Tensor, ProbeImages]:
        """Record attention on the probe images; returns it with the logits and the images."""
        data, net = self._data(trainer), net_of(task)
        probe = data.probe(self.num_images)
        images = probe.images.to(next(net.parameters()).device)
        with evaluating(net), torch.inference_mode(False), torch.enable_grad():  # gradients find what a network pools
            with trainer.precision_plugin.forward_context(), record(net) as recording:
                logits = task(data.normalize(images).clone())
        return recording, logits.detach(), probe

    def log_attention(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Record on every rank, since sharded networks need all; write on the first."""
        writers = tensorboard_writers(trainer)
        if not self.active or (trainer.world_size == 1 and not writers) or not self.should_log(trainer, always):
            return
        with self.meter.spending():
            after, logits, probe = self._record(trainer, pl_module)
        if after.grid_size != self.grid_size:  # training goes on with finer patches
            self._record_source(trainer, pl_module)
        with self.meter.spending():
            if writers and self.before is not None:
                step, predicted = trainer.global_step, logits.argmax(dim=-1).tolist()
                names = names_of_classes(self._data(trainer).class_names, logits.shape[1])
                networks = self.before, after.on_host()
                found = networks, predicted, probe, names, network_name(pl_module)
                self.background.submit(step, self._write, writers, step, *found)

    def _write(
        self,
        writers: Sequence[SummaryWriter],
        step: int,
        networks: tuple[Recording, Recording],
        predicted: Sequence[int],
        probe: ProbeImages,
        class_names: Sequence[str],
        network: str,
    ) -> None:
        """Draw and write a step's attention before and after, in the background."""
        before, after = networks
        with self.meter.spending(continued=True):
            divergences = divergence(before, after).cpu()
            heading = figure_heading(run_name(writers[0]), step, network)
            title = f"{heading}\ndivergence of attention from the source's"
            heads = draw_heads(divergences.numpy(), title, "Jensen-Shannon divergence, nats")
            pictures = {f"{GROUP}/divergence_of_heads": heads}
            for i, picture in enumerate(_side_by_side(before, after, probe, predicted, class_names, heading)):
                pictures[f"{GROUP}/image_{i + 1}_source_and_tuned"] = picture
            for writer in writers:
                for layer, of_heads in enumerate(divergences):
                    writer.add_scalar(f"{GROUP}/divergence_nats/layer_{layer + 1}", of_heads.mean(), step)
                    writer.add_histogram(f"{GROUP}/divergence_nats_of_heads/layer_{layer + 1}", of_heads, step)
                for tag, picture in pictures.items():
                    add_picture(writer, tag, picture, step)


def _side_by_side(
    before: Recording,
    after: Recording,
    probe: ProbeImages,
    predicted: Sequence[int],
    class_names: Sequence[str],
    heading: str,
) -> list[Picture]:
    networks = {"source": _rows(before), "tuned": _rows(after)}
    pictures = []
    for i, (label, guess) in enumerate(zip(probe.labels.tolist(), predicted, strict=True)):
        maps = {
            network: [weights_map(name, row[i], before) for name, row in rows.items()]
            for network, rows in networks.items()
        }
        title = f"{heading}\n{prediction_line(class_names[label], class_names[guess], guess == label)}"
        pictures.append(draw_side_by_side(visible_pixels(probe.images[i], after), title, maps))
    return pictures


def _rows(recording: Recording) -> dict[str, np.ndarray]:
    """Return the pooled row of each image, by the title of its map."""
    pooled = recording.pool is not None
    last = recording.query_rows()[:, 0] if pooled else head_rows(recording)[:, -1].mean(dim=1)
    return {"pool" if pooled else "last layer": last.cpu().numpy(), "rollout": rollout(recording)[:, 0].cpu().numpy()}
