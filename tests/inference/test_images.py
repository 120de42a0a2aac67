from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.images.image_file import SUFFIXES, fit_picture, read_picture
from vit_attn.errors import UserError
from vit_attn.inference.images import ImageReader, by_shape, find_images, read_ahead, seen_picture, to_batch
from vit_attn.inference.network import TrainedNetwork, network_for_fit, open_network


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


@pytest.fixture(scope="module")
def fixed() -> TrainedNetwork:
    return open_network("vit_attn_coins_patch4_32")


@pytest.fixture(scope="module")
def free(fixed: TrainedNetwork) -> TrainedNetwork:
    """Network of the same name that takes any size."""
    return network_for_fit(fixed, "whole")


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))


def test_by_default_a_network_of_one_size_sees_the_middle_and_one_of_any_size_all(fixed, free):
    assert np.array_equal(seen_picture(PICTURE, fixed).pixels, fit_picture(PICTURE, (32, 32)))
    assert np.array_equal(seen_picture(PICTURE, free, "crop").pixels, fit_picture(PICTURE, (32, 32)))
    assert seen_picture(PICTURE, free).pixels.shape == (20, 44, 3)
    assert seen_picture(PICTURE, free).note == "90x40, seen whole in 5 rows of 11 patches, stretched by 2%"
    with pytest.raises(UserError, match="takes images of one size only"):
        seen_picture(PICTURE, fixed, "whole")
    with pytest.raises(UserError, match="got 'croop', did you mean 'crop'"):
        seen_picture(PICTURE, fixed, "croop")


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_only_padding_becomes_zeros_and_exactly(fixed: TrainedNetwork, fit: str):
    pictures = [seen_picture(each, fixed, fit) for each in (PICTURE, PICTURE.rotate(90, expand=True), PICTURE)]
    batch = to_batch(pictures, fixed, torch.device("cpu"))
    plain = fixed.normalize([each.pixels for each in pictures], torch.device("cpu"))
    for image, same, seen in zip(batch, plain, pictures, strict=True):
        left, top, right, bottom = seen.content
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(image[:, inside], same[:, inside])
        assert (image[:, ~inside] == 0).all()
        assert bool(inside.all()) is (fit == "crop")
        assert same[:, ~inside].abs().max() < 0.02 if fit == "letterbox" else True  # the mean colour, rounded


def test_pictures_are_grouped_by_shape_in_order(free: TrainedNetwork):
    shapes = [(40, 90), (90, 40), (40, 90), (8, 8), (90, 40)]
    pictures = [seen_picture(PICTURE.resize(size), free) for size in shapes]
    assert by_shape(pictures) == [[0, 2], [1, 4], [3]]
    assert by_shape([]) == []


@pytest.mark.parametrize("fit", ["crop", "letterbox", "whole"])
def test_a_photo_on_its_side_is_seen_upright(tmp_path: Path, free: TrainedNetwork, fit: str):
    exif = PICTURE.getexif()
    exif[274] = 6  # a quarter turn
    PICTURE.save(tmp_path / "turned.png", exif=exif)
    read_picture(tmp_path / "turned.png").save(tmp_path / "upright.png")
    turned, upright = (ImageReader(free, fit).read(tmp_path / f"{name}.png") for name in ("turned", "upright"))
    assert turned.size == (90, 40)
    assert turned.box == upright.box
    assert turned.note == upright.note
    assert np.array_equal(turned.pixels, upright.pixels)


def test_the_reader_reports_how_many_images_are_cut_padded_or_whole(tmp_path: Path, fixed, free, capsys):
    files = [tmp_path / f"{name}.png" for name in ("wide", "square", "tall", "gone")]
    for path, size in zip(files, ((90, 40), (40, 40), (10, 40)), strict=False):
        PICTURE.resize(size).save(path)
    for network, fit, said in (
        (fixed, "auto", "cut off: the edges of 2 of 3 images, at most 75% of one; --fit=letterbox shows them whole"),
        (fixed, "letterbox", "padded to the network's shape: 2 of 3 images"),
        (free, "auto", "seen whole: 3 images, in 3 shapes"),
    ):
        reader = ImageReader(network, fit)
        assert [isinstance(each, str) for batch in read_ahead(files, reader, 3) for _, each in batch] == [0, 0, 0, 1]
        reader.report_fit()
        assert capsys.readouterr().out == f"{said}\n"
    reader = ImageReader(fixed)
    reader.read(files[1])
    reader.report_fit()
    assert not capsys.readouterr().out
