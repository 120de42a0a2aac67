from pathlib import Path

import pytest
import torch

from vit_attn.data import ImageData
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import Split
from vit_attn.data.images import decoding
from vit_attn.data.images import image_file as pictures
from vit_attn.data.images.decoding import decode
from vit_attn.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat


def split_of(root: Path) -> Split:
    paths = sorted(root.rglob("*.*"))
    return Split(None, torch.arange(len(paths)), pictures=ImageFileList(paths))


def spoiled(root: Path, *numbers: int) -> list[Path]:
    chosen = [sorted(root.rglob("*.*"))[number] for number in numbers]
    for path in chosen:
        path.write_bytes(path.read_bytes()[:70])
    return chosen


def test_decoding_in_threads_keeps_the_order(picture_folder, monkeypatch: pytest.MonkeyPatch):
    split = split_of(picture_folder())
    whole = decode(split, "training", (9, 9), 3, False)
    monkeypatch.setattr(decoding, "CHUNK", 3)
    monkeypatch.setattr(decoding, "available_cores", lambda: 4)
    again = decode(split, "training", (9, 9), 3, False)
    assert torch.equal(whole.decoded(), again.decoded())
    assert whole.labels.tolist() == list(range(30))


def test_large_sets_tell_how_far_they_are(picture_folder, monkeypatch, caplog):
    monkeypatch.setattr(decoding, "CHUNK", 5)
    monkeypatch.setattr(decoding, "PROGRESS_STEP", 12)
    with caplog.at_level("INFO"):
        decode(split_of(picture_folder()), "training", (4, 4), 1, False)
    assert caplog.messages == ["decoded 15 of 30 training images", "decoded 30 of 30 training images"]


def test_all_damage_is_found_before_the_run_ends(picture_folder):
    root = picture_folder()
    first, *_ = spoiled(root, 4, 8, 20)
    with pytest.raises(UserError) as caught:
        decode(split_of(root), "training", (4, 4), 3, False)
    told = str(caught.value)
    assert told.startswith(f"{first} cannot be read as an image: ")
    assert told.endswith(
        "; 2 more of the 30 training images cannot; repair or remove it, or skip with --data.skip_corrupt=true"
    )


def test_damage_can_be_left_out_and_is_counted(picture_folder, caplog):
    root = picture_folder()
    spoiled(root, 4, 8)
    with caplog.at_level("INFO"):
        kept = decode(split_of(root), "training", (4, 4), 3, True)
    assert kept.labels.tolist() == [number for number in range(30) if number not in (4, 8)]
    assert len(kept.decoded()) == 28
    assert "skip_corrupt: left out 2 training images: " in caplog.text


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_a_class_that_is_corrupt_altogether_is_an_error(picture_folder, loader: str):
    root = picture_folder()
    spoiled(root, *range(10, 20))
    data = ImageData("folder", str(root), img_size=8, batch_size=4, skip_corrupt=True, loader=loader)
    with pytest.raises(UserError, match=r"none of the training images of class 'dark' can be read"):
        data.setup("fit")


def test_damage_that_workers_would_meet_is_left_out_before_and_told_once(picture_folder, caplog):
    data = ImageData("folder", str(picture_folder()), img_size=8, batch_size=4, skip_corrupt=True, loader="workers")
    data.prepare_data()
    for path in data.splits["train"].pictures.paths[::8]:
        Path(path).write_text("no image")
    with caplog.at_level("INFO"):
        assert len(data.statistics.mean) == 3  # measured before the images were checked for the training
        data.setup("fit")
        assert len(data.train_dataloader().batches.loader.dataset.labels) == 24 - 3
    assert [line[:41] for line in caplog.messages if "skip_corrupt" in line] == [
        "skip_corrupt: left out 3 training images:"
    ]


def test_a_picture_that_claims_to_be_huge_is_named(picture_folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 300)
    data = ImageData("folder", str(picture_folder()), img_size=8, batch_size=4)
    with pytest.raises(UserError, match=r"pixels are more than 300; .* more of the 24 training images cannot"):
        data.setup("fit")


def test_an_empty_file_is_called_empty(picture_folder):
    root = picture_folder()
    (root / "dark" / "00.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"00.png cannot be read as an image: the file is empty"):
        decode(split_of(root), "training", (4, 4), 3, False)
