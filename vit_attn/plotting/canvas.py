"""White paper on which pictures and words are placed, in inches from its top left corner.

For the many small pictures of a run: with matplotlib, whose axes take 10 ms each, drawing took most of the time of
logging.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

Picture = UInt8[np.ndarray, "_ _ 3"]
Values = Float[np.ndarray, "rows cols"]
Colour = str

COLOURS = "viridis"
INK = "#1a1a1a"


class Box(NamedTuple):
    """A place on a page, in inches."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> float:
        """Its middle from left to right."""
        return self.left + self.width / 2

    def part(self, row: float, col: float, rows: int, cols: int, by: float = 1.0) -> "Box":
        """A cell of the grid that divides it, ``by`` cells wide and high."""
        width, height = self.width / cols, self.height / rows
        return Box(self.left + col * width, self.top + row * height, by * width, by * height)


@dataclass(frozen=True)
class Scale:
    """Numbers as colours, from 0 to ``most``.

    Args:
        most: The largest number.
        root: Whether colours follow the square root, so that little is seen.
        opacity: Share of the colour where it lies over a grey image; its bar lies over middle grey.
        table: Name of matplotlib's table of colours.
    """

    most: float
    root: bool = False
    opacity: float = 1.0
    table: str = COLOURS

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where values stand on the scale, from 0 to 1."""
        shares = np.clip(np.asarray(values, dtype=float) / max(self.most, 1e-30), 0, 1)
        return np.sqrt(shares) if self.root else shares

    def colours(self, values: Values) -> Picture:
        """The colour of each value."""
        return _table(self.table)[(255 * self.place(values)).round().astype(int)]

    def over(self, grey: Float[np.ndarray, "height width 1"], values: Values) -> Picture:
        """The colours over a grey image, each as large as its part of the image."""
        (height, width, _), (rows, cols) = grey.shape, values.shape
        spread = self.colours(values)[np.arange(height) * rows // height][:, np.arange(width) * cols // width]
        return (self.opacity * spread + (1 - self.opacity) * grey).round().astype(np.uint8)

    def ticks(self) -> list[float]:
        """Round numbers on the scale, about five."""
        return [
            tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, self.most) if tick <= self.most
        ]


class Canvas:
    """A page to draw on.

    Args:
        width: In inches.
        height: In inches.
        dpi: Pixels an inch.
    """

    def __init__(self, width: float, height: float, dpi: int) -> None:
        self.dpi = dpi
        self.sheet = Image.new("RGB", (round(width * dpi), round(height * dpi)), "white")
        self.pen = ImageDraw.Draw(self.sheet)

    def pixels(self) -> Picture:
        """The page as it is."""
        return np.asarray(self.sheet).copy()

    def place(self, picture: Picture, box: Box) -> None:
        """A picture that fills the box: its pixels stay squares where it is enlarged."""
        left, top, right, bottom = self._edges(box)
        size, image = (right - left, bottom - top), Image.fromarray(picture)
        enlarged = size[0] >= image.width and size[1] >= image.height
        method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
        self.sheet.paste(image.resize(size, method), (left, top))

    def write(
        self,
        text: str,
        x: float,
        y: float,
        points: float = 8.0,
        anchor: str = "mt",
        most: float | None = None,
        colour: Colour = INK,
    ) -> None:
        """Words, line by line.

        Args:
            text: What to write.
            x: Inches from the left.
            y: Inches from the top.
            points: Size of the letters.
            anchor: What is at that place: left, middle or right (``l``, ``m``, ``r``), then top, middle or bottom
                (``t``, ``m``, ``b``) of the words.
            most: Width that they may take; what does not fit is left out and an ellipsis stands for it.
            colour: Of the letters.
        """
        font = _font(points * self.dpi / 72)
        lines = [line if most is None else _cut(line, font, most * self.dpi) for line in text.split("\n")]
        step = 1.25 * points * self.dpi / 72
        first = y * self.dpi - {"t": 0.0, "m": step * (len(lines) - 1) / 2, "b": step * (len(lines) - 1)}[anchor[1]]
        kind = anchor[0] + {"t": "a", "m": "m", "b": "d"}[anchor[1]]
        for number, line in enumerate(lines):
            self.pen.text((x * self.dpi, first + number * step), line, colour, font, kind)

    def write_upward(self, text: str, x: float, y: float, points: float = 8.0, top: bool = False) -> None:
        """Words that run upward, their middle or else their end at (x, y)."""
        mask = _upward(text, points * self.dpi / 72)
        y += mask.height / 2 / self.dpi if top else 0.0
        corner = (round(x * self.dpi - mask.width / 2), round(y * self.dpi - mask.height / 2))
        self.sheet.paste(Image.new("RGB", mask.size, INK), corner, mask)

    def length(self, text: str, points: float = 8.0) -> float:
        """Inches that a line of words takes."""
        return _font(points * self.dpi / 72).getlength(text) / self.dpi

    def cut(self, text: str, most: float, points: float = 8.0) -> str:
        """A line of words, or as many as fit in so many inches with an ellipsis for the rest."""
        return _cut(text, _font(points * self.dpi / 72), most * self.dpi)

    def outline(self, box: Box, colour: Colour, points: float, line: Literal["solid", "dotted"] = "solid") -> None:
        """The edge of a box."""
        left, top, right, bottom = self._edges(box)
        width = max(1, round(points * self.dpi / 72))
        if line == "solid":
            self.pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)
            return
        for start in range(0, right - left, 2 * width):
            for y in (top, bottom - width):
                self._dot(left + start, y, min(width, right - left - start), width, colour)
        for start in range(0, bottom - top, 2 * width):
            for x in (left, right - width):
                self._dot(x, top + start, width, min(width, bottom - top - start), colour)

    def scale_bar(self, scale: Scale, box: Box, label: str) -> None:
        """A scale with its numbers and what they count; 0.45 inches beside the box are its words'."""
        steps = np.linspace(1, 0, max(2, round(box.height * self.dpi)))
        values = scale.most * (steps**2 if scale.root else steps)
        self.place(scale.over(np.full((len(steps), 1, 1), 128.0), values[:, None]), box)
        self.outline(box, INK, 0.5)
        right, free = box.left + box.width, box.top + box.height + 1.0
        ticks = scale.ticks()
        for tick, place in zip(ticks, scale.place(np.array(ticks)), strict=True):
            y = box.top + box.height * (1 - place)
            if free - y < 0.1:  # the root crowds them at the bottom
                continue
            free = y
            self._line(right, y, right + 0.03, y)
            self.write(f"{tick:g}", right + 0.05, y, 7, "lm")
        self.write_upward(label, right + 0.38, box.top + box.height / 2, 7.5)

    def _line(self, x: float, y: float, x_end: float, y_end: float) -> None:
        self.pen.line(
            [round(each * self.dpi) for each in (x, y, x_end, y_end)], INK, max(1, round(0.6 * self.dpi / 72))
        )

    def _dot(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        self.pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)

    def _edges(self, box: Box) -> tuple[int, int, int, int]:
        left, top = round(box.left * self.dpi), round(box.top * self.dpi)
        right, bottom = round((box.left + box.width) * self.dpi), round((box.top + box.height) * self.dpi)
        return left, top, max(right, left + 1), max(bottom, top + 1)


@functools.lru_cache(maxsize=4)
def _table(name: str) -> UInt8[np.ndarray, "256 3"]:
    return (255 * matplotlib.colormaps[name](np.arange(256))[:, :3]).round().astype(np.uint8)


@functools.lru_cache(maxsize=32)
def _font(size: float) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=256)
def _upward(text: str, size: float) -> Image.Image:
    """The words as a mask, turned."""
    left, top, right, bottom = _font(size).getbbox(text, anchor="la")
    mask = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, _font(size), "la")
    return mask.rotate(90, expand=True)


def _cut(line: str, font: ImageFont.FreeTypeFont, most: float) -> str:
    """The line, or as much of it as fits with an ellipsis."""
    if font.getlength(line) <= most:
        return line
    kept = next((n for n in range(len(line) - 1, 0, -1) if font.getlength(line[:n].rstrip() + "…") <= most), 0)
    return line[:kept].rstrip() + "…"
