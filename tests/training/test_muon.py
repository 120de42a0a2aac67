import copy

import pytest
import timm.optim
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.op_counter import OpCounter
from vit_attn.model import VisionTransformer
from vit_attn.training.muon import Muon
from vit_attn.training.optimizers import build_optimizer

SIZES = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 32, "depth": 3, "num_heads": 2}
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Convolutions(nn.Module):
    """Matrices, convolutions, a matrix that is too narrow, and a layer that an even step does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.narrow, self.skipped, self.head = nn.Linear(8, 2), nn.Linear(8, 8), nn.Linear(8, 8)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        x = self.second(self.first(images).relu()).relu().mean(dim=(2, 3))
        x = self.head(self.skipped(x) if self.calls % 2 else x)
        return torch.cat([self.narrow(x), x], dim=1)


def vit(**options) -> nn.Module:
    return VisionTransformer(**(SIZES | options))


def theirs(optimizer: Muon) -> timm.optim.Muon:
    """The same optimiser as timm has it."""
    return timm.optim.Muon([dict(group) for group in optimizer.param_groups], **optimizer.defaults)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for number in range(steps):
        optimizer.zero_grad()
        net(IMAGES).square().sum().backward()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9 + 0.01 * number
        optimizer.step()


def equal(one: dict, other: dict) -> bool:
    """Tell whether two state dicts of optimisers have the same bits."""
    values = [
        {key: {name: each.tolist() if isinstance(each, Tensor) else each for name, each in state.items()}
         for key, state in whole["state"].items()}
        for whole in (one, other)
    ]  # fmt: skip
    return values[0] == values[1] and one["param_groups"] == other["param_groups"]


@pytest.mark.parametrize(
    ("name", "net", "layer_decay"),
    [
        ("muon", vit(), 1.0),
        ("nmuon", vit(reg_tokens=2, qk_norm=True, init_values=0.1, class_token=False, global_pool="avg"), 1.0),
        ("muon", vit(stem="conv"), 0.75),
        ("muon", Convolutions(), 1.0),
        ("nmuon", Convolutions(), 1.0),
        ("adamuon", vit(), 1.0),
        ("nadamuon", vit(), 1.0),
    ],
)
def test_weights_and_state_are_those_of_timm_to_the_bit(name: str, net: nn.Module, layer_decay: float):
    other = copy.deepcopy(net)
    ours = build_optimizer(net, name, 0.01, 0.05, layer_decay)
    reference = theirs(build_optimizer(other, name, 0.01, 0.05, layer_decay))
    train(net, ours, 5)
    train(other, reference, 5)
    assert type(ours) is Muon
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert equal(ours.state_dict(), reference.state_dict())


def test_weights_of_16_bits_are_those_of_timm_but_for_rounding():
    net = vit().bfloat16()
    other = copy.deepcopy(net)
    for each, build in ((net, lambda optimizer: optimizer), (other, theirs)):
        optimizer = build(build_optimizer(each, "muon", 0.01, 0.05))
        each(IMAGES.bfloat16()).sum().backward()
        optimizer.step()
    for one, two in zip(net.parameters(), other.parameters(), strict=True):  # a CPU adds transposed matrices otherwise
        assert_close(one, two, rtol=2**-7, atol=2**-12 * 0.05)


def test_a_run_of_timm_goes_on_to_the_bit():
    net = vit()
    reference = theirs(build_optimizer(net, "muon", 0.01, 0.05))
    train(net, reference, 3)
    resumed = copy.deepcopy(net)
    ours = build_optimizer(resumed, "muon", 0.01, 0.05)
    ours.load_state_dict(copy.deepcopy(reference.state_dict()))
    train(net, reference, 3)
    train(resumed, ours, 3)
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), resumed.parameters(), strict=True))
    assert equal(ours.state_dict(), reference.state_dict())


def test_a_closure_is_called_with_gradients():
    net = vit()
    optimizer = build_optimizer(net, "muon", 0.01, 0.05)

    def closure() -> Tensor:
        loss = net(IMAGES).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert "momentum_buffer" in optimizer.state[net.blocks[0].attn.qkv.weight]


def test_rates_by_layer_add_one_launch_a_rate_and_shape_and_no_read():
    launches = []
    for layer_decay in (1.0, 0.75):
        net = vit(depth=6)
        optimizer = build_optimizer(net, "muon", 0.01, 0.05, layer_decay)
        train(net, optimizer, 2)
        with OpCounter(own_reads=False) as counter:
            optimizer.step()
        assert counter.waits == counter.transfers == 0
        launches.append(counter.launches)
    assert launches[1] - launches[0] == 4 * 5
