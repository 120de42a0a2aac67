"""Predictions as a table that anything can read: CSV, JSON or Parquet, written as they come."""

import csv
import importlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vit_attn.errors import UserError, did_you_mean, printable

Row = dict[str, Any]
NOT_FINITE = "the network gives NaN or infinity"
"""What is wrong with an image for which there are no probabilities."""
FORMULA = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20]")
"""How a text begins that a spreadsheet computes, or sends somewhere, instead of showing it."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def columns(top_k: int, labelled: bool) -> list[str]:
    """Names of the columns.

    >>> columns(2, labelled=False)
    ['image', 'class_1', 'probability_1', 'class_2', 'probability_2', 'error']
    """
    guesses = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("class", "probability")]
    return ["image", *(["label"] if labelled else []), *guesses, "error"]


def guesses(probabilities: Float[Tensor, "B classes"], top_k: int, name_of: Callable[[int], str]) -> list[Row]:
    """The likeliest classes of each image, best first, under the names of their columns; or an error.

    Args:
        probabilities: Of each class.
        top_k: Number of classes.
        name_of: A class's name from its number.
    """
    best = probabilities.topk(top_k, dim=-1)
    rows: list[Row] = []
    for shares, classes in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row: Row = {}
        if not all(map(math.isfinite, shares)):  # those of softmax are all finite, or none is
            rows.append({"error": NOT_FINITE})
            continue
        for rank, (share, index) in enumerate(zip(shares, classes, strict=True), start=1):
            row |= {f"class_{rank}": name_of(index), f"probability_{rank}": round(share, 6)}
        rows.append(row)
    return rows


def check_top_k(top_k: int | None, num_classes: int) -> int:
    """Number of classes per image; by default 5, or all of fewer.

    Raises:
        UserError: If the network has fewer classes.
    """
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise UserError(f"top_k must be from 1 to the network's {num_classes} classes, got {top_k}")
    return min(5, num_classes) if top_k is None else top_k


def unique_names(names: Sequence[str]) -> list[str]:
    """Class names, with their index where several classes share one.

    >>> unique_names(["crane", "cat", "crane"])
    ['crane (0)', 'cat', 'crane (2)']
    """
    shared = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [f"{name} ({number})" if name in shared else name for number, name in enumerate(names)]


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a file that cannot or must not be written, before anything is computed.

    Args:
        path: The file.
        overwrite: Whether it may replace one that is there.

    Raises:
        UserError: If its ending is unknown, if something is there already, or if pyarrow is missing for Parquet.
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
    """Refuse to replace a file unless that was asked for, and a folder in any case.

    Raises:
        UserError: If so.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: name another file, or add --overwrite")


class PredictionTable:
    """A table that grows on the disk; it takes its name when it is whole.

    Until then it is called ``NAME.unfinished``, so that what an interrupted run had done is not lost. A row has the
    columns of :func:`columns`; what is not known is empty, or null. JSON and Parquet keep every text as it is, CSV as
    :func:`cell` has it.

    Args:
        path: The file; its ending says which of CSV, JSON and Parquet it is. JSON is one list with an object a row.
        top_k: Classes in a row.
        labelled: Whether rows have the true class, and a number for a name.
    """

    def __init__(self, path: Path, top_k: int, labelled: bool = False) -> None:
        self.path, self.unfinished = path, path.with_name(path.name + ".unfinished")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.columns, self.count = columns(top_k, labelled), 0
        self.writer = WRITERS[path.suffix.lower()](self.unfinished, self.columns)

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        whole = [{name: _text(row.get(name)) for name in self.columns} for row in rows]
        self.count += len(whole)
        self.writer.write(whole)

    def close(self, whole: bool = True) -> None:
        """Give the file its name if it is whole; one without rows that is not goes."""
        self.writer.close()
        if whole:
            os.replace(self.unfinished, self.path)
        elif not self.count:
            self.unfinished.unlink()

    def __enter__(self) -> "PredictionTable":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(whole=kind is None)


class _Csv:
    def __init__(self, path: Path, names: list[str]) -> None:
        self.file = path.open("w", newline="", encoding="utf-8")
        self.rows = csv.DictWriter(self.file, names, lineterminator="\n")
        self.rows.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        self.rows.writerows({name: cell(_decimal(value)) for name, value in row.items()} for row in rows)
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class _Json:
    def __init__(self, path: Path, names: list[str]) -> None:
        self.file, self.between = path.open("w", encoding="utf-8"), "[\n"

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.file.write(self.between + json.dumps(row, ensure_ascii=False))
            self.between = ",\n"

    def close(self) -> None:
        self.file.write("\n]\n" if self.between == ",\n" else "[]\n")
        self.file.close()


class _Parquet:
    ROWS = 10_000
    """Rows of a group, which is as many as are kept in memory."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        kinds = {"probability": self.arrow.float64(), "image": self.arrow.string()}
        if "label" in names:
            kinds["image"] = self.arrow.int64()
        fields = [(name, kinds.get(name.partition("_")[0], self.arrow.string())) for name in names]
        self.schema, self.waiting = self.arrow.schema(fields), []
        self.file = parquet.ParquetWriter(str(path), self.schema)

    def write(self, rows: Sequence[Row]) -> None:
        self.waiting += rows
        if len(self.waiting) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        self.file.write_table(self.arrow.Table.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []

    def close(self) -> None:
        if self.waiting:
            self._flush()
        self.file.close()


def cell(value: Any) -> Any:
    r"""What a CSV file holds of a value: an apostrophe stands before a text that a spreadsheet would execute.

    A file or a class can be called ``=HYPERLINK(…)``. Numbers stay numbers; control characters become ``\r`` and so on.
    The apostrophe is part of the text for what reads the file again; where that matters, JSON and Parquet have none.

    >>> cell("=1+2"), cell("-0.5"), cell("a=b"), cell(3)
    ("'=1+2", '-0.5', 'a=b', 3)
    """
    if not isinstance(value, str):
        return value
    text = printable(value)  # a bare carriage return would begin a new row
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def _text(value: Any) -> Any:
    r"""What can be written as UTF-8: bytes of a file's name that are not become ``\xff`` and so on."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value


def _decimal(value: Any) -> Any:
    """A probability without an exponent."""
    return f"{value:.6f}" if isinstance(value, float) else value


WRITERS: dict[str, Any] = {".csv": _Csv, ".json": _Json, ".parquet": _Parquet}
