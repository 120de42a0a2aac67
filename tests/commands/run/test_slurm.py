import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.runs import TINY, differences, fit, main, read, stop_at
from vit_attn.commands.run import slurm
from vit_attn.errors import TrainingFailed

SCRIPT = Path(__file__).parents[3] / "scripts" / "slurm.sh"


def stand_in(folder: Path, name: str, content: str) -> None:
    """Write a stand-in for a program of SLURM."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{content}\n")
    program.chmod(0o755)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a SLURM job of one task, with a stand-in for ``scontrol`` that logs its arguments to the returned file."""
    notes = tmp_path / "scontrol.log"
    stand_in(tmp_path / "bin", "scontrol", f'echo "$@" >> {notes}')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    variables = {"JOB_ID": "77", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "vit_attn"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return notes


def test_a_requeued_job_resumes_its_run(job: Path, tmp_path: Path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7, signum=signal.SIGUSR1)
        run = fit(runs, code=138)
    assert "-job77-" in run.name
    assert job.read_text() == "requeue 77\n"
    assert "vit-attn: SLURM job 77 is requeued and will resume the run\n" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(["fit", *TINY, f"--runs={runs}"]) == 0
    assert list((runs / "quickstart").iterdir()) == [run]
    monkeypatch.delenv("SLURM_JOB_ID")
    assert differences(read(run), read(fit(tmp_path / "whole"))) == []


def test_a_job_that_trains_twice_resumes_each_run_by_its_options(job: Path, tmp_path: Path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    short = ["--trainer.max_epochs=1"]
    first = fit(runs, *short, "--seed_everything=1")
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 3, signum=signal.SIGUSR1)
        second = fit(runs, *short, "--seed_everything=2", code=138)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    capsys.readouterr()
    assert main(["fit", *TINY, f"--runs={runs}", *short, "--seed_everything=1"]) == 0
    assert f"{first} is finished, after 5 steps" in capsys.readouterr().out
    assert main(["fit", *TINY, f"--runs={runs}", *short, "--seed_everything=2"]) == 0
    assert read(second)["global_step"] == 5
    assert set((runs / "quickstart").iterdir()) == {first, second}


def test_a_task_of_an_array_has_a_number_of_its_own(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "80")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "78")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert slurm.job_id() == "78_2"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2; rm -rf x")
    assert slurm.job_id() is None


def test_a_refusal_of_slurm_is_a_one_line_error(job: Path, tmp_path: Path, monkeypatch):
    stand_in(tmp_path / "bin", "scontrol", "echo 'slurm_requeue error:' 'Access denied' >&2; exit 1")
    with pytest.raises(TrainingFailed, match="job 77 could not be requeued: slurm_requeue error: Access denied"):
        slurm.requeue()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingFailed, match=r"job 77 could not be requeued: .*scontrol"):
        slurm.requeue()


def test_the_job_script_passes_its_arguments_on(job: Path, tmp_path: Path, monkeypatch):
    stand_in(tmp_path / "bin", "srun", 'exec "$@"')
    stand_in(tmp_path / "bin", "vit-attn", 'echo "$@"; pwd')
    monkeypatch.setenv("VIT_ATTN", "vit-attn")
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(tmp_path))
    output = subprocess.run([SCRIPT, "-c", "a.yaml", "--name", "two words"], capture_output=True, text=True, check=True)
    assert output.stdout.splitlines() == ["fit -c a.yaml --name two words", str(tmp_path)]
    text = SCRIPT.read_text()
    assert "#SBATCH --signal=USR1@" in text
    assert "#SBATCH --requeue" in text
