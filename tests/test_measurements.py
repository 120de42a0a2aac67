"""Scripts that measure runs: ablations, the ladder, and the tables of the GPU suite."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vit_attn.cli import main

ROOT = Path(__file__).parent.parent
TINY = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=2",
    "--data.batch_size=8",
    "--model.arch_options.depth=1",
]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


@pytest.fixture
def ablate(script, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with runs in this process, which are counted."""
    module = script("ablate")
    module.commands = []

    def program(options: list[str], log: Path | None = None) -> str:
        module.commands.append(options[0])
        assert main(list(options)) == 0
        return ""

    monkeypatch.setattr(sys.modules["training_runs"], "program", program)
    return module


def ablation(ablate: ModuleType, out: Path, root: Path, *options: str) -> dict:
    base = str(ROOT / "configs/cifar10_cpu.yaml")
    ablate.main([base, "--seeds", "0", "--out", str(out), *options, "--", f"--data.root={root}", *TINY])
    return json.loads((out / "results.json").read_text())


def test_a_stopped_ablation_goes_on_with_what_is_missing(ablate, cifar10_root, tmp_path, capsys):
    ablation(ablate, tmp_path / "out", cifar10_root)
    assert ablate.commands == ["fit"]
    results = ablation(ablate, tmp_path / "out", cifar10_root, "--vary", "model.lr=1e-3")
    assert ablate.commands == ["fit", "fit"]
    assert [row["arm"] for row in results["rows"]] == ["base", "model.lr=1e-3"]
    assert "| model.lr=1e-3 | 0 |" in (tmp_path / "out/table.md").read_text()
    with pytest.raises(SystemExit, match=r"results of other settings \(final\): choose another --out"):
        ablation(ablate, tmp_path / "out", cifar10_root, "--final")


def test_only_a_final_run_tests_and_trains_on_all_images(ablate, cifar10_root, tmp_path):
    results = ablation(ablate, tmp_path / "out", cifar10_root, "--final")
    assert ablate.commands == ["fit", "test"]
    (report,) = (tmp_path / "out").glob("runs/base-0/*/test.json")
    assert json.loads(report.read_text())["top1"] == results["rows"][0]["accuracy"]


def test_the_ladder_counts_the_first_epoch_that_reaches_an_accuracy(script, tmp_path):
    run = tmp_path / "net" / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("data: {batch_size: 10}\n")
    columns = "epoch,step,val_accuracy,images_per_second,seconds\n"
    (run / "epochs.csv").write_text(columns + "1,10,0.4,50,9\n2,20,0.61,50,3\n3,30,0.59,50,3\n")
    ladder = script("ladder")
    epochs = script("training_runs").read_epochs(run)
    assert "| net | 12.0; training 4.0 | not reached | 0.5900 |" in ladder.table({"net": [epochs]}, [0.6, 0.7])


def test_the_page_of_results_shows_what_was_measured(script):
    docs = script("suite_docs")
    assert docs.filled(docs.PAGE.read_text(), json.loads(docs.MEASURED.read_text())) == docs.PAGE.read_text()


def test_a_figure_of_the_suite_has_its_card_and_commit_beside_it(script):
    docs = script("suite_docs")
    row = {"case": "cifar10_94, seed 0", "device": "card", "commit": "abc", "versions": "torch 2", "date": "today"}
    rows = [{**row, "case": f"cifar10_94, seed {seed}", "test_accuracy": 0.94 + seed / 100} for seed in (0, 1)]
    told = docs.records({"seeds": rows})
    assert "| 0, 1 | 0.9450 ± 0.0071 (0.9400 to 0.9500) |" in told
    assert "card; abc; torch 2; today" in told
    assert told.count("`configs/cifar10_96.yaml` |  | not measured yet") == 1
