from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.images.image_file import SUFFIXES
from vit_attn.inference.images import ImageReader, find_images, read_ahead, to_batch
from vit_attn.inference.network import open_network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images, two of them in a folder within, and a corrupt file between."""
    folder = tmp_path / "pictures"
    (folder / "b").mkdir(parents=True)
    for i, name in enumerate(("a0", "a1", "b/0", "b/1", "c0", "c1", "c2")):
        Image.fromarray(np.full((32, 32, 3), 30 * i, dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "b" / "damaged.jpg").write_bytes(b"no image at all")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def test_no_more_than_three_batches_are_read_ahead(folder: Path):
    begun = []

    class Counting(ImageReader):
        def read(self, path):
            begun.append(path)
            return super().read(path)

    files = find_images([str(folder)]) * 5
    batches = read_ahead(files, Counting(open_network("vit_attn_coins_patch4_32")), 2)
    first = next(batches)
    assert [path for path, _ in first] == files[:2]
    assert len(begun) <= 6
    rest = [path for batch in batches for path, _ in batch]
    assert rest == files[2:]


def test_links_in_a_circle_end(folder: Path):
    (folder / "b" / "again").symlink_to(folder)
    assert len(find_images([str(folder)])) == 8
    (folder / "d").mkdir()
    (folder / "d" / "other").symlink_to(folder / "b")
    (folder / "b" / "other").symlink_to(folder / "d")
    assert len(find_images([str(folder)])) == 8 + 3


def test_what_is_no_picture_in_a_folder_is_left_out_and_counted(folder: Path, capsys):
    (folder / ".hidden.png").write_bytes(b"what another system left")
    (folder / "b" / "@eaDir").mkdir()
    for name in ("b/@eaDir/small.jpg", "b/notes.pdf"):
        (folder / name).touch()
    assert len(find_images([str(folder)])) == 8
    told = capsys.readouterr().out
    assert told.startswith("left out 4 files: ")
    assert {"1 .pdf", "1 hidden", "1 in @eaDir"} <= set(told.strip().partition(": ")[2].split(", "))


def test_a_folder_is_read_as_fit_reads_it(folder: Path, tmp_path: Path, capsys):
    mixed = tmp_path / "mixed"
    for name in ("cat", "dog"):
        (mixed / name).mkdir(parents=True)
        for ending in sorted(SUFFIXES):
            (mixed / name / f"a{ending.upper()}").touch()
        (mixed / name / "notes.txt").touch()
    trained = folder_source(mixed).load(mixed, False)
    files = {path for split in trained.values() for path in split.pictures.paths.tolist()}
    assert files == {str(path) for path in find_images([str(mixed)])}
    assert len(files) == 2 * len(SUFFIXES)
    assert capsys.readouterr().out == "left out 2 files: 2 .txt\n"


def test_pixels_are_normalised_as_the_network_was_trained(tmp_path: Path):
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(tmp_path / "a.png")
    network = open_network("vit_attn_coins_patch4_32")
    pixels = to_batch([ImageReader(network).read(tmp_path / "a.png")], network, torch.device("cpu"))
    assert pixels.shape == (1, 3, 32, 32)
    torch.testing.assert_close(pixels, torch.full_like(pixels, (200 / 255 - 0.25) / 0.18))
