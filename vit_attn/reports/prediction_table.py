"""Table of predictions as CSV, JSON or Parquet, written while predictions are made."""

import importlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vit_attn.errors import UserError, did_you_mean
from vit_attn.reports.table_writers import WRITERS, Row, RowWriter

NOT_FINITE = "the network gives NaN or infinity"
"""Error of an image that has no probabilities."""


def column_names(top_k: int, labelled: bool) -> list[str]:
    """List the names of the columns.

    >>> column_names(2, labelled=False)
    ['image', 'class_1', 'probability_1', 'class_2', 'probability_2', 'error']
    """
    predictions = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("class", "probability")]
    return ["image", *(["label"] if labelled else []), *predictions, "error"]


def prediction_rows(probabilities: Float[Tensor, "B classes"], top_k: int, name_of: Callable[[int], str]) -> list[Row]:
    """Make a row for each image from its likeliest classes, best first; or from an error.

    Args:
        probabilities: Probability of each class.
        top_k: Number of classes in a row.
        name_of: Function from the index of a class to its name.
    """
    best = probabilities.topk(top_k, dim=-1)
    rows: list[Row] = []
    for values, classes in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row: Row = {}
        if not all(map(math.isfinite, values)):  # after softmax all are finite, or none
            rows.append({"error": NOT_FINITE})
            continue
        for rank, (probability, index) in enumerate(zip(values, classes, strict=True), start=1):
            row |= {f"class_{rank}": name_of(index), f"probability_{rank}": round(probability, 6)}
        rows.append(row)
    return rows


def check_top_k(top_k: int | None, num_classes: int) -> int:
    """Return the number of classes per row; by default 5, or all of fewer.

    Raises:
        UserError: If the network has fewer classes than ``top_k``.
    """
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise UserError(f"top_k must be from 1 to the network's {num_classes} classes, got {top_k}")
    return min(5, num_classes) if top_k is None else top_k


def unique_names(names: Sequence[str]) -> list[str]:
    """Append the index to class names that several classes share.

    >>> unique_names(["crane", "cat", "crane"])
    ['crane (0)', 'cat', 'crane (2)']
    """
    shared = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [f"{name} ({number})" if name in shared else name for number, name in enumerate(names)]


def check_output(path: Path, overwrite: bool) -> None:
    """Check that a table can be written, before predictions are computed.

    Args:
        path: The file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UserError: If the ending is unknown, if the file exists already, or if pyarrow is missing for Parquet.
    """
    if path.suffix.lower() not in WRITERS:
        hint = did_you_mean(path.suffix.lower(), WRITERS)
        raise UserError(f"{path} must end in one of {', '.join(WRITERS)}, got {path.suffix!r}{hint}")
    refuse_existing(path, overwrite)
    if path.suffix.lower() == ".parquet":
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise UserError("Parquet needs pyarrow: pip install 'vit_attn[parquet]', or write .csv or .json") from error


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace a folder, and to replace a file unless that is allowed.

    Raises:
        UserError: If so.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: name another file, or add --overwrite")


class PredictionTable:
    """Table that is written to disk row by row and gets its name when it is complete.

    Until then it is named ``NAME.unfinished``, so that the rows of an interrupted run are not lost. A row has the
    columns of :func:`column_names`; missing values are empty, or null. JSON and Parquet hold every text unchanged, CSV
    as :func:`~vit_attn.reports.table_writers.csv_cell` converts it.

    Args:
        path: The file, whose ending chooses CSV, JSON (one list with an object per row) or Parquet.
        top_k: Classes per row.
        labelled: Whether rows have the true class, and a number instead of a path as ``image``.
    """

    def __init__(self, path: Path, top_k: int, labelled: bool = False) -> None:
        self.path, self.unfinished = path, path.with_name(path.name + ".unfinished")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.columns, self.count = column_names(top_k, labelled), 0
        self.writer: RowWriter = WRITERS[path.suffix.lower()](self.unfinished, self.columns)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        complete = [{name: _utf8(row.get(name)) for name in self.columns} for row in rows]
        self.count += len(complete)
        self.writer.write(complete)

    def close(self, complete: bool = True) -> None:
        """Close the file; give it its name if it is complete, and delete it if it is not and has no rows."""
        self.writer.close()
        if complete:
            os.replace(self.unfinished, self.path)
        elif not self.count:
            self.unfinished.unlink()

    def __enter__(self) -> "PredictionTable":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(complete=kind is None)


def _utf8(value: Any) -> Any:
    r"""Make a text that UTF-8 can hold; bytes of a file name that are not UTF-8 become ``\xff`` and so on."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value
