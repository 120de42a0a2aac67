"""Throughput of training: time by activity, rates, floating-point operations, peak speed and peak memory."""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning.fabric.utilities.throughput import _CUDA_FLOPS, get_available_flops
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Activity = Literal["startup", "train", "input", "validation", "logging", "checkpoint"]
ACTIVITIES: tuple[Activity, ...] = ("startup", "train", "input", "validation", "logging", "checkpoint")
"""What a run spends time on. ``startup`` lasts until the first step is done, and is compilation for the most part."""


class ActivityClock:
    """Seconds that a run spends on each activity; a second counts for the innermost activity alone.

    Args:
        now: Time in seconds, from any start; by default a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.seconds: dict[str, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self._activities: list[Activity] = []
        self._since = 0.0

    def start(self) -> None:
        """Begin with ``startup`` within ``train``; before, nothing is counted."""
        self._activities[:] = "train", "startup"
        self._since = self.now()

    def stop(self) -> None:
        """Count nothing from here on."""
        self._count()
        self._activities = []

    @property
    def current(self) -> Activity | None:
        """Innermost activity, or None while nothing is counted."""
        return self._activities[-1] if self._activities else None

    def read(self) -> dict[str, float]:
        """Return the seconds so far."""
        self._count()
        return dict(self.seconds)

    def begin(self, activity: Activity) -> None:
        """Count for an activity, within the current one."""
        if self._activities:
            self._count()
            self._activities.append(activity)

    def end(self, activity: Activity) -> None:
        """Go on with the activity around this one; without effect where it is not the current one."""
        if self.current == activity:
            self._count()
            self._activities.pop()

    def move(self, activity: Activity, to: Activity, seconds: float) -> None:
        """Count seconds for another activity than they were counted for."""
        self.seconds[activity] -= seconds
        self.seconds[to] += seconds

    @contextlib.contextmanager
    def measure(self, activity: Activity) -> Iterator[None]:
        """Count the ``with`` block for an activity."""
        self.begin(activity)
        try:
            yield
        finally:
            self.end(activity)

    def _count(self) -> None:
        if self._activities:
            now = self.now()
            self.seconds[self._activities[-1]] += now - self._since
            self._since = now


@dataclass(frozen=True)
class Usage:
    """What a part of a run did, and the time that it took.

    Args:
        batches: Training batches of one device.
        timed_batches: Those of them that were not part of the start-up.
        images: Training images of all devices in the timed batches.
        flops: Floating-point operations for them on one device.
        seconds: Seconds by activity.
    """

    batches: int = 0
    timed_batches: int = 0
    images: int = 0
    flops: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(ACTIVITIES, 0.0))

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(
            self.batches - earlier.batches,
            self.timed_batches - earlier.timed_batches,
            self.images - earlier.images,
            self.flops - earlier.flops,
            {name: self.seconds[name] - earlier.seconds[name] for name in ACTIVITIES},
        )

    @property
    def total_seconds(self) -> float:
        """Seconds of all activities."""
        return sum(self.seconds.values())

    @property
    def training_seconds(self) -> float:
        """Seconds of training steps with their input, without the start-up."""
        return self.seconds["train"] + self.seconds["input"]

    @property
    def images_per_second(self) -> float | None:
        """Training images of all devices per second of training, or None where no step was timed."""
        return self.images / self.training_seconds if self.images and self.training_seconds > 0 else None

    @property
    def flops_per_second(self) -> float | None:
        """Floating-point operations of one device per second of training, or None where they are not known."""
        return self.flops / self.training_seconds if self.flops and self.training_seconds > 0 else None

    @property
    def input_fraction(self) -> float | None:
        """Fraction of the training time that passed while a batch was prepared, or None where no step was timed."""
        return (
            self.seconds["input"] / self.training_seconds if self.timed_batches and self.training_seconds > 0 else None
        )

    def fraction(self, activity: Activity) -> float:
        """Fraction of all the time that an activity took."""
        return self.seconds[activity] / max(1e-9, self.total_seconds)

    def seconds_per_batch(self, recent: "Usage") -> float | None:
        """Estimate the seconds of a batch to come: its step as in ``recent``, all else as in the run so far."""
        if not recent.timed_batches or not self.batches:
            return None
        step = recent.training_seconds / recent.timed_batches
        between = self.total_seconds - self.training_seconds - self.seconds["startup"]
        return step + between / self.batches

    def state(self) -> dict[str, Any]:
        """Return the values for a checkpoint."""
        return asdict(replace(self, seconds=dict(self.seconds)))


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations for one image, of which a multiply-add is two.

    Args:
        forward: Operations of a forward pass.
        training: Operations of a training step.
    """

    forward: float
    training: float


def count_flops(net: nn.Module, images: Float[Tensor, "B ..."]) -> FlopCount:
    """Count the floating-point operations of a forward pass and of training, where backward is twice the forward.

    Backward counts for the modules that train, in full or in part (arXiv:2204.02311, appendix B, counts a network in
    which all do). The first of the images passes once through the network as it is evaluated, without gradients, and
    eagerly where it is compiled: weights, buffers, gradients, modes and random state stay as they are. Attention is
    computed from its matrix products, since torch has no count for its fused kernel on the CPU.

    Args:
        net: The network.
        images: Normalised images, (B, C, height, width).
    """
    counter = FlopCounterMode(display=False)
    # The counter hooks on every input that requires a gradient, and fails on a view that has none, such as the expanded
    # query of an attention pool: hence parameters that are detached.
    # Those of a sharded network stay, since its own forward gathers them.
    detached = {name: each.detach() for name, each in net.named_parameters() if not hasattr(each, "to_local")}
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
            functional_call(net, detached, (images[:1].detach(),))
    finally:
        for module in training:
            module.training = True
    counts = {name: float(sum(each.values())) for name, each in counter.get_flop_counts().items()}
    forward = counts.get("Global", 0.0)
    return FlopCount(forward, forward + 2 * _trained_flops(net, type(net).__name__, counts))


def _trained_flops(module: nn.Module, name: str, counts: Mapping[str, float]) -> float:
    """Sum the forward operations of the modules that train: a module whose parameters all do counts as a whole."""
    trains = [parameter.requires_grad for parameter in module.parameters()]
    if not any(trains):
        return 0.0
    children = list(module.named_children())
    if all(trains) or not children:
        return counts.get(name, 0.0)
    return sum(_trained_flops(child, f"{name}.{key}", counts) for key, child in children)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the floating-point operations per second that a device can do at most, or None where that is not known.

    The figures are Lightning's, of dense matrix products, with four exceptions: its H200 is with sparsity, and has the
    arithmetic of an H100 SXM in truth; its H100 NVL is with sparsity too; it takes an L40S for an L4; and of some cards
    its figure for 16 bits is that of float32, not of tensor cores. None is given for the latter three.

    Args:
        device: The device.
        dtype: Type in which products are computed.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower()
    if "nvl" in name or "l40s" in name:
        return None
    if "h200" in name:
        tensor_float = dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest"
        return _CUDA_FLOPS["h100 sxm"].get("tfloat32" if tensor_float else dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cards that are not in the table
        peak, single = (get_available_flops(device, each) for each in (dtype, torch.float32))
    if peak is not None and dtype in (torch.bfloat16, torch.float16) and peak <= (single or 0):
        return None
    return peak


def peak_memory(device: torch.device) -> float | None:
    """Return the most memory in use so far, in GB of 1e9 bytes, or None where the system does not tell.

    It is that of tensors on a GPU; elsewhere that of this process, without its data loader's workers.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def wait_for_device(device: torch.device) -> None:
    """Wait until a GPU has done what was launched, so that the time is that of what it did."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
