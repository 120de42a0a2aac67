"""Operations that each part of a training step of ``configs/cifar10.yaml`` launches, and its copies and waits."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import vit_attn.model  # noqa: F401  registers our sizes
from tests.op_counter import OpCounter
from vit_attn.training import muon
from vit_attn.training.ema import EMA
from vit_attn.training.loss import logits_and_loss
from vit_attn.training.metrics import batch_accuracy
from vit_attn.training.optimizers import build_optimizer
from vit_attn.training.update_gate import UpdateGate, gradient_norm

RECIPE = yaml.safe_load((Path(__file__).parents[2] / "configs" / "cifar10.yaml").read_text("utf-8"))["model"]


class Step:
    """Parts of a training step, each to be called in turn."""

    def __init__(self, device: str = "cpu", optimizer: str = "muon") -> None:
        with torch.device(device):
            self.net, averaged = (
                timm.create_model(RECIPE["arch"], num_classes=10, **RECIPE["arch_options"]) for _ in range(2)
            )
        self.ema, average = EMA(RECIPE["ema"]), SimpleNamespace(module=averaged)
        self.ema._average_model = average  # pyrefly: ignore
        self.optimizer = build_optimizer(self.net, optimizer, RECIPE["lr"], RECIPE["weight_decay"])
        self.gate = UpdateGate(torch.device(device), True, self.net.buffers(), avoid_sync=True)
        self.images = torch.rand(2, 3, 32, 32, device=device)
        self.targets = torch.full((2, 10), 0.1, device=device)
        self.number = 0

    def forward(self) -> None:
        self.logits, self.loss = logits_and_loss(self.net, self.images, self.targets, None, 0.1)

    def backward(self) -> None:
        self.optimizer.zero_grad()
        if self.images.is_cuda:  # in name only: autograd would need a real one
            for parameter in self.net.parameters():
                parameter.grad = torch.zeros_like(parameter)
        else:
            self.loss.backward()

    def clip(self) -> None:
        parameters = list(self.net.parameters())
        self.norm = gradient_norm(parameters)
        torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, self.norm)

    def save(self) -> None:
        self.gate.before_step(self.optimizer, self.norm)

    def optimize(self) -> None:
        self.optimizer.step()

    def undo(self) -> None:
        self.number += 1
        self.gate.after_step(self.optimizer, self.number)

    def average(self) -> None:
        self.ema._average(self.net)

    def measure(self) -> Tensor:
        return batch_accuracy(self.logits, self.targets)

    def parts(self) -> list[Callable[[], Any]]:
        return [
            *(self.forward, self.backward, self.clip, self.save),
            *(self.optimize, self.undo, self.average, self.measure),
        ]


LIMITS = {
    **{"forward": 200, "backward": 290, "clip": 8, "save": 1, "undo": 26, "average": 1, "measure": 5},
    "optimize": 200,
}
"""Most launches of each part; uncompiled, and without an automatic cast."""


@pytest.mark.parametrize(("optimizer", "limit"), [("muon", 110), ("adamw", 6)])
def test_a_step_launches_no_more_operations_than_these(optimizer: str, limit: int):
    step, counts = Step(optimizer=optimizer), {}
    for _ in range(3):  # state is created in the first
        for part in step.parts():
            with OpCounter() as counter:
                part()
            counts[part.__name__] = counter.launches
            assert counter.waits == 0, (part.__name__, counter.places)
    assert len(list(step.net.parameters())) == 173
    limits = LIMITS | {"optimize": limit}
    assert {name: count for name, count in counts.items() if count > limits[name]} == {}


@pytest.mark.parametrize("optimizer", ["muon", "nmuon", "adamw"])
def test_a_step_on_a_gpu_reads_nothing_from_it_and_copies_nothing_to_it(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(muon, "_count_step", lambda counters: [1.0] * len(counters))  # counters on the host
    # tensors without memory, which are on a GPU in name: reading one of them is an error
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = Step("cuda", optimizer)
        for _ in range(2):
            for part in step.parts():
                part()
        assert {each.device.type for each in step.net.parameters()} == {"cuda"}
        with OpCounter(own_reads=True) as counter:
            for part in step.parts():
                part()
    assert counter.places == {}
