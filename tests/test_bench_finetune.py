"""scripts/bench_finetune.py on tiny files in the formats of the data sets."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.data.datasets.test_torchvision import picture

ROOT = Path(__file__).parent.parent
IMAGENETTE = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079")
IMAGENETTE += ("n03394916", "n03417042", "n03425413", "n03445777", "n03888257")
FEW = ["--steps=2", "--labelled=4", "--ways", "scratch", "head"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("bench_finetune")
    ways = {name: options[:2] for name, options in module.WAYS.items()}
    monkeypatch.setattr(module, "WAYS", ways)
    monkeypatch.setattr(module, "VALIDATION", 2)
    return module


def stored(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def test_a_folder_is_measured_once_and_a_stopped_run_goes_on(bench: ModuleType, tmp_path: Path, capsys):
    for label, name in enumerate(("ants", "bees")):
        for number in range(20):
            picture(tmp_path / "images" / name / f"{number}.jpg", 100 * label + number, (40, 36))
    results = tmp_path / "results"
    words = ["--dataset=folder", f"--root={tmp_path}/images", "--name=insects", "--seeds=2", f"--results={results}"]
    bench.main([*words, *FEW])
    found = stored(results, "insects")
    assert (found["classes"], found["labelled"], found["val_images"], found["test_images"]) == (2, 4, 4, 4)
    tried = [(run["way"], run["seed"]) for run in found["runs"]]
    assert tried == [("scratch", 0)] * 2 + [("head", 0)] * 2 + [("scratch", 1), ("head", 1)]
    for run in found["runs"]:
        assert ("weights" in run["options"]) == (run["way"] == "head")
        assert 0 <= run["test"] <= 1
    assert "| insects, 2 classes, 4 images each | " in capsys.readouterr().out
    lost = found["runs"].pop()
    bench.write(results / "insects.json", found | {"runs": found["runs"]})
    bench.main([*words, *FEW])
    printed = capsys.readouterr().out
    assert printed.count(", seed") == 1
    assert "insects, head" in printed
    assert stored(results, "insects")["runs"][-1] == lost
    with pytest.raises(SystemExit, match=r"was measured with \{'labelled': 4\}"):
        bench.main([*words, *FEW, "--labelled=5"])


@pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat
def test_without_test_images_the_validation_images_are_the_test(bench: ModuleType, tmp_path: Path):
    for label, name in enumerate(IMAGENETTE):
        for number in range(7):
            picture(tmp_path / "imagenette2" / "train" / name / f"{number}.jpeg", 20 * label + number)
        picture(tmp_path / "imagenette2" / "val" / name / "0.jpeg", 20 * label)
    images = bench.load_images("imagenette", str(tmp_path))
    assert [len(split) for split in (images.pool, images.val, images.test)] == [50, 20, 10]
    assert images.val.labels.bincount().tolist() == [2] * 10
    drawn = [bench.drawn_images(images, 3, seed) for seed in (0, 0, 1)]
    assert all(split.labels.bincount().tolist() == [3] * 10 for split in drawn)
    assert drawn[0].images.equal(drawn[1].images)
    assert not drawn[0].images.equal(drawn[2].images)
    assert not {image.numpy().tobytes() for image in images.pool.images} & {
        image.numpy().tobytes() for image in images.val.images
    }


def test_options_can_be_those_that_were_best_on_another_data_set(bench: ModuleType, tmp_path: Path):
    runs = [
        {"way": "head", "options": {"lr": lr}, "seed": seed, "val": val, "test": 0.5}
        for lr, seed, val in ((0.1, 0, 0.6), (0.2, 0, 0.7), (0.3, 1, 0.9))
    ]
    (tmp_path / "first.json").write_text(json.dumps({"runs": runs}))
    args = bench.parse_args(["--dataset=gtsrb", "--chosen-on=first", f"--results={tmp_path}"])
    assert bench.tried(args, "head") == [{"lr": 0.2}]
    assert len(bench.tried(bench.parse_args(["--dataset=gtsrb"]), "head")) == 2


def test_the_table_shows_the_chosen_options_only_and_what_is_missing(bench: ModuleType):
    table = importlib.import_module("finetune_table")
    runs = [
        {"way": "head", "options": {"lr": lr}, "seed": seed, "val": val, "test": test}
        for lr, seed, val, test in ((1, 0, 0.6, 0.99), (2, 0, 0.7, 0.5), (2, 1, 0.1, 0.52))
    ]
    full = {"way": "full", "options": {"lr": 1}, "seed": 0, "val": 0.1, "test": 0.25}
    text = table.finetune_table(
        {name: {"classes": 2, "labelled": 9, "runs": each} for name, each in {"a": runs, "b": [full]}.items()}
    )
    assert text.splitlines()[0] == "| data set | head alone (linear probe) | whole network |"
    assert text.splitlines()[2:] == [
        "| a, 2 classes, 9 images each | 51.0 ± 1.4 (50.0 to 52.0, 2 seeds) | not measured yet |",
        "| b, 2 classes, 9 images each | not measured yet | 25.0 (1 seed) |",
    ]
