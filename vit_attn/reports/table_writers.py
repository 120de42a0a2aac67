"""Writers of table rows as CSV, JSON and Parquet, without keeping the table in memory."""

import csv
import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from vit_attn.errors import printable

Row = dict[str, Any]
FORMULA = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20]")
"""First character of a text that a spreadsheet evaluates as a formula instead of showing it."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class RowWriter(Protocol):
    """Writer of rows, which all have the same columns."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Complete and close the file."""
        ...


class CsvWriter:
    """Writes CSV with one line per row; texts as :func:`csv_cell` gives them."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.file = path.open("w", newline="", encoding="utf-8")
        self.rows = csv.DictWriter(self.file, columns, lineterminator="\n")
        self.rows.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        self.rows.writerows({name: csv_cell(_decimal(value)) for name, value in row.items()} for row in rows)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class JsonWriter:
    """Writes one JSON list with an object per row."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.file, self.separator = path.open("w", encoding="utf-8"), "[\n"

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        for row in rows:
            self.file.write(self.separator + json.dumps(row, ensure_ascii=False))
            self.separator = ",\n"

    def close(self) -> None:
        """Close the list and the file."""
        self.file.write("\n]\n" if self.separator == ",\n" else "[]\n")
        self.file.close()


class ParquetWriter:
    """Writes Parquet in row groups; needs pyarrow."""

    ROWS = 10_000
    """Rows of a group, which are kept in memory until it is full."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        types = {"probability": self.arrow.float64(), "image": self.arrow.string()}
        if "label" in columns:
            types["image"] = self.arrow.int64()
        fields = [(name, types.get(name.partition("_")[0], self.arrow.string())) for name in columns]
        self.schema, self.buffered = self.arrow.schema(fields), []
        self.file = parquet.ParquetWriter(str(path), self.schema)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        self.buffered += rows
        if len(self.buffered) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        self.file.write_table(self.arrow.Table.from_pylist(self.buffered, schema=self.schema))
        self.buffered = []

    def close(self) -> None:
        """Write the last group and close the file."""
        if self.buffered:
            self._flush()
        self.file.close()


def csv_cell(value: Any) -> Any:
    r"""Convert a value for a CSV file; a text that a spreadsheet would evaluate gets an apostrophe in front.

    A file or a class can be named ``=HYPERLINK(…)``. Numbers stay numbers; control characters become ``\r`` and so on.
    A program that reads the CSV sees the apostrophe as part of the text; JSON and Parquet have none.

    >>> csv_cell("=1+2"), csv_cell("-0.5"), csv_cell("a=b"), csv_cell(3)
    ("'=1+2", '-0.5', 'a=b', 3)
    """
    if not isinstance(value, str):
        return value
    text = printable(value)  # a bare carriage return would start a new row
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def _decimal(value: Any) -> Any:
    """Format a probability without an exponent."""
    return f"{value:.6f}" if isinstance(value, float) else value


WRITERS: dict[str, Any] = {".csv": CsvWriter, ".json": JsonWriter, ".parquet": ParquetWriter}
"""Writers by the ending of the file."""
