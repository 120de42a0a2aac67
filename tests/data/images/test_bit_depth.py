from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.checkpoints.model_card import DATA_KEY, card_from_state
from vit_attn.cli import main
from vit_attn.data import ImageData
from vit_attn.data.images.bit_depth import check_colour
from vit_attn.data.images.image_file import read_picture
from vit_attn.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat


def saved(path: Path, values: Sequence, kind: type = np.uint16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=kind)).save(path)
    return path


def shades(path: Path, bits: int | None = None) -> list[int]:
    return np.asarray(read_picture(path, 1, bits)).ravel().tolist()


@pytest.fixture
def twelve_bits(tmp_path: Path) -> Path:
    """Two classes of 12-bit pictures in files of 16 bits; each but one uses little of them."""
    for name, level in {"dark": 300, "bright": 900}.items():
        for number in range(10):
            saved(tmp_path / "scans" / name / f"{number}.png", np.full((8, 8), level))
    saved(tmp_path / "scans/bright/0.png", np.full((8, 8), 4095))
    return tmp_path / "scans"


def test_a_picture_of_twelve_bits_keeps_its_shades(tmp_path: Path):
    ramp = saved(tmp_path / "ramp.png", (np.arange(64 * 64) % 4096).reshape(64, 64))
    assert len(set(shades(ramp))) == 256


@pytest.mark.parametrize(
    ("values", "kind", "pixels"),
    [
        ([0, 100, 255], np.int32, [0, 100, 255]),
        ([0, 128, 255], np.uint16, [0, 128, 255]),
        ([0, 512, 1023], np.uint16, [0, 128, 255]),
        ([0, 257, 65535], np.int32, [0, 1, 255]),
        ([0, 0.5, 1], np.float32, [0, 128, 255]),
        ([0, 0.25, 0.5], np.float32, [0, 64, 128]),
    ],
)
def test_white_is_the_largest_value_of_the_bits_that_are_used(tmp_path: Path, values, kind, pixels):
    assert shades(saved(tmp_path / "a.tif", [values], kind)) == pixels


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([-1, 5], np.int32, r"a.tif cannot be read as an image: its values go from -1 to 5, not within 0 and 65,535"),
        ([0, 70000], np.int32, r"its values go from 0 to 70000, not within 0 and 65,535: save it in 8 or 16 bits"),
        ([0, 300.0], np.float32, r"its floating-point values are not all within 0 and 1: save it in 8 or 16 bits"),
        ([0, np.nan], np.float32, r"its floating-point values are not all within 0 and 1"),
        ([0, np.inf], np.float32, r"its floating-point values are not all within 0 and 1"),
        ([-0.5, 0.5], np.float32, r"its floating-point values are not all within 0 and 1"),
        ([0, 900 / 65535, 4095 / 65535], np.float32, r"those of 12 bits or fewer, divided by 65,535"),
    ],
)
def test_values_whose_white_cannot_be_known_are_refused(tmp_path: Path, values, kind, message):
    with pytest.raises(UserError, match=message):
        read_picture(saved(tmp_path / "a.tif", [values], kind))


def test_a_depth_that_the_format_tells_is_taken(tmp_path: Path):
    (tmp_path / "a.pgm").write_text("P2 2 1 4095\n0 1000\n")  # of which white is 4,095
    assert shades(tmp_path / "a.pgm") == [0, 62]
    assert shades(tmp_path / "a.pgm", 12) == [0, 62]


def test_colour_of_sixteen_bits_that_would_lose_its_shades_is_refused():
    dark, bright = (Image.new("RGB", (1, 1), (value, 0, 0)) for value in (15, 200))
    check_colour(bright, "RGB;16B")
    check_colour(dark, "RGB")
    with pytest.raises(ValueError, match=r"it has 16 bits a channel and uses 14 or fewer"):
        check_colour(dark, "RGB;16B")


def test_one_depth_is_found_for_a_data_set(twelve_bits: Path):
    data = ImageData("folder", str(twelve_bits), img_size=8, channels=1, batch_size=4)
    data.setup("fit")
    levels = {int(image.float().mean()) for image in data.splits["train"].decoded()}
    assert levels <= {round(300 / 4095 * 255), round(900 / 4095 * 255), 255}
    if data.cache.bits == 12:
        assert "white of pictures of 16 bits is 4,095: they use 12 bits" in data.remarks
        assert data.card.bits == 12


def test_a_picture_beyond_the_depth_is_refused(twelve_bits: Path):
    data = ImageData("folder", str(twelve_bits), img_size=8, bits=10, batch_size=4)
    data.cache.load(False)
    every = [(split.to_read(), index) for split in data.splits.values() for index in range(len(split))]
    pictures, index = next((each, i) for each, i in every if each.name(i).endswith("bright/0.png"))
    with pytest.raises(UserError, match=r"its values go up to 4095, above those of 10 bits, .*--data.bits says how"):
        pictures.read(index)


def test_a_deep_picture_among_others_needs_to_be_told_of(tmp_path: Path):
    for number in range(200):
        for name in ("cat", "dog"):
            saved(tmp_path / "all" / name / f"{number:03d}.png", np.full((2, 2), 7), np.uint8)
    data = ImageData("folder", str(tmp_path / "all"), img_size=8, channels=1)
    data.cache.load(False)
    pictures = data.splits["train"].to_read()
    saved(Path(pictures.name(1)), np.full((2, 2), 4000))
    with pytest.raises(UserError, match=r"it is of 16 bits and uses 12, unlike the sampled ones: set --data.bits"):
        pictures.read(1, 1)
    assert np.asarray(pictures.of_bits(12).read(1, 1)).max() == 249


def test_a_network_reads_pictures_by_the_depth_of_its_training(twelve_bits: Path, tmp_path: Path, capsys):
    run = [
        "--trainer.max_steps=1",
        "--trainer.accelerator=cpu",
        f"--runs={tmp_path / 'runs'}",
        "--attention.num_images=0",
    ]
    options = ["--data.dataset=folder", f"--data.root={twelve_bits}", "--data.img_size=8", "--data.channels=1"]
    small = ["--model.arch=vit_attn_coins_patch4_32", "--model.arch_options={depth: 1, embed_dim: 8, num_heads: 1}"]
    assert main(["fit", *options, *small, *run, "--data.batch_size=4", "--data.bits=12"]) == 0
    (path,) = tmp_path.rglob("last.ckpt")
    card = card_from_state(torch.load(path, weights_only=True))
    assert card is not None
    assert card.bits == 12
    asked = [f"--model={path}", f"--output={tmp_path / 'p.csv'}"]
    beyond = saved(tmp_path / "beyond.png", np.full((8, 8), 5000))
    assert main(["predict", str(beyond), *asked]) == 2
    assert "its values go up to 5000, above those of 12 bits" in (tmp_path / "p.csv").read_text()


def test_sixteen_bits_in_which_zero_is_white_are_refused(tmp_path: Path):
    picture = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    picture.save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(UserError, match=r"0 is white in it \(WhiteIsZero\), in 16 bits: save it with 0 as black"):
        read_picture(tmp_path / "a.tif", 1)


def test_pictures_are_read_by_the_depth_of_the_training_when_they_are_tested(twelve_bits: Path, tmp_path: Path, capsys):
    fitted = ["--trainer.max_steps=1", f"--runs={tmp_path / 'runs'}", "--attention.num_images=0", "--data.batch_size=4"]
    options = ["--data.dataset=folder", "--data.img_size=8", "--data.channels=1", "--trainer.accelerator=cpu"]
    small = ["--model.arch=vit_attn_coins_patch4_32", "--model.arch_options={depth: 1, embed_dim: 8, num_heads: 1}"]
    assert main(["fit", *options, *small, *fitted, f"--data.root={twelve_bits}"]) == 0
    (path,) = tmp_path.rglob("last.ckpt")
    for name, level in {"dark": 100, "bright": 250}.items():
        for number in range(10):
            saved(tmp_path / "others" / name / f"{number}.png", np.full((64, 64), level))
    others = [f"--model={path}", f"--data.root={tmp_path / 'others'}", "--trainer.enable_progress_bar=false"]
    assert main(["test", *others]) == 0
    assert "not test.json: these are not the images of the run" in capsys.readouterr().out


def test_a_network_that_knows_no_depth_says_how_pictures_were_read(tmp_path: Path, capsys):
    saved(tmp_path / "scans/a.png", (np.arange(32 * 32) % 4096).reshape(32, 32))
    saved(tmp_path / "scans/b.png", np.full((8, 8), 40000))
    asked = ["predict", str(tmp_path / "scans"), "--model=vit_attn_coins_patch4_32", f"--output={tmp_path / 'p.csv'}"]
    assert main(asked) == 0
    line = "pictures of 16 bits: each is scaled by the bits that it uses, as the training images had none: "
    assert line + "1 use 10, 1 use 16\n" in capsys.readouterr().out


def test_networks_of_before_are_read_as_they_were_trained():
    state = {"dataset": "x", "class_names": ["a"], "img_size": [8, 8], "mean": [0.5], "std": [0.5], "crop": 1.0}
    found = card_from_state({DATA_KEY: state})
    assert found is not None
    assert found.bits == 16
    with pytest.raises(UserError, match=r"ImageData.bits must be one of 8, 10, 12, 14, 16, or none, got 11"):
        card_from_state({DATA_KEY: state | {"bits": 11}})


def test_another_depth_reads_pictures_anew(twelve_bits: Path):
    data = ImageData("folder", str(twelve_bits), img_size=8, channels=1, bits=12, batch_size=4)
    data.setup("fit")
    before = data.splits["train"].decoded().float().mean()
    data.cache.read_by(16)
    data.setup("fit")
    after = data.splits["train"].decoded().float().mean()
    assert after * 14 < before
