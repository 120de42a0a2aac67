from pathlib import Path

import pytest
from filelock import FileLock

from tests.runs import fit, main, read, resume, stop_at
from vit_attn.callbacks.run_control import RunControl
from vit_attn.commands.run import lock as run_lock


def test_a_run_that_another_process_trains_is_refused_and_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(run_lock, "WAIT_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path, code=143)
    assert not (run / run_lock.LOCK_FILE).exists()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with FileLock(run / run_lock.LOCK_FILE):
        assert main(["fit", f"--resume={run}"]) == 2
    assert f"another process is training the run {run}" in capsys.readouterr().err
    (run / run_lock.LOCK_FILE).unlink(missing_ok=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    resume(run)
    assert read(run)["global_step"] == 15
    assert not (run / run_lock.LOCK_FILE).exists()


def test_a_run_is_locked_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = []

    def look(*_arguments) -> None:
        (folder,) = (tmp_path / "runs" / "quickstart").iterdir()
        lock = FileLock(folder / run_lock.LOCK_FILE, is_singleton=False)
        with pytest.raises(TimeoutError):
            lock.acquire(timeout=0)
        held.append(folder)

    monkeypatch.setattr(RunControl, "on_train_end", look)
    run = fit(tmp_path / "runs", "--trainer.max_epochs=1")
    assert held == [run]
