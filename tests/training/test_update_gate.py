import pytest
import timm
import torch
from torch import Tensor
from torch.optim import Optimizer

import vit_attn.model  # noqa: F401  registers our sizes
from vit_attn.training.optimizers import build_optimizer
from vit_attn.training.update_gate import UpdateGate, gradient_norm

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def network() -> torch.nn.Module:
    return timm.create_model("vit_attn_tiny_patch4_32", num_classes=3, embed_dim=16, depth=1, num_heads=2)


def step(net: torch.nn.Module, optimizer: Optimizer, gate: UpdateGate, number: int, factor: float = 1.0) -> None:
    optimizer.zero_grad()
    (net(IMAGES).square().mean() * factor).backward()
    gate.before_step(optimizer, gradient_norm(net.parameters()))
    optimizer.step()
    gate.after_step(optimizer, number)


def everything(net: torch.nn.Module, optimizer: Optimizer) -> list[Tensor]:
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [each.detach().clone() for each in (*net.parameters(), *kept)]


def equal(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("avoid_sync", [True, False])
@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "lion", "lamb"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing_and_a_later_one_does(name: str, avoid_sync: bool, factor: float):
    net = network()
    optimizer, gate = (
        build_optimizer(net, name, 1e-2, 0.05),
        UpdateGate(torch.device("cpu"), False, avoid_sync=avoid_sync),
    )
    untrained = everything(net, optimizer)
    step(net, optimizer, gate, 1, factor)
    assert equal(untrained, everything(net, optimizer)[: len(untrained)])
    step(net, optimizer, gate, 2)
    before = everything(net, optimizer)
    step(net, optimizer, gate, 3, factor)
    assert equal(before, everything(net, optimizer))
    step(net, optimizer, gate, 4)
    assert not equal(before, everything(net, optimizer))
    assert gate.counts.tolist() == [2, 1, 0]


def test_a_sticky_gate_undoes_all_later_steps():
    net = network()
    optimizer, gate = build_optimizer(net, "adamw", 1e-2, 0.05), UpdateGate(torch.device("cpu"), True, avoid_sync=True)
    step(net, optimizer, gate, 1)
    before = everything(net, optimizer)
    for number, factor in ((2, float("nan")), (3, 1.0), (4, 1.0)):
        step(net, optimizer, gate, number, factor)
    assert equal(before, everything(net, optimizer))
    assert gate.counts.tolist() == [3, 2, 3]


def test_weights_that_overflow_by_a_finite_gradient_are_undone():
    net = network()
    optimizer, gate = build_optimizer(net, "sgd", 1e38, 0.0), UpdateGate(torch.device("cpu"), False)
    before = everything(net, optimizer)
    step(net, optimizer, gate, 1, 1e6)
    assert equal(before, everything(net, optimizer)[: len(before)])
    assert gate.counts.tolist() == [1, 1, 1]


def test_finite_steps_are_those_without_a_gate():
    ends = []
    for gate in (UpdateGate(torch.device("cpu"), True, avoid_sync=True), None):
        torch.manual_seed(0)
        net = network()
        optimizer = build_optimizer(net, "muon", 1e-2, 0.05)
        for number in range(1, 4):
            optimizer.zero_grad()
            net(IMAGES).square().mean().backward()
            if gate:
                gate.before_step(optimizer, gradient_norm(net.parameters()))
            optimizer.step()
            if gate:
                gate.after_step(optimizer, number)
        ends.append(everything(net, optimizer))
    assert equal(*ends)


def test_weights_of_16_bits_are_undone_too():
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer, gate = torch.optim.AdamW([weight], 0.1), UpdateGate(torch.device("cpu"), False, avoid_sync=True)
    for number, gradient in enumerate((1.0, float("nan")), start=1):
        before = weight.detach().clone()
        weight.grad = torch.full_like(weight, gradient)
        gate.before_step(optimizer, gradient_norm([weight]))
        optimizer.step()
        gate.after_step(optimizer, number)
        assert torch.equal(before, weight) == (number == 2)


@pytest.mark.parametrize("avoid_sync", [True, False])
def test_running_means_of_a_bad_step_are_undone(avoid_sync: bool):
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    gate = UpdateGate(torch.device("cpu"), False, net.buffers(), avoid_sync=avoid_sync)
    for number, factor in enumerate((1.0, float("nan"), 1.0), start=1):
        before = [each.clone() for each in net.buffers()]
        optimizer.zero_grad()
        net(torch.rand(8, 4) * factor).sum().backward()
        gate.before_step(optimizer, gradient_norm(net.parameters()))
        optimizer.step()
        gate.after_step(optimizer, number)
        same = [torch.equal(old, new) for old, new in zip(before[:2], list(net.buffers())[:2], strict=True)]
        assert same == [number == 2, number == 2]
        assert all(torch.isfinite(each).all() for each in net.buffers())


class _RebindsItsState(torch.optim.SGD):
    """An optimiser that replaces its momentum by another tensor in each of the first steps, and then updates it."""

    def step(self, closure=None) -> None:
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            if len(self.momenta) < 3:
                state["momentum"] = state.get("momentum", torch.zeros_like(weight)) + weight.grad
                self.momenta.append(state["momentum"])  # so that no other takes its address
            else:
                state["momentum"] += weight.grad
            weight.data.sub_(state["momentum"])

    momenta: list[Tensor]


@pytest.mark.parametrize("bad_step", [2, 3, 4, 5])
def test_state_that_the_optimizer_replaces_in_its_first_steps_is_undone_too(bad_step: int):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, gate = _RebindsItsState([weight], 0.1), UpdateGate(torch.device("cpu"), False, avoid_sync=True)
    optimizer.momenta = []
    for number in range(1, bad_step + 1):
        before = [weight.detach().clone(), *(each["momentum"].clone() for each in optimizer.state.values())]
        weight.grad = torch.full_like(weight, float("nan") if number == bad_step else 1.0)
        gate.before_step(optimizer, gradient_norm([weight]))
        optimizer.step()
        gate.after_step(optimizer, number)
    assert equal(before, [weight.detach(), optimizer.state[weight]["momentum"]])
