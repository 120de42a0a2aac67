"""What the files of a test are called: ``test.json`` is of a whole test on the images of the run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_attn.checkpoints.contents import RUN_KEY

REPORT = "test.json"


class ReportFiles(NamedTuple):
    """Where a test is written.

    Args:
        report: The JSON.
        picture: The confusion matrix.
        apart: Why these are not ``test.json`` and ``confusion.png``, if they are not.
        of_run: Whether the test is a whole one on the images of the run, which is shown beside its training.
    """

    report: Path
    picture: Path
    apart: list[str]
    of_run: bool


def files_of_test(folder: Path, checkpoint: str, limit: Any, name: str, other: str | None = None) -> ReportFiles:
    """Names of the files, none of which is that of another kind of test.

    A part of a test is called ``limited``, and a test on other images than the run's by the name of their data set. A
    test of another checkpoint than the one in a file that is there gets the name of its checkpoint.

    Args:
        folder: Where they go.
        checkpoint: Path of the checkpoint that is tested.
        limit: What limits the test, if it is not whole: its ``setting``, and how many ``images`` it takes ``of`` all.
        name: What the images are called.
        other: How they differ from those of the run, if they do.
    """
    apart, words = [], []
    if other is not None:
        words.append(re.sub(r"[^\w-]+", "_", name).strip("_") or "other")
        apart.append(f"these are not the images of the run: {other}")
    if limit is not None:
        words.append("limited")
        apart.append(f"of {limit.of:,} images {limit.images:,} are tested, by {limit.setting}")
    of_run, path = not words, folder / ".".join(["test", *words, "json"])
    before = checkpoint_of_report(path)
    if before is not None and before != Path(checkpoint).name:
        apart.append(f"{path.name} is of {before} and stays as it is")
        words.append(re.sub(r"[^\w=-]+", "_", Path(checkpoint).stem))
    report, picture = (folder / ".".join([stem, *words, end]) for stem, end in (("test", "json"), ("confusion", "png")))
    return ReportFiles(report, picture, apart, of_run)


def checkpoint_of_report(report: Path) -> str | None:
    """File name of the checkpoint that a report is of, if there is one that says so."""
    try:
        stored = json.loads(report.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    path = stored.get("checkpoint") if isinstance(stored, dict) else None
    return Path(path).name if path and isinstance(path, str) else None


def other_images(checkpoint: Mapping[str, Any], data: Any) -> str | None:
    """How the images of a data module differ from those that a checkpoint was trained on, if they do.

    Args:
        checkpoint: What its file holds; one that does not say what it was trained on is taken to agree.
        data: The data module.
    """
    before = (checkpoint.get(RUN_KEY) or {}).get("data") or {}
    after = data.fingerprint() if before and hasattr(data, "fingerprint") else {}
    for name, value in before.items():
        if name in after and after[name] != value:
            held = data.splits[data.store.tested_on].held_out
            seen = "; they were held out of other images than the run's, so it may have trained on some" if held else ""
            return f"{name} is {after[name]!r:.200} here and {value!r:.200} there{seen}"
    return None
