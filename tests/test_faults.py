"""Scripts that kill and signal real runs, each for a moment."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(script: str, *options: str) -> list[str]:
    """The lines of a script that has ended well."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, str(ROOT / "scripts" / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_killed_runs_resume_and_end_as_if_they_had_not_been_killed():
    *_, kills, elsewhere, wrong = run("crash_soak.py", "--kills=6", "--in-save=2")
    assert int(kills.rpartition(" ")[2]) >= 2
    assert "another file system" in elsewhere or "THE SAME" in elsewhere
    assert wrong == "runs that were not resumed or ended otherwise than the uninterrupted one: 0"


def test_a_signal_to_one_of_two_ranks_ends_both():
    *_, end = run("signal_tries.py", "--tries=1", "--moments", "22", "24")
    assert end == "1 of 1 ended within 60 s on all ranks, and not with code 0"
