"""Compiled augmentation (data.compile_augment) gives the batches of the uncompiled one."""

import functools
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from vit_attn.data import Augment, ImageData

RECIPE = Augment(crop_padding=4, flip=0.5, rand_augment=9, erase=0.25, mixup=0.8, cutmix=1.0)
JITTER = Augment(crop_padding=0, trivial_augment=1.0, colour_jitter=0.4, cutout=8, flip_alternating=True)


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """Start without compiled code, and leave none; checks of shapes are no part of a graph."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batches(root: Path, augment: Augment, compile_augment: bool) -> list[tuple[Tensor, Tensor]]:
    data = ImageData(
        "cifar10",
        root=str(root),
        batch_size=20,
        download=False,
        num_workers=0,
        augment=augment,
        compile_augment=compile_augment,
    )
    return list(data.train_dataloader())


@pytest.mark.parametrize("augment", [RECIPE, JITTER], ids=["recipe", "jitter"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_loader_gives_the_batches_of_the_uncompiled_one(cifar10_root: Path, augment, backend, monkeypatch):
    expected = batches(cifar10_root, augment, False)
    counter = CompileCounterWithBackend(backend)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter, fullgraph=True))
    torch.testing.assert_close(batches(cifar10_root, augment, True), expected, rtol=0, atol=1e-6)
    assert (len(expected), counter.frame_count) == (9, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # what torch's compiler calls
def test_code_that_inductor_compiles_changes_no_pixel(cifar10_root: Path):
    augment = Augment(crop_padding=4, flip=0.5, rand_augment=9, erase=0.25)
    expected, before = batches(cifar10_root, augment, False), counters["stats"]["unique_graphs"]
    compiled = batches(cifar10_root, augment, True)
    assert counters["stats"]["unique_graphs"] == before + 1
    torch.testing.assert_close(
        compiled, expected, rtol=0, atol=1e-4
    )  # a grey level is 0.01 or more after normalisation
