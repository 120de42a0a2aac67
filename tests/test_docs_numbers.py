"""What README and docs state of a run follows from its numbers, and their pictures are of that run."""

import copy
import hashlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_sentences", ROOT / "scripts/docs_sentences.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_state_what_the_numbers_say(docs: ModuleType):
    found = set()
    for page in docs.PAGES:
        text = (ROOT / page).read_text()
        assert docs.filled(text) == text, f"{page}: run scripts/draw_docs.py"
        found |= set(docs.marked(text))
    assert found == {(file, name) for file, names in docs.SENTENCES.items() for name in names}


@pytest.mark.parametrize("file", ["cifar10.json", "quickstart.json", "finetune.json"])
def test_the_pictures_are_of_the_run_that_the_numbers_are_of(docs: ModuleType, file: str):
    pictures = docs.read(file)["pictures"]
    assert len(pictures) == {"cifar10.json": 1, "quickstart.json": 3, "finetune.json": 2}[file]
    pages = "".join((ROOT / page).read_text() for page in docs.PAGES)
    for name, known in pictures.items():
        assert hashlib.sha256((ROOT / "docs/images" / name).read_bytes()).hexdigest()[:16] == known, name
        assert f"images/{name}" in pages


def test_the_measured_accuracies_are_those_of_the_runs(docs: ModuleType):
    readme = (ROOT / "README.md").read_text()
    (quickstart,) = re.findall(r"configs/quickstart.yaml` \| validation ([\d.]+) \(seed 0\)", readme)
    assert float(quickstart) == docs.read("quickstart.json")["val_accuracy"]
    (tuned,) = re.findall(
        r"five generated shapes, ([\d., ]+) of \d+ validation", (ROOT / "configs/finetune.yaml").read_text()
    )
    assert [float(each) for each in tuned.split(", ")] == [
        round(each, 3) for each in docs.read("finetune.json")["tuned"]
    ]


def test_the_words_follow_from_the_numbers(docs: ModuleType):
    run = copy.deepcopy(docs.read("quickstart.json"))
    run["tab"] = {"method": "rollout", "image": 2}
    bought = run["images"][1]["methods"]["rollout"]["bought"]
    for rank, said in ((1, "the largest value"), (2, "the second largest value"), (7, "the 7th largest value")):
        bought["rank"] = rank
        assert (
            f"image 2: rollout, for the row that the network pools. Of the 64 patches, the bought coin has {said}"
            in docs.tab(run)
        )
    for image in run["images"]:
        for method in image["methods"].values():
            method["bought"]["rank"] = 1
    assert docs.pictured(run).endswith("in both by relevance, the last layer and rollout.*")
    run["images"][0]["methods"]["rollout"]["bought"]["rank"] = 4
    assert docs.pictured(run).endswith("in both by relevance and the last layer; in one of the two by rollout.*")
    cifar = copy.deepcopy(docs.read("cifar10.json"))
    for image in cifar["images"]:
        image["predicted"] = image["class"]
    assert "six of its six predictions here are right" in docs.relevance(cifar)
    cifar["images"][4]["predicted"] = "horse"
    assert "five of its six predictions here are right" in docs.relevance(cifar)
    heads = {"divergence": [[0.1, 0.3], [0.5, 0.7], [0.01, 0.2]]}
    assert "The heads of layer 2 of 3 moved most (0.50 and 0.70 nats), head 1 of layer 3 least (0.01)" in docs.moved(
        heads
    )
