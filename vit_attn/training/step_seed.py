"""Random state of a training step, derived from the step's number alone, so that a resumed run repeats it."""

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed the host's and the device's generators for one step on one rank.

    Args:
        seed: Seed of the run.
        step: Number of the batch in the run, over all epochs.
        rank: Rank of this process.
        device: Device of the network.
    """
    number = int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1)
    # torch.manual_seed would ask every kind of device, which takes longer
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
