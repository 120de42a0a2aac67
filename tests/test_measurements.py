"""Scripts that measure runs: ablations, the ladder, and the tables of the GPU suite."""

import importlib
import json
import math
import os
import subprocess
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


TABLES = {
    "metrics.csv": "step,epoch,train/loss,vit_epoch/images_per_second,vit_epoch/seconds,val/accuracy\n"
    "4,1,2.5,,,\n9,1,,50,9,0.4\n19,2,,50,3,0.61\n29,3,,50,3,0.59\n",
    "epochs.csv": "epoch,step,val_accuracy,images_per_second,seconds\n"  # of an older run
    "1,10,0.4,50,9\n2,20,0.61,50,3\n3,30,0.59,50,3\n",
}


@pytest.mark.parametrize(("name", "content"), TABLES.items())
def test_the_ladder_counts_the_first_epoch_that_reaches_an_accuracy(script, tmp_path, name, content):
    run = tmp_path / "net" / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("data: {batch_size: 10}\n")
    (run / name).write_text(content)
    ladder = script("ladder")
    epochs = script("training_runs").read_epochs(run)
    assert "| net | 12.0; training 4.0 | not reached | 0.5900 |" in ladder.table({"net": [epochs]}, [0.6, 0.7])


@pytest.mark.parametrize("table", [None, "epoch,step,images_per_second,seconds\n1,10,50,9\n"])
def test_the_ladder_refuses_a_run_that_has_validated_nothing(script, tmp_path, table):
    run = tmp_path / "net" / "run"
    if table is not None:
        run.mkdir(parents=True)
        (run / "epochs.csv").write_text(table)
    with pytest.raises(SystemExit, match="has validated nothing: name the folder of a run that has"):
        script("ladder").main([str(run)])


def test_the_page_of_results_shows_what_was_measured(script):
    docs = script("suite_docs")
    assert docs.filled(docs.PAGE.read_text(), json.loads(docs.MEASURED.read_text())) == docs.PAGE.read_text()


def test_the_table_of_an_ablation_has_mean_deviation_and_the_error_of_paired_differences(script):
    origin = {"commit": "abc", "versions": "torch 2", "device": "card"}
    accuracies = {"base": (0.80, 0.82, 0.84), "arm": (0.83, 0.86, 0.86), "short": (0.85,)}
    rows = [
        {"arm": arm, "seed": seed, "accuracy": accuracy, "epochs": 3, "training_seconds": seed + 1.0, **origin}
        for arm, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    told = script("ablation_table").table({"rows": rows, "command": "ablate", "metric": "val/accuracy"})
    lines = told.splitlines()
    assert "`ablate`: val/accuracy after the last epoch; abc; torch 2; card." in lines
    assert "| base | 0, 1, 2 | 0.8200 ± 0.0200 | 0.8000 to 0.8400 |  | 3 | 2.0 |  |" in lines
    # differences 0.03, 0.04, 0.02: mean 0.03, deviation 0.01, error 0.01 / √3
    assert f"| 0.8300 to 0.8600 | +0.0300 ± {0.01 / math.sqrt(3):.4f} | 3 |" in told
    assert "| short | 0 | 0.8500 | 0.8500 to 0.8500 | +0.0300 | 3 | 1.0 |  |" in lines


def test_a_difference_of_other_seeds_has_the_error_of_two_independent_means(script):
    base = [{"seed": seed, "accuracy": value} for seed, value in ((0, 0.1), (1, 0.3))]
    arm = [{"seed": seed, "accuracy": value} for seed, value in ((2, 0.5), (3, 0.9))]
    mean, error = script("ablation_table").difference(arm, base)
    assert (mean, error) == pytest.approx((0.5, math.sqrt(0.02 / 2 + 0.08 / 2)))


def test_two_arms_of_one_name_are_refused(script, tmp_path):
    ablate = script("ablate")
    arguments = ["base.yaml", "--vary", "model.lr=1,2", "--arm", "model.lr=2: model.lr=3", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"two arms have the name model\.lr=2"):
        ablate.arms_of(ablate.parse_args(arguments))


def test_the_list_of_the_suite_names_every_part(script, capsys):
    suite = script("suite")
    suite.main(["--list"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(suite.PARTS)
    with pytest.raises(SystemExit):
        suite.parse_args(["out", "sweeep"])
    assert "no part sweeep; there are profile, step" in capsys.readouterr().err


def test_no_case_of_the_suite_takes_ten_minutes_and_none_shares_its_name(script, tmp_path):
    parts, context = script("suite").PARTS, {"commit": "abc", "device": "card"}
    whole = script("suite_cases").Suite(tmp_path, None, "cifar100", False, context)
    for name, part in parts.items():
        cases = part.cases(whole)
        assert len({case.name for case in cases}) == len(cases), name
        assert all(case.minutes < 10 for case in cases), name


def test_the_suite_measures_what_is_missing_and_a_failed_case_stops_no_other(script, tmp_path, monkeypatch, capsys):
    suite, cases = script("suite"), script("suite_cases")
    measured: list[str] = []

    def case(name: str, minutes: float) -> object:
        def measure() -> dict[str, int]:
            measured.append(name)
            return {"figure": 1 // (name != "bad")}

        return cases.Case(name, minutes, measure, "a command")

    part = cases.Part(1, "", lambda _: [case("bad", 99), case("long", 99), case("good", 0)])
    monkeypatch.setattr(suite, "PARTS", {"part": part})
    setting = cases.Suite(tmp_path, None, "", True, {"commit": "abc", "device": "card"})
    assert suite.run(setting, ["part"], 1, False) == ["part, bad"]
    assert suite.run(setting, ["part"], 1, False) == ["part, bad"]
    assert measured == ["bad", "good", "bad"]
    assert "part, long: about 99 min, not begun" in capsys.readouterr().out
    (row,) = suite.read_rows(tmp_path, "part")
    assert row | {"minutes": 0} == {
        "case": "good", "command": "a command", "commit": "abc", "device": "card", "figure": 1, "minutes": 0
    }  # fmt: skip


def start(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_ablation_with_an_arm_ends_in_a_table(tmp_path):
    script, base, out = str(ROOT / "scripts/ablate.py"), "configs/quickstart.yaml", tmp_path / "out"
    tiny = [*TINY, "--trainer.max_epochs=1", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    done = start(sys.executable, script, base, "--vary", "model.lr=1e-3", "--seeds=3", f"--out={out}", "--", *tiny)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [(row["arm"], row["seed"], row["epochs"], row["steps"]) for row in rows] == [
        ("base", 3, 1, 2),
        ("model.lr=1e-3", 3, 1, 2),
    ]
    assert done.stdout == (out / "table.md").read_text()


def test_parts_of_the_suite_run_at_toy_size(tmp_path):
    done = start(str(ROOT / "scripts/gpu_suite"), str(tmp_path), "sweep", "seeds", "--smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,), (final,) = (json.loads((tmp_path / f"{part}.json").read_text()) for part in ("sweep", "seeds"))
    assert sweep["epochs"] == final["epochs"] == 1
    assert sweep["command"] == "vit-attn fit -c configs/cifar10_94.yaml --model.lr=0.005 --trainer.max_epochs=1"
    assert 0 <= sweep["accuracy"] <= 1
    assert final["accuracy"] is None
    assert 0 <= final["test_accuracy"] <= 1


def test_a_figure_of_the_suite_has_its_card_and_commit_beside_it(script):
    docs = script("suite_docs")
    row = {"case": "cifar10_94, seed 0", "device": "card", "commit": "abc", "versions": "torch 2", "date": "today"}
    rows = [{**row, "case": f"cifar10_94, seed {seed}", "test_accuracy": 0.94 + seed / 100} for seed in (0, 1)]
    told = docs.records({"seeds": rows})
    assert "| 0, 1 | 0.9450 ± 0.0071 (0.9400 to 0.9500) |" in told
    assert "card; abc; torch 2; today" in told
    assert told.count("`configs/cifar10_96.yaml` |  | not measured yet") == 1
