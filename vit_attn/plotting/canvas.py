"""Canvas on which pictures and text are placed, in inches from its top left corner.

For the many small pictures of a run: matplotlib takes 10 ms per axes, which was most of the time of logging.
"""

import functools
import re
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_attn.plotting.fonts import DEFAULT, load_font, runs, text_length
from vit_attn.plotting.scale import MIDDLE_GREY, Picture, Scale

Colour = str

INK = "#1a1a1a"
POINTS = 9.5
"""Font size of figures; TensorBoard draws a figure with 100 pixels an inch, where this is 13 pixels."""
DPI = 200
"""Pixels per inch of figures: twice those that TensorBoard draws."""


class Box(NamedTuple):
    """Rectangle on a canvas, in inches."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> float:
        """Horizontal centre."""
        return self.left + self.width / 2

    def part(self, row: float, col: float, rows: int, cols: int, by: float = 1.0) -> "Box":
        """Cell of a grid that divides the box, ``by`` cells wide and high."""
        width, height = self.width / cols, self.height / rows
        return Box(self.left + col * width, self.top + row * height, by * width, by * height)


class Canvas:
    """White canvas to draw on.

    Args:
        width: Width in inches.
        height: Height in inches.
        dpi: Pixels per inch.
    """

    def __init__(self, width: float, height: float, dpi: int) -> None:
        self.dpi = dpi
        self.image = Image.new("RGB", (round(width * dpi), round(height * dpi)), "white")
        self.pen = ImageDraw.Draw(self.image)

    def pixels(self) -> Picture:
        """Pixels of the canvas."""
        return np.asarray(self.image).copy()

    def place(self, picture: Picture, box: Box) -> None:
        """Place a picture so that it fills the box; enlarged pixels stay squares."""
        left, top, right, bottom = self._edges(box)
        size, image = (right - left, bottom - top), Image.fromarray(picture)
        enlarged = size[0] >= image.width and size[1] >= image.height
        method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
        self.image.paste(image.resize(size, method), (left, top))

    def write(
        self,
        text: str,
        x: float,
        y: float,
        points: float = POINTS,
        anchor: str = "mt",
        most: float | None = None,
        colour: Colour = INK,
    ) -> None:
        """Write text, line by line.

        Args:
            text: The text.
            x: Inches from the left.
            y: Inches from the top.
            points: Font size.
            anchor: Point of the text that is at (x, y): left, middle or right (``l``, ``m``, ``r``), then top, middle
                or bottom (``t``, ``m``, ``b``).
            most: Largest width in inches; longer lines are cut and end in an ellipsis.
            colour: Colour of the text.
        """
        size = points * self.dpi / 72
        lines = [line if most is None else _cut(line, size, most * self.dpi) for line in text.split("\n")]
        step = 1.25 * points * self.dpi / 72
        first = y * self.dpi - {"t": 0.0, "m": step * (len(lines) - 1) / 2, "b": step * (len(lines) - 1)}[anchor[1]]
        kind = anchor[0] + {"t": "a", "m": "m", "b": "d"}[anchor[1]]
        for number, line in enumerate(lines):
            _draw_line(self.pen, (x * self.dpi, first + number * step), line, size, colour, kind)

    def write_upward(self, text: str, x: float, y: float, points: float = POINTS, top: bool = False) -> None:
        """Write text that runs upward, with its middle at (x, y), or its upper end if ``top``."""
        mask = _upward_mask(text, points * self.dpi / 72)
        y += mask.height / 2 / self.dpi if top else 0.0
        corner = (round(x * self.dpi - mask.width / 2), round(y * self.dpi - mask.height / 2))
        self.image.paste(Image.new("RGB", mask.size, INK), corner, mask)

    def length(self, text: str, points: float = POINTS) -> float:
        """Width of a line of text in inches."""
        return text_width(text, points, self.dpi)

    def cut(self, text: str, most: float, points: float = POINTS) -> str:
        """Cut a line of text to this width in inches; a cut line ends in an ellipsis."""
        return _cut(text, points * self.dpi / 72, most * self.dpi)

    def wrap(self, text: str, most: float, lines: int | None = None, points: float = POINTS) -> str:
        """Break text into lines of at most this width in inches, at spaces, slashes and hyphens where there are any.

        Args:
            text: The text; its own line breaks stay.
            most: Largest width of a line in inches.
            lines: Largest number of lines; the last one is cut, and ends in an ellipsis. By default any number.
            points: Font size.
        """
        size, width = points * self.dpi / 72, most * self.dpi
        broken = [piece for line in text.split("\n") for piece in _break(line, size, width)]
        if lines is not None and len(broken) > lines:
            broken[lines - 1 :] = [_cut(" ".join(broken[lines - 1 :]), size, width)]
        return "\n".join(broken)

    def outline(self, box: Box, colour: Colour, points: float, line: Literal["solid", "dotted"] = "solid") -> None:
        """Draw the outline of a box."""
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
        """Draw a horizontal colour bar in the box, with ticks and a label in the 0.37 inches below it.

        Args:
            scale: The scale; where it is by the square root, the label says so.
            box: Box of the colours.
            label: Quantity and unit.
        """
        steps = np.linspace(0, 1, max(2, round(box.width * self.dpi)))
        values = scale.most * (steps**2 if scale.root else steps)
        self.place(scale.over(np.full((1, len(steps), 1), MIDDLE_GREY), values[None]), box)
        self.outline(box, INK, 0.5)
        bottom, free = box.top + box.height, -1.0
        ticks = scale.ticks()
        for tick, position in zip(ticks, scale.position(np.array(ticks)), strict=True):
            text, x = f"{tick:g}", box.left + box.width * position
            half = self.length(text) / 2
            centre = min(max(x, box.left + half), box.left + box.width - half)
            if centre - half < free:  # the square root crowds ticks at the left
                continue
            free = centre + half + 0.06
            self._line(x, bottom, x, bottom + 0.03)
            self.write(text, centre, bottom + 0.04)
        self.write(scale.label(label), box.centre, bottom + 0.2)

    def _line(self, x: float, y: float, x_end: float, y_end: float) -> None:
        self.pen.line(
            [round(inches * self.dpi) for inches in (x, y, x_end, y_end)], INK, max(1, round(0.6 * self.dpi / 72))
        )

    def _dot(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        self.pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)

    def _edges(self, box: Box) -> tuple[int, int, int, int]:
        left, top = round(box.left * self.dpi), round(box.top * self.dpi)
        right, bottom = round((box.left + box.width) * self.dpi), round((box.top + box.height) * self.dpi)
        return left, top, max(right, left + 1), max(bottom, top + 1)


def text_width(text: str, points: float, dpi: int) -> float:
    """Width of a line of text in inches."""
    return text_length(text, points * dpi / 72) / dpi


@functools.lru_cache(maxsize=256)
def _upward_mask(text: str, size: float) -> Image.Image:
    """Mask of text that runs upward."""
    boxes = [font.getbbox(part, anchor="ls") for part, font in runs(text, size)]
    top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
    left, length = boxes[0][0], text_length(text, size)
    width = round(length - left) if len(boxes) > 1 else round(boxes[0][2] - left)
    mask = Image.new("L", (max(1, width), max(1, round(bottom - top))))
    _draw_line(ImageDraw.Draw(mask), (-left, -top), text, size, 255, "ls")
    return mask.rotate(90, expand=True)


def _draw_line(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], line: str, size: float, colour: Colour | int, anchor: str
) -> None:
    """Draw a line of text, whose parts may have several fonts, with a point of it at a place in pixels."""
    parts = runs(line, size)
    if len(parts) == 1:
        pen.text(place, line, colour, parts[0][1], anchor)
        return
    length = text_length(line, size)
    x = place[0] - {"l": 0.0, "m": length / 2, "r": length}[anchor[0]]
    y = place[1] + _baseline(load_font(DEFAULT, size), anchor[1])
    for part, font in parts:
        pen.text((x, y), part, colour, font, "ls")
        x += font.getlength(part)


def _baseline(font: ImageFont.FreeTypeFont, anchor: str) -> float:
    """Pixels from a point of a line of the main font to its baseline."""
    ascent, descent = font.getmetrics()
    return {"a": float(ascent), "m": (ascent - descent) / 2, "d": -float(descent), "s": 0.0}[anchor]


def _cut(line: str, size: float, most: float) -> str:
    """Cut a line to a width in pixels, with an ellipsis."""
    if text_length(line, size) <= most:
        return line
    kept = next((n for n in range(len(line) - 1, 0, -1) if text_length(line[:n].rstrip() + "…", size) <= most), 0)
    return line[:kept].rstrip() + "…"


def _break(line: str, size: float, most: float) -> list[str]:
    """Break a line into lines of at most a width in pixels."""
    lines = [""]
    for word in re.findall(r"[^\s/-]*[\s/-]*", line):
        for part in [word] if text_length(word.rstrip(), size) <= most else word:  # a longer word breaks anywhere
            if lines[-1] and text_length((lines[-1] + part).rstrip(), size) > most:
                lines.append("")
            lines[-1] += part
    return [each.rstrip() for each in lines]
