"""Random numbers that depend only on their address, such as (seed, step), and are the same for any number of ranks."""

import contextlib
import functools
import random
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


class BatchRNG:
    """Random parameters of one step, drawn for the global batch; each rank gets its slice.

    Args:
        address: All that the numbers depend on, such as (seed, step).
        batch_size: Images on this rank.
        rank: Which slice of the global batch this is.
        world_size: Number of ranks, each with ``batch_size`` images.
        device: Device of the parameters.
    """

    def __init__(
        self,
        address: tuple[int, ...],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.generator = np.random.default_rng(address)
        self.batch_size, self.rank, self.device = batch_size, rank, device
        self.total = batch_size * world_size
        """Size of the global batch."""

    def integers(self, low: int, high: int) -> Int64[Tensor, " B"]:
        """Uniform in low..high, both included."""
        return self._to_device(self.generator.integers(low, high, self.total, endpoint=True))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " B"]:
        """Uniform in [low, high)."""
        return self._to_device(self.generator.uniform(low, high, self.total).astype(np.float32))

    def beta(self, alpha: float) -> Float[Tensor, " B"]:
        """Beta(alpha, alpha)."""
        return self._to_device(self.generator.beta(alpha, alpha, self.total).astype(np.float32))

    def local(self, values: np.ndarray) -> np.ndarray:
        """This rank's slice of ``total`` values; it stays on the host."""
        start = self.rank * self.batch_size
        return values[start : start + self.batch_size]

    def _to_device(self, values: np.ndarray) -> Tensor:
        return to_device(self.local(values), self.device)


def to_device(values: np.ndarray, device: torch.device | str) -> Tensor:
    """Copy an array to a device through pinned memory, so that the host does not wait for a GPU."""
    tensor = torch.from_numpy(values)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=8)
def lasting_order(count: int) -> Int64[Tensor, " images"]:
    """Indices of ``count`` images in a random order that is the same in every run, whatever its seed.

    Files come class by class; the first images in this order are a sample of all classes.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def file_order(count: int) -> Int64[Tensor, " images"]:
    """Indices of ``count`` images in the order of their files."""
    return torch.arange(count)


def seed_of(*address: int) -> int:
    """Derive a seed from an address, the same in every process and build of Python."""
    return int(np.random.SeedSequence(address).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def seeded(*address: int) -> Iterator[None]:
    """Seed torch, numpy and random by an address, and restore their states afterwards."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed = seed_of(*address)
    try:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPU's too, and for good
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
