"""``coins``: generated images with ground-truth patches, whose class can only be predicted by attention.

Each image is a grid of 8×8 patches of noise. Some hold a *coin*: one of ten glyphs in one of six colours, the colours
distinct within an image. One more holds the *buyer*: a hollow square in the colour of one of the coins. The label is
the glyph of the coin that has the buyer's colour, so a network must compare colours across patches and carry a glyph
from one to another. Predicting the most frequent glyph of an image is right in 0.38 of the images; more needs
attention.
"""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data_protocol import GroundTruth
from vit_attn.errors import UserError

GRID, PATCH = 8, 4
NOISE = 128
"""The background is uniform in 0..127, so that a person can see the coins."""
COLOURS = np.array(
    [[255, 64, 64], [64, 255, 64], [96, 96, 255], [255, 255, 64], [255, 64, 255], [64, 255, 255]], dtype=np.uint8
)
BUYER = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
_GLYPHS = {
    "rows": "1111 0000 1111 0000",
    "columns": "1010 1010 1010 1010",
    "checkers": "1010 0101 1010 0101",
    "block": "0000 0110 0110 0000",
    "corners": "1001 0000 0000 1001",
    "slash": "0001 0010 0100 1000",
    "backslash": "1000 0100 0010 0001",
    "plus": "0110 1111 1111 0110",
    "half": "1100 1100 1100 1100",
    "angle": "1000 1000 1000 1111",
}
GLYPH_NAMES = tuple(_GLYPHS)
GLYPHS = np.array([[[pixel == "1" for pixel in row] for row in glyph.split()] for glyph in _GLYPHS.values()])
SPLITS = ("train", "val", "test")
BLOCK = 256
"""Images that are generated at once, since a random generator takes longer to make than an image."""
SIZES = {"train": 38_400, "val": 2_000, "test": 2_000}


@dataclass(frozen=True)
class Answer:
    """Patches of an image that matter, numbered row by row from 0 to 63."""

    buyer: int
    bought: int
    coins: tuple[int, ...]
    """All coins, the bought one first."""
    grid: tuple[int, int] = field(default=(GRID, GRID), repr=False)
    """Rows and columns of the numbering; a network may have another grid."""


@dataclass(frozen=True)
class _Block:
    """A block of images, with what each shows."""

    patches: np.ndarray
    """Patches of the buyer, the bought coin and the other coins, by image."""
    glyphs: np.ndarray
    """Glyph of each coin, the bought one first, by image."""
    images: np.ndarray
    """Pixels (B, height, width, 3)."""


class Coins:
    """The generated data set; an image depends only on seed, split, number of coins and index.

    Args:
        split: ``train``, ``val`` or ``test``, which share no image.
        size: Number of images; by default 38,400, 2,000 and 2,000.
        coins: Coins per image, 1 to 6.
        seed: Another seed gives another data set.

    >>> image, label = Coins("test")[0]
    >>> tuple(image.shape), GLYPH_NAMES[label], Coins("test").answer(0).bought
    ((3, 32, 32), 'block', 8)
    """

    def __init__(self, split: str, size: int | None = None, coins: int = 4, seed: int = 0) -> None:
        if split not in SPLITS:
            raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if not 1 <= coins <= len(COLOURS):
            raise UserError(f"coins must be 1 to {len(COLOURS)}, one colour each, got {coins}")
        self.split, self.size, self.coins, self.seed = split, SIZES[split] if size is None else size, coins, seed

    def __len__(self) -> int:
        """Number of images."""
        return self.size

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 32 32"], int]:
        """The image and its label, an index into ``GLYPH_NAMES``."""
        block, i = self._find(index)
        return torch.from_numpy(block.images[i].copy()).permute(2, 0, 1), int(block.glyphs[i, 0])

    def answer(self, index: int) -> Answer:
        """Patches of the buyer, of the coin that it buys, and of all coins."""
        block, i = self._find(index)
        buyer, bought, *others = block.patches[i].tolist()
        return Answer(buyer, bought, (bought, *others))

    def ground_truth(self, index: int) -> GroundTruth:
        """The same patches by name, for the pointing game."""
        answer = self.answer(index)
        regions = {"bought": (answer.bought,), "any_coin": answer.coins, "buyer": (answer.buyer,)}
        return GroundTruth(regions, answer.grid, "bought", (("buyer", "any_coin"), ("any_coin", "buyer")))

    def tensors(self) -> tuple[UInt8[Tensor, "B 3 32 32"], Int64[Tensor, " B"]]:
        """All images and labels."""
        blocks = [self._block(start // BLOCK) for start in range(0, self.size, BLOCK)]
        images = np.concatenate([block.images for block in blocks])[: self.size]
        labels = np.concatenate([block.glyphs[:, 0] for block in blocks])[: self.size]
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def _find(self, index: int) -> tuple[_Block, int]:
        if not 0 <= index < self.size:
            raise IndexError(f"index must be in 0..{self.size - 1}, got {index}")
        return self._block(index // BLOCK), index % BLOCK

    def _block(self, block: int) -> _Block:
        return _draw_block(self.seed, self.split, self.coins, block)


@functools.lru_cache(maxsize=4)
def _draw_block(seed: int, split: str, coins: int, block: int) -> _Block:
    """Generate ``BLOCK`` images."""
    rng = np.random.default_rng((seed, SPLITS.index(split), coins, block))
    patches = rng.permuted(np.tile(np.arange(GRID * GRID), (BLOCK, 1)), axis=1)[:, : 1 + coins]
    colours = rng.permuted(np.tile(np.arange(len(COLOURS)), (BLOCK, 1)), axis=1)[:, :coins]
    glyphs = rng.integers(0, len(GLYPHS), (BLOCK, coins))
    images = rng.integers(0, NOISE, (BLOCK, GRID, PATCH, GRID, PATCH, 3), dtype=np.uint8)

    def paint(patch: np.ndarray, shapes: np.ndarray, colour: np.ndarray) -> None:
        pixels = np.where(shapes[..., None], COLOURS[colour][:, None, None], 0)
        images[np.arange(BLOCK), patch // GRID, :, patch % GRID] = pixels

    paint(patches[:, 0], np.broadcast_to(BUYER, (BLOCK, PATCH, PATCH)), colours[:, 0])
    for coin in range(coins):
        paint(patches[:, 1 + coin], GLYPHS[glyphs[:, coin]], colours[:, coin])
    return _Block(patches, glyphs, images.reshape(BLOCK, GRID * PATCH, GRID * PATCH, 3))


def _load(_root: Path, _download: bool) -> dict[str, Split]:
    sets = {split: Coins(split) for split in SPLITS}
    return {split: Split(*coins.tensors(), ground_truth=coins.ground_truth) for split, coins in sets.items()}


COINS = DatasetInfo(
    class_names=GLYPH_NAMES,
    img_size=(GRID * PATCH, GRID * PATCH),
    mean=(0.25, 0.25, 0.25),
    std=(0.18, 0.18, 0.18),
    load=_load,
    needs_files=False,
)
