"""Formats of exported networks: weights for timm, ONNX, and torch.export programs."""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vit_attn.checkpoints.io import read_card
from vit_attn.checkpoints.timm_config import CONFIG, timm_config
from vit_attn.checkpoints.weights import save_weights
from vit_attn.errors import UserError, missing_package
from vit_attn.inference.network import TrainedNetwork

OPSET = 20
"""Version of ONNX's operators, of 2023: the first with GELU as one operator."""

Function = Callable[[Tensor], Tensor]
"""Exported network, loaded again: logits (B, classes) of images (B, C, height, width)."""
Writer = Callable[[nn.Module, TrainedNetwork, Path, Mapping[str, str], Tensor], Function]
"""Writes a network; takes the module to write, its network, the file, its metadata and an example batch."""


def write_weights(
    net: nn.Module, network: TrainedNetwork, path: Path, metadata: Mapping[str, str], _example: Tensor
) -> Function:
    """Write weights as safetensors and timm's ``config.json`` to one folder; timm loads it again.

    Raises:
        UserError: If the model card that is read again differs.
    """
    save_weights(net, path, network.card.metadata())
    config = json.dumps(timm_config(network.card, network.net), indent=2)
    path.with_name(CONFIG).write_text(f"{config}\n", "utf-8")
    again = read_card(path).metadata()
    if changed := [name for name, text in network.card.metadata().items() if again[name] != text]:
        raise UserError(f"{path.name} was not written: {', '.join(changed)} cannot be read again")
    with _one_line_errors(path):
        return timm.create_model(f"local-dir:{path.parent}", pretrained=True).eval()


def write_onnx(
    net: nn.Module, _network: TrainedNetwork, path: Path, metadata: Mapping[str, str], example: Tensor
) -> Function:
    """Write an ONNX program; onnxruntime loads it again."""
    runtime = importlib.import_module("onnxruntime")
    with _quiet(), _one_line_errors(path):
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
        program.model.metadata_props.update(metadata)
        size = sum(each.numel() * each.element_size() for each in net.state_dict().values())
        program.save(str(path), external_data=size > 1.9e9)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def write_program(
    net: nn.Module, _network: TrainedNetwork, path: Path, metadata: Mapping[str, str], example: Tensor
) -> Function:
    """Write a program of ``torch.export``, which loads it again."""
    values = {name: json.loads(text) for name, text in metadata.items() if name != "format"}
    with _quiet(), _one_line_errors(path):
        program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path, extra_files={"vit_attn.json": json.dumps(values)})
        again: Any = torch.export.load(path).module()
    return again


WRITERS: dict[str, Writer] = {".safetensors": write_weights, ".onnx": write_onnx, ".pt2": write_program}


def require_onnx() -> None:
    """Check that the packages for ONNX are installed.

    Raises:
        UserError: If one is missing.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise missing_package("writing ONNX", name) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and logs of the exporters, which are for their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the exporters raise many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the network cannot be written as {path.suffix}: {reason}") from error
