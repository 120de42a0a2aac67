"""docs/methods.md shows what was measured, and names what exists."""

import collections
import csv
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vit_attn.attention_maps.evaluation.report import BASELINES
from vit_attn.attention_maps.methods.registry import attribution_methods
from vit_attn.data import ImageData
from vit_attn.data.datasets.registry import DATASETS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/methods.md").read_text()


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("judge_seeds")


def test_the_page_begins_with_a_verdict_on_every_measured_method():
    summary = load("docs_methods")
    assert set(summary.VERDICTS) <= {*(method.label for method in attribution_methods().values()), *BASELINES}
    assert f"\n\n{summary.summary_table()}\n\n" in TEXT.partition("\n## ")[0]


def test_a_method_without_a_measurement_is_no_row_of_the_summary(monkeypatch: pytest.MonkeyPatch):
    summary = load("docs_methods")
    monkeypatch.setitem(summary.VERDICTS, "a new one", "best")
    with pytest.raises(SystemExit, match="a new one"):
        summary.summary_table()


@pytest.fixture
def spots(monkeypatch: pytest.MonkeyPatch) -> str:
    """The document's data set, registered; returns the code that trains on it."""
    code, train = re.findall(r"```python\n(.*?)```", TEXT.partition("## The pointing game")[2], re.DOTALL)
    monkeypatch.setitem(DATASETS, "spots", None)  # so that it is removed again
    exec(code, {})
    return train


def test_the_ground_truth_of_the_documents_data_set_is_its_bright_patch(spots: str):
    data = ImageData("spots", batch_size=8)
    data.prepare_data()
    probe = data.probe(4)
    for image, truth in zip(probe.images, probe.ground_truth, strict=True):
        brightest = image.amax(dim=0).unfold(0, 4, 4).unfold(1, 4, 4).amin(dim=(2, 3)).flatten().argmax()
        assert truth.regions[truth.answer] == (int(brightest),)


def test_the_documents_data_set_is_trained_on_as_written(
    spots: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ROOT)
    fewer = f"--trainer.limit_train_batches=2 --trainer.enable_progress_bar=false --runs={tmp_path}".split()
    *before, call = spots.replace('spots"]', 'spots", *fewer]').splitlines()
    exec("\n".join([*before, f"code = {call}"]), {"fewer": fewer}, found := {})
    assert found["code"] == 0
    assert "best validation accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("name", re.findall(r"<!-- (judge_\w+): begin -->", TEXT))
def test_the_table_of_one_network_is_that_of_its_files(name: str):
    summary = load("docs_methods")
    table = summary.network_table(ROOT / "docs/measured" / name)
    assert f"<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->" in TEXT
    assert summary.with_table(TEXT, name, table) == TEXT


def test_a_network_is_judged_and_its_table_written_by_one_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, picture_folder: Callable[..., Path]
):
    summary = load("docs_methods")
    for name, path in {"MEASURED": "measured", "IMAGES": "images", "DOC": "page.md"}.items():
        monkeypatch.setattr(summary, name, tmp_path / path)
    (tmp_path / "images").mkdir()
    (tmp_path / "page.md").write_text("# Page\n")
    network = ["--model", "vit_attn_coins_patch4_32", "--images", str(picture_folder({"some": 3}))]
    summary.judge("judge_some", network)
    page = (tmp_path / "page.md").read_text()
    assert "| method | deletion ↓ | insertion ↑ | logit, top 8 knocked out ↓ | new head | all new |" in page
    assert "| value-weighted | " in page
    assert page.count("**") >= 6  # a best method by each of three measures
    assert (tmp_path / "images/judge_some.png").exists()
    assert summary.with_table(page, "judge_some", "other").count("judge_some: begin") == 1


@pytest.mark.parametrize("name", ["judge_coins", "judge_cifar10"])
def test_the_tables_are_those_of_the_files(name: str, script: ModuleType):
    table = script.method_table(name)
    assert table.count("\n") == 11
    assert f"\n\n{table}\n\n" in TEXT
    with (ROOT / f"docs/measured/{name}.csv").open(newline="") as file:
        assert {row["seed"] for row in csv.DictReader(file)} == set("01234")


def test_the_table_of_knocked_out_edges_is_that_of_the_file(script: ModuleType):
    assert f"\n\n{script.knockout_table('judge_coins')}\n\n" in TEXT


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.]+)\)", TEXT))))
def test_what_the_document_links_to_exists(path: str):
    assert (ROOT / "docs" / path).exists()


def test_every_method_has_its_paragraph():
    for label in (*(method.label for method in attribution_methods().values()), *BASELINES):
        assert f"**{label[0].upper()}{label[1:].partition(',')[0]}" in TEXT, label


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("judge_coins", "head whose ablation costs most is in layer {} in three networks and in layer {} in two"),
        (
            "judge_cifar10",
            "head whose ablation costs most accuracy is in layer {} in four networks, .* and in layer {} in one",
        ),
    ],
)
def test_the_layers_of_the_heads_that_count_are_those_of_the_file(name: str, said: str):
    with (ROOT / f"docs/measured/{name}_knockouts.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["knockout"].startswith("layer")]
    worst = [
        min((row for row in rows if row["seed"] == seed), key=lambda row: float(row["accuracy"])) for seed in "01234"
    ]
    (most, _), (fewer, _) = collections.Counter(row["knockout"].split()[1] for row in worst).most_common()
    assert re.search(said.format(most, fewer), " ".join(TEXT.split()))
