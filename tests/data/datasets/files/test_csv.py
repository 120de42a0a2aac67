from pathlib import Path

import pytest

from vit_attn.data import ImageData
from vit_attn.data.datasets.files.csv import csv_source
from vit_attn.data.datasets.registry import find_dataset
from vit_attn.errors import UserError


@pytest.fixture
def table(picture_folder):
    """Writes a table beside a folder of pictures, from lines or from their folders."""
    root = picture_folder()

    def write(*lines: str, header: str = "path,label") -> Path:
        rows = lines or [f"{path.relative_to(root.parent)},{path.parent.name}" for path in sorted(root.rglob("*.*"))]
        file = root.parent / "table.csv"
        file.write_text("\n".join([header, *rows]) + "\n")
        return file

    return write


def test_a_table_names_pictures_beside_it_and_their_classes(table):
    file = table()
    source = csv_source(file)
    splits = source.load(file, False)
    assert source.class_names == ("bright", "dark", "middle")
    assert {name: split.labels.bincount().tolist() for name, split in splits.items()} == {
        "train": [8] * 3,
        "val": [1] * 3,
        "test": [1] * 3,
    }
    named = [Path(path).parent.name for path in splits["train"].pictures.paths]
    assert named == [source.class_names[label] for label in splits["train"].labels]


def test_a_column_may_tell_the_split(table):
    rows = [
        f"pictures/{name}/{number:02d}.{'jpg' if number % 3 == 1 else 'png'},{name},{split}"
        for name in ("dark", "bright")
        for number, split in enumerate(("train", "train", "Dev", "test"))
    ]
    file = table(*rows, header="path, label, split")
    splits = csv_source(file).load(file, False)
    assert {name: split.labels.bincount().tolist() for name, split in splits.items()} == {
        "train": [2, 2],
        "val": [1, 1],
        "test": [1, 1],
    }


def test_numbers_are_classes_in_their_order(table):
    rows = [f"pictures/dark/{number}.png,{label}" for number, label in enumerate((10, 9, 2, 10, 9, 2))]
    assert csv_source(table(*rows)).class_names == ("2", "9", "10")


@pytest.mark.parametrize("label", ["--1", "-", "²", "9" * 5000], ids=["signs", "sign", "power", "digits"])
def test_what_is_no_whole_number_is_a_name(table, label: str):
    rows = [f"pictures/dark/{number}.png,{each}" for number, each in enumerate((label, "10", "9"))]
    assert csv_source(table(*rows)).class_names == ("9", "10", label)


def test_a_table_of_a_spreadsheet_begins_with_a_mark(table):
    file = table()
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert csv_source(file).class_names == ("bright", "dark", "middle")


def test_a_network_learns_from_what_a_table_names(table):
    data = ImageData("csv", str(table()), img_size=8, batch_size=4)
    data.setup("fit")
    assert data.splits["train"].decoded().shape == (24, 3, 8, 8)
    assert data.probe(2).images.shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        ([], "way,label", r"table.csv has no column 'path'; it has way, label; say which it is: --data.columns=path="),
        ([], "path,labal", r"table.csv has no column 'label'; it has path, labal, did you mean 'labal'\?"),
        ([], "file,image,label", r"table.csv: file and image may both be the path: say which, as --data.columns=path="),
        (["a.png,x"], "path,label,label", r"table.csv has two columns 'label'"),
        (["a.png,dark", ",dark"], "path,label", r"table.csv, line 3: no path"),
        (["a.png", "b.png,NaN"], "path,label", r"table.csv names no images with a label"),
        (["a.png,dark,trian"], "path,label,split", r"line 2: unknown split 'trian', did you mean 'train' or"),
        (["a.png,a,train", "b.png,b,"], "path,label,split", r"line 3: no split, but other lines have one"),
        (["a.png,a,val", "b.png,b,val"], "path,label,split", r"no line has the split train"),
        (["a.png,a,train", "b.png,b,train", "c.png,c,val"], "path,label,split", r"split val has the class 'c', which"),
        (["a.png,a", "b.png,a"], "path,label", r"has one class only, 'a': a classifier needs at least two"),
        (
            ["a.png,a", "b.png,b"],
            "path,label",
            r"table.csv: 2 of the 2 files are not there: .*a.png \(line 2\), .*b.png",
        ),
        (["a.png,a", "b.png,b", "a.png,b"], "path,label", r"lines 2 and 4: the same .*a.png, as 'a' and as 'b'; keep"),
        (
            ["a.png,a,train", "./c/../a.png,a,val"],
            "path,label,split",
            r"lines 2 and 3: the same picture twice, .*a.png",
        ),
        (["a.png,a", "b.png,b", "b.png,b"], "path,label", r"table.csv, lines 3 and 4: the same picture twice, .*b.png"),
        ([""], "path,label", r"table.csv names no images"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_a_line(table, lines, header, message):
    file = table(*lines, header=header)
    with pytest.raises(UserError, match=message) as caught:
        csv_source(file).load(file, False)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_none_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"no such CSV file: .*none.csv; name it with --data.root"):
        csv_source(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(
        UserError, match=r"bytes.csv cannot be read as a CSV file: line 2 is not UTF-8; save it as UTF-8"
    ):
        csv_source(tmp_path / "bytes.csv")
    with pytest.raises(UserError, match=r"csv needs to know where: --data.root names the CSV file"):
        find_dataset("csv")
