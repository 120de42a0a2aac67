import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_attn.data.images import image_file as pictures
from vit_attn.data.images.image_file import as_picture, fit_picture, read_picture
from vit_attn.errors import UserError


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def test_16_bits_become_8_without_being_cut_off(tmp_path: Path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    read = read_picture(saved(tmp_path / "deep.png", Image.fromarray(values)), 1)
    assert np.asarray(read).tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str):
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image = image.quantize(4) if mode in ("P", "PA") else image.convert(mode)
    read = np.asarray(read_picture(saved(tmp_path / "clear.png", image)))
    assert read[0, 1].tolist() == [255, 255, 255]
    assert read[0, 0].tolist() == ([76, 76, 76] if mode == "LA" else [255, 0, 0])


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_becomes_colour_or_grey(tmp_path: Path, mode: str, channels: int):
    grey = 255 if mode == "1" else 204  # which each mode holds
    path = saved(tmp_path / "a.tif", Image.new("RGB", (5, 4), (grey,) * 3).convert(mode))
    pixels = fit_picture(read_picture(path, channels), (4, 5))
    assert pixels.shape == (4, 5, channels)
    assert pixels.dtype == np.uint8
    assert abs(pixels.astype(int) - grey).max() <= 1


def test_pictures_are_turned_upright(tmp_path: Path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[274] = 6  # a quarter turn
    assert read_picture(saved(tmp_path / "turned.jpg", image, exif=exif)).size == (2, 4)


def test_an_animation_is_its_first_picture(tmp_path: Path):
    first, second = Image.new("RGB", (3, 3), "red"), Image.new("RGB", (3, 3), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert np.asarray(read_picture(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_the_centre_of_any_shape_is_kept():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    assert (fit_picture(image, (30, 30)) == [0, 0, 255]).all()
    assert fit_picture(image, (7, 11), 0.875).shape == (7, 11, 3)
    assert fit_picture(Image.new("RGB", (1, 1)), (8, 8)).shape == (8, 8, 3)


def bomb(path: Path, side: int) -> Path:
    """A file of a few bytes that claims to be a large image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def test_what_is_no_whole_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image at all")
    whole = saved(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    )
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:900])
    bomb(tmp_path / "bomb.png", 60_000)
    for name in ("empty.png", "text.png", "cut.png", "bomb.png", "missing.png"):
        with pytest.raises(UserError, match=f"{name} cannot be read as an image: "):
            read_picture(tmp_path / name)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="40x40 pixels are more than 1,000"):
        read_picture(whole)


def test_what_claims_to_be_huge_is_told_once(tmp_path: Path):
    path = bomb(tmp_path / "bomb.png", 10_000)
    code = "import sys; from vit_attn.data.images import image_file; image_file.read_picture(sys.argv[1])"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "10000x10000 pixels are more than 89,478,485" in ended.stderr
    assert "Warning" not in ended.stderr


def test_a_large_photograph_is_decoded_no_larger_than_needed(tmp_path: Path):
    noise = Image.effect_noise((40, 30), 120).convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
    path = saved(tmp_path / "large.jpg", noise, quality=95)
    whole, small = read_picture(path), as_picture(lambda: Image.open(path), 3, "large", min_side=128)
    assert (whole.size, small.size) == ((1600, 1200), (200, 150))
    assert as_picture(lambda: Image.open(path), min_side=601).size == (1600, 1200)
    difference = fit_picture(whole, (64, 64)).astype(int) - fit_picture(small, (64, 64))
    assert np.abs(difference).max() <= 4


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ghostscript that leaves a file where it is run: the file."""
    program, ran = tmp_path / "bin" / "gs", tmp_path / "ghostscript_ran"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return ran


def test_postscript_under_any_name_is_no_image_and_ghostscript_is_not_run(tmp_path: Path, ghostscript: Path):
    for name in ("photo.jpg", "photo.eps"):
        (tmp_path / name).write_bytes(POSTSCRIPT)
        with pytest.raises(UserError, match=f"{name} cannot be read as an image: its kind is unknown; known are JPEG,"):
            read_picture(tmp_path / name)
    with pytest.raises(UserError, match="its kind is EPS; known are JPEG"):  # what another reader has opened
        as_picture(lambda: Image.open(tmp_path / "photo.jpg"))
    with pytest.raises(OSError, match="Ghostscript"), Image.open(tmp_path / "photo.jpg") as opened:
        opened.load()
    assert not ghostscript.exists()


@pytest.mark.parametrize("form", ["ICO", "TGA", "PCX", "SGI", "XBM"])
def test_formats_that_are_not_named_are_refused(tmp_path: Path, form: str):
    Image.new("1" if form == "XBM" else "RGB", (4, 4)).save(tmp_path / "a.png", form)
    with pytest.raises(UserError, match="cannot be read as an image: its kind is unknown"):
        read_picture(tmp_path / "a.png")


def test_every_format_that_is_named_is_read(tmp_path: Path):
    for form in pictures.FORMATS:
        Image.new("RGB", (16, 12), "red").save(tmp_path / "file", form)
        assert read_picture(tmp_path / "file").size == (16, 12), form
    one, two = Image.new("RGB", (16, 12)), Image.new("RGB", (16, 12))
    one.save(tmp_path / "two.jpg", "MPO", save_all=True, append_images=[two])
    assert read_picture(tmp_path / "two.jpg").size == (16, 12)


def test_every_ending_that_is_taken_is_of_a_format_that_is_named():
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in pictures.SUFFIXES} - {"MPO"} <= set(pictures.FORMATS)
    assert {".avif", ".jfif", ".jp2", ".pbm", ".mpo"} <= pictures.SUFFIXES


def test_nothing_in_the_package_opens_pictures_of_any_kind():
    package = Path(pictures.__file__).parents[2]
    opening = [
        (path.name, line.strip())
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "Image.open(" in line
    ]
    assert [name for name, _ in opening] == ["image_file.py"]
    assert "formats=" in opening[0][1]
