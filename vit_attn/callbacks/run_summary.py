"""Summary of a run before its first step: network, cost, images, device and folder."""

import contextlib
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from vit_attn.console import CONSOLE
from vit_attn.reports.epoch_log import format_flops
from vit_attn.training.throughput import FlopCount, count_flops

SPLITS = {"train": "training", "val": "validation", "test": "test"}


class RunSummary(L.Callback):
    """Says what a run trains, and on what, in a few lines.

    The operations are counted by one image of zeros that passes through the network as it is evaluated
    (:func:`~vit_attn.training.throughput.count_flops`). They are left out where a strategy shards the network, whose
    first pass must be that of a batch.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say the summary, once network and optimiser are on their device."""
        data: Any = getattr(trainer, "datamodule", None)
        flops = _count_flops(trainer, pl_module, data)  # on all devices, which stay in step
        if not trainer.is_global_zero:
            return
        settings: Any = pl_module.hparams
        lines = {
            "network": _network(str(settings.get("arch") or type(getattr(pl_module, "net", pl_module)).__name__), data),
            "parameters": _parameters(pl_module),
            "per image": "" if flops is None else _flops(flops, pl_module),
            "images": _images(data),
            "training": _training(trainer, data),
            "device": _device(trainer, pl_module.device),
            "run": str(trainer.default_root_dir),
        }
        CONSOLE.say("\n".join(f"{name:<11}{text}" for name, text in lines.items() if text))


def _count_flops(trainer: L.Trainer, pl_module: L.LightningModule, data: Any) -> FlopCount | None:
    net, size, channels = (
        getattr(owner, name, None) for owner, name in ((pl_module, "net"), (data, "img_size"), (data, "in_chans"))
    )
    plain = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
    first = next(net.parameters(), None) if isinstance(net, nn.Module) else None
    if not plain or net is None or first is None or size is None or channels is None:
        return None
    with trainer.precision_plugin.forward_context():
        return count_flops(net, torch.zeros(1, channels, *size, device=first.device, dtype=first.dtype))


def _network(name: str, data: Any) -> str:
    size, classes = getattr(data, "img_size", None), getattr(data, "num_classes", None)
    text = name if size is None else f"{name}, images of {size[0]}x{size[1]} pixels"
    return text if classes is None else f"{text}, {classes:,} classes"


def _parameters(pl_module: L.LightningModule) -> str:
    parameters = list(pl_module.parameters())
    schedule: Any = getattr(pl_module, "freeze_schedule", None)
    probe_steps = schedule is not None and schedule.in_linear_probe and getattr(pl_module, "probe_steps", 0)
    with contextlib.nullcontext() if schedule is None or probe_steps else schedule.unfrozen():
        trained = _numel(each for each in parameters if each.requires_grad)
    total = _numel(parameters)
    if total == trained:
        return f"{total:,}, all train"
    text = f"{total:,}, of which {trained:,} train"
    return f"{text} (the head alone until step {probe_steps:,})" if probe_steps else text


def _numel(parameters: Iterable[nn.Parameter]) -> int:
    return sum(each.numel() for each in parameters)


def _flops(flops: FlopCount, pl_module: L.LightningModule) -> str:
    patches: Any = getattr(pl_module, "patches", None)
    note = f", with patches of {patches.coarse} pixels" if patches is not None and patches.is_coarse else ""
    return f"{format_flops(flops.forward)} to predict, {format_flops(flops.training)} to train{note}"


def _images(data: Any) -> str:
    splits = getattr(data, "splits", None) or {}
    return ", ".join(f"{len(splits[name]):,} {title}" for name, title in SPLITS.items() if name in splits)


def _training(trainer: L.Trainer, data: Any) -> str:
    """Describe the length of the run."""
    steps, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    size = getattr(data, "batch_size", None)
    of = f" of {size:,} images" if isinstance(size, int) else ""
    devices = f" on each of {trainer.world_size} devices" if trainer.world_size > 1 else ""
    if batches == float("inf"):
        return f"{steps:,.0f} steps{of}{devices}"
    plural = "" if batches == 1 else "es"
    return f"{steps:,.0f} steps; an epoch is {batches:,.0f} batch{plural}{of}{devices}"


def _device(trainer: L.Trainer, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    times = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    return f"{times}{name}, precision {trainer.precision}"
