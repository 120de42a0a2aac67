"""``csv``: pictures of one's own, named with their classes in a table."""

import csv
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vit_attn.data.folder import PHOTOS, SPLIT_NAMES, complete
from vit_attn.data.splits import FilePictures, Source, Split
from vit_attn.errors import UserError, did_you_mean

COLUMNS = ("path", "label")
MOST_DIGITS = 1000
"""Digits of a label that is ordered as a number; Python itself refuses some thousands of them."""


class Row(NamedTuple):
    """A line of the table: its number, the file, the class, and the split or ``all``."""

    line: int
    path: Path
    label: str
    split: str


def csv_source(table: Path) -> Source:
    """The data set in a CSV file with the columns ``path``, ``label`` and, if wanted, ``split``.

    Paths are relative to the file. Labels are names or whole numbers; classes are in order of their labels. Without
    ``split``, a tenth of each class is held out for validation and as much for the test, always in the same way. Cells
    are read as they stand: an apostrophe before a name, as ``predict`` writes it before ``=``, belongs to the name.

    Raises:
        UserError: If the table cannot be read or has no classes, or if its splits have other classes.
    """
    rows = read_table(table)
    splits = {row.split: row for row in rows}
    labels = {split: {row.label for row in rows if row.split == split} for split in splits}
    if "all" in splits and len(splits) > 1:
        first = splits["all"]
        raise UserError(f"{table}, line {first.line}: no split, but other lines have one")
    if "all" not in splits and "train" not in splits:
        raise UserError(f"{table}: no line has the split train")
    first = next(iter({"train", "all"} & set(splits)))
    for split in splits:
        if differing := labels[split] ^ labels[first]:
            names = ", ".join(map(repr, sorted(differing)[:5]))
            raise UserError(f"{table}: the classes of {first} and {split} differ: {names} only in one of them")
    names = tuple(_in_order(labels[first]))
    if len(names) == 1:
        raise UserError(f"{table} has one class only, {names[0]!r}: a classifier needs at least two")
    return Source(names, None, None, None, partial(_load, table, rows, names), PHOTOS)


def read_table(table: Path) -> list[Row]:
    """The lines of a table.

    Raises:
        UserError: If it is not such a table, if a line is not whole, or if two lines name the same picture.
    """
    if not table.is_file():
        raise UserError(f"no such CSV file: {table}; name it with --data.root")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or []]
            for name in COLUMNS:
                if name not in columns:
                    found = ", ".join(columns) or "none"
                    raise UserError(f"{table} has no column {name!r}{did_you_mean(name, columns)}; it has {found}")
            reader.fieldnames = columns
            rows = [_row(table, reader.line_num, values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as a CSV file: {error}") from error
    if not rows:
        raise UserError(f"{table} names no images: it has no line below its header")
    _refuse_twins(table, rows)
    return rows


def _refuse_twins(table: Path, rows: Sequence[Row]) -> None:
    """A picture that is named twice could be trained on and tested on."""
    lines: dict[str, int] = {}
    for row in rows:
        first = lines.setdefault(os.path.normpath(row.path), row.line)
        if first != row.line:
            raise UserError(f"{table}, lines {first} and {row.line}: the same picture twice, {row.path}; keep one")


def _row(table: Path, line: int, values: dict[str, str | None]) -> Row:
    path, label, split = ((values.get(name) or "").strip() for name in (*COLUMNS, "split"))
    for name, value in (("path", path), ("label", label)):
        if not value:
            raise UserError(f"{table}, line {line}: no {name}")
    if split and split.lower() not in SPLIT_NAMES:
        hint = did_you_mean(split, SPLIT_NAMES) or "; splits are train, val and test"
        raise UserError(f"{table}, line {line}: unknown split {split!r}{hint}")
    return Row(line, table.parent / path, label, SPLIT_NAMES[split.lower()] if split else "all")


def _in_order(labels: set[str]) -> list[str]:
    """By number where all are whole numbers, else by name."""
    if all(label.removeprefix("-").isdecimal() and len(label) <= MOST_DIGITS for label in labels):
        return sorted(sorted(labels), key=int)  # 01 before 1, not as the set has them
    return sorted(labels)


def _load(
    table: Path, rows: Sequence[Row], class_names: Sequence[str], _root: Path, _download: bool
) -> dict[str, Split]:
    if missing := [row for row in rows if not row.path.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{table}, line {missing[0].line}: no such file: {missing[0].path}{more}")
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {}
    for split in dict.fromkeys(row.split for row in rows):
        chosen = [row for row in rows if row.split == split]
        labels = torch.tensor([numbers[row.label] for row in chosen])
        splits[split] = Split(None, labels, pictures=FilePictures([row.path for row in chosen], table.parent))
    return complete(splits, str(table), class_names)
