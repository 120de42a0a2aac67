"""Random numbers that depend only on their address, such as (seed, step), and are the same for any number of ranks."""

import contextlib
import functools
import random
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor


class BatchRNG:
    """Random numbers of one step on the host, drawn for the global batch; each rank gets its slice.

    Args:
        address: All that the numbers depend on, such as (seed, step).
        batch_size: Images on this rank.
        rank: Which slice of the global batch this is.
        world_size: Number of ranks, each with ``batch_size`` images.
    """

    def __init__(self, address: tuple[int, ...], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.generator = np.random.default_rng(address)
        self.batch_size, self.rank = batch_size, rank
        self.total = batch_size * world_size
        """Size of the global batch."""

    def integers(self, low: int, high: int) -> Int64[np.ndarray, " B"]:
        """Uniform in low..high, both included."""
        return self.local(self.generator.integers(low, high, self.total, endpoint=True))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Float32[np.ndarray, " B"]:
        """Uniform in [low, high)."""
        return self.local(self.generator.uniform(low, high, self.total)).astype(np.float32)

    def beta(self, alpha: float) -> Float32[np.ndarray, " B"]:
        """Beta(alpha, alpha)."""
        return self.local(self.generator.beta(alpha, alpha, self.total)).astype(np.float32)

    def local(self, values: np.ndarray) -> np.ndarray:
        """This rank's slice of ``total`` values."""
        start = self.rank * self.batch_size
        return values[start : start + self.batch_size]


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
