import codecs
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vit_attn.data.csv_file import csv_source
from vit_attn.data.folder import folder_source
from vit_attn.data.sources import find_source
from vit_attn.errors import UserError

CATS = [f"im/{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(8)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table of eight pictures that are there, or other lines."""
    (tmp_path / "im").mkdir()
    for number in range(8):
        Image.new("RGB", (1, 1)).save(tmp_path / "im" / f"{number}.png")

    def write(
        lines: list[str] = CATS, header: str = "path,label", encoding: str = "utf-8", separator: str = ","
    ) -> Path:
        text = "\n".join([header, *lines]) + "\n"
        (tmp_path / "table.csv").write_text(text.replace(",", separator), encoding)
        return tmp_path / "table.csv"

    return write


def counts(file: Path, columns: str | None = None) -> dict[str, int]:
    source = csv_source(file, columns)
    labels = [split.labels for split in source.load(file, False).values()]
    return {name: sum(int((each == i).sum()) for each in labels) for i, name in enumerate(source.class_names)}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_tables_of_other_programs_are_read(table, separator: str, encoding: str):
    assert counts(table(separator=separator, encoding=encoding)) == {"cat": 4, "dog": 4}


def test_a_table_may_begin_as_excel_has_it(table):
    file = table(header="sep=;\npath,label", separator=";")
    assert counts(file) == {"cat": 4, "dog": 4}
    with pytest.raises(UserError, match=r"table.csv, line 4: no path"):
        csv_source(table(["im/0.png;a", ";b"], header="sep=;\npath;label"))


def test_what_is_not_utf_8_is_named_with_its_line(table):
    file = table([*CATS, "im/9.png,café"], encoding="latin-1")
    with pytest.raises(UserError, match=r"line 10 is not UTF-8; save it as UTF-8, for example by iconv -f LATIN1"):
        csv_source(file)
    file.write_bytes(codecs.BOM_UTF16_LE + b"a")
    with pytest.raises(UserError, match=r"line 1 is not UTF-16"):
        csv_source(file)


@pytest.mark.parametrize("text", ["NaN", "nan", "NA", "N/A", "null", "None", "", " "])
def test_cells_without_a_label_are_no_class_and_counted(table, text: str):
    file = table([*CATS[:6], f"im/6.png,{text}", f"im/7.png,{text}"])
    assert counts(file) == {"cat": 3, "dog": 3}
    assert csv_source(file).remarks == [f"left out 2 lines without a label: 2 {text.strip() or 'empty'}"]


def test_a_test_split_without_labels_is_left_out_and_told(table):
    lines = [f"{line},train" for line in CATS[:6]] + ["im/6.png,,test", "im/7.png,,test"]
    source = csv_source(table(lines, "path,label,split"))
    assert source.remarks == ["left out 2 lines without a label in test (2): 2 empty"]
    assert {name: len(split) for name, split in source.load(Path(), False).items()} == {"train": 2, "val": 2, "test": 2}


def test_one_and_one_point_nought_are_one_class(table):
    file = table(["im/0.png,1", "im/1.png,1.0", "im/2.png,1.0", "im/3.png,2", "im/4.png,2.0", "im/5.png,2.00"])
    assert counts(file) == {"1": 3, "2": 3}
    assert csv_source(file).remarks == ["labels such as 1.0 are read as 1"]
    assert set(csv_source(table(["im/0.png,1.0", "im/1.png,1.5"])).class_names) == {"1.0", "1.5"}


def test_names_that_look_alike_are_one_class(table):
    lines = [f"im/{i}.png, {unicodedata.normalize(form, 'café')} " for i, form in enumerate(("NFC", "NFD", "NFC"))]
    assert counts(table([*lines, *(f"im/{i}.png,thé" for i in (3, 4, 5))])) == {"café": 3, "thé": 3}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("filename,class", None),
        ("image_path,category", None),
        ("File,Target", None),
        ("Image Path,Class Name", None),
        ("way,art", "path=way,label=art"),
        ("path,art", "label=art"),
        ("file,label,image", "path=file"),
    ],
)
def test_columns_of_other_names_are_taken_and_told(table, header: str, columns: str | None):
    file = table(header=header)
    assert counts(file, columns) == {"cat": 4, "dog": 4}
    assert csv_source(file, columns).remarks[0].startswith("columns: ")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("path", r"columns must say which column is path, label and, if wanted, split, as path=file,.*; got 'path'"),
        ("picture=file", r"got 'picture=file'"),
        ("path=fiel", r"table.csv has no column 'fiel'; it has file, label, did you mean 'file'\?"),
        ("split=part", r"table.csv has no column 'part'; it has file, label"),
    ],
)
def test_columns_that_are_not_there_are_named(table, columns: str, message: str):
    with pytest.raises(UserError, match=message):
        csv_source(table(header="file,label"), columns)


def test_columns_of_what_has_none_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"columns are those of a table, and folder has none"):
        find_source("folder", tmp_path, columns="path=file")


def test_classes_are_numbered_as_those_of_a_folder(table, tmp_path: Path):
    names = ("10", "2", "1", "c10", "c9")
    for name in names:
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (1, 1)).save(tmp_path / "photos" / name / "a.png")
    lines = [f"photos/{name}/a.png,{name}" for name in names]
    assert csv_source(table(lines)).class_names == folder_source(tmp_path / "photos").class_names
    assert csv_source(table(lines)).class_names == ("1", "2", "10", "c9", "c10")


def test_a_folder_is_no_table(tmp_path: Path):
    with pytest.raises(UserError, match=r"is a folder: name the CSV file in it, or take --data.dataset=folder"):
        csv_source(tmp_path)
