"""Short trials of the scripts that kill and signal real runs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(script: str, *options: str) -> list[str]:
    """Lines that a script printed; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, str(ROOT / "scripts" / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_killed_runs_resume_and_end_as_if_they_had_not_been_killed():
    *_, kills, elsewhere, failures = run("crash_soak.py", "--kills=6", "--in-save=2")
    assert int(kills.rpartition(" ")[2]) >= 2
    assert "another file system" in elsewhere or "THE SAME" in elsewhere
    assert failures == "runs that could not be resumed or ended with other weights: 0"


def test_a_signal_to_one_of_two_ranks_ends_both():
    *_, end = run("signal_tries.py", "--tries=1", "--moments", "22", "24")
    assert end == "1 of 1 ended within 60 s on all ranks, and not with code 0"
