"""Colour scale of figures."""

import functools
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.ticker import MaxNLocator

Picture = UInt8[np.ndarray, "_ _ 3"]
Values = Float[np.ndarray, "rows cols"]
Mask = Bool[np.ndarray, "_ _"]
MIDDLE_GREY = 128.0
"""Luma below padding and below the colour bar."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luma of a colour (ITU-R BT.601)."""

COLOURMAP = "viridis"


@dataclass(frozen=True)
class Scale:
    """Colour scale from 0 to ``most``.

    Args:
        most: The largest number.
        root: Whether colours follow the square root, so that small numbers can be distinguished.
        opacity: Opacity of the colours over a grey image, in [0, 1]; the colour bar lies over middle grey.
        colourmap: Name of a colour map of matplotlib's.
    """

    most: float
    root: bool = False
    opacity: float = 1.0
    colourmap: str = COLOURMAP

    def position(self, values: np.ndarray) -> np.ndarray:
        """Positions of values on the scale, from 0 to 1."""
        fractions = np.clip(np.asarray(values, dtype=float) / max(self.most, 1e-30), 0, 1)
        return np.sqrt(fractions) if self.root else fractions

    def colours(self, values: Values, padding: Mask | None = None) -> Picture:
        """Colours of the values; of those that are padding, greys of the same lightness."""
        colours = _lookup_table(self.colourmap)[(255 * self.position(values)).round().astype(int)]
        return colours if padding is None else _greyed(colours, padding)

    def over(self, grey: Float[np.ndarray, "height width 1"], values: Values, padding: Mask | None = None) -> Picture:
        """Colours of the values over a grey image, each over its cell of the image.

        Args:
            grey: The image.
            values: The values.
            padding: Pixels that are padding, which become greys of the same lightness.
        """
        (height, width, _), (rows, cols) = grey.shape, values.shape
        spread = self.colours(values)[np.arange(height) * rows // height][:, np.arange(width) * cols // width]
        if padding is not None:
            grey, spread = np.where(padding[..., None], MIDDLE_GREY, grey), _greyed(spread, padding)
        return (self.opacity * spread + (1 - self.opacity) * grey).round().astype(np.uint8)

    def label(self, quantity: str) -> str:
        """Label of the colour bar, which states a scale that is not linear."""
        return f"{quantity}, square-root scale" if self.root else quantity

    def ticks(self) -> list[float]:
        """About five round numbers on the scale."""
        return [
            tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, self.most) if tick <= self.most
        ]


def _greyed(colours: Picture, where: Mask) -> Picture:
    return np.where(where[..., None], (colours @ LUMA)[..., None].round().astype(np.uint8), colours)


@functools.lru_cache(maxsize=4)
def _lookup_table(name: str) -> UInt8[np.ndarray, "256 3"]:
    return (255 * matplotlib.colormaps[name](np.arange(256))[:, :3]).round().astype(np.uint8)
