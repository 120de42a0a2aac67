"""Memory and workers give training images of one distribution, whatever the sizes of the pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.data import ImageData
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.crops import draw_crops, random_resized_crops
from vit_attn.data.transforms.rng import BatchRNG

EPOCHS, SIZE = 12, 24
SHAPES = [(40, 96), (90, 40), (64, 64), (24, 24), (30, 50)]
NONE = {"random_resized_crop": 0.0, "flip": 0.0}
SETTINGS = {
    "random_resized_crop": {"random_resized_crop": 0.35, "flip": 0.0},
    "small parts": {"random_resized_crop": 0.08, "flip": 0.5},
    "flip": {"random_resized_crop": 0.0, "flip": 0.5},
    "crop_padding": NONE | {"crop_padding": 4},
    "rand_augment": NONE | {"rand_augment": 9},
    "trivial_augment": NONE | {"trivial_augment": 0.7},
    "colour_jitter": NONE | {"colour_jitter": 0.4},
    "erase and cutout": NONE | {"erase": 0.5, "cutout": 6},
    "mixing": NONE | {"mixup": 0.8, "cutmix": 1.0},
    "all": {"random_resized_crop": 0.35, "flip": 0.5, "rand_augment": 5, "colour_jitter": 0.2, "erase": 0.2},
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noise of unlike sizes and shapes, whose pixels outside the centre square are red."""
    rng = np.random.default_rng(0)
    for number in range(30):
        height, width = SHAPES[number % len(SHAPES)]
        pixels = rng.integers(0, 200, (height, width, 3))
        side, (rows, cols) = min(height, width), np.indices((height, width))
        outside = (abs(rows - (height - 1) / 2) > side / 2) | (abs(cols - (width - 1) / 2) > side / 2)
        pixels[outside] = (255, 0, 0)
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return tmp_path / "photos"


def images_of(root: Path, trainer_at, loader: str, augment: dict, epochs: int = EPOCHS) -> torch.Tensor:
    """The images of some epochs as the network takes them."""
    data = ImageData(
        "folder", str(root), img_size=SIZE, batch_size=8, num_workers=0, normalize="imagenet", loader=loader,
        augment=Augment(**augment),
    )  # fmt: skip
    data.trainer = trainer_at(1, 0)
    data.setup("fit")
    batches = []
    for epoch in range(epochs):
        order = data.train_dataloader()
        order.sampler.set_epoch(epoch)
        batches += [images for images, _ in order]
    return torch.cat(batches)


def measures(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is measured of each image: by these, two ways to make images are compared."""
    red = (images[:, 0] > 1.5) & (images[:, 1] < -1.5)
    return {
        "outside the centre": red.float().mean(dim=(1, 2)),
        "detail": images.diff(dim=-1).abs().mean(dim=(1, 2, 3)) + images.diff(dim=-2).abs().mean(dim=(1, 2, 3)),
        "mean": images.mean(dim=(1, 2, 3)),
        "variance": images.var(dim=(1, 2, 3)),
        "at the left": images[..., :6].mean(dim=(1, 2, 3)),
        "at the border": images[..., :2, :].abs().mean(dim=(1, 2, 3)),
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_memory_and_workers_give_the_same_distribution(photos: Path, trainer_at, name: str):
    ours, theirs = (measures(images_of(photos, trainer_at, each, SETTINGS[name])) for each in ("memory", "workers"))
    for what, values in ours.items():
        other = theirs[what]
        error = float((values.var() / len(values) + other.var() / len(other)).sqrt())
        assert float((values.mean() - other.mean()).abs()) < 3.5 * error + 0.01, what
        for part in (0.1, 0.5, 0.9):
            spread = float((values.quantile(min(1, part + 0.09)) - values.quantile(part - 0.09)).abs())
            assert float((values.quantile(part) - other.quantile(part)).abs()) <= spread + 0.02, (what, part)


def test_parts_of_photographs_come_from_outside_their_centre_too(photos: Path, trainer_at):
    found = measures(images_of(photos, trainer_at, "auto", SETTINGS["random_resized_crop"]))["outside the centre"]
    plain = measures(images_of(photos, trainer_at, "auto", NONE))["outside the centre"]
    assert float(found.mean()) > 0.1
    assert float(plain.mean()) < 0.02


def test_a_part_is_where_it_was_drawn_and_has_the_size_of_the_network():
    pictures = [torch.zeros(3, *shape, dtype=torch.uint8) for shape in SHAPES]
    boxes = draw_crops(np.array(SHAPES), 0.2, BatchRNG((0, 1), 5)).astype(int).tolist()
    for picture, (top, left, height, width) in zip(pictures, boxes, strict=True):
        picture[:, top : top + height, left : left + width] = 200
    parts = random_resized_crops(pictures, 0.2, BatchRNG((0, 1), 5), (SIZE, SIZE))
    assert parts.shape == (5, 3, SIZE, SIZE)
    assert bool((parts == 200).all())


def test_what_whole_pictures_take_is_counted_before_they_are_decoded(photos: Path, trainer_at, caplog):
    def in_memory(budget: float, crop: float) -> bool:
        data = ImageData("folder", str(photos), img_size=SIZE, batch_size=4, memory_budget_gb=budget, num_workers=0,
                         normalize="imagenet", augment=Augment(random_resized_crop=crop))  # fmt: skip
        data.trainer = trainer_at(1, 0)
        data.setup("fit")
        return data.cache.in_memory

    fitted, whole = 30 * 3 * SIZE**2 / 1e9, 24 * 3 * sum(h * w for h, w in SHAPES) / 5 / 1e9
    assert in_memory(1.1 * fitted, 0.0)
    with caplog.at_level("INFO"):
        assert not in_memory(1.1 * fitted, 0.35)
    assert "loader: workers, since the 30 decoded images are" in caplog.text
    assert "full-size for augment.random_resized_crop, and memory_budget_gb" in caplog.text
    assert in_memory(1.3 * (whole + fitted), 0.35)


def test_memory_that_was_asked_for_says_what_whole_pictures_take(photos: Path, trainer_at, caplog):
    data = ImageData("folder", str(photos), img_size=SIZE, batch_size=4, memory_budget_gb=1e-5, loader="memory",
                     normalize="imagenet")  # fmt: skip
    data.trainer = trainer_at(1, 0)
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert data.cache.in_memory
    assert "loader: memory takes about 0.0 GB, since augment.random_resized_crop needs full-size images" in caplog.text


def test_measuring_keeps_no_whole_pictures(photos: Path):
    data = ImageData("folder", str(photos), img_size=SIZE, loader="memory", normalize="imagenet")
    data.setup("test")
    assert data.splits["test"].full_size is None
    assert data.splits["test"].decoded().shape[-2:] == (SIZE, SIZE)
