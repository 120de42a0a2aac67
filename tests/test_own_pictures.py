import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.checkpoints.card import card_of
from vit_attn.cli import main

SMALL = [f"--model.arch_options.{each}" for each in ("embed_dim=16", "depth=1", "num_heads=2")]
QUICK = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=4",
]
TINY = [*SMALL, *QUICK, "--attention.num_images=1", "--data.img_size=16"]


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("heron", "otter"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (*rng.integers(14, 40, 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_a_folder_of_pictures_becomes_a_network_that_knows_their_classes(pictures, tmp_path, loader, capsys):
    how = [f"--data.loader={loader}", "--data.num_workers=1", "--data.balance=loss"]
    folder = ["--data.dataset=folder", f"--data.root={pictures}"]
    assert main(["fit", *TINY, *folder, *how, f"--runs={tmp_path / 'runs'}"]) == 0
    (best,) = (tmp_path / "runs").glob("*/*/checkpoints/best.ckpt")
    card = card_of(torch.load(best, weights_only=True))
    assert (card.dataset, card.class_names, card.img_size) == ("folder", ("heron", "otter"), (16, 16))
    assert all(0.4 < mean < 0.6 for mean in card.mean)
    capsys.readouterr()
    assert main(["test", f"--ckpt_path={best}", "--trainer.enable_progress_bar=false"]) == 0
    assert "top-1 accuracy" in capsys.readouterr().out


def test_a_table_of_pictures_is_trained_on_and_judged(pictures, tmp_path, capsys):
    rows = [f"pictures/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(pictures.rglob("*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]))
    table = ["--data.dataset=csv", f"--data.root={tmp_path / 'table.csv'}", "--data.normalize=imagenet"]
    assert main(["fit", *TINY, *table, "--data.balance=sampling", f"--runs={tmp_path / 'runs'}"]) == 0
    (best,) = (tmp_path / "runs").glob("*/*/checkpoints/best.ckpt")
    assert card_of(torch.load(best, weights_only=True)).mean == (0.485, 0.456, 0.406)


def damaged(pictures) -> None:
    for number in range(5):  # of each split some
        path = pictures / "otter" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:90])


def emptied(pictures) -> None:
    (pictures / "crane").mkdir()


def gone(pictures) -> None:
    pictures.rename(pictures.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("spoil", "options", "told"),
    [
        (damaged, [], ".png cannot be read as an image: "),
        (damaged, ["--data.loader=workers", "--data.num_workers=1"], ".png cannot be read as an image: "),
        (emptied, [], "crane is empty: put images there, or remove it"),
        (gone, [], "cannot be read: No such file or directory"),
        (None, ["--data.normalize=imagenit"], "no statistics are known as 'imagenit', did you mean 'imagenet'"),
        (None, ["--data.img_size=0"], "img_size must be at least 1, got 0"),
        (None, ["--data.dataset=folders"], "unknown data set 'folders', did you mean 'folder'?"),
    ],
)
def test_a_mistake_with_pictures_of_ones_own_costs_one_line(pictures, tmp_path, capsys, spoil, options, told):
    if spoil:
        spoil(pictures)
    folder = ["--data.dataset=folder", f"--data.root={pictures}", *options]
    assert main(["fit", *TINY, *folder, f"--runs={tmp_path / 'runs'}"]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vit-attn: ")
    assert told in line
