import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from tests.op_counter import OpCounter
from vit_attn.callbacks import run_meter
from vit_attn.callbacks.throughput import MINUTES, SPEED, Throughput

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
]
BATCH, FEATURES = 4, 6
FLOPS = 3 * 2 * FEATURES
"""Of training on one image of the network below: one multiply-add for each feature, backward twice the forward."""
STEP, FETCH, VALIDATION, SAVE = 3.0, 1.0, 50.0, 7.0
"""Seconds that the parts of the runs below take."""


class Seconds:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Batches(IterableDataset):
    """Batches, each of which takes its time."""

    def __init__(self, time: Seconds, count: int, sized: bool = True) -> None:
        self.time, self.count = time, count
        if sized:
            self.__class__ = SizedBatches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.count):
            self.time.now += FETCH
            yield torch.ones(BATCH, FEATURES), torch.zeros(BATCH)


class SizedBatches(Batches):
    def __len__(self) -> int:
        return self.count


class Task(L.LightningModule):
    """Linear regression whose steps take their time; a longer one at the first."""

    def __init__(self, time: Seconds) -> None:
        super().__init__()
        self.net, self.time = nn.Linear(FEATURES, 1, bias=False), time

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.time.now += STEP + (100 if self.trainer.fit_loop.total_batch_idx == 0 else 0)
        self.log("train/accuracy", torch.tensor(float(self.trainer.global_step)))
        loss = self.net(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.time.now += VALIDATION
        self.log("val/accuracy", torch.tensor(0.75))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.time.now += SAVE

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


class Recorder(Logger):
    """Keeps what is logged, by tag."""

    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[tuple[int, float]]] = {}

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append((step, value))

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        """Keep none."""

    def of(self, name: str) -> list[float]:
        return [value for _, value in self.values.get(f"throughput/{name}", [])]


class Run:
    """A run of the task above, in no time."""

    def __init__(self, folder: Path, batches: int = 6, sized: bool = True, callbacks: Any = (), **options: Any) -> None:
        self.time, self.recorder = Seconds(), Recorder()
        self.callback = Throughput(folder, resumed="ckpt_path" in options, now=self.time)
        path = options.pop("ckpt_path", None)
        settings = {"max_epochs": 2, "log_every_n_steps": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0}
        self.trainer = L.Trainer(
            **settings | options,
            **{"accelerator": "cpu", "default_root_dir": folder, "logger": self.recorder},
            **{"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False},
            callbacks=[self.callback, *callbacks],
        )
        self.task = Task(self.time)
        loaders = [DataLoader(Batches(self.time, batches, sized), batch_size=None) for _ in range(2)]
        self.trainer.fit(self.task, *loaders, ckpt_path=path)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "epochs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class SaveAt(L.Callback):
    """Saves a checkpoint at the end of some steps."""

    def __init__(self, folder: Path, *steps: int) -> None:
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class FailAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError


def test_speed_is_that_of_steps_and_input_and_the_rest_of_the_time_is_seen(tmp_path: Path):
    run = Run(tmp_path, callbacks=[SaveAt(tmp_path, 3)])
    assert run.recorder.of("images_per_second") == [BATCH / (STEP + FETCH)] * 6
    assert run.recorder.of("input_fraction") == [FETCH / (STEP + FETCH)] * 6
    total = FETCH + STEP + 100 + 3 * (STEP + FETCH)
    assert run.recorder.of("checkpoint_fraction")[1] == pytest.approx(SAVE / (total + SAVE))
    total += SAVE + 2 * (STEP + FETCH) + FETCH + VALIDATION
    assert run.recorder.of("validation_fraction")[3] == pytest.approx((FETCH + VALIDATION) / (total + 2 * 4))
    assert set(run.recorder.of("logging_fraction")) == {0.0}
    assert run.recorder.of("peak_memory_gb")[0] > 0.1
    assert [step for step, _ in run.recorder.values["throughput/images_per_second"]] == [1, 3, 5, 7, 9, 11]
    assert run.recorder.values[SPEED] == [(12, 1.0)]
    assert run.recorder.values[MINUTES] == [(12, pytest.approx((100 + 12 * 4 + SAVE + 2 * (FETCH + VALIDATION)) / 60))]


def test_mfu_is_what_the_network_needs_over_what_the_device_can_do(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run_meter, "peak_flops", lambda device, dtype: 10.0 * FLOPS)
    run = Run(tmp_path)
    assert run.recorder.of("mfu") == [pytest.approx(0.1)] * 6
    assert float(rows(tmp_path)[0]["mfu"]) == pytest.approx(0.1)
    assert run.callback.meter.flops_per_image == FLOPS
    assert run.callback.meter.mfu(run.callback.meter.usage()) == pytest.approx(0.1)


def test_mfu_is_left_out_where_the_peak_is_not_known(tmp_path: Path):
    run = Run(tmp_path)
    assert run.recorder.of("mfu") == []
    assert rows(tmp_path)[0]["mfu"] == ""
    assert run.callback.meter.flops_per_image == FLOPS


def test_each_epoch_is_a_line_and_a_row(tmp_path: Path, capsys: pytest.CaptureFixture):
    Run(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2, step 6", "epoch 2/2, step 12"]
    assert "accuracy 3.0000; accuracy 0.7500; 1.0 images/s; 2 min 55 s, 1 min 15 s left" in lines[0]
    first, second = rows(tmp_path)
    assert (first["epoch"], first["step"], first["val_accuracy"]) == ("1", "6", "0.75")
    assert (first["train_accuracy"], second["train_accuracy"]) == ("3", "9")  # means of steps 2, 4, 6 and so on
    assert float(first["seconds"]) == 100 + 6 * (STEP + FETCH) + FETCH + VALIDATION
    assert (first["images_per_second"], second["seconds_left"]) == ("1", "")


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
    assert [row["seconds_left"] for row in rows(tmp_path)] == ["", ""]
    assert len(run.recorder.of("images_per_second")) == 6
    left = Run(tmp_path, sized=False, max_time="00:01:00:00").recorder.of("seconds_left")
    assert all(3500 < seconds <= 3600 for seconds in left)


def test_an_epoch_without_a_logging_point_has_one_at_its_end(tmp_path: Path):
    run = Run(tmp_path, log_every_n_steps=50)
    assert run.recorder.of("images_per_second") == []
    assert [row["train_accuracy"] for row in rows(tmp_path)] == ["5", "11"]
    assert [row["images_per_second"] for row in rows(tmp_path)] == ["1", "1"]


def test_a_run_of_one_step_has_no_speed(tmp_path: Path):
    run = Run(tmp_path, max_steps=1, max_epochs=-1, log_every_n_steps=1)
    assert run.recorder.of("images_per_second") == []
    assert SPEED not in run.recorder.values
    assert (rows(tmp_path)[0]["step"], rows(tmp_path)[0]["images_per_second"]) == ("1", "")


def test_a_trial_run_writes_nothing(tmp_path: Path):
    Run(tmp_path, fast_dev_run=2)
    assert not list(tmp_path.iterdir())


def test_a_run_that_died_continues_its_rows_and_its_figures(tmp_path: Path):
    with pytest.raises(KeyError):
        Run(tmp_path, max_epochs=3, callbacks=[SaveAt(tmp_path, 3, 8), FailAt(14)])
    assert [row["step"] for row in rows(tmp_path)] == ["6", "12"]
    run = Run(tmp_path, max_epochs=3, ckpt_path=tmp_path / "8.ckpt")
    assert [row["step"] for row in rows(tmp_path)] == ["6", "12", "18"]
    assert rows(tmp_path)[1]["train_accuracy"] == "9"  # the mean over the epoch's logged steps, before and after
    assert run.callback.meter.done.batches == 18
    Run(tmp_path, max_epochs=3, ckpt_path=tmp_path / "3.ckpt")
    assert [row["step"] for row in rows(tmp_path)] == ["6", "12", "18"]
    assert rows(tmp_path)[0]["train_accuracy"] == "3"


def test_a_new_run_from_a_checkpoint_has_figures_of_its_own(tmp_path: Path):
    Run(tmp_path, callbacks=[SaveAt(tmp_path, 8)])
    state = torch.load(tmp_path / "8.ckpt", weights_only=True)["callbacks"]["Throughput"]
    fresh = Throughput(tmp_path / "other")
    fresh.load_state_dict(state)
    assert fresh.meter.usage() == Throughput().meter.usage()
    resumed = Throughput(tmp_path, resumed=True)
    resumed.load_state_dict(state)
    assert resumed.meter.usage().batches == 8


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


def test_frozen_parts_that_begin_to_train_are_counted_again(tmp_path: Path):
    run = Run(tmp_path, max_epochs=1)
    run.task.net.requires_grad_(False)
    changed = run.callback.meter._network_changed(run.trainer, run.task, torch.ones(BATCH, FEATURES))
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
