"""File names of a test's report, which depend on the checkpoint and the images that were tested."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_attn.checkpoints.contents import RUN_KEY

REPORT = "test.json"
"""Name of the report of a whole test on the images of the run."""


class ReportFiles(NamedTuple):
    """Files of a test.

    Args:
        report: Path of the JSON report.
        picture: Path of the confusion matrix.
        reasons: Reasons for other names than ``test.json`` and ``confusion.png``; empty for these.
        of_run: Whether all test images of the run were tested, so that TensorBoard shows the test with the training.
    """

    report: Path
    picture: Path
    reasons: list[str]
    of_run: bool


def name_report_files(
    folder: Path, checkpoint: str, limit: Any, data_name: str, difference: str | None = None
) -> ReportFiles:
    """Choose file names such that no test replaces the report of another kind of test.

    A limited test has ``limited`` in its name, and a test on other images than the run's the name of their data set. If
    the file exists and reports another checkpoint, the name of the checkpoint is appended.

    Args:
        folder: Folder of the files.
        checkpoint: Path of the tested checkpoint.
        limit: Limit of the test with its ``setting``, and how many ``images`` are tested ``of`` all; None for all.
        data_name: Name of the data set.
        difference: Difference between the tested images and those of the run, if there is one.
    """
    reasons, words = [], []
    if difference is not None:
        words.append(re.sub(r"[^\w-]+", "_", data_name).strip("_") or "other")
        reasons.append(f"these are not the images of the run: {difference}")
    if limit is not None:
        words.append("limited")
        reasons.append(f"of {limit.of:,} images {limit.images:,} are tested, by {limit.setting}")
    of_run, path = not words, folder / ".".join(["test", *words, "json"])
    existing = reported_checkpoint(path)
    if existing is not None and existing != Path(checkpoint).name:
        reasons.append(f"{path.name} is of {existing} and stays as it is")
        words.append(re.sub(r"[^\w=-]+", "_", Path(checkpoint).stem))
    report, picture = (folder / ".".join([stem, *words, end]) for stem, end in (("test", "json"), ("confusion", "png")))
    return ReportFiles(report, picture, reasons, of_run)


def reported_checkpoint(report: Path) -> str | None:
    """Read the file name of the checkpoint in an existing report, if there is one."""
    try:
        stored = json.loads(report.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    path = stored.get("checkpoint") if isinstance(stored, dict) else None
    return Path(path).name if path and isinstance(path, str) else None


def find_data_difference(checkpoint: Mapping[str, Any], data: Any) -> str | None:
    """Describe how the images of a data module differ from those of the run that wrote a checkpoint.

    Args:
        checkpoint: Content of a checkpoint; one without a data fingerprint counts as equal.
        data: The data module.

    Returns:
        The difference in words, or None.
    """
    before = (checkpoint.get(RUN_KEY) or {}).get("data") or {}
    after = data.fingerprint() if before and hasattr(data, "fingerprint") else {}
    for name, value in before.items():
        if name in after and after[name] != value:
            held_out = data.splits[data.cache.tested_on].held_out
            hint = (
                "; they were held out of other images than the run's, so it may have trained on some"
                if held_out
                else ""
            )
            return f"{name} is {after[name]!r:.200} here and {value!r:.200} there{hint}"
    return None
