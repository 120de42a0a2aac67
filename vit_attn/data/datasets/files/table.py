"""Reader of tables in the formats that spreadsheets and programs write."""

import codecs
import csv
import io
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_attn.data.datasets.files.labels import is_missing
from vit_attn.data.datasets.files.names import is_split_name, split_of, splits_in, words_of
from vit_attn.errors import UserError, did_you_mean

SYNONYMS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file",
             "image_name", "img", "img_path", "picture"),
    "label": ("label", "labels", "class", "class_name", "classname", "category", "target", "label_name"),
    "split": ("split", "set", "subset", "partition", "phase", "data_split", "split_name"),
}  # fmt: skip
"""Column names, ours first, that are recognised as each of our columns."""
REQUIRED = ("path", "label")
SEPARATORS = (",", ";", "\t", "|")
SPLIT_COLUMN = frozenset(("split", "splits", "datasplit", "fold", "folds", "kfold", "usage", "partition", "holdout"))
"""Words in the name of a column of splits."""
MAX_SPLITS = 20
"""Most texts in a column of splits; a column with more has captions or names of files."""
FLAGS = frozenset({"", "0", "1", "0.0", "1.0", "true", "false", "t", "f", "yes", "no", "y", "n"})
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order marks with their encodings; a longer mark precedes its own prefix."""


class Line(NamedTuple):
    """Line of the table: its number, and its cells by our names of the columns."""

    number: int
    cells: dict[str, str]


class Table(NamedTuple):
    """Lines of a table, with remarks.

    Args:
        lines: Lines below the header.
        remarks: Remarks for the user on how the table was understood.
    """

    lines: list[Line]
    remarks: list[str]


def read_table(path: Path, columns: str | None = None) -> Table:
    """Read the lines of a table with a header.

    Args:
        path: A text file; comma, semicolon, tab or bar separates its cells.
        columns: Names of the columns, as ``path=file,label=class``; by default common names are recognised.

    Raises:
        UserError: If it is no such table, or if its columns are ambiguous.
    """
    text, above = _text(path), 0
    first, _, rest = text.lstrip("\r\n").partition("\n")
    if declared := re.fullmatch(r"sep=(.)\r?", first):  # which Excel writes and reads
        text, above = rest, text.removesuffix(rest).count("\n")
    separators = (declared[1],) if declared else SEPARATORS
    given_names = parse_columns(columns)
    headers = {each: _header(text, each) for each in separators}
    separator = max(headers, key=lambda each: (_fitting(headers[each], given_names), len(headers[each])))
    names = [name.strip() for name in headers[separator]]
    found = _columns(path, names, given_names)
    records = _records(path, text, separator, above)
    width = len(_filled(next(records, (0, []))[1]))
    used = {names[position] for position in found.values()}
    lines, others = [], {name: set[str]() for name in names if name not in used}
    for number, cells in records:
        if len(filled := _filled(cells)) > width:
            raise UserError(
                f"{path}, line {number}: {len(filled)} cells, but the header has {width}: put a cell that holds "
                f"{separator!r} between quotes"
            )
        given = [*(cell.strip() for cell in cells), *[""] * (len(names) - len(cells))]
        lines.append(Line(number, {ours: given[position] for ours, position in found.items()}))
        for name, cell in zip(names, given, strict=False):
            if name in others:
                others[name].add(cell)
    if "split" not in found:
        for name, texts in others.items():
            _refuse_unread_split(path, name, texts)
    renamed = [f"{ours} is {names[position]}" for ours, position in found.items() if names[position] != ours]
    return Table(lines, [f"columns: {', '.join(renamed)}"] if renamed else [])


def _filled(cells: Sequence[str]) -> list[str]:
    """Cells without the empty ones at the end."""
    last = max((position for position, cell in enumerate(cells) if cell.strip()), default=-1)
    return list(cells[: last + 1])


def _header(text: str, separator: str) -> list[str]:
    """Cells of the first line that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return next(filter(_filled, reader), [])


def _records(path: Path, text: str, separator: str, above: int) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, with their numbers.

    Args:
        path: The table, for messages.
        text: Lines of cells.
        separator: Character between two cells.
        above: Number of lines before the text.

    Raises:
        UserError: If a cell continues on the next line: a stray quote would swallow all lines up to another one.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        first, problem, cells = reader.line_num + 1, "", None
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problem = str(error)
        if reader.line_num > first:
            problem = f"a cell that opens with a quote goes on to line {reader.line_num + above}"
        if problem:
            raise UserError(
                f"{path}, line {first + above}: {problem}: close it in its line; a quote that belongs to a cell is "
                'written twice, and the cell between quotes, as "5"" tall"'
            )
        if cells is None:
            return
        if _filled(cells):
            yield first + above, cells


def _refuse_unread_split(path: Path, name: str, texts: Collection[str]) -> None:
    """Refuse an unread column that seems to hold the splits: the test images would be trained on.

    Args:
        path: The table.
        name: Name of a column that is not read.
        texts: Distinct texts of its cells.
    """
    present = [text for text in texts if not is_missing(text)]
    splits = [split_of(text) for text in present if is_split_name(text)]
    words = len(set(splits)) > 1 or (len(present) <= MAX_SPLITS and all(split_of(each) for each in present))
    flags = bool(splits_in(name)) and all(text.casefold() in FLAGS for text in present)
    if present and (words or flags or SPLIT_COLUMN & set(words_of(name))):
        option = shlex.quote(f"--data.columns=split={name}")
        raise UserError(
            f"{path}: column {name} seems to say the split of each picture: if it does, write train, val and test "
            f"there and add {option}; if not, call it otherwise or take it out"
        )


def _text(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((each for mark, each in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    zeros = content[:200].count(0)
    if encoding == "utf-8" and zeros > len(content[:200]) / 4:  # of text in two bytes a letter, every other is 0
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} cannot be read as a CSV file: line {line} is not {encoding.upper().removesuffix('-SIG')}; save it "
            f"as UTF-8, for example by iconv -f LATIN1 -t UTF-8, if that is its encoding"
        ) from error


def parse_columns(columns: str | None) -> dict[str, str]:
    """Parse the user's names of the columns, by our names.

    Raises:
        UserError: If the text has another form.

    >>> parse_columns("path=file, label=class")
    {'path': 'file', 'label': 'class'}
    """
    found = {}
    for part in columns.split(",") if columns else ():
        ours, equals, theirs = (each.strip() for each in part.partition("="))
        if ours not in SYNONYMS or not equals or not theirs:
            raise UserError(
                f"columns must say which column is path, label and, optionally, split, as path=file,label=class; "
                f"got {part.strip()!r}"
            )
        found[ours] = theirs
    return found


def _fitting(header: Sequence[str], given_names: dict[str, str]) -> int:
    """Number of required columns that a header has."""
    names = [name.strip() for name in header]
    return sum(bool(_candidates(ours, names, given_names)) for ours in REQUIRED)


def _candidates(ours: str, names: Sequence[str], given_names: dict[str, str]) -> list[str]:
    """Columns that may be ours: the one that the user named or that has our name, else all with a common name."""
    exact = given_names.get(ours, ours)
    if exact in names or ours in given_names:
        return [exact] if exact in names else []
    reserved = set(given_names.values())
    return [name for name in names if re.sub(r"[\s-]+", "_", name.lower()) in SYNONYMS[ours] and name not in reserved]


def _columns(path: Path, names: Sequence[str], given_names: dict[str, str]) -> dict[str, int]:
    """Position of each of our columns."""
    found = {}
    for ours in SYNONYMS:
        fitting = _candidates(ours, names, given_names)
        if len(fitting) > 1:
            raise UserError(
                f"{path}: {' and '.join(fitting)} may both be the {ours}: say which, as "
                f"--data.columns={ours}={fitting[0]}"
            )
        if fitting:
            if names.count(fitting[0]) > 1:
                raise UserError(f"{path} has two columns {fitting[0]!r}: call one of them otherwise")
            found[ours] = names.index(fitting[0])
        elif ours in REQUIRED or ours in given_names:
            wanted = given_names.get(ours, ours)
            has = ", ".join(names) or "none"
            hint = did_you_mean(wanted, names) or (
                "" if ours in given_names else f"; say which it is: --data.columns={ours}=NAME"
            )
            raise UserError(f"{path} has no column {wanted!r}; it has {has}{hint}")
    return found
