"""What ``export`` does: write a network, read it again, compare, and only then give the file its name."""

import contextlib
import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_attn.checkpoints.header import Header
from vit_attn.checkpoints.weights import read_weights, save_weights
from vit_attn.errors import UserError
from vit_attn.inference.network import Network

OPSET = 20
"""Version of ONNX's operators, of 2023: the first with gelu as one operator."""
BATCHES = (1, 3)
"""Sizes of the batches that are compared; another one is traced."""

Run = Callable[[Tensor], Tensor]


class Normalized(nn.Module):
    """A network that takes pixels and normalises them itself.

    Args:
        network: The network.
        most: Value of a white pixel: 1, or 255 for uint8.
    """

    def __init__(self, network: Network, most: float) -> None:
        super().__init__()
        self.net = network.net
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (network.mean, network.std))
        self.register_buffer("scale", 1 / (most * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pixels."""
        return self.net(images.float() * self.scale + self.shift)


def export(network: Network, path: Path, pixels: str | None, tolerance: float) -> str:
    """Write a network to a file.

    Args:
        network: The network.
        path: The file, which ends in ``.safetensors``, ``.onnx`` or ``.pt2``.
        pixels: Pixels that a program takes, ``unit`` or ``uint8``; without it they are normalised.
        tolerance: Largest difference of a logit, in shares of the largest.

    Returns:
        What was written and how much it differs, for the user.

    Raises:
        UserError: If it cannot be exported, or if what was written differs by more.
    """
    header = Header(
        network.arch,
        network.options,
        network.class_names,
        tuple(network.mean),
        tuple(network.std),
        tuple(network.img_size),
        network.crop,
        network.bits,
    )
    net = network.net.cpu().eval() if pixels is None else Normalized(network, 255 if pixels == "uint8" else 1).eval()
    said = header.metadata() | {"pixels": json.dumps(pixels or "normalised")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder, path.name)
        again = WRITERS[path.suffix.lower()](net, network, unfinished, said, samples(network, pixels, 2))
        difference, largest = compare(net, again, network, pixels)
        if not difference <= tolerance * max(1.0, largest):  # not a number is refused as well
            raise UserError(
                f"{path} was not written: its logits differ by {difference:.2e} from the network's, whose largest is "
                f"{largest:.3g}; --tolerance allows {tolerance:g} of that"
            )
        for part in sorted(Path(folder).iterdir()):  # one file, and weights of more than 2 GB beside it
            os.replace(part, path.with_name(part.name))
    takes = {None: "normalised images", "unit": "pixels in [0, 1]", "uint8": "pixels as uint8"}[pixels]
    shape = "x".join(map(str, (len(network.mean), *network.img_size)))
    forms = {".safetensors": "weights", ".onnx": f"ONNX, opset {OPSET}", ".pt2": "torch.export program"}
    what = forms[path.suffix.lower()] + (
        "" if path.suffix.lower() == ".safetensors" else f", takes {takes} (B, {shape})"
    )
    return (
        f"{path}: {what}, {path.stat().st_size / 1e6:.1f} MB\n"
        f"compared with the network on noise, plain and smooth images: largest difference of a logit {difference:.1e}, "
        f"largest logit {largest:.3g}\n"
    )


def samples(network: Network, pixels: str | None, count: int) -> Tensor:
    """Images as a program takes them: noise, and smooth ones as photographs are; plain black and white among them.

    Args:
        network: What says of what size and how normalised.
        pixels: ``unit``, ``uint8``, or none for normalised ones.
        count: Images of each kind, noise and smooth.
    """
    generator, channels = torch.Generator().manual_seed(0), len(network.mean)
    noise = torch.rand(count, channels, *network.img_size, generator=generator)
    smooth = torch.rand(count, channels, 6, 6, generator=generator)
    smooth = F.interpolate(smooth, network.img_size, mode="bicubic").clamp(0, 1)
    plain = torch.stack([torch.zeros_like(noise[0]), torch.ones_like(noise[0])])
    images = (torch.cat([smooth, noise, plain]) * 255).round()
    if pixels == "uint8":
        return images.to(torch.uint8)
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (network.mean, network.std))
    return images / 255 if pixels == "unit" else (images / 255 - mean) / std


@torch.no_grad()
def compare(net: nn.Module, again: Run, network: Network, pixels: str | None) -> tuple[float, float]:
    """Largest difference of a logit between a network and what was written, and the largest logit.

    Raises:
        UserError: If what was written gives other shapes, or if the network gives what is not finite.
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


def _write_weights(net: nn.Module, network: Network, path: Path, said: dict[str, str], _example: Tensor) -> Run:
    save_weights(net, path, {name: text for name, text in said.items() if name != "pixels"})
    again = timm.create_model(network.arch, pretrained=False, **network.options).eval()
    again.load_state_dict(read_weights(path), strict=True)
    return again


def _write_onnx(net: nn.Module, network: Network, path: Path, said: dict[str, str], example: Tensor) -> Run:
    runtime = importlib.import_module("onnxruntime")
    with _quiet(), _told(path):
        program: Any = torch.onnx.export(
            net,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
        program.model.metadata_props.update(said)
        size = sum(each.numel() * each.element_size() for each in net.state_dict().values())
        program.save(str(path), external_data=size > 1.9e9)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_program(net: nn.Module, network: Network, path: Path, said: dict[str, str], example: Tensor) -> Run:
    extra = {"vit_attn.json": json.dumps({name: json.loads(text) for name, text in said.items() if name != "format"})}
    with _quiet(), _told(path):
        program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path, extra_files=extra)
        again: Any = torch.export.load(path).module()
    return again


WRITERS = {".safetensors": _write_weights, ".onnx": _write_onnx, ".pt2": _write_program}


def require_onnx() -> None:
    """Refuse to begin without the packages that ONNX needs.

    Raises:
        UserError: If one is missing.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"writing ONNX needs {name}: pip install 'vit_attn[export]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the exporters say to their own developers is not for a user."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of the exporters' many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the network cannot be written as {path.suffix}: {reason}") from error
