from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from vit_attn.cli import main
from vit_attn.data import Coins
from vit_attn.data.datasets.coins import GLYPH_NAMES
from vit_attn.task import Classifier


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Coins as PNG, a grey JPEG of another shape, and a file that is no image."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(Coins("test")[i][0].permute(1, 2, 0).numpy()).save(folder / f"coins_{i}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90), dtype=np.uint8)).save(folder / "grey.jpg")
    (folder / "damaged.png").write_bytes(b"no image at all")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def test_a_folder_is_drawn_by_the_network_that_comes_along(folder: Path, capsys: pytest.CaptureFixture[str]):
    out = folder.parent / "out"
    assert (
        main(["attend", str(folder), "--model", "vit_attn_coins_patch4_32", "--output", str(out), "--batch_size", "2"])
        == 1
    )
    said = capsys.readouterr()
    assert "damaged.png cannot be read as an image" in said.err
    names = {"coins_0", "coins_1", "coins_2", "grey"}
    assert {path.name.partition(".")[0] for path in out.iterdir()} == names
    for i in range(3):
        image, label = Coins("test")[i]
        assert f"coins_{i}.png: {GLYPH_NAMES[label]} (" in said.out
        with np.load(out / f"coins_{i}.attention.npz") as numbers:
            assert (numbers["image"] == image.permute(1, 2, 0).numpy()).all()
            assert numbers["heads"].shape == (3, 4, 65)
            assert abs(numbers["rollout"].sum() - 1) < 1e-5
            assert numbers["class_names"][numbers["target"]] == GLYPH_NAMES[label]
            top = numbers["last"][1:].argmax()
            assert top == Coins("test").answer(i).bought  # the trained network of seed 0 points there in these
    with Image.open(out / "grey.attention.png") as picture:
        assert picture.width > 600


def test_any_vision_transformer_by_name_and_any_token(folder: Path):
    out = folder.parent / "out"
    options = [
        "--model",
        "vit_tiny_patch16_224",
        "--weights",
        "none",
        "--img_size",
        "64",
        "--query",
        "5",
        "--target",
        "281",
    ]
    assert main(["attend", str(folder / "coins_0.png"), *options, "--output", str(out)]) == 0
    with np.load(out / "coins_0.attention.npz") as numbers:
        assert numbers["heads"].shape == (12, 3, 17)
        assert numbers["query"] == 5
        assert numbers["class_names"][281] == "tabby"
        assert numbers["image"].shape == (64, 64, 3)


def test_weights_that_bring_their_network_are_not_put_into_another(folder: Path, tmp_path: Path, capsys):
    task, checkpoint = Classifier(arch_options={"depth": 1, "embed_dim": 16, "num_heads": 2}), tmp_path / "a.ckpt"
    torch.save({"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict()}, checkpoint)
    options = ["--model", "vit_tiny_patch16_224", "--weights", str(checkpoint), "--output", str(tmp_path / "out")]
    assert main(["attend", str(folder / "coins_0.png"), *options]) == 2
    assert "says which network it is of" in capsys.readouterr().err


def test_files_of_one_name_keep_apart(folder: Path):
    other = folder.parent / "other"
    other.mkdir()
    (other / "coins_0.png").write_bytes((folder / "coins_0.png").read_bytes())
    out = folder.parent / "out"
    assert main(["attend", str(folder / "coins_0.png"), str(other), "--output", str(out)]) == 0
    assert {path.name for path in out.glob("*.png")} == {"coins_0_1.attention.png", "coins_0_2.attention.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.png"], "no such image or folder: none.png"),
        (["{folder}/damaged.png"], "none of the images could be read"),
        (["{folder}", "--query=64"], r"queries must be tokens in 0..63, got [64]"),
        (["{folder}", "--query=9,1"], "the query must be a patch in rows 1..8, columns 1..8, got 9,1"),
        (["{folder}", "--query=0,1"], "the query must be a patch in rows 1..8, columns 1..8, got 0,1"),
        (["{folder}", "--query=CLS"], "the query must be ROW,COLUMN from 1,1, got 'CLS'"),
        (["{folder}", "--target=10"], "the target must be a class in 0..9, got [10]"),
        (["{folder}", "--target=dogg"], "the network knows no class 'dogg', did you mean"),
        (["{folder}", "--model=vit_attn_coin_patch4_32"], "did you mean 'vit_attn_coins_patch4_32'"),
        (["{folder}", "--model=resnet18", "--weights=none"], "ResNet has no attention modules to record"),
        (["{folder}", "--model=none.ckpt"], "checkpoint not found: none.ckpt"),
        (["{folder}", "--model={folder}/notes.txt"], "notes.txt is not a whole checkpoint"),
        (["{folder}", "--fit=leterbox"], "got 'leterbox', did you mean 'letterbox'?"),
        (
            ["{folder}", "--model=test_vit_relpos", "--weights=none", "--fit=whole"],
            "choose --fit=crop or --fit=letterbox",
        ),
        (["{folder}", "--img_size=30"], "img_size must be a multiple of patch_size"),
        (["{folder}", "--device=gpux"], "device 'gpux' cannot be used"),
        (["{folder}", "--device=meta"], "device 'meta' cannot be used"),
        (["{folder}", "--model=vit_small_patch14_dinov2", "--weights=none"], "has no head"),
        (["{folder}", "--batch_size=0"], "--batch_size must be at least 1"),
        (["{folder}", "--quer=1"], "unknown option --quer, did you mean '--query'"),
        ([], "attend needs pictures: files or folders, as in vit-attn attend PHOTO.jpg FOLDER"),
    ],
)
def test_mistakes_are_told_in_one_line(options, message, folder: Path, capsys: pytest.CaptureFixture[str]):
    filled = [option.replace("{folder}", str(folder)) for option in options]
    assert main(["attend", *filled, "--output", str(folder.parent / "out")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vit-attn: ")
    assert message in last


def test_the_networks_that_come_along_say_how_they_were_made():
    for name, least in (("coins", 108_000), ("cifar10", 141_000)):
        net = timm.create_model(f"vit_attn_{name}_patch4_32", pretrained=True)
        assert sum(parameter.numel() for parameter in net.parameters()) >= least
        (notes,) = net.pretrained_cfg["notes"]
        assert "accuracy" in notes
        assert "commit" in notes
    images = torch.stack([Coins("test")[i][0] for i in range(100)]) / 255
    coins = timm.create_model("vit_attn_coins_patch4_32", pretrained=True).eval()
    with torch.no_grad():
        predicted = coins((images - 0.25) / 0.18).argmax(dim=-1)
    assert (predicted == torch.tensor([Coins("test")[i][1] for i in range(100)])).float().mean() > 0.98


def test_names_as_long_as_a_file_system_takes_have_results_of_their_own(folder: Path):
    for number, end in enumerate("ab"):
        (folder / f"coins_{number}.png").rename(folder / f"{'x' * 250}{end}.png")
    files = [str(path) for path in sorted(folder.glob("x*"))]
    out = folder.parent / "out"
    assert main(["attend", *files, "--model", "vit_attn_coins_patch4_32", "--output", str(out)]) == 0
    assert len(list(out.iterdir())) == 4


def test_a_query_is_named_by_row_and_column_or_as_a_prefix_token(folder: Path):
    for query, index in (("2,3", 11), ("CLS", 0), ("8,8", 64)):
        out = folder.parent / query
        command = ["attend", str(folder / "coins_0.png"), "--model=vit_attn_coins_patch4_32", f"--query={query}"]
        assert main([*command, "--output", str(out)]) == 0
        with np.load(out / "coins_0.attention.npz") as numbers:
            assert numbers["query"] == index


def test_a_picture_that_is_named_twice_is_drawn_once_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder)
    named = ["coins_1.png", "coins_0.png", str(folder / "coins_0.png"), "./coins_1.png"]
    assert main(["attend", *named, "--model", "vit_attn_coins_patch4_32", "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert said.count(" -> ") == 2
    assert "listed more than once, read once: 2 images" in said
    assert "; 2 images\n" in said
    assert said.index("coins_1.png: ") < said.index("coins_0.png: ")
    results = {f"coins_{i}.attention.{kind}" for i in (0, 1) for kind in ("png", "npz")}
    assert {path.name for path in (folder / "out").iterdir()} == results


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A wide, a tall and a square picture."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    for name, size in (("wide", (90, 200)), ("tall", (120, 50)), ("square", (70, 70))):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("model", "grids"),
    [
        (["test_vit"], {"wide": (6, 14), "tall": (14, 6), "square": (10, 10)}),  # timm's, which take any size
        (["naflexvit_base_patch16_gap", "--img_size=64"], {"wide": (2, 5), "tall": (5, 2), "square": (4, 4)}),
        (["vit_tiny_patch16_224", "--img_size=64", "--fit=whole"], {"wide": (2, 5), "tall": (5, 2), "square": (4, 4)}),
    ],
)
def test_a_network_of_any_size_is_drawn_on_the_whole_of_each_picture(model, grids, shapes: Path, capsys):
    out = shapes.parent / "out"
    assert main(["attend", str(shapes), "--weights=none", "--query=2,1", f"--output={out}", "--model", *model]) == 0
    said = capsys.readouterr().out
    assert ("position embeddings are resampled" in said) == ("--fit=whole" in model)
    for name, (rows, cols) in grids.items():
        if rows != cols:
            assert (
                f"{name}.png: {'200x90' if name == 'wide' else '50x120'}, seen whole in {rows} rows of {cols} " in said
            )
        with np.load(out / f"{name}.attention.npz") as numbers:
            assert tuple(numbers["grid_size"]) == (rows, cols)
            assert numbers["image"].shape == (16 * rows, 16 * cols, 3)
            assert numbers["query"] == numbers["num_prefix_tokens"] + cols
            height, width = numbers["picture_size"]
            assert numbers["box"].tolist() == [0, 0, width, height]
            assert numbers["content"].tolist() == [0, 0, 16 * cols, 16 * rows]
            assert numbers["rollout"].shape == (numbers["num_prefix_tokens"] + rows * cols,)
            np.testing.assert_allclose(numbers["rollout"].sum(), 1, rtol=1e-4)


def test_the_numbers_tell_which_part_of_a_picture_was_seen(shapes: Path, capsys):
    for fit, box, content in (
        ("auto", [55, 0, 145, 90], [0, 0, 32, 32]),
        ("letterbox", [0, 0, 200, 90], [0, 9, 32, 23]),
    ):
        out = shapes.parent / fit
        assert main(["attend", str(shapes / "wide.png"), f"--fit={fit}", f"--output={out}"]) == 0
        with np.load(out / "wide.attention.npz") as numbers:
            assert numbers["box"].tolist() == pytest.approx(box)
            assert numbers["content"].tolist() == content
            assert numbers["picture_size"].tolist() == [90, 200]
    said = capsys.readouterr().out
    assert "wide.png: 200x90, the middle 90x90 is seen: 55% is cut off\n" in said
    assert "wide.png: 200x90, seen whole in 32x14 of 32x32 pixels, the rest is padding\n" in said


def test_a_query_that_one_picture_lacks_is_an_error_of_that_picture(shapes: Path, capsys):
    out = shapes.parent / "out"
    options = ["--model=test_vit", "--weights=none", f"--output={out}", "--query=12,3", "--batch_size=2"]
    assert main(["attend", str(shapes), *options]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.rpartition("/")[2].partition(":")[0] for line in errors] == ["square.png", "wide.png"]
    assert "the query must be a patch in rows 1..6, columns 1..14, got 12,3" in errors[1]
    assert {path.name for path in out.iterdir()} == {"tall.attention.png", "tall.attention.npz"}


def test_a_picture_of_one_pixel_by_thousands_has_a_figure_of_ordinary_size(tmp_path: Path):
    for name, size in (("row", (1, 5000)), ("column", (5000, 1)), ("dot", (1, 1))):
        Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    for fit in ("crop", "letterbox", "whole"):
        assert main(["attend", str(tmp_path), f"--fit={fit}", f"--output={tmp_path / fit}"]) == 0
        for path in (tmp_path / fit).glob("*.png"):
            with Image.open(path) as figure:
                assert figure.width == 1050
                assert figure.height < 3000
