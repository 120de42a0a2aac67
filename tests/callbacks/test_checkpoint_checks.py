from pathlib import Path

import numpy as np
import pytest
import torch

from vit_attn.callbacks.checkpoint_checks import all_finite, check_readable, checkpoint_bytes
from vit_attn.errors import TrainingFailed


def test_weights_are_finite_or_not():
    module = torch.nn.Linear(2, 2)
    assert all_finite(module)
    module.bias.data[1] = float("inf")
    assert not all_finite(module)


def test_buffers_are_checked_too():
    module = torch.nn.BatchNorm1d(2)
    assert all_finite(module)
    module.running_mean[0] = float("nan")
    assert not all_finite(module)


def test_a_checkpoint_has_room_for_weights_their_average_and_two_optimiser_states():
    assert checkpoint_bytes(torch.nn.Linear(3, 5)) == 4 * 4 * (3 * 5 + 5)


def test_a_checkpoint_that_holds_an_object_is_not_readable(tmp_path: Path):
    torch.save({"mean": 0.5}, tmp_path / "good.ckpt")
    check_readable(tmp_path / "good.ckpt")
    torch.save({"mean": np.float64(0.5)}, tmp_path / "bad.ckpt")
    with pytest.raises(TrainingFailed, match=r"bad.ckpt cannot be read back: some callback keeps a state"):
        check_readable(tmp_path / "bad.ckpt")
