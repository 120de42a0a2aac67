from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GREYS = {"bright": 220, "dark": 30, "middle": 120}
Maker = Callable[..., Path]


@pytest.fixture
def picture_folder(tmp_path: Path) -> Maker:
    """Makes a folder of pictures in unlike sizes, modes and formats; those of a class have about its grey."""

    def make(counts: dict[str, int] | None = None, where: str = "pictures", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for name, count in (counts or dict.fromkeys(GREYS, 10)).items():
            folder = tmp_path / where / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(17, 50, 2)
                noise = rng.integers(-20, 20, (height, width, 3)) + GREYS.get(name, 120)
                image = Image.fromarray(noise.astype(np.uint8))
                image = image.convert(("RGB", "L", "P")[number % 3])
                image.save(folder / f"{number:02d}.{('png', 'jpg')[number % 3 == 1]}")
        return tmp_path / where

    return make
