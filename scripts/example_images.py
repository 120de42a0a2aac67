#!/usr/bin/env python
"""Make a folder of images to try fine-tuning on: five generated shapes on noisy backgrounds, in many sizes and formats.

Nothing is downloaded. FOLDER/labelled has one sub-folder per class. FOLDER/new has images without a class folder, whose
file names start with their class, and one corrupt file.

    .venv/bin/python scripts/example_images.py shapes
"""

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = {  # corners as (turn, distance from the centre), in whole turns and radii
    "circle": [(i / 60, 1.0) for i in range(60)],
    "cross": [(i / 12 + 1 / 24, 0.4 if i % 3 == 0 else 1.0) for i in range(12)],
    "square": [(i / 4, 1.0) for i in range(4)],
    "star": [(i / 10, 1.0 if i % 2 else 0.4) for i in range(10)],
    "triangle": [(i / 3, 1.0) for i in range(3)],
}
KINDS = [("jpg", "RGB"), ("jpg", "RGB"), ("png", "P"), ("png", "L"), ("png", "RGBA"), ("webp", "RGB")]
LARGER = 4  # drawn so many times larger, for smooth edges


def ground(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Background: a gradient between two colours, with lines and noise."""
    across = np.linspace(0, 1, width)[None, :, None] * rng.uniform(0.3, 1) + np.linspace(0, 1, height)[:, None, None]
    one, other = rng.integers(20, 180, (2, 3))
    noise = rng.normal(0, 10, (height, width, 3))
    image = Image.fromarray(np.clip(one + (other - one) * across / 2 + noise, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.12) * min(height, width)
        pen.line([x, y, x + rng.normal(0, 4 * size), y + rng.normal(0, 4 * size)], colour(rng, 20, 180), int(1 + size))
    return image


def colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue


def picture(rng: np.random.Generator, shape: str) -> Image.Image:
    """Draw the shape in a random colour, size and rotation, within the square centre crop of the image."""
    height, width = rng.integers(56, 113, 2).tolist()
    image, side, turn = ground(rng, height, width), min(height, width), rng.uniform()
    radius = rng.uniform(0.2, 0.34) * side
    x, y = (each / 2 + rng.uniform(radius - side / 2, side / 2 - radius) for each in (width, height))
    corners = [
        (
            LARGER * (x + radius * far * math.cos(math.tau * (angle + turn))),
            LARGER * (y + radius * far * math.sin(math.tau * (angle + turn))),
        )
        for angle, far in SHAPES[shape]
    ]
    mask = Image.new("L", (LARGER * width, LARGER * height))
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    image.paste(colour(rng, 120, 256), (0, 0, width, height), mask.resize((width, height)))
    return image


def save(image: Image.Image, rng: np.random.Generator, path: Path) -> None:
    """Save the image in a random file format and colour mode."""
    ending, mode = KINDS[rng.integers(len(KINDS))]
    image.convert(mode).save(path.with_suffix(f".{ending}"))


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to create; it must not exist")
    parser.add_argument("--images", type=int, default=300, help="labelled images per class")
    parser.add_argument("--new", type=int, default=4, help="unlabelled images per class")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    if options.folder.exists():
        parser.error(f"{options.folder} exists: name a folder that does not")

    (options.folder / "new").mkdir(parents=True)
    for index, shape in enumerate(SHAPES):
        (options.folder / "labelled" / shape).mkdir(parents=True)
        rng = np.random.default_rng([options.seed, index])
        for number in range(options.images):
            save(picture(rng, shape), rng, options.folder / "labelled" / shape / f"{number:03}")
        rng = np.random.default_rng([options.seed, index, 1])
        for number in range(options.new):
            save(picture(rng, shape), rng, options.folder / "new" / f"{shape}_{number}")
    (options.folder / "new/corrupt.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    print(f"{len(SHAPES)} classes of {options.images} images in {options.folder}/labelled")
    print(f"{len(SHAPES) * options.new} images and a corrupt file in {options.folder}/new")


if __name__ == "__main__":
    main()
