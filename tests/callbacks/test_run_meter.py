from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from tests.op_counter import OpCounter
from tests.timed_runs import BATCH, FEATURES, FETCH, FLOPS, STEP, Run
from vit_attn.callbacks import run_meter
from vit_attn.callbacks.throughput import Throughput

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
]


def test_mfu_is_what_the_network_needs_over_what_the_device_can_do(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run_meter, "peak_flops", lambda device, dtype: 10.0 * FLOPS)
    run = Run(tmp_path)
    assert run.recorder.of("mfu") == [pytest.approx(0.1)] * 6
    assert run.epochs()[0]["mfu"] == pytest.approx(0.1)
    assert run.callback.meter.flops_per_image == FLOPS
    assert run.callback.meter.mfu(run.callback.meter.usage()) == pytest.approx(0.1)


def test_mfu_is_left_out_where_the_peak_is_not_known(tmp_path: Path):
    run = Run(tmp_path)
    assert run.recorder.of("mfu") == []
    assert "mfu" not in run.epochs()[0]
    assert run.callback.meter.flops_per_image == FLOPS


def test_the_time_left_is_that_of_the_steps_to_come_and_what_came_between_so_far(tmp_path: Path):
    left = Run(tmp_path, max_epochs=-1, max_steps=12, limit_val_batches=0).recorder.of("seconds_left")
    assert left == [(STEP + FETCH) * steps for steps in (10, 8, 6, 4, 2)]  # and none at the end
    left = Run(tmp_path, accumulate_grad_batches=2, log_every_n_steps=1, limit_val_batches=0).recorder.of(
        "seconds_left"
    )
    assert left == [(STEP + FETCH) * batches for batches in (10, 8, 6, 4, 2)]


def test_the_time_left_of_a_stream_is_not_known_but_by_its_time(tmp_path: Path):
    run = Run(tmp_path, sized=False)
    assert run.recorder.of("seconds_left") == []
    assert len(run.recorder.of("images_per_second")) == 6
    left = Run(tmp_path, sized=False, max_time="00:01:00:00").recorder.of("seconds_left")
    assert all(3500 < seconds <= 3600 for seconds in left)


class ChangeAt(L.Callback):
    """Changes the grid of a network and adds a product to it, as a run with finer patches does."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 4:
            pl_module.net.patch_embed = nn.Identity()
            pl_module.net.patch_embed.grid_size = (4, 4)
            pl_module.time.now += 30  # compiled again
            pl_module.net.register_forward_hook(
                lambda module, inputs, output: output + inputs[0] @ torch.ones(FEATURES, 1)
            )


def test_operations_are_counted_again_where_the_patch_grid_changes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run_meter, "peak_flops", lambda device, dtype: 10.0 * FLOPS)
    run = Run(tmp_path, callbacks=[ChangeAt()], max_epochs=1)
    assert run.callback.meter.flops_per_image == FLOPS + 2 * FEATURES
    assert run.recorder.of("mfu") == [pytest.approx(value) for value in (0.1, 0.1, 0.1 * 4 / 3)]
    assert run.recorder.of("images_per_second") == [1.0, 1.0, 1.0]  # the step of the change is start-up
    assert run.callback.meter.usage().seconds["startup"] == 100 + STEP + STEP + 30 + FETCH


def test_a_step_with_other_targets_is_one_that_compiles(tmp_path: Path):
    run = Run(tmp_path, max_epochs=1)
    meter, images = run.callback.meter, torch.ones(BATCH, FEATURES)
    timed, batches = meter.done.timed_batches, meter.done.batches
    meter.end_batch(run.trainer, run.task, (images, torch.ones(BATCH, 2, 2)))
    assert (meter.done.timed_batches, meter.done.batches) == (timed, batches + 1)
    meter.end_batch(run.trainer, run.task, (images, torch.ones(BATCH, 2, 2)))
    assert (meter.done.timed_batches, meter.done.batches) == (timed + 1, batches + 2)


def test_frozen_parts_that_begin_to_train_are_counted_again(tmp_path: Path):
    run = Run(tmp_path, max_epochs=1)
    run.task.net.requires_grad_(False)
    changed = run.callback.meter._network_changed(run.trainer, run.task, torch.ones(BATCH, FEATURES), 1)
    assert changed
    assert run.callback.meter.flops_per_image == FLOPS / 3


class CountedSteps(L.Callback):
    """Counts what the callback under test launches and waits for, by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: dict[int, tuple[int, int]] = {}
        for name in ("on_train_batch_start", "on_train_batch_end"):
            self.count(monkeypatch, name)

    def count(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(Throughput, name)

        def counted(callback: Throughput, trainer: L.Trainer, *args: Any) -> None:
            with OpCounter(own_reads=True) as counter:
                original(callback, trainer, *args)
            launches, waits = self.counts.get(trainer.global_step, (0, 0))
            self.counts[trainer.global_step] = launches + counter.launches, waits + counter.waits

        monkeypatch.setattr(Throughput, name, counted)


def test_nothing_is_launched_or_waited_for_between_logging_points(tmp_path: Path, monkeypatch):
    counted = CountedSteps(monkeypatch)
    Run(tmp_path, log_every_n_steps=3, max_epochs=1)
    between = {step: count for step, count in counted.counts.items() if step in (2, 4, 5)}
    assert between == dict.fromkeys((2, 4, 5), (0, 0))
    assert counted.counts[3][1] > 0  # reads loss and accuracy, which are logged there


def test_all_devices_count(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(L.Trainer, "distributed_sampler_kwargs", {"num_replicas": 8, "rank": 0})
    assert Run(tmp_path).recorder.of("images_per_second") == [8.0] * 6
