import csv
import threading
from pathlib import Path

import pytest

from vit_attn.reports.metrics_table import MetricsTable, read_metrics


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def log(table: MetricsTable, step: int, **values: float) -> None:
    table.add(step, values)
    table.flush()


def test_a_step_has_one_row_whenever_its_values_come(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    log(table, 1, loss=0.5)
    log(table, 2, loss=0.25)
    log(table, 2, accuracy=1.0)
    log(table, 3, loss=0.125)
    log(table, 1, entropy=3.5)  # of attention, which is drawn in the background
    log(table, 3, entropy=2.5, loss=0.1)
    log(table, 4, loss=1 / 3)
    assert rows(table.path) == [
        {"step": "1", "epoch": "", "loss": "0.5", "accuracy": "", "entropy": "3.5"},
        {"step": "2", "epoch": "", "loss": "0.25", "accuracy": "1", "entropy": ""},
        {"step": "3", "epoch": "", "loss": "0.1", "accuracy": "", "entropy": "2.5"},
        {"step": "4", "epoch": "", "loss": "0.33333333", "accuracy": "", "entropy": ""},
    ]


def test_a_shorter_row_in_the_place_of_a_longer_one_leaves_nothing_of_it(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    log(table, 1, loss=0.123456)
    log(table, 1, loss=2)
    assert table.path.read_text() == "step,epoch,loss\n1,,2\n"


def test_nothing_is_rewritten_where_rows_are_only_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = MetricsTable(tmp_path / "metrics.csv")
    log(table, 1, loss=0.5)
    monkeypatch.setattr("vit_attn.reports.metrics_table.whole_file", None)
    for step in range(1, 9):
        log(table, step, loss=step)
    assert [row["loss"] for row in rows(table.path)] == [str(step) for step in range(1, 9)]


@pytest.mark.parametrize("cut", ["9", "9,1,0.", "9,1,0.5,1,1\n", "x,,,\n"])
def test_a_resumed_run_drops_what_it_writes_again_and_a_row_that_a_kill_cut_off(tmp_path: Path, cut: str):
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path)
    for step in range(6):
        log(table, step, loss=step)
    path.write_text(path.read_text() + cut)
    table = MetricsTable(path, first_step=4)
    assert [row["step"] for row in rows(path)] == ["0", "1", "2", "3"]
    log(table, 3, accuracy=0.5)
    log(table, 4, loss=9)
    assert read_metrics(path)[-2:] == [{"step": 3, "loss": 3, "accuracy": 0.5}, {"step": 4, "loss": 9}]


def test_no_number_is_read_from_a_row_that_a_kill_cut_off(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for step in range(3):
        table.add(step, {"loss": step + 0.125, "précision": 12345})
    table.flush()
    content, complete = table.path.read_bytes(), read_metrics(table.path)
    assert [row["loss"] for row in complete] == [0.125, 1.125, 2.125]
    for cut in range(len(content)):
        table.path.write_bytes(content[:cut])
        assert read_metrics(table.path) == complete[: max(0, content[:cut].count(b"\n") - 1)]


def test_a_scalar_named_step_does_not_replace_the_step(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for step in range(3):
        table.add(step, {"step": 5.5, "loss": step})
        table.flush()
    assert read_metrics(table.path) == [{"step": step, "loss": step} for step in range(3)]


def test_threads_lose_no_value(tmp_path: Path):
    table = MetricsTable(tmp_path / "metrics.csv")
    names = [f"thread_{i}" for i in range(4)]
    threads = [
        threading.Thread(target=lambda name=name: [log(table, step, **{name: step}) for step in range(20)])
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_metrics(table.path) == [{"step": step} | dict.fromkeys(sorted(names), step) for step in range(20)]
