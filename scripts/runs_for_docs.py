"""Runs of the program for the documentation, as a reader types them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from docs_sentences import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def program(options: Sequence[str], may_fail: bool = False) -> str:
    """Run ``vit-attn`` of this checkout; what it printed.

    Args:
        options: The verb and its options.
        may_fail: Whether an exit code other than 0 is expected.
    """
    done = subprocess.run([sys.executable, "-m", "vit_attn", *options], cwd=ROOT, capture_output=True, text=True)
    if done.returncode and not may_fail:
        raise SystemExit(f"vit-attn {' '.join(options)}\n{done.stderr[-2000:]}")
    return done.stdout


def fit(work: Path, options: Sequence[str], name: str = "quickstart") -> Path:
    """Train; the run's folder."""
    runs = work / "runs"
    before = set(runs.glob(f"{name}/*"))
    program(["fit", *options, "--runs", str(runs), "--name", name, "--trainer.enable_progress_bar=false"])
    (made,) = set(runs.glob(f"{name}/*")) - before
    return made


def events(run: Path) -> EventAccumulator:
    """What a run logged."""
    return EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0}).Reload()


def result(run: Path, tag: str) -> float:
    """The last value of a scalar."""
    return round(events(run).Scalars(tag)[-1].value, 4)


def last_step(run: Path) -> int:
    """The step at whose end the run's result was logged."""
    return events(run).Scalars("vit_final/best_val_accuracy")[-1].step


def finished(run: Path) -> bool:
    """Whether a run came to its end and wrote its result."""
    return "vit_final/best_val_accuracy" in events(run).scalars.Keys()
