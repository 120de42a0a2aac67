"""docs/extend.md: its module and its commands as they stand, where no command knows the module from the last."""

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.own_parts import PAGE, forget, module_text
from vit_attn.cli import main

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def commands() -> list[list[str]]:
    """Commands of the page in their order, from the section of that name on."""
    text = PAGE.read_text(encoding="utf-8").partition("## The commands")[2]
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in shell.splitlines() if line.startswith("vit-attn ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_parts.py").write_text(module_text(), encoding="utf-8")
    columns = np.tile(np.arange(16) // 2 % 2 * 200, (16, 1)).astype(np.uint8)
    Image.fromarray(np.stack([columns] * 3, axis=2)).save("PHOTO.png")
    yield tmp_path
    forget()


def newest(runs: str) -> Path:
    return sorted(Path("runs").glob(runs))[-1]


def read(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore:.*attention.max_cost")
def test_the_commands_of_the_page_run_in_its_order(folder: Path, capsys):
    lines, run = commands(), Path()
    assert [line[0] for line in lines] == ("fit test fit predict attend judge export predict fit fit validate".split())
    said = []
    for line in lines:
        forget()
        options = [word.replace("RUN", str(run)) for word in line]
        of_lightning = line[0] in ("fit", "test", "validate")
        quick = [*(QUICK if of_lightning else []), *(["--attention.num_images=1"] if line[0] == "fit" else [])]
        assert main([*options, *quick]) == 0, line
        run = newest("*/*") if line[0] == "fit" and "--resume" not in line else run
        out, err = capsys.readouterr()
        assert "my_parts imported from my_parts.py, for " in err, line
        said.append(out)
        if line[0] == "fit":
            run = max(Path("runs").glob("*/*"), key=lambda each: each.stat().st_mtime_ns)
    stripes, score, module = (newest(f"{name}/*") for name in ("stripes", "score", "module"))
    assert read(stripes)["parts"] == {
        "my_parts": ["data set stripes", "network my_vit", "score function half_dot_product"]
    } or read(stripes)["parts"] == {"my_parts": ["data set stripes", "network my_vit"]}
    assert read(stripes)["epoch"] == 2  # resumed: three epochs
    assert read(score)["parts"] == {"my_parts": ["data set stripes", "score function half_dot_product"]}
    assert read(module)["parts"] == {"my_parts": ["data module StripesData"]}
    assert json.loads((stripes / "test.json").read_text())["images"] == 64
    assert "top-1 accuracy" in said[1]
    rows = {
        name: list(csv.DictReader(Path(name).read_text().splitlines())) for name in ("predictions.csv", "exported.csv")
    }
    assert rows["predictions.csv"] == rows["exported.csv"]
    assert rows["predictions.csv"][0]["class_1"] == "vertical"
    assert "squared" in "".join(np.load("attention/PHOTO.attention.npz").files)
    judged = list(csv.DictReader(next(stripes.glob("judge*/methods.csv")).read_text().splitlines()))
    assert any("squared" in ",".join(row.values()) for row in judged)
    config = yaml.safe_load((module / "config.yaml").read_text())
    assert config["import"] == ["my_parts"]
    assert config["data"] == {
        "class_path": "my_parts.StripesData",
        "init_args": {"count": 128, "batch_size": 16},
    }


def test_the_paths_of_the_page_exist():
    root = PAGE.parent.parent
    links = re.findall(r"\]\(([\w./]+\.md)", PAGE.read_text(encoding="utf-8"))
    assert links
    assert all((root / "docs" / link).is_file() for link in links)
