import codecs
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vit_attn.data.datasets.files.csv import csv_source
from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.datasets.files.names import in_natural_order
from vit_attn.data.datasets.registry import find_dataset
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


@pytest.mark.parametrize(
    "text", ["NaN", "NAN", "Nan", "NA", "N/a", "null", "Null", "None", "#N/A N/A", "-1.#IND", "1.#QNAN", "", " "]
)
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


def test_one_and_one_point_nought_are_one_class_beside_names(table):
    file = table([f"im/{number}.png,{label}" for number, label in enumerate(["1", "1.0", "1.", "x", "x", "x"])])
    assert counts(file) == {"1": 3, "x": 3}
    assert csv_source(file).remarks == ["labels such as 1.0 are read as 1"]
    assert set(csv_source(table(["im/0.png,1.0", "im/1.png,x"])).class_names) == {"1.0", "x"}


def test_nought_has_no_sign(table):
    file = table([f"im/{number}.png,{label}" for number, label in enumerate(["0", "-0.0", "-0", "1", "1", "1"])])
    assert counts(file) == {"0": 3, "1": 3}


@pytest.mark.parametrize(
    "pair", [("7", "007"), ("1", "+1"), ("1.0", "1e0"), ("1.50", "1.5"), (".5", "0.5"), ("-0.0", "0.0")]
)
def test_two_texts_of_one_number_are_refused(table, pair: tuple[str, str]):
    file = table([f"im/{number}.png,{label}" for number, label in enumerate([*pair, "x"])])
    with pytest.raises(UserError, match=rf"table.csv: the labels '{re.escape(pair[0])}' and '.*' are the same number"):
        csv_source(file)


def test_numbers_of_any_length_are_names_of_classes(table):
    file = table([f"im/{i}.png,{'9' * (5000 + i % 2)}" for i in range(6)])
    assert list(counts(file).values()) == [3, 3]


@pytest.mark.parametrize("text", ["none", "NONE", "?", "-", "Na"])
def test_what_may_be_no_label_is_told(table, text: str):
    file = table([*CATS, f"im/9.png,{text}"])
    assert csv_source(file).remarks == [f"treated as a class: {text!r}; leave cells without a label empty"]


@pytest.mark.parametrize(
    "pair",
    [("a b", "a\u00a0b"), ("cat", "Cat"), ("a", "\uff41"), ("a", "a\u200b"), ("Straße", "strasse"), ("a  b", "a b")],
)
def test_classes_that_look_alike_are_told(table, tmp_path: Path, pair: tuple[str, str]):
    said = f"classes that look alike: {' and '.join(map(repr, in_natural_order(pair)))}"
    (remark,) = csv_source(table([f"im/{number}.png,{label}" for number, label in enumerate(pair)])).remarks
    assert sorted(remark) == sorted(said)
    for name in pair:
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (1, 1)).save(tmp_path / "photos" / name / "a.png")
    assert folder_source(tmp_path / "photos").remarks == [said]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("train", "train2"), r"table.csv, lines 2 and 3: 'train' and 'train2' are both the split train: write them a"),
        (("train", "dev", "val"), r"lines 3 and 4: 'dev' and 'val' are both the split val"),
        (("train", "not-train"), r"line 3: unknown split 'not-train'; splits are train, val and test"),
        (("train", "no_test"), r"line 3: unknown split 'no_test'"),
        (("Training", "PublicTest", "PrivateTest"), r"line 3: unknown split 'PublicTest'"),
    ],
)
def test_texts_that_are_no_split_or_the_same_one_are_refused(table, texts: tuple[str, ...], message: str):
    lines = [f"{line},{texts[number % len(texts)]}" for number, line in enumerate(CATS)]
    with pytest.raises(UserError, match=message):
        csv_source(table(lines, "path,label,split"))


def test_a_split_that_is_called_otherwise_is_told(table):
    texts = ["train", "TRAIN", "Train", "train", "VALID", "valid", "test_set", "Test_Set"]
    source = csv_source(table([f"{line},{text}" for line, text in zip(CATS, texts, strict=True)], "path,label,split"))
    assert source.remarks == ["split: val is VALID, test is test_set"]
    assert {name: len(split) for name, split in source.load(Path(), False).items()} == {"train": 4, "val": 2, "test": 2}


def test_paths_in_folders_of_splits_are_told_where_no_column_is_the_split(table, tmp_path: Path):
    lines = []
    for folder, name in [(folder, name) for folder in ("Train", "test_images") for name in ("cat", "dog")]:
        (tmp_path / folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (1, 1)).save(tmp_path / folder / name / f"{number}.png")
            lines.append(f"{folder}/{name}/{number}.png,{name},{folder}")
    said = "no column is the split, though paths are in Train and in test_images"
    without = [line.rpartition(",")[0] for line in lines]
    assert csv_source(table(without)).remarks == [said]
    assert csv_source(table(lines, "path,label,split")).remarks == ["split: test is test_images"]
    assert csv_source(table(without[:4])).remarks == []


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
        ("path", r"columns must say which column is path, label and, optionally, split, as path=file,.*; got 'path'"),
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
        find_dataset("folder", tmp_path, columns="path=file")


def test_classes_are_numbered_as_those_of_a_folder(table, tmp_path: Path):
    names = ("10", "2", "1", "c10", "c9")
    for name in names:
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (1, 1)).save(tmp_path / "photos" / name / "a.png")
    lines = [f"photos/{name}/a.png,{name}" for name in names]
    assert csv_source(table(lines)).class_names == folder_source(tmp_path / "photos").class_names
    assert csv_source(table(lines)).class_names == ("1", "2", "10", "c9", "c10")


def test_a_folder_is_no_table(tmp_path: Path):
    with pytest.raises(UserError, match=r"is a folder: name the CSV file in it, or use --data.dataset=folder"):
        csv_source(tmp_path)


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("Usage", ("train", "test")),
        ("usage", ("Public", "Private")),
        ("dataset", ("train", "test")),
        ("data set", ("training", "")),
        ("fold", ("0", "1")),
        ("k-fold", ("0", "1")),
        ("is_valid", ("True", "False")),
        ("isTest", ("0", "1")),
        ("is_train", ("1.0", "")),
        ("note", ("train", "test", "holdout")),
    ],
)
def test_a_column_of_splits_with_another_name_is_refused_and_named(table, column: str, texts: tuple[str, ...]):
    lines = [f"{line},{texts[number % len(texts)]}" for number, line in enumerate(CATS)]
    with pytest.raises(
        UserError, match=rf"table.csv: column {column} seems .* '?--data.columns=split={column}'?; if not"
    ):
        csv_source(table(lines, f"path,label,{column}"))


@pytest.mark.parametrize("column", ["data_split", "Split Name"])
def test_other_common_names_of_the_split_are_taken(table, column: str):
    file = table([f"{line},{'train' if i < 4 else 'val'}" for i, line in enumerate(CATS)], f"path,label,{column}")
    assert {name: len(split) for name, split in csv_source(file).load(file, False).items()} == {"train": 4, "val": 4}


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("note", ("a train", "a bus")),
        ("vehicle", ("train", "bus")),
        ("test_score", ("0.5", "1.0")),
        ("kind", ("", "")),
    ],
)
def test_a_column_that_says_no_split_is_passed_over(table, column: str, texts: tuple[str, ...]):
    lines = [f"{line},{texts[number % 2]}" for number, line in enumerate(CATS)]
    assert counts(table(lines, f"path,label,{column}")) == {"cat": 4, "dog": 4}


@pytest.mark.parametrize(
    ("third", "last", "message"),
    [
        ('"tall', "x", r"table.csv, line 4: a cell that opens with a quote goes on to line 9: close it in its line"),
        ('"tall', '"wide', r"table.csv, line 4: a cell that opens with a quote goes on to line 9"),
        ('"tall', 'wide"', r"table.csv, line 4: a cell that opens with a quote goes on to line 9"),
        ('"5" tall', "x", r"table.csv, line 4: ',' expected after '\"': close it in its line; a quote that belongs"),
    ],
)
def test_a_stray_quote_swallows_no_lines(table, third: str, last: str, message: str):
    notes = {2: third, 7: last}
    file = table([f"{line},{notes.get(number, 'x')}" for number, line in enumerate(CATS)], "path,label,note")
    with pytest.raises(UserError, match=message):
        csv_source(file)


def test_quotes_that_are_closed_belong_to_the_table(table):
    lines = [f'im/{number}.png,"{name}","5"" tall"' for number, name in enumerate(["a,b", "c"] * 4)]
    assert counts(table(lines, '"path","label","note"')) == {"a,b": 4, "c": 4}
    file = table([f'im/{number}.png;{name};5 in (5")' for number, name in enumerate("ababab")], "path;label;note")
    assert counts(file) == {"a": 3, "b": 3}


def test_a_line_with_more_cells_than_the_header_is_refused(table):
    with pytest.raises(
        UserError, match=r"table.csv, line 10: 3 cells, but the header has 2: put a cell that holds ','"
    ):
        csv_source(table([*CATS, "im/9.png,cat, big"]))
    with pytest.raises(UserError, match=r"table.csv, line 10: 3 cells, but the header has 2"):
        csv_source(table([*CATS, "im/9.png,cat, big"], "path,label,"))
    assert counts(table([f"{line},, " for line in CATS])) == {"cat": 4, "dog": 4}
    assert counts(table([f"{i},{line}" for i, line in enumerate(CATS)], ",path,label")) == {"cat": 4, "dog": 4}


def test_empty_lines_before_the_header_are_passed_over(table):
    assert counts(table(header="\n\npath,label")) == {"cat": 4, "dog": 4}
    assert counts(table(header=",\n , \npath,label")) == {"cat": 4, "dog": 4}
    with pytest.raises(UserError, match=r"table.csv, line 5: no path"):
        csv_source(table(["im/0.png,a", ",b"], header="\n\npath,label"))
