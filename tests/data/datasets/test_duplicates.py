import shutil
from pathlib import Path

import pytest

from vit_attn.data import ImageData
from vit_attn.data.datasets.duplicates import duplicates


def paths(folder: Path) -> list[str]:
    return sorted(map(str, folder.rglob("*.*")))


def test_files_of_one_content_are_found_whatever_their_names(picture_folder, tmp_path: Path):
    root = picture_folder()
    first, second = paths(root)[:2]
    copy, gone = tmp_path / "copy.jpg", tmp_path / "gone.png"
    shutil.copy(second, copy)
    assert duplicates([first, second, str(gone)], [str(copy), first, str(gone)]) == [
        (str(copy), second),
        (first, first),
    ]
    same_size = tmp_path / "other.png"
    same_size.write_bytes(bytes(len(Path(first).read_bytes())))
    assert not duplicates([first, second], [str(same_size), str(gone)])


def test_a_validation_image_that_is_trained_on_too_is_a_warning(picture_folder):
    root = picture_folder({"bright": 6, "dark": 6}, where="set/train")
    picture_folder({"bright": 3, "dark": 3}, where="set/val", seed=1)
    options = {"img_size": 8, "batch_size": 2, "normalize": "imagenet"}
    ImageData("folder", str(root.parent), **options).setup("fit")  # without a warning, which would be an error
    shutil.copy(root / "dark" / "04.jpg", root.parent / "val" / "bright" / "copy.jpg")
    said = "1 of 7 validation images are training images too, such as .*bright/copy.jpg, the same as "
    with pytest.warns(UserWarning, match=said):
        ImageData("folder", str(root.parent), **options).setup("fit")
