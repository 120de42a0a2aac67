import pytest
import timm
import torch
from torch import nn

from vit_attn.training import throughput
from vit_attn.training.throughput import ActivityClock, Usage, count_flops, peak_flops, peak_memory

TOKENS, WIDTH, DEPTH, HIDDEN = 65, 32, 2, 64


def small_vit(**options) -> nn.Module:
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "mlp_ratio": HIDDEN / WIDTH}
    return timm.create_model("vit_attn_tiny_patch4_32", num_classes=10, **sizes | options)


def forward_flops() -> dict[str, int]:
    """Operations of the parts of the network above on one image, by hand: two for each multiply-add."""
    block = 4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH + 2 * TOKENS * WIDTH * HIDDEN
    patches = (TOKENS - 1) * WIDTH * 4 * 4 * 3
    return {"patches": 2 * patches, "blocks": 2 * DEPTH * block, "block": 2 * block, "head": 2 * WIDTH * 10}


class Seconds:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_second_counts_for_the_innermost_activity_alone():
    time = Seconds()
    clock = ActivityClock(time)
    with clock.measure("logging"):
        time.now += 1  # before the start
    clock.start()
    time.now += 10
    clock.end("input")  # not the current one
    clock.end("startup")
    time.now += 2
    with clock.measure("validation"):
        time.now += 4
        with clock.measure("logging"):
            time.now += 8
        time.now += 4
    clock.stop()
    time.now += 100
    seconds = {"startup": 10, "train": 2, "validation": 8, "logging": 8, "input": 0, "checkpoint": 0}
    assert clock.read() == seconds


def test_an_activity_ends_with_an_error_inside_it():
    clock = ActivityClock(Seconds())
    clock.start()
    clock.end("startup")
    with pytest.raises(KeyError), clock.measure("checkpoint"):
        raise KeyError
    assert clock.current == "train"


def test_rates_are_those_of_training_and_its_input():
    seconds = {"startup": 50.0, "train": 6.0, "input": 2.0, "validation": 20.0, "logging": 1.0, "checkpoint": 1.0}
    usage = Usage(batches=5, timed_batches=4, images=32, flops=640, seconds=seconds)
    assert usage.images_per_second == 4
    assert usage.flops_per_second == 80
    assert usage.input_fraction == 0.25
    assert usage.fraction("validation") == 0.25
    assert usage.seconds_per_batch(usage) == 2 + 22 / 5
    assert Usage(**usage.state()) == usage
    assert (usage - usage).images_per_second is None
    assert (usage - usage).input_fraction is None
    assert usage.seconds_per_batch(usage - usage) is None


def test_operations_are_those_of_a_forward_pass_and_twice_that_for_the_backward():
    parts = forward_flops()
    forward = parts["patches"] + parts["blocks"] + parts["head"]
    assert count_flops(small_vit(), torch.randn(3, 3, 32, 32)).training == 3 * forward


def test_an_attention_pool_whose_query_is_a_view_of_a_parameter_is_counted():
    flops = count_flops(small_vit(global_pool="map"), torch.randn(1, 3, 32, 32))
    assert flops.forward > forward_flops()["patches"]
    assert flops.training == 3 * flops.forward


def test_frozen_parts_have_no_backward():
    net, parts = small_vit(), forward_flops()
    forward = parts["patches"] + parts["blocks"] + parts["head"]
    net.requires_grad_(False)
    net.get_submodule("head").requires_grad_()
    images = torch.randn(1, 3, 32, 32)
    assert count_flops(net, images).training == forward + 2 * parts["head"]
    net.get_submodule("blocks.1").requires_grad_()
    assert count_flops(net, images).training == forward + 2 * (parts["head"] + parts["block"])


def test_counting_leaves_the_network_and_the_random_state_as_they_were():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 2))
    net[2].eval()
    net[4].weight.grad = torch.ones(2, 4 * 36)
    images = torch.randn(2, 3, 8, 8).requires_grad_()
    state, random = {name: each.clone() for name, each in net.state_dict().items()}, torch.get_rng_state()
    count_flops(net, images)
    assert images.grad is None
    assert all(torch.equal(each, net.state_dict()[name]) for name, each in state.items())
    assert [module.training for module in net] == [True, True, False, True, True]
    assert torch.equal(net[4].weight.grad, torch.ones(2, 4 * 36))
    assert net[0].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_a_compiled_network_is_counted_eagerly_and_not_compiled_again():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    class Net(nn.Module):  # torch 2.11 does not compile one of torch.nn itself
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 2)

        def forward(self, x):
            return self.head(x.flatten(1))

    net, images = Net(), torch.randn(2, 3, 2, 2)
    eager = count_flops(net, images).training
    net.compile(backend=backend, fullgraph=True)
    net(images)
    compiled = len(graphs)
    assert count_flops(net, images).training == eager
    net(images)
    assert compiled == len(graphs) == 1
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989.4e12),
        ("NVIDIA H200", torch.bfloat16, 989.4e12),
        ("NVIDIA H200", torch.float32, 66.9e12),
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312e12),
        ("NVIDIA H200 NVL", torch.bfloat16, None),
        ("NVIDIA L40S", torch.bfloat16, None),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, None),
        ("A card of next year", torch.bfloat16, None),
        ("Tesla T4", torch.bfloat16, None),
    ],
)
def test_the_peak_is_that_of_dense_products_or_unknown(monkeypatch, name: str, dtype: torch.dtype, peak: float | None):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr("lightning.fabric.accelerators.cuda._is_ampere_or_later", lambda: True)
    assert peak_flops(torch.device("cuda"), dtype) == peak
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    if name == "NVIDIA H200" and dtype is torch.float32:
        assert peak_flops(torch.device("cuda"), dtype) == 494.7e12


def test_a_processor_has_no_known_peak():
    assert peak_flops(torch.device("cpu"), torch.float32) is None


def test_memory_is_in_gigabytes(monkeypatch: pytest.MonkeyPatch):
    measured = peak_memory(torch.device("cpu"))
    assert measured is not None
    assert 0.1 < measured < 100  # this process, torch included
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_500_000_000)
    assert peak_memory(torch.device("cuda")) == 2.5
    monkeypatch.setattr(throughput.sys, "platform", "win32")
    assert peak_memory(torch.device("cpu")) is None
