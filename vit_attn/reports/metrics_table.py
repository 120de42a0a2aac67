"""Table of a run's scalars, ``metrics.csv``: one row per step, one column per scalar."""

import csv
import io
import threading
from collections.abc import Mapping
from pathlib import Path

from vit_attn.files import whole_file

FILE_NAME = "metrics.csv"
FIRST_COLUMNS = ("step", "epoch")

Row = dict[str, str]


class MetricsTable:
    """Rows of scalars by step in a CSV file, which several threads may add to.

    Values are kept until :meth:`flush`, which appends their rows. Values of a step that has a row already are put into
    that row, so that no step has two. A new column, or a value of an earlier step than the last, rewrites the file,
    which is then as it was or complete. A row that a kill cut off is dropped when the file is opened again.

    Args:
        path: The file; it is created with its first row.
        first_step: First step that the run writes, again or for the first time; an existing file loses all later rows.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        self.path, self.lock = path, threading.Lock()
        self.pending: dict[int, Row] = {}
        self.columns = list(FIRST_COLUMNS)
        self.last: Row = {}
        """The last row in the file."""
        self.last_start = 0
        """Byte at which it begins."""
        if path.is_file():
            self._write_all(self._read(first_step))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to a step; a value that the step has already is replaced, and a scalar named step is left out."""
        with self.lock:
            row = self.pending.setdefault(step, {})
            row.update({name: _cell(value) for name, value in values.items() if name != "step"})

    def flush(self) -> None:
        """Write what was added."""
        with self.lock:
            pending, self.pending = dict(sorted(self.pending.items())), {}
            if not pending:
                return
            new = [name for row in pending.values() for name in row if name not in self.columns]
            if new or not self.last or min(pending) < int(self.last["step"]):
                self.columns = [*FIRST_COLUMNS, *sorted({*self.columns, *new} - {*FIRST_COLUMNS})]
                rows = self._read()
                for step, row in pending.items():
                    rows[step] = rows.get(step, {"step": str(step)}) | row
                self._write_all(rows)
            else:
                self._append(pending)

    def _append(self, pending: Mapping[int, Row]) -> None:
        """Write rows at the end of the file, the last one again where values of its step were added."""
        with self.path.open("r+b") as file:
            for step, row in pending.items():
                if step == int(self.last["step"]):
                    row = self.last | row
                else:
                    self.last_start = file.seek(0, io.SEEK_END)
                self.last = {"step": str(step)} | row
                file.seek(self.last_start)
                file.write(self._line(self.last))
                file.truncate()

    def _read(self, first_step: int | None = None) -> dict[int, Row]:
        """Read the complete rows by step, those before a step if one is given, and the columns."""
        if not self.path.is_file():
            return {}
        reader = _complete_rows(self.path)
        rows = {int(row["step"]): row for row in reader if _is_whole(row)}
        self.columns += [name for name in reader.fieldnames or () if name not in self.columns]
        return {step: row for step, row in rows.items() if first_step is None or step < first_step}

    def _write_all(self, rows: Mapping[int, Row]) -> None:
        header, *lines = [self._line(dict(zip(self.columns, self.columns, strict=True)))] + [
            self._line(row) for _, row in sorted(rows.items())
        ]
        with whole_file(self.path, "table of metrics") as file:
            file.writelines([header, *lines])
        self.last = dict(rows[max(rows)]) if rows else {}
        self.last_start = len(header) + sum(map(len, lines[:-1]))

    def _line(self, row: Row) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(name, "") for name in self.columns])
        return text.getvalue().encode()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the rows of a table, without empty cells, in the order of their steps; one that a kill cut off is left out.

    Args:
        path: The file.
    """
    return [{name: float(cell) for name, cell in row.items() if cell} for row in _complete_rows(path) if _is_whole(row)]


def _complete_rows(path: Path) -> csv.DictReader:
    """Open a table without what follows its last line break: a cell that was cut off still looks like a number."""
    content = path.read_text("utf-8", "replace")
    return csv.DictReader(io.StringIO(content[: content.rfind("\n") + 1]))


def _is_whole(row: Mapping[str | None, str | None]) -> bool:
    return None not in row and None not in row.values() and (row.get("step") or "").isdecimal()


def _cell(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.8g}"
