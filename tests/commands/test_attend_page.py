"""The page that ``attend --output PAGE.html`` writes."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from vit_attn.attention_maps.summary import summarize
from vit_attn.cli import main
from vit_attn.data import Coins
from vit_attn.inference.network import open_network

COINS = "vit_attn_coins_patch4_32"
MODEL = f"--model={COINS}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, two of one name, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "c.png", "more/a.png")):
        Image.fromarray(Coins("test")[i][0].permute(1, 2, 0).numpy()).save(folder / name)
    (folder / "damaged.png").write_bytes(b"no image at all")
    return folder


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))[1])


def test_the_page_has_all_pictures_that_can_be_read_and_says_first_what_it_takes(folder, tmp_path, capsys):
    page = tmp_path / "new" / "page.HTML"
    assert main(["attend", str(folder), MODEL, f"--output={page}", "--batch_size=2", "--query=2,3"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "damaged.png cannot be read as an image" in said.err
    lines = said.out.splitlines()
    found = re.fullmatch(
        rf"{page}: 5 images, about ([\d.]+) MB; maps of 1 are compared with random orders, about 140 forwards", lines[1]
    )
    assert float(found[1]) * 1e6 * 4 / 5 == pytest.approx(page.stat().st_size, rel=0.25)
    assert lines[-1] == f"{page}: {page.stat().st_size / 1e6:.1f} MB"
    data = data_of(page)
    index = data["steps"]["0"]["index"]
    assert data["run"] == COINS
    assert data["view"] == f"run={COINS}&step=0&image=1&query=11"
    assert [each["name"] for each in index["images"]] == [
        str(folder / "a.png"),
        "b.png",
        "c.png",
        str(folder / "more/a.png"),
    ]
    network = open_network(COINS)
    for i, each in enumerate(index["images"]):
        image = network.normalize([Coins("test")[i][0].permute(1, 2, 0).numpy()], torch.device("cpu"))
        (summary,) = summarize(network.net, image)
        assert each["top"][0][0] == network.class_name(summary.predicted)
        assert each["label"] is None
        assert len(data["steps"]["0"]["images"][str(i)]["layers"]) == 4  # three, and relevance
    assert index["judged"]["images"] == 1
    assert [path.name for path in tmp_path.rglob("*attention*")] == []


def test_queries_and_keys_are_left_out_first_and_then_it_is_refused(folder, tmp_path, capsys):
    page, pictures = tmp_path / "page.html", [str(folder / name) for name in ("a.png", "b.png")]
    command = ["attend", *pictures, MODEL, f"--output={page}", "--compared=0"]
    assert main(command) == 0
    whole = page.stat().st_size / 1e6
    assert data_of(page)["steps"]["0"]["index"]["images"][1]["queries_keys"] is True
    assert main([*command, f"--max-megabytes={whole - 0.01}"]) == 0
    assert "without queries and keys, for which --max-megabytes is too small" in capsys.readouterr().out
    assert page.stat().st_size / 1e6 <= whole - 0.01
    image = data_of(page)["steps"]["0"]
    assert image["index"]["images"][1]["queries_keys"] is False
    assert "queries_keys" not in image["images"]["1"]
    page.unlink()
    assert main([*command, "--max-megabytes=0.31"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"2 pictures would take 0\.\d MB without queries and keys, more than 0.31: allow it by ", line)
    assert line.endswith("--max-megabytes=1, or take fewer")
    assert not page.exists()


def test_a_target_is_the_first_class_that_is_shown(folder, tmp_path):
    page = tmp_path / "page.html"
    assert main(["attend", str(folder / "a.png"), MODEL, f"--output={page}", "--target=7", "--compared=0"]) == 0
    assert data_of(page)["view"].endswith("&target=plus")
    assert data_of(page)["steps"]["0"]["index"]["images"][0]["targets"][2] == "plus"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{folder}/damaged.png"], "none of the images could be read and drawn"),
        (["{folder}/a.png", "--query=9,1"], "the query must be a patch in rows 1..8"),
        (["{folder}/a.png", "--target=10"], "the target must be a class in 0..9, got [10]"),
        (["{folder}/a.png", "--target=1", "--query=1"], "leave out query or target"),
        (["{folder}/a.png", "--model=resnet18", "--weights=none"], "ResNet has no attention modules to record"),
        (["{folder}/a.png", "--compared=-1"], "--compared must be at least 0"),
        (["{folder}/a.png", "--max-megabytes=0"], "max-megabytes must be above 0"),
        (["{folder}/a.png", "--max-megabytes=nan"], "max-megabytes must be above 0"),
        (["{folder}/a.png", "--outpu=a.html"], "unknown option --outpu, did you mean '--output'"),
        ([], "attend needs pictures: files or folders, as in vit-attn attend PHOTO.jpg FOLDER"),
    ],
)
def test_mistakes_are_told_in_one_line(options, message, folder: Path, capsys: pytest.CaptureFixture[str]):
    filled = [option.replace("{folder}", str(folder)) for option in options]
    output = folder.parent / "page.html"
    assert main(["attend", *([MODEL] if options else []), *filled, "--output", str(output)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vit-attn: ")
    assert message in last
    assert not output.exists()


def test_pictures_for_which_the_network_gives_nan_are_left_out_and_named(folder, tmp_path, capsys, monkeypatch):
    Image.new("RGB", (32, 32), "white").save(folder / "white.png")

    def spoil(net: nn.Module, inputs: tuple[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        return logits + torch.where(inputs[0].mean(dim=(1, 2, 3)) > 3, torch.nan, 0.0)[:, None]

    network = open_network(COINS)
    network.net.register_forward_hook(spoil)
    monkeypatch.setattr("vit_attn.inference.network.open_network", lambda *_, **__: network)
    page = tmp_path / "page.html"
    command = ["attend", MODEL, f"--output={page}", "--compared=0", str(folder / "white.png")]
    assert main(command) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"vit-attn: {folder}/white.png: the network gives NaN or infinity"
    assert last == "vit-attn: none of the images could be read and drawn"
    assert main([*command, str(folder / "b.png")]) == 1
    assert [each["name"] for each in data_of(page)["steps"]["0"]["index"]["images"]] == ["b.png"]
