"""Export of a network: written to a temporary folder, read again, compared, and only then moved to its target."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_attn.checkpoints.timm_config import CONFIG, loads_other_weights
from vit_attn.data.summary import describe_classes
from vit_attn.errors import UserError
from vit_attn.inference.export_formats import OPSET, WRITERS, Function
from vit_attn.inference.network import TrainedNetwork

BATCHES = (1, 3)
"""Images of each kind in the batches that are compared; programs are traced with another size."""
FORMATS = {".safetensors": "weights", ".onnx": f"ONNX, opset {OPSET}", ".pt2": "torch.export program"}
INPUTS = {None: "normalised images", "unit": "pixels in [0, 1]", "uint8": "pixels as uint8"}


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Args:
        path: The file, which ends in ``.safetensors``, ``.onnx`` or ``.pt2``.
        pixels: Input of a program: ``unit`` for pixels in [0, 1], ``uint8``, or None for normalised images.
        tolerance: Largest difference of a logit, as a fraction of the largest logit, or absolute below 1.
        overwrite: Whether timm's ``config.json`` in the folder of the weights may be replaced.
    """

    path: Path
    pixels: str | None = None
    tolerance: float = 1e-3
    overwrite: bool = False


class Normalized(nn.Module):
    """Network with the normalisation built in.

    Args:
        network: The network.
        white: Value of a white pixel: 1, or 255 for uint8.
    """

    def __init__(self, network: TrainedNetwork, white: float) -> None:
        super().__init__()
        self.net = network.net
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (network.card.mean, network.card.std))
        self.register_buffer("scale", 1 / (white * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pixels."""
        return self.net(images.float() * self.scale + self.shift)


def export(network: TrainedNetwork, settings: ExportSettings) -> str:
    """Write a network to a file; weights with timm's ``config.json`` in the same folder.

    Args:
        network: The network.
        settings: File and format.

    Returns:
        A report for the user: what was written, and by how much its logits differ.

    Raises:
        UserError: If the network cannot be exported, or if its logits differ by more than the tolerance.
    """
    path, pixels = settings.path, settings.pixels
    suffix = path.suffix.lower()
    net = network.net.cpu().eval()
    if pixels is not None:
        net = Normalized(network, 255 if pixels == "uint8" else 1).eval()
    metadata = network.card.metadata() | {"pixels": f'"{pixels or "normalised"}"'}
    no_config = _reason_for_no_config(settings) if suffix == ".safetensors" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder, path.name)
        again = WRITERS[suffix](net, network, unfinished, metadata, samples(network, pixels, 2))
        difference, largest = compare(net, again, network, pixels)
        if not difference <= settings.tolerance * max(1.0, largest):  # NaN is refused as well
            raise UserError(
                f"{path} was not written: its logits differ by {difference:.2e} from the network's, whose largest is "
                f"{largest:.3g}; --tolerance allows {settings.tolerance:g} of that"
            )
        if no_config:
            Path(folder, CONFIG).unlink()
        for part in sorted(Path(folder).iterdir()):  # programs above 2 GB have their weights in a file of their own
            os.replace(part, path.with_name(part.name))
    return (
        f"{path}: {_description(network, suffix, pixels)}, {path.stat().st_size / 1e6:.1f} MB\n"
        + (_config_report(network, path, no_config) if suffix == ".safetensors" else "")
        + f"compared with the network on noise, plain and smooth images: largest difference of a logit "
        f"{difference:.1e}, largest logit {largest:.3g}\n"
    )


def _reason_for_no_config(settings: ExportSettings) -> str | None:
    """Return the reason not to write ``config.json`` next to weights, if there is one."""
    config = settings.path.with_name(CONFIG)
    if others := loads_other_weights(settings.path):
        return (
            f"{config} was not written, since timm may load {others[0]} from this folder: name a folder, "
            "--output FOLDER/"
        )
    if config.exists() and not settings.overwrite:
        return f"{config} exists and was not replaced: add --overwrite, or name another folder, --output FOLDER/"
    return None


def _config_report(network: TrainedNetwork, path: Path, no_config: str | None) -> str:
    if no_config:
        return f"{no_config}\n"
    ours = ["vit_attn.model"] if network.card.architecture.startswith("vit_attn_") else []
    first = "".join(f"import {module}; " for module in (*ours, *network.card.parts))
    return f"{path.with_name(CONFIG)}: {first}timm.create_model('local-dir:{path.parent}', pretrained=True) loads it\n"


def _description(network: TrainedNetwork, suffix: str, pixels: str | None) -> str:
    card = network.card
    names = [network.class_name(index) for index in range(network.num_classes)]
    shape = "x".join(map(str, card.input_size))
    takes = "" if suffix == ".safetensors" else f"takes {INPUTS[pixels]}, "
    return f"{FORMATS[suffix]}, {describe_classes(names)}, {takes}images (B, {shape}), crop_pct {card.crop_pct:g}"


def samples(network: TrainedNetwork, pixels: str | None, count: int) -> Tensor:
    """Make images for a comparison: noise, smooth ones like photographs, one black and one white.

    Args:
        network: The network, for the size and normalisation of its images.
        pixels: ``unit``, ``uint8``, or None for normalised images.
        count: Images of noise, and smooth ones.
    """
    card = network.card
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, *card.input_size, generator=generator)
    smooth = torch.rand(count, card.in_chans, 6, 6, generator=generator)
    smooth = F.interpolate(smooth, card.img_size, mode="bicubic").clamp(0, 1)
    plain = torch.stack([torch.zeros_like(noise[0]), torch.ones_like(noise[0])])
    images = (torch.cat([smooth, noise, plain]) * 255).round()
    if pixels == "uint8":
        return images.to(torch.uint8)
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (card.mean, card.std))
    return images / 255 if pixels == "unit" else (images / 255 - mean) / std


@torch.no_grad()
def compare(net: nn.Module, again: Function, network: TrainedNetwork, pixels: str | None) -> tuple[float, float]:
    """Compare a network with what was written of it.

    Returns:
        Largest difference of a logit, and the largest logit.

    Raises:
        UserError: If the shapes differ, or if the network gives NaN or infinity.
    """
    difference = largest = 0.0
    for count in BATCHES:
        images = samples(network, pixels, count)
        for batch in (images, images[:1]):
            theirs, ours = again(batch), net(batch)
            if not ours.isfinite().all():
                raise UserError("the network gives NaN or infinity for ordinary images: it is not worth a file")
            if theirs.shape != ours.shape:
                raise UserError(f"what was written gives {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
            apart = (theirs - ours).abs().max().item()
            difference = apart if not apart <= difference else difference
            largest = max(largest, ours.abs().max().item())
    return difference, largest
