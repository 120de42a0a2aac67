from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
from rich.cells import cell_len

from vit_attn.callbacks.progress import NUMBERS, EpochProgressBar, ProgressLines, progress_line

MODULE = Mock(spec=L.LightningModule)
PARTS = ["12 min left", "loss 1.315", "val acc 0.3680", "12,345 img/s"]


def trainer_with(**values: Any) -> L.Trainer:
    """A trainer that has nothing but these attributes."""
    return Mock(spec=L.Trainer, **values)


@pytest.mark.parametrize("width", [24, 40, 80, 120, 300])
@pytest.mark.parametrize("total", [1, 450, 1_000_000, float("inf"), None])
def test_the_line_has_the_width_of_the_terminal_and_loses_the_last_numbers_first(width: int, total: float | None):
    line = progress_line("epoch 103/200", 1, total, PARTS, width).plain
    assert cell_len(line) <= width or width < 30
    shown = [part in line for part in PARTS]
    assert shown == sorted(shown, reverse=True)
    assert all(shown) == (width >= 120 or (width == 80 and total not in (450, 1_000_000)))


def test_the_bar_is_as_full_as_the_epoch():
    for done, filled in ((0, 0), (5, 10), (10, 20)):
        line = progress_line("epoch 1/2", done, 10, [], 10 + 20 + 1 + len(f"{done}/10"))
        assert [span.end - span.start for span in line.spans if span.style == "cyan"] == ([filled] if filled else [])


def test_a_number_on_the_device_is_read_once_and_the_version_of_the_logger_is_not_shown():
    class Value:
        reads = 0

        def __float__(self) -> float:
            self.reads += 1
            return 0.5

    value, bar = Value(), EpochProgressBar()
    trainer = trainer_with(progress_bar_metrics={"val/accuracy": value, "v_num": 3}, sanity_checking=False)
    for _ in range(5):
        assert bar.get_metrics(trainer, MODULE) == {}
    assert value.reads == 1
    assert list(bar._numbers) == ["val/accuracy"]
    assert NUMBERS["minutes left"](62.0) == "1.0 h left"


def test_the_accuracy_of_the_sanity_check_is_not_shown():
    bar = EpochProgressBar()
    assert bar.get_metrics(trainer_with(progress_bar_metrics={"val/accuracy": 0.1}, sanity_checking=True), MODULE) == {}
    assert bar._numbers == {}


@pytest.mark.parametrize(("epochs", "expected"), [(200, "epoch 3/200"), (-1, "epoch 3"), (None, "epoch 3")])
def test_epochs_count_from_1(epochs: int | None, expected: str):
    bar = EpochProgressBar()
    bar._trainer = trainer_with(max_epochs=epochs)
    assert bar._get_train_description(2) == expected


def test_an_evaluation_says_a_line_a_minute(capsys: pytest.CaptureFixture):
    times = iter([0.0, 30.0, 60.0, 61.0, 120.0, 999.0])
    lines = ProgressLines(lambda: next(times))
    trainer = trainer_with(num_test_batches=[8], is_global_zero=True)
    for index in (0, 1, 2, 3, 7):
        lines.on_test_batch_end(trainer, MODULE, None, None, index)
    assert capsys.readouterr().out == "test: batch 2 of 8, 3 min left\ntest: batch 4 of 8, 2 min left\n"
