"""What is wrong with a file of weights is one line in every command that takes one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vit_attn.checkpoints import io
from vit_attn.cli import main
from vit_attn.data.datasets import coins
from vit_attn.model import VisionTransformer

NETWORK = ["--model.arch=vit_attn_coins_patch4_32", "--model.arch_options={depth: 2, embed_dim: 32, num_heads: 2}"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
TINY = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--attention.num_images=0", *QUIET]
NAN, OLD = float("nan"), "pytorch-lightning_version"


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch):
    for split in coins.SIZES:
        monkeypatch.setitem(coins.SIZES, split, 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network of coins."""
    with pytest.MonkeyPatch.context() as patch:
        for split in coins.SIZES:
            patch.setitem(coins.SIZES, split, 64)
        runs = tmp_path_factory.mktemp("runs")
        options = [f"--runs={runs}", "--data.dataset=coins", "--data.batch_size=8", "--trainer.max_epochs=1"]
        assert main(["fit", *options, *NETWORK, *TINY]) == 0
    (last,) = runs.glob("*/*/checkpoints/last.ckpt")
    return last


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, list[str]]]:
    """Every command that takes a checkpoint, with that file."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), "grey").save("a.png")

    def of(path: Path) -> dict[str, list[str]]:
        of_coins = [f"--model={path}", "--data.dataset=coins", "--data.batch_size=8", *QUIET]
        own = [f"--model={path}"]
        return {
            "resume": ["fit", f"--ckpt_path={path}", *of_coins[1:], *NETWORK],
            "fit": ["fit", "--data.dataset=coins", "--data.batch_size=8", f"--model.weights={path}", *TINY],
            "test": ["test", *of_coins],
            "validate": ["validate", *of_coins],
            "predict a run": ["predict", *of_coins, "--output=run.csv"],
            "judge": ["judge", f"--model={path}", "--dataset=coins", "--images=2", "--output=judged"],
            "predict": ["predict", "a.png", *own, "--output=own.csv"],
            "attend": ["attend", "a.png", *own, "--output=drawn"],
            "export": ["export", *own, "--output=net.safetensors"],
        }

    return of


def edited(trained: Path, folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["vit_attn"]  # settings of the run, which are compared after the file itself
    torch.save(edit(checkpoint) or checkpoint, folder / "edited.ckpt")
    return folder / "edited.ckpt"


def line_of(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """The one line that a command ends with, which has written nothing."""
    before = set(Path().iterdir())
    assert main(arguments) == 2
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if line.startswith("vit-attn: ")]
    assert "Traceback" not in told.err
    assert set(Path().iterdir()) - before <= {Path("drawn"), Path("runs")}  # folders without a file of results
    return line


def without(*names: str) -> Callable[[dict[str, Any]], Any]:
    return lambda checkpoint: [checkpoint.pop(name) for name in names] and None


def put(group: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda checkpoint: checkpoint[group].update(values)


def of_old_lightning(checkpoint: dict[str, Any]) -> None:
    checkpoint[OLD] = "1.5.10"
    for name in ("loops", "ImageData"):
        checkpoint.pop(name)
    checkpoint["hyper_parameters"] = {"lr": 0.1, "backbone": "resnet"}
    checkpoint["hparams_name"] = "kwargs"


def poisoned(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"]["net.blocks.1.attn.qkv.weight"][3, :5] = NAN
    checkpoint["state_dict"]["net.norm.bias"][0] = -torch.inf


ALL = "resume fit test validate judge predict attend export".split()
OURS = "resume test validate judge predict attend export".split()
KINDS = {
    "not finite": (poisoned, "net.blocks.1.attn.qkv.weight has NaN or infinity in 5 of its 3072 numbers", OURS),
    "not finite, as a start": (poisoned, "blocks.1.attn.qkv.weight has NaN or infinity in 5 of its 3072", ["fit"]),
    "old lightning": (of_old_lightning, "edited.ckpt was written by Lightning 1.5.10, but vit-attn needs chec", OURS),
    "old lightning, as a start": (of_old_lightning, "{path} does not say which network it is of: name that", ["fit"]),
    "no network": (without("hyper_parameters"), "it does not say which network it is of", OURS),
    "no weights": (without("state_dict"), "no weights", ALL),
    "empty weights": (lambda c: c["state_dict"].clear(), "no weights", ALL),
    "weights of other kinds": (put("state_dict", a=3), "state_dict must hold tensors, but a is a int", OURS),
    "no size": (lambda c: c["hyper_parameters"].pop("img_size") and None, "hyper_parameters.img_size is missing", ALL),
    "size": (put("hyper_parameters", img_size=32), "hyper_parameters.img_size must be height and width in pixe", ALL),
    "classes": (put("hyper_parameters", num_classes=0), "num_classes must be a number of at least 1, got 0", ALL),
    "arch": (put("hyper_parameters", arch=3), "hyper_parameters.arch must be a name, got 3", ALL),
    "options": (put("hyper_parameters", arch_options=[1]), "arch_options must be options by name, got [1]", ALL),
    "another size of images": (
        put("hyper_parameters", img_size=(16, 16)),
        "its network takes images of 16x16 pixels, but its data has 32x32",
        ALL,
    ),
    "another number of channels": (
        put("hyper_parameters", in_chans=1),
        "its network takes images of 1 channels, but its data has mean and standard deviation of 3",
        ALL,
    ),
    "zero deviation": (put("ImageData", std=[0.2, 0.0, 0.2]), "ImageData.std must be above 0, since images are d", ALL),
    "negative deviation": (put("ImageData", std=[-0.2] * 3), "ImageData.std must be above 0", ALL),
    "NaN deviation": (put("ImageData", std=[NAN] * 3), "ImageData.std must be finite numbers", ALL),
    "NaN mean": (put("ImageData", mean=[NAN] * 3), "ImageData.mean must be finite numbers", ALL),
    "no mean": (put("ImageData", mean=None), "ImageData.mean must be finite numbers, one a channel, got None", ALL),
    "short mean": (put("ImageData", mean=[0.5]), "has a mean of 1 channels and a standard deviation (std) of 3", ALL),
    "names": (put("ImageData", label_names=[1, 2]), "ImageData.label_names must be names, got (1, 2)", ALL),
    "crop": (put("ImageData", crop_pct=0), "ImageData.crop_pct must be in (0, 1], got 0", ALL),
    "more in the card": (put("ImageData", colour=1), "missing or unknown: colour", ALL),
    "no card": (without("ImageData"), "does not say what data it was trained on", ["predict", "attend", "export"]),
    "no optimiser": (without("optimizer_states"), "--model.weights={path} instead of --ckpt_path", ["resume"]),
    "no version": (without(OLD), "it does not say which Lightning wrote it", ["resume", "test", "validate"]),
    "positions": (
        lambda c: c["state_dict"].update({"net.pos_embed": torch.zeros(1, 17, 32)}),
        "pos_embed",
        ["test", "validate", "judge", "predict", "attend", "export"],
    ),
    "unlike shapes": (
        lambda c: c["state_dict"].update({"net.blocks.0.mlp.fc1.weight": torch.zeros(3)}),
        "blocks.0.mlp.fc1.weight",
        ALL,
    ),
    "odd patches": (
        lambda c: c["state_dict"].update({"net.patch_embed.proj.weight": torch.zeros(3)}),
        "patch",
        ALL,
    ),
    "a list": (lambda _: [1, 2], "holds no weights by name, as a checkpoint does, but a list", ALL),
    "nothing": (lambda _: {"a": 1}, "edited.ckpt", ALL),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_cannot_be_used_is_one_line(kind, trained, tmp_path, commands, capsys):
    edit, message, verbs = KINDS[kind]
    path = edited(trained, tmp_path, edit)
    for verb in verbs:
        line = line_of(commands(path)[verb], capsys)
        assert message.replace("{path}", str(path)) in line, verb
        assert "edited.ckpt" in line or verb in ("test", "validate", "resume"), verb


def test_files_that_are_no_checkpoint_are_one_line_everywhere(trained, tmp_path, commands, capsys):
    whole = trained.read_bytes()
    for name, content in (("empty.ckpt", b""), ("cut.ckpt", whole[: len(whole) // 2]), ("text.ckpt", b"no checkpoint")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.ckpt").mkdir()
    for name, message in (
        ("empty.ckpt", "empty.ckpt is empty: it is not a whole checkpoint"),
        ("cut.ckpt", "cut.ckpt is not a whole checkpoint"),
        ("text.ckpt", "text.ckpt is not a whole checkpoint"),
        ("folder.ckpt", "folder.ckpt is a folder without a checkpoint: it is empty"),
        ("none.ckpt", "not found: "),
    ):
        for verb, arguments in commands(tmp_path / name).items():
            assert message in line_of(arguments, capsys), (name, verb)


def test_a_size_that_is_not_the_networks_is_refused_before_there_are_images(trained, tmp_path, commands, capsys):
    for verb in ("test", "predict a run"):
        line = line_of([*commands(trained)[verb], "--data.img_size=48"], capsys)
        assert "is of a network for images of 32x32 pixels, and data.img_size=48 asks for others: leave it out" in line


def test_exports_and_files_of_timm_that_are_not_finite_are_refused_too(trained, tmp_path, commands, capsys):
    assert main(["export", f"--model={trained}", "--output=whole.safetensors"]) == 0
    state = load_file("whole.safetensors")
    metadata, _ = io.read_safetensors("whole.safetensors")
    state["head.bias"][:2] = torch.inf
    save_file(state, "broken.safetensors", metadata)
    torch.save(state, "broken.pth")
    capsys.readouterr()
    told = "head.bias has NaN or infinity in 2 of its 10 numbers"
    for verb in ("fit", "predict", "attend", "export"):
        assert f"broken.safetensors: {told}" in line_of(commands(Path("broken.safetensors"))[verb], capsys)
    named = ["--model=vit_attn_coins_patch4_32", "--weights=broken.pth"]
    assert told in line_of(["predict", "a.png", *named], capsys)
    judged = ["judge", "--arch=vit_attn_coins_patch4_32", "--weights=broken.pth", "--dataset=coins", "--images=2"]
    assert told in line_of([*judged, "--arch_options", "depth=2", "embed_dim=32", "num_heads=2"], capsys)


def test_a_file_is_read_once_a_command(trained, commands, capsys, monkeypatch: pytest.MonkeyPatch):
    reads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda file, **options: reads.append(file) or load(file, **options))
    for verb, arguments in commands(trained).items():
        io._read_pickle.cache_clear()
        reads.clear()
        assert main(arguments) == 0, verb
        assert [each for each in reads if each == trained] == [trained], verb  # beside what a run itself has written


def overflowing(checkpoint: dict[str, Any]) -> None:
    """Finite weights whose logits are not."""
    checkpoint["state_dict"]["net.head.weight"].copy_(3e38 * checkpoint["state_dict"]["net.head.weight"].sign())


def test_a_network_that_overflows_is_one_line(trained, tmp_path, commands, capsys):
    path = edited(trained, tmp_path, overflowing)
    for verb, message in (
        ("test", "the network gives NaN or infinity for images of test batch 1"),
        ("judge", "the network gives NaN or infinity for 2 of 2 images: it cannot be judged"),
        ("export", "the network gives NaN or infinity for ordinary images"),
        ("attend", "none of the images could be read and drawn"),
    ):
        assert main(commands(path)[verb]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"vit-attn: {message}"), verb
    for verb, table, count in (("predict", "own.csv", 1), ("predict a run", "run.csv", 64)):
        assert main(commands(path)[verb]) == 2
        assert table in capsys.readouterr().err.splitlines()[-1]
        rows = Path(table).read_text().splitlines()[1:]
        assert len(rows) == count
        assert all(row.endswith("the network gives NaN or infinity") for row in rows)


def test_only_the_images_that_overflow_are_left_out(trained, commands, capsys, monkeypatch: pytest.MonkeyPatch):
    forward = VisionTransformer.forward

    def broken_for_black(net, images):
        black = (images == images[:, :, :1, :1]).all(dim=(1, 2, 3)) & (images < 0).all(dim=(1, 2, 3))
        return forward(net, images).masked_fill(black[:, None], NAN)

    monkeypatch.setattr(VisionTransformer, "forward", broken_for_black)
    arguments = commands(trained)
    Image.new("RGB", (32, 32), "black").save("b.png")
    for verb in ("predict", "attend"):
        assert main([verb, "b.png", *arguments[verb][1:]]) == 1
        assert "vit-attn: b.png: the network gives NaN or infinity" in capsys.readouterr().err.splitlines()
    assert [row.partition(",")[0] for row in Path("own.csv").read_text().splitlines()] == ["image", "b.png", "a.png"]
    assert {path.name for path in Path("drawn").iterdir()} == {"a.attention.png", "a.attention.npz"}

    def broken_for_the_first(net, images):
        return forward(net, images).index_fill(0, torch.tensor([0]), NAN)

    monkeypatch.setattr(VisionTransformer, "forward", broken_for_the_first)
    assert main(arguments["predict a run"]) == 1
    assert "predictions of 64 images: run.csv; for 8 of them the network gives NaN" in capsys.readouterr().out
