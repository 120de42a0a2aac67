"""Random numbers that depend on their address only, for the images of all ranks."""

import contextlib
import functools
import random
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


class BatchRNG:
    """Random parameters for the images of one step: ``batch_size`` of them, out of those of all ranks.

    Args:
        address: What the draws depend on, such as (seed, step); nothing else has a say.
        batch_size: Images on this rank.
        rank: Which share of the global batch this is.
        world_size: Number of ranks, each with ``batch_size`` images.
        device: Where the parameters go.
    """

    def __init__(
        self,
        address: tuple[int, ...],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rng, self.batch_size, self.rank, self.device = np.random.default_rng(address), batch_size, rank, device
        self.total = batch_size * world_size

    def integers(self, low: int, high: int) -> Int64[Tensor, " B"]:
        """Uniform in low..high, both included."""
        return self._local(self.rng.integers(low, high, self.total, endpoint=True))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " B"]:
        """Uniform in [low, high)."""
        return self._local(self.rng.uniform(low, high, self.total).astype(np.float32))

    def beta(self, alpha: float) -> Float[Tensor, " B"]:
        """From Beta(alpha, alpha)."""
        return self._local(self.rng.beta(alpha, alpha, self.total).astype(np.float32))

    def host(self, values: np.ndarray) -> np.ndarray:
        """This rank's part of what was drawn for all ``total`` images; it stays on the host."""
        start = self.rank * self.batch_size
        return values[start : start + self.batch_size]

    def _local(self, values: np.ndarray) -> Tensor:
        return to_device(self.host(values), self.device)


def to_device(values: np.ndarray, device: torch.device | str) -> Tensor:
    """The numbers on the device; the host goes on at once, which it does only from pinned memory."""
    tensor = torch.from_numpy(values)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=8)
def lasting_order(count: int) -> Int64[Tensor, " images"]:
    """Indices of ``count`` images in a random order that is the same in every run, whatever its seed.

    A part of a split that is taken from its beginning is a sample of its classes, which files give one after the other.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def file_order(count: int) -> Int64[Tensor, " images"]:
    """Indices of ``count`` images as their files come."""
    return torch.arange(count)


def seed_of(*address: int) -> int:
    """A seed for an address, the same in every process and build of Python."""
    return int(np.random.SeedSequence(address).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def seeded(*address: int) -> Iterator[None]:
    """Let torch, numpy and random draw by an address; afterwards they go on as if nothing had been drawn."""
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
