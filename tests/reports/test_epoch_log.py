import csv
from pathlib import Path

import pytest

from vit_attn.reports.epoch_log import COLUMNS, EpochLog, EpochRow, format_flops, format_line


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_appended_under_one_header(tmp_path: Path):
    log = EpochLog(tmp_path / "epochs.csv")
    log.append(EpochRow(1, 10, train_loss=0.5))
    EpochLog(tmp_path / "epochs.csv").append(EpochRow(2, 20, val_accuracy=0.25, images_per_second=1234567.0))
    first, second = rows(log.path)
    assert list(first) == COLUMNS
    assert (first["epoch"], first["step"], first["train_loss"], first["val_loss"]) == ("1", "10", "0.5", "")
    assert (second["val_accuracy"], second["images_per_second"]) == ("0.25", "1.23457e+06")


def test_rows_after_a_step_and_a_row_that_was_cut_off_are_dropped(tmp_path: Path):
    log = EpochLog(tmp_path / "epochs.csv")
    for epoch in range(1, 5):
        log.append(EpochRow(epoch, 10 * epoch))
    log.path.write_text(log.path.read_text() + "5,5")  # killed while it was written
    log.drop_after(20)
    assert [row["step"] for row in rows(log.path)] == ["10", "20"]
    log.append(EpochRow(3, 30))
    assert [row["step"] for row in rows(log.path)] == ["10", "20", "30"]
    log.drop_after(-1)
    assert rows(log.path) == []


def test_a_log_with_other_columns_is_continued_with_todays(tmp_path: Path):
    path = tmp_path / "epochs.csv"
    path.write_text("step,epoch,forgotten\n10,1,x\n")
    log = EpochLog(path)
    log.drop_after(10)
    log.append(EpochRow(2, 20))
    assert [(row["epoch"], row["step"], row["mfu"]) for row in rows(path)] == [("1", "10", ""), ("2", "20", "")]
    assert list(rows(path)[0]) == COLUMNS


def test_a_log_that_does_not_exist_needs_nothing_dropped(tmp_path: Path):
    EpochLog(tmp_path / "epochs.csv").drop_after(0)
    assert not list(tmp_path.iterdir())


def test_the_line_leaves_out_what_is_not_known():
    row = EpochRow(3, 30, train_loss=1.0, images_per_second=50.0, seconds=61.0)
    assert format_line("epoch 3/10", row) == "epoch 3/10: loss 1.000, 50.0 img/s"


def test_the_line_of_a_fast_long_run_fits_80_columns():
    row = EpochRow(103, 9999, 1.7381, 0.4, 1.2871, 0.87311, 12345.6, 0.41, 12.0, 0.01, 3.0 * 3600 + 1260)
    assert len(format_line("epoch 103/200", row)) <= 80


@pytest.mark.parametrize("flops", [0.0, 1e6, 9.99e8, 1e9, 4.61e13])
def test_operations_are_in_the_unit_that_is_named(flops: float):
    number, unit = format_flops(flops).split()
    assert float(number.replace(",", "")) * {"MFLOP": 1e6, "GFLOP": 1e9}[unit] == pytest.approx(
        flops, abs=5e4, rel=0.05
    )
