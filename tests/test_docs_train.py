"""docs/train.md: every command runs, on fewer images and steps, and its settings are those that the run had."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.runs import main, read, stop_at
from vit_attn import parts

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs/train.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", DOC, re.DOTALL)
FEWER = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"),
    *("--trainer.enable_progress_bar=false", "--data.batch_size=8", "--attention.num_images=0"),
    *("--model.arch_options.depth=1", "--model.arch_options.embed_dim=16", "--model.arch_options.num_heads=2"),
]
"""Options of two steps, before those of the page, which win."""


def lines(start: str) -> list[str]:
    """Commands of the page that start so, whole."""
    shell = "\n".join(SHELL).replace("\\\n", " ")
    return [line.strip() for line in shell.splitlines() if line.strip().startswith(start)]


NEW_RUNS = [line for line in lines("vit-attn fit -c") if "RUN" not in line and "$" not in line]


def brief(line: str) -> list[str]:
    """Words of a command for a new run after the program's name, with fewer steps."""
    words = shlex.split(line)[1:]
    after = max(number for number, word in enumerate(words) if word == "-c") + 2
    return [*words[:after], *FEWER, *words[after:]]


def newest(folder: str = "runs") -> Path:
    return max(Path(folder).glob("**/config.yaml"), key=lambda path: path.stat().st_mtime_ns).parent


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def setting(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which a reader types the commands, with the page's own files."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    (listed,) = re.findall(r"```yaml\n# callbacks.yaml\n(.*?)```", DOC, re.DOTALL)
    Path("callbacks.yaml").write_text(listed)
    (module,) = re.findall(r'```python\n"""my_callbacks.py"""\n(.*?)```', DOC, re.DOTALL)
    Path("my_callbacks.py").write_text(module)
    monkeypatch.setattr(parts, "_IMPORTED", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_callbacks", raising=False)
    return tmp_path


@pytest.mark.parametrize("line", NEW_RUNS)
def test_the_settings_of_a_command_are_those_of_its_run(here: Path, line: str, capsys, caplog):
    logs_attention = "--trainer.logger" in line
    assert main([*brief(line), *(["--attention.num_images=1"] if logs_attention else [])]) == 0
    config = yaml.safe_load((newest() / "config.yaml").read_text())
    for name, value in re.findall(r"--([\w.]+)[= ](\S+)", line):
        if not name.startswith(("import", "trainer.callbacks", "trainer.logger", "trainer.max_time")):
            assert str(setting(config, name)) in (value, str(number(value))), name
    steps = {"--trainer.max_epochs=3": 6, "accumulate_grad_batches=2": 1}
    assert read(newest())["global_step"] == next((count for part, count in steps.items() if part in line), 2)
    if logs_attention:
        nowhere = "AttentionLogger: attention is not logged, since the run has no TensorBoard logger"
        assert nowhere in DOC
        written = list(newest().glob("events.out.tfevents.*"))
        assert (nowhere in caplog.messages) == (not written)
        assert ("tensorboard --logdir" in capsys.readouterr().out) == bool(written)
        assert ("--trainer.logger=false" in line) == (not written)
        if written:
            events = EventAccumulator(str(newest()))
            events.Reload()
            assert events.PluginTagToContent("vit_attn"), "the Attention tab shows the run"
            assert Path("tables/lightning_logs/version_0/metrics.csv").is_file()
            assert (newest() / "metrics.csv").is_file()


def test_early_stopping_ends_a_run_that_does_not_improve_and_after_resuming_too(here: Path):
    (line,) = lines("vit-attn fit -c configs/quickstart.yaml --trainer.callbacks+=EarlyStopping")
    assert main([*brief(line), "--trainer.callbacks.min_delta=1", "--trainer.max_epochs=8"]) == 0
    assert read(newest())["global_step"] == 2 * (1 + 3)  # the first epoch, and a patience of three
    assert main(["fit", f"--resume={newest()}", "--trainer.max_epochs=9"]) == 0
    assert read(newest())["global_step"] == 2 * (1 + 4)  # still without patience


def test_callbacks_of_a_file_and_of_ones_own_take_part(here: Path):
    for line in lines("vit-attn fit -c configs/quickstart.yaml -c callbacks.yaml"):
        assert main(brief(line)) == 0
    states = read(newest())["callbacks"]
    assert any(name.startswith("EarlyStopping{'monitor': 'val/loss'") for name in states)
    (line,) = (line for line in lines("vit-attn fit -c") if "--import my_callbacks" in line)
    assert main(brief(line)) == 0
    header, *rows = (newest() / "metrics.csv").read_text().splitlines()
    values = [row.split(",")[header.split(",").index("norm/weights")] for row in rows]
    assert [float(value) > 1 for value in values if value] == [True]


def test_a_stopped_run_goes_on_and_trains_longer(here: Path, monkeypatch, capsys):
    first, *_ = NEW_RUNS
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 1)
        assert main(brief(first)) == 143
    run = newest()
    resume = [
        line.replace("runs/NAME/RUN", str(run)).replace("NAME", "first") for line in lines("vit-attn fit --resume")
    ]
    steps = []
    for line in resume:
        assert main(shlex.split(line)[1:]) == 0
        steps.append(read(run)["global_step"])
    assert steps == [2, 2, 8]
    assert "first/" in capsys.readouterr().out
    (line,) = [line for line in lines("vit-attn fit -c") if "weights=runs/NAME/RUN" in line]
    assert main(brief(line.replace("runs/NAME/RUN", str(run)))) == 0
    config = yaml.safe_load((newest() / "config.yaml").read_text())
    assert (config["model"]["lr"], config["model"]["weights"]) == (5e-3, f"{run}/checkpoints/best.ckpt")


def test_the_loop_trains_each_rate_with_each_seed(here: Path):
    (loop,) = [block for block in SHELL if block.startswith("for ")]
    program = here / "vit-attn"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{here}:{os.environ['PATH']}"}
    calls = subprocess.run(["bash", "-ec", loop], env=environment, capture_output=True, text=True, check=True).stdout
    asked = [re.findall(r"rates/(\S+) --model.lr=(\S+) --seed_everything=(\d)", call) for call in calls.splitlines()]
    assert asked == [[(rate, rate, seed)] for rate in ("5e-3", "2e-2") for seed in "01"]
    assert main(brief(f"vit-attn {calls.splitlines()[0]}")) == 0
    assert newest().parent == Path("runs/rates/5e-3")


def test_the_sweep_of_the_page_makes_a_run_of_each_trial(here: Path, capsys):
    pytest.importorskip("optuna")
    (line,) = lines("vit-attn sweep")
    command = [*shlex.split(line)[1:], *(each for each in FEWER if "num_heads" not in each), "--trials=2"]
    assert main(command) == 0
    for number in (1, 2):
        model = yaml.safe_load((newest(f"runs/sweep/{number:03}") / "config.yaml").read_text())["model"]
        assert 1e-3 <= model["lr"] <= 1e-1
        assert model["arch_options"]["num_heads"] in (1, 2, 4)
    assert "sweep: 2 trials, 2 complete, 0 pruned, 0 failed" in capsys.readouterr().out


def test_the_job_script_passes_the_options_of_the_page_to_fit(here: Path):
    (line,) = lines("sbatch")
    _, script, *options = shlex.split(line)
    program = here / "srun"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{here}:{os.environ['PATH']}", "VIT_ATTN": "vit-attn"}
    done = subprocess.run(
        ["bash", str(ROOT / script), *options], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["vit-attn", "fit", *options]
    assert (ROOT / "configs/cifar10.yaml").is_file()


def test_a_mistake_is_answered_as_the_page_has_it(here: Path, capsys):
    ((command, answer),) = re.findall(r"```\n\$ (vit-attn .*)\n(vit-attn: .*)\n```", DOC)
    assert main(shlex.split(command)[1:]) == 2
    assert capsys.readouterr().err.strip() == answer


def test_every_command_of_the_page_is_run_here():
    shown = [
        line for line in "\n".join(SHELL).replace("\\\n", " ").splitlines() if "vit-attn" in line or "sbatch" in line
    ]
    run = {
        *NEW_RUNS,
        *lines("vit-attn fit --resume"),
        *lines("vit-attn sweep"),
        *lines("sbatch"),
    }
    others = [line.strip() for line in shown if line.strip() not in run]
    assert all("$lr" in line or "model.weights=runs/NAME/RUN" in line for line in others), others
    assert len(NEW_RUNS) >= 14
