import json

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.checkpoints.contents import RUN_KEY
from vit_attn.checkpoints.model_card import DATA_KEY, card_from_state
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
    card = card_from_state(torch.load(best, weights_only=True))
    assert (card.dataset, card.label_names, card.img_size) == ("folder", ("heron", "otter"), (16, 16))
    assert all(0.4 < mean < 0.6 for mean in card.mean)
    capsys.readouterr()
    assert main(["test", f"--model={best}", "--trainer.enable_progress_bar=false"]) == 0
    assert "top-1 accuracy" in capsys.readouterr().out


def test_wide_images_of_a_small_folder_are_trained_on_resumed_and_tested(pictures, tmp_path, caplog):
    settings = [*SMALL, *QUICK, "--attention.num_images=1", "--data.img_size=[16,24]", "--data.batch_size=500"]
    folder = ["--data.dataset=folder", f"--data.root={pictures}", "--data.held_out=0.2"]
    assert main(["fit", *settings, *folder, f"--runs={tmp_path / 'runs'}"]) == 0
    assert "batch_size: 12, since there are 12 training images, not 500" in caplog.text
    (best,) = (tmp_path / "runs").glob("*/*/checkpoints/best.ckpt")
    assert main(["test", f"--model={best}", "--trainer.enable_progress_bar=false"]) == 0
    report = json.loads((best.parents[1] / "test.json").read_text())  # by this name only of the run's own images
    assert report["images"] == 4
    assert main(["fit", f"--resume={best.parents[1]}", "--trainer.max_epochs=2"]) == 0  # with the batch that fitted
    assert main(["attend", str(pictures / "heron" / "0.png"), f"--model={best}", f"--output={tmp_path}"]) == 0
    assert np.load(tmp_path / "0.attention.npz")["image"].shape == (16, 24, 3)


def test_a_table_of_pictures_is_trained_on_and_judged(pictures, tmp_path, capsys):
    rows = [f"pictures/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(pictures.rglob("*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(["photo,bird", *rows]))
    table = ["--data.dataset=csv", f"--data.root={tmp_path / 'table.csv'}", "--data.normalize=imagenet"]
    table.append("--data.columns=path=photo,label=bird")
    assert main(["fit", *TINY, *table, "--data.balance=sampling", f"--runs={tmp_path / 'runs'}"]) == 0
    (best,) = (tmp_path / "runs").glob("*/*/checkpoints/best.ckpt")
    assert card_from_state(torch.load(best, weights_only=True)).mean == (0.485, 0.456, 0.406)
    assert main(["test", f"--model={best}", "--trainer.enable_progress_bar=false"]) == 0
    assert main(["judge", f"--model={best}", "--images=2"]) == 0


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
        (None, ["--data.img_size=0"], "img_size must be a side in pixels, or height and width as [160,224], got 0"),
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


def drawn(root, counts: dict[str, int]) -> None:
    """Pictures in folders, by their paths; those of a class have its grey."""
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (40 * (number % 3) + i,) * 3).save(root / folder / f"{i}.png")


@pytest.mark.filterwarnings("ignore:validation has no dog")
@pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat
def test_a_class_that_validation_lacks_and_an_unlabelled_test_do_not_end_a_run(tmp_path, capsys):
    root = tmp_path / "photos"
    drawn(root, {f"train/{name}": 6 for name in ("cat", "dog", "owl")} | {"val/cat": 2, "val/owl": 3, "test": 2})
    folder = ["--data.dataset=folder", f"--data.root={root}", "--data.balance=loss", f"--runs={tmp_path / 'runs'}"]
    assert main(["fit", *TINY, *folder]) == 0
    (best,) = (tmp_path / "runs").glob("*/*/checkpoints/best.ckpt")
    assert main(["test", f"--model={best}", "--trainer.enable_progress_bar=false"]) == 0
    report = json.loads((best.parent.parent / "test.json").read_text())
    named = {each["name"]: (each["images"], each["accuracy"] is None) for each in report["classes"]}
    assert named == {"cat": (2, False), "dog": (0, True), "owl": (3, False)}
    assert (report["split"], [sum(row) for row in report["confusion"]]) == ("val", [2, 0, 3])
    known = [each["accuracy"] for each in report["classes"] if each["accuracy"] is not None]
    assert report["class_accuracy"] == pytest.approx(sum(known) / 2)
    assert main(["predict", str(root / "test"), f"--model={best}", f"--output={tmp_path / 'p.csv'}"]) == 0
    capsys.readouterr()


@pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat
def test_a_checkpoint_of_the_old_order_of_classes_is_measured_as_it_was(tmp_path, capsys):
    names, old = ["0", "1", "2", "10"], ["0", "1", "10", "2"]
    drawn(tmp_path / "photos", dict.fromkeys(names, 6))
    folder = ["--data.dataset=folder", f"--data.root={tmp_path / 'photos'}", "--model.lr=1e-2"]
    assert main(["fit", *TINY, *folder, f"--runs={tmp_path / 'runs'}"]) == 0
    (best,) = (tmp_path / "runs").glob("*/*/checkpoints/best.ckpt")
    reports = []
    for renumbered in (False, True):
        if renumbered:
            checkpoint = torch.load(best, weights_only=True)
            order = torch.tensor([names.index(name) for name in old])
            for name in ("net.head.weight", "net.head.bias"):
                checkpoint["state_dict"][name] = checkpoint["state_dict"][name][order]
            checkpoint[DATA_KEY]["label_names"] = checkpoint[RUN_KEY]["data"]["class_names"] = old
            torch.save(checkpoint, best)
        assert main(["test", f"--model={best}", "--trainer.enable_progress_bar=false"]) == 0
        reports.append(json.loads((best.parent.parent / "test.json").read_text()))
    classes = [{each["name"]: each for each in report["classes"]} for report in reports]
    assert classes[0] == classes[1]
    assert reports[0]["loss"] == pytest.approx(reports[1]["loss"])
    assert [each["name"] for each in reports[1]["classes"]] == old
    capsys.readouterr()


def test_photos_given_without_their_kind_are_not_downloaded_into(pictures, capsys):
    assert main(["fit", *TINY, f"--data.root={pictures}", f"--runs={pictures.parent / 'runs'}"]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"vit-attn: {pictures} holds pictures, such as heron/0.png, and not cifar10: ")
    assert line.endswith("add --data.dataset=folder")
    assert {path.name for path in pictures.iterdir()} == {"heron", "otter"}
    assert not (pictures.parent / "runs").exists()
