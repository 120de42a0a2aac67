import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import timm
import torch
from PIL import Image

from vit_attn.cli import main
from vit_attn.data import Coins
from vit_attn.data.datasets.coins import GLYPH_NAMES
from vit_attn.reports.prediction_table import PredictionTable

MODEL = "--model=vit_attn_coins_patch4_32"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven coins, two of them in a folder within, and a damaged file between."""
    folder = tmp_path / "pictures"
    (folder / "b").mkdir(parents=True)
    for i, name in enumerate(("a0", "a1", "b/0", "b/1", "c0", "c1", "c2")):
        Image.fromarray(Coins("test")[i][0].permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    (folder / "b" / "damaged.jpg").write_bytes(b"no image at all")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def expected(top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    net = timm.create_model("vit_attn_coins_patch4_32", pretrained=True).eval()
    images = torch.stack([Coins("test")[i][0] for i in range(7)]) / 255
    with torch.no_grad():
        best = net((images - 0.25) / 0.18).softmax(dim=-1).topk(top_k)
    return best.values, best.indices


def test_files_and_folders_are_named_in_order_and_a_damaged_one_is_reported(folder: Path, capsys):
    out = folder.parent / "new" / "p.csv"
    asked = [str(folder / "c1.png"), str(folder)]
    assert main(["predict", *asked, MODEL, f"--output={out}", "--top_k=2", "--batch_size=3"]) == 1
    said = capsys.readouterr()
    assert "damaged.jpg cannot be read as an image" in said.err
    assert f"predictions of 9 images: {out}; 1 of them could not be read" in said.out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "class_1", "probability_1", "class_2", "probability_2", "error"]
    names = ["c1.png", "a0.png", "a1.png", "b/0.png", "b/1.png", "b/damaged.jpg", "c0.png", "c1.png", "c2.png"]
    assert [row["image"] for row in rows] == [str(folder / name) for name in names]
    assert "cannot be read" in rows[5]["error"]
    assert rows[5]["class_1"] == rows[5]["probability_1"] == ""
    assert rows[0] == rows[7]
    shares, classes = expected(2)
    whole = rows[1:5] + rows[6:]
    assert [row["class_2"] for row in whole] == [GLYPH_NAMES[each] for each in classes[:, 1].tolist()]
    assert [float(row["probability_1"]) for row in whole] == pytest.approx(shares[:, 0].tolist(), abs=1e-5)
    assert not list(out.parent.glob("*.unfinished"))


def test_all_forms_say_the_same(folder: Path):
    tables = []
    for ending in ("csv", "json", "parquet"):
        out = folder.parent / f"p.{ending}"
        assert main(["predict", str(folder), MODEL, f"--output={out}", "--top_k=3"]) == 1
        if ending == "csv":
            with out.open(newline="") as file:
                tables.append([[value or None for value in row.values()] for row in csv.DictReader(file)])
        elif ending == "json":
            tables.append([list(row.values()) for row in json.loads(out.read_text())])
        else:
            tables.append([list(row.values()) for row in pyarrow.parquet.read_table(out).to_pylist()])
    assert tables[1] == tables[2]
    assert [[str(each) for each in row if not isinstance(each, float)] for row in tables[1]] == [
        [str(each) for i, each in enumerate(row) if i not in (2, 4, 6) or each is None] for row in tables[0]
    ]


def test_a_network_of_timm_names_imagenets_classes_apart(folder: Path):
    out = folder.parent / "p.json"
    options = ["--model=vit_tiny_patch16_224", "--weights=none", "--img_size=32", "--top_k=1000"]
    assert main(["predict", str(folder / "a0.png"), *options, f"--output={out}"]) == 0
    (row,) = json.loads(out.read_text())
    names = [row[f"class_{rank}"] for rank in range(1, 1001)]
    assert len(set(names)) == 1000
    assert {"crane (134)", "crane (517)", "tabby"} <= set(names)


def test_a_name_of_any_bytes_is_written(folder: Path, capsys):
    odd = folder.parent / "odd"
    odd.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (odd / name).write_bytes((folder / "a0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no names but those in UTF-8")
    for ending in ("csv", "json", "parquet"):
        out = folder.parent / f"odd.{ending}"
        assert main(["predict", str(odd), MODEL, f"--output={out}"]) == 0
        table = pyarrow.parquet.read_table(out).to_pylist() if ending == "parquet" else out.read_text(encoding="utf-8")
        assert "caf\\xe9.png" in str(table).replace("\\\\", "\\")
    assert main(["attend", str(odd), MODEL, f"--output={folder.parent / 'drawn'}"]) == 0
    assert "caf" in capsys.readouterr().out


def test_what_an_interrupted_run_had_done_is_kept_aside(tmp_path: Path):
    class Stopped(Exception):
        pass

    def interrupted(name: str, rows: list[dict]) -> None:
        with PredictionTable(tmp_path / name, 1) as table:
            table.write(rows)
            raise Stopped

    with pytest.raises(Stopped):
        interrupted("p.csv", [{"image": "a.png", "class_1": "cat", "probability_1": 1.0}])
    (left,) = tmp_path.iterdir()
    assert left.read_text().splitlines()[1] == "a.png,cat,1.000000,"
    with pytest.raises(Stopped):
        interrupted("q.json", [])
    assert list(tmp_path.iterdir()) == [left]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.png", MODEL], "no such image or folder: none.png"),
        (["{folder}/b/damaged.jpg", MODEL], "none of the 1 images could be read; "),
        (["{folder}/empty", MODEL], "no images in "),
        (["{folder}"], "the following arguments are required: --model"),
        (["{folder}", "--model=none.ckpt"], "checkpoint not found: none.ckpt"),
        (["{folder}", "--model=vit_attn_coin_patch4_32"], "did you mean 'vit_attn_coins_patch4_32'"),
        (["{folder}", MODEL, "--output=p.xls"], "p.xls must end in one of .csv, .json, .parquet, got '.xls'"),
        (["{folder}", MODEL, "--output={folder}/there.csv"], "there.csv exists already: name another file, or add"),
        (["{folder}", MODEL, "--output={folder}/folder.csv"], "folder.csv is a folder: name a file"),
        (["{folder}", MODEL, "--top_k=0"], "--top_k must be at least 1, got 0"),
        (["{folder}", MODEL, "--top_k=11"], "top_k must be from 1 to the network's 10 classes, got 11"),
        (
            ["{folder}", MODEL, "--fit=croop"],
            "--fit must be one of auto, crop, letterbox, whole, got 'croop', did you ",
        ),
        (["{folder}", "--model=resnet18", "--weights=none", "--fit=whole"], "choose --fit=crop or --fit=letterbox"),
        (["{folder}", MODEL, "--batch_size=0"], "--batch_size must be at least 1, got 0"),
        (["{folder}", MODEL, "--device=gpux"], "device 'gpux' cannot be used"),
        (["{folder}", MODEL, "--outptu=p.csv"], "unknown option --outptu, did you mean '--output'"),
        ([], "the following arguments are required: --model"),
        ([MODEL], "predict needs pictures: files or folders"),
        (["--ckpt_path=none.ckpt"], "checkpoint not found: none.ckpt"),
        (["--ckpt_path=none.ckpt", "--top_k=0"], "--top_k must be at least 1, got 0"),
        (["a.png", "--model=none.ckpt"], "no such image or folder: a.png"),
    ],
)
def test_mistakes_are_told_in_one_line(options, message, folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    (folder / "empty").mkdir()
    (folder / "folder.csv").mkdir()
    (folder / "there.csv").write_text("precious")
    monkeypatch.chdir(folder.parent)
    assert main(["predict", *(option.replace("{folder}", str(folder)) for option in options)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vit-attn: ")
    assert message in last
    assert (folder / "there.csv").read_text() == "precious"


def test_a_file_that_cannot_be_written_is_one_line(folder: Path, capsys):
    assert main(["predict", str(folder), MODEL, f"--output={folder / 'notes.txt' / 'p.csv'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "notes.txt" in line


def test_parquet_without_pyarrow_says_what_to_install(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main(["predict", str(folder), MODEL, f"--output={folder.parent / 'p.parquet'}"]) == 2
    assert "pip install 'vit_attn[parquet]'" in capsys.readouterr().err


def test_the_help_of_our_verbs_needs_no_torch():
    check = (
        "import sys\nfrom vit_attn.cli import main\n"
        "for verb in ('predict', 'export', 'attend'):\n"
        "    try:\n        main([verb, '--help'])\n    except SystemExit as end:\n        assert not end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "probability_1" in done.stdout
    assert ".safetensors" in done.stdout


def test_names_of_files_cannot_write_to_the_terminal_or_to_a_spreadsheet(folder: Path, monkeypatch, capsys):
    odd = folder.parent / "odd"
    odd.mkdir()
    monkeypatch.chdir(odd)
    (odd / "=1+2.png").write_bytes((folder / "a0.png").read_bytes())
    (odd / "\x1b[2J.png").write_bytes((folder / "a0.png").read_bytes())
    (odd / "\x1b[31m.png").write_bytes(b"damaged")
    names = sorted(path.name for path in odd.iterdir())
    assert main(["predict", *names, MODEL, f"--output={folder.parent / 'p.csv'}"]) == 1
    assert main(["attend", *names, MODEL, f"--output={folder.parent / 'drawn'}"]) == 1
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "\\x1b[31m.png cannot be read as an image" in told.err
    assert "\\x1b[2J.png: " in told.out
    with (folder.parent / "p.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["\\x1b[2J.png", "\\x1b[31m.png", "'=1+2.png"]


def probabilities(options: list[str], out: Path) -> list[tuple[str, float]]:
    assert main(["predict", *options, MODEL, "--top_k=1", f"--output={out}", "--overwrite"]) == 0
    rows = pyarrow.parquet.read_table(out).to_pylist()
    return [(Path(row["image"]).name, row["probability_1"]) for row in rows]


def test_pictures_of_several_shapes_keep_their_order_and_do_not_change_each_other(tmp_path: Path, capsys):
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate([(90, 40), (40, 90), (50, 50), (90, 40), (1, 70), (40, 90), (1, 1)]):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    files, out = sorted(tmp_path.glob("*.png")), tmp_path / "p.parquet"
    together = probabilities([str(tmp_path), "--fit=whole", "--batch_size=5"], out)
    assert "seen whole: 7 images, in 4 shapes" in capsys.readouterr().out
    assert [name for name, _ in together] == [path.name for path in files]
    for path, (_, probability) in zip(files, together, strict=True):
        ((_, alone),) = probabilities([str(path), "--fit=whole"], out)
        assert alone == pytest.approx(probability, abs=1e-5)


def test_the_default_of_a_network_of_one_size_is_the_middle_and_a_letterbox_is_something_else(tmp_path: Path, capsys):
    wide = np.random.default_rng(0).integers(0, 256, (32, 80, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide[:, 24:56]).save(tmp_path / "middle.png")
    out = tmp_path / "p.parquet"
    (_, middle), (_, default) = probabilities([str(tmp_path)], out)
    assert "cut off: the edges of 1 of 2 images, at most 60% of one" in capsys.readouterr().out
    assert default == middle
    (_, same), (_, padded) = probabilities([str(tmp_path), "--fit=letterbox"], out)
    assert "padded to the network's shape: 1 of 2 images" in capsys.readouterr().out
    assert same == middle
    assert padded != middle
