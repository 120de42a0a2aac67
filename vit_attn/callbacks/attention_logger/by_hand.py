"""Logging of attention by a training loop of one's own, without Lightning."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.methods.registry import drawn_methods
from vit_attn.callbacks.attention_logger.scalars import write_scalars
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, SnapshotOptions
from vit_attn.callbacks.attention_logger.tab import tab_images, write_snapshot
from vit_attn.callbacks.attention_logger.targets import other_methods, supported
from vit_attn.callbacks.probe_images import LabelledImages, Scale
from vit_attn.errors import UserError
from vit_attn.training.data_members import names_of_classes


def log_attention(
    writer: SummaryWriter | str | Path,
    net: nn.Module,
    images: Float[Tensor, "B C height width"],
    step: int,
    labels: Int64[Tensor, " B"] | Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> int:
    """Log the attention of a network on images for the Attention tab, as ``AttentionLogger`` does with Lightning.

    Call it every so often with the same images. The network, its modes, gradients and random state are left as they
    were. Measures of heads are written as curves where a ``SummaryWriter`` is given.

    Args:
        writer: TensorBoard's writer of the run, or the run's folder.
        net: Network of images that :func:`vit_attn.record` takes, with a head.
        images: A few normalised images, as the network takes them; they are moved to its device.
        step: Training step.
        labels: Class index of each image; by default unknown.
        class_names: Names of the classes by index; by default numbers.
        mean: Mean by channel for pixels in [0, 1], to show the images in their colours; by default they are shown from
            the darkest to the brightest value, or as they are if all lie in [0, 1].
        std: Standard deviation by channel, with ``mean``.

    Returns:
        Bytes that were written for the tab.

    Raises:
        UserError: If the network cannot be recorded, or if labels, mean or std do not fit the images.
    """
    if not isinstance(writer, SummaryWriter | str | Path):
        raise UserError(
            f"the writer must be a SummaryWriter or a folder, got {type(writer).__name__}: of a TensorBoardLogger, "
            "give logger.experiment"
        )
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a normalised tensor (B, channels, height, width), got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"images must be (B, 1 or 3 channels, height, width), got {tuple(images.shape)}")
    known = torch.full((len(images),), -1) if labels is None else torch.as_tensor(labels).cpu().long()
    if len(known) != len(images):
        raise UserError(f"labels must be one an image, got {len(known)} labels for {len(images)} images")
    if (mean is None) != (std is None):
        raise UserError("mean and std belong together: give both or neither")
    scale = Scale.of(images, None if mean is None or std is None else (mean, std))
    probe = LabelledImages(scale.pixels(images).cpu(), known)
    drawn = tuple(supported(net, drawn_methods()))
    options = SnapshotOptions(len(images), drawn, True, tab_methods=other_methods(net, drawn), targets=True)
    parameter = next(net.parameters())
    inputs = images.detach().to(parameter.device, parameter.dtype)
    snapshot = AttentionSnapshot.of_images(net, inputs, probe, options, step=step).on_host()
    if (largest := int(known.max())) >= (classes := snapshot.logits.shape[1]):
        raise UserError(f"label {largest} is no class of the network, whose {classes} classes are 0 to {classes - 1}")
    writers = [writer] if isinstance(writer, SummaryWriter) else []
    measures = write_scalars(writers, snapshot, range(len(snapshot.recording)))
    shown = tab_images(snapshot, names_of_classes(class_names, classes), len(images))
    target = Path(writer) if isinstance(writer, str) else writer
    written = write_snapshot(target, snapshot, shown, measures, vectors=len(images))
    for each in writers:
        each.flush()
    return written
