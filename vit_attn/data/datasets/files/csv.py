"""``csv``: the user's own pictures, listed with their classes in a table."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vit_attn.data.datasets.files.folder import PHOTOS, complete, refuse_unknown_classes
from vit_attn.data.datasets.files.labels import class_of_labels, is_missing
from vit_attn.data.datasets.files.names import SPLIT_WORDS, in_natural_order, is_split_name, split_of
from vit_attn.data.datasets.files.table import Line, read_table
from vit_attn.data.datasets.held_out import HELD_OUT
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.errors import UserError, did_you_mean, some_of

SHOWN = 3
"""Most files in a message."""


class Row(NamedTuple):
    """Line of the table: its number, the file, the class, and the split or ``all``."""

    line: int
    path: Path
    label: str
    split: str


def csv_source(table: Path, columns: str | None = None) -> DatasetInfo:
    """Data set in a CSV file with the columns ``path``, ``label`` and, optionally, ``split``.

    Paths are relative to the file. Labels are names or integers; classes are in natural order. Without ``split``,
    a tenth of each class is held out for validation and another for the test, always in the same way. Lines without a
    label are left out and counted. Other cells are read as they are: an apostrophe before a name, as ``predict``
    writes it before ``=``, belongs to the name.

    Args:
        table: The file.
        columns: Names of the columns, as ``path=file,label=class``; by default common names are recognised.

    Raises:
        UserError: If the table cannot be read or has no classes, or if a split has classes that training lacks.
    """
    rows, remarks = read_rows(table, columns)
    splits = {row.split: row for row in rows}
    if "all" in splits and len(splits) > 1:
        first = splits["all"]
        raise UserError(f"{table}, line {first.line}: no split, but other lines have one")
    if "all" not in splits and "train" not in splits:
        raise UserError(f"{table}: no line has the split train and a label")
    first = "all" if "all" in splits else "train"
    names = tuple(in_natural_order({row.label for row in rows if row.split == first}))
    if len(names) == 1:
        raise UserError(f"{table} has one class only, {names[0]!r}: a classifier needs at least two")
    for split in splits:
        labels = dict.fromkeys(row.label for row in rows if row.split == split)
        refuse_unknown_classes(labels, names, f"{table}: the split {split}")
    load = partial(_load, table, rows, names)
    return DatasetInfo(names, None, None, None, load, PHOTOS, remarks=remarks, holds_out="val" not in splits)


def read_rows(table: Path, columns: str | None = None) -> tuple[list[Row], list[str]]:
    """Read the lines of a table that have a label, and remarks.

    Raises:
        UserError: If it is not such a table, if a line is incomplete, or if two lines are of the same picture.
    """
    if table.is_dir():
        raise UserError(f"{table} is a folder: name the CSV file in it, or use --data.dataset=folder")
    if not table.is_file():
        raise UserError(f"no such CSV file: {table}; name it with --data.root")
    try:
        lines, remarks = read_table(table, columns)
    except (OSError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as a CSV file: {error}") from error
    if not lines:
        raise UserError(f"{table} names no images: it has no line below its header")
    labels, read = class_of_labels((line.cells["label"] for line in lines), str(table))
    rows = [_row(table, line, label) for line in lines if (label := labels[line.cells["label"]]) is not None]
    remarks = [
        *remarks,
        *_describe_splits(table, lines),
        *read,
        *_unlabelled(table, [line for line in lines if labels[line.cells["label"]] is None]),
    ]
    if not rows:
        raise UserError(f"{table} names no images with a label")
    _refuse_duplicates(table, rows)
    return rows, remarks + _describe_folders(rows)


def _describe_splits(table: Path, lines: Sequence[Line]) -> list[str]:
    """Remark on splits with other names than ours.

    Raises:
        UserError: If two texts are of one split: of ``train`` and ``train2``, perhaps only one is meant.
    """
    first: dict[str, Line] = {}
    for line in lines:
        text = line.cells.get("split", "")
        if (split := split_of(text)) is None:
            continue
        other = first.setdefault(split, line)
        if other.cells["split"].casefold() != text.casefold():
            raise UserError(
                f"{table}, lines {other.number} and {line.number}: {other.cells['split']!r} and {text!r} are both the "
                f"split {split}: write them alike, or take out the lines of one"
            )
    called = [
        f"{split} is {text}" for split, line in first.items() if (text := line.cells["split"]).casefold() != split
    ]
    return [f"split: {', '.join(called)}"] if called else []


def _describe_folders(rows: Sequence[Row]) -> list[str]:
    """Remark on paths in folders of several splits in a table without a split column."""
    called: dict[str | None, str] = {}
    for folder in sorted({row.path.parent for row in rows if row.split == "all"}):
        names = [name for name in folder.parts if is_split_name(name)]
        called |= {split_of(name): name for name in names[-1:]}
    named = [called[split] for split in SPLIT_WORDS if split in called]
    return [f"no column is the split, though paths are in {' and in '.join(named)}"] if len(named) > 1 else []


def _unlabelled(table: Path, lines: Sequence[Line]) -> list[str]:
    """Remark on lines without a label, whose paths and splits are checked as well."""
    splits = Counter(_row(table, line, "").split for line in lines)
    if not lines:
        return []
    texts = Counter(line.cells["label"] or "empty" for line in lines)
    counts = ", ".join(f"{count} {text}" for text, count in texts.most_common(SHOWN))
    where = "" if set(splits) == {"all"} else f" in {', '.join(f'{split} ({splits[split]})' for split in splits)}"
    return [f"left out {len(lines)} line{'s' * (len(lines) > 1)} without a label{where}: {counts}"]


def _refuse_duplicates(table: Path, rows: Sequence[Row]) -> None:
    """Refuse a picture on two lines, which might be trained on and tested on, or be of two classes."""
    lines: dict[str, Row] = {}
    for row in rows:
        first = lines.setdefault(os.path.normpath(row.path), row)
        if first is not row:
            other = "" if first.label == row.label else f", as {first.label!r} and as {row.label!r}"
            raise UserError(
                f"{table}, lines {first.line} and {row.line}: the same picture twice, {row.path}{other}; keep one"
            )


def _row(table: Path, line: Line, label: str) -> Row:
    path, split = line.cells["path"], line.cells.get("split", "")
    if is_missing(path):
        raise UserError(f"{table}, line {line.number}: no path")
    if is_missing(split):
        return Row(line.number, table.parent / path, label, "all")
    if (ours := split_of(split)) is None or not is_split_name(split):
        known = [word for words in SPLIT_WORDS.values() for word in words]
        hint = ("" if ours else did_you_mean(split, known)) or "; splits are train, val and test"
        raise UserError(f"{table}, line {line.number}: unknown split {split!r}{hint}")
    return Row(line.number, table.parent / path, label, ours)


def _refuse_missing(table: Path, rows: Sequence[Row]) -> None:
    """Refuse a table with files that do not exist, and list the first of them."""
    missing = [row for row in rows if not row.path.is_file()]
    if not missing:
        return
    named = some_of([f"{row.path} (line {row.line})" for row in missing], SHOWN)
    slashes = ": write / for \\ in paths" if any("\\" in str(row.path) for row in missing[:SHOWN]) else ""
    what = "no such file" if len(missing) == 1 else f"{len(missing)} of the {len(rows)} files are not there"
    raise UserError(f"{table}: {what}: {named}; paths are relative to the table's folder{slashes}")


def _load(
    table: Path,
    rows: Sequence[Row],
    class_names: Sequence[str],
    _root: Path,
    _download: bool,
    held_out: float = HELD_OUT,
) -> dict[str, Split]:
    _refuse_missing(table, rows)
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {}
    for split in dict.fromkeys(row.split for row in rows):
        chosen = [row for row in rows if row.split == split]
        labels = torch.tensor([numbers[row.label] for row in chosen])
        splits[split] = Split(None, labels, pictures=ImageFileList([row.path for row in chosen], table.parent))
    return complete(splits, str(table), class_names, held_out)
