import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from vit_attn.reports.prediction_table import PredictionTable

FORMULAS = ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-1+1", "@SUM(A1)", "\uff1d1+1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_that_a_spreadsheet_would_evaluate_is_written_as_text(tmp_path: Path, name: str):
    row = {"image": name, "class_1": name, "probability_1": 0.25, "error": name}
    for ending in ("csv", "json", "parquet"):
        with PredictionTable(tmp_path / f"p.{ending}", 1) as table:
            table.write([row])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        (read,) = csv.DictReader(file)
    assert read == {"image": f"'{name}", "class_1": f"'{name}", "probability_1": "0.250000", "error": f"'{name}"}
    assert json.loads((tmp_path / "p.json").read_text("utf-8")) == [row]
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist() == [row]


def test_a_name_with_line_ends_stays_in_its_row(tmp_path: Path):
    with PredictionTable(tmp_path / "p.csv", 1) as table:
        table.write([{"image": "\r=1", "class_1": "a\n=1", "error": "\t=1,\x1b"}])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        (read,) = csv.DictReader(file)
    assert (read["image"], read["class_1"], read["error"]) == (r"\r=1", r"a\n=1", r"\t=1,\x1b")


def test_numbers_and_other_names_are_written_as_they_are(tmp_path: Path):
    names = ["-1", "+2.5", "-1e-3", "a=b", "'quoted", "./-x.png", ""]
    with PredictionTable(tmp_path / "p.csv", 1, labelled=True) as table:
        table.write([{"image": number, "label": name} for number, name in enumerate(names)])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["image"], row["label"]) for row in csv.DictReader(file)] == [
            (str(number), name) for number, name in enumerate(names)
        ]
