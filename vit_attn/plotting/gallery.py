"""Figures of many images with a caption each."""

from collections.abc import Sequence

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import DPI, Canvas, Picture
from vit_attn.plotting.checks import check_picture
from vit_attn.plotting.panels import GAP, LINE, Grid, layout, panel_width

ACROSS = 3
"""Images a row."""
CAPTION_LINES = 6


def draw_gallery(images: Sequence[Picture], captions: Sequence[str], heading: str, dpi: int = DPI) -> Picture:
    """Draw images in rows of three, each with its caption below.

    Args:
        images: Pixels of one size.
        captions: Text below each image, wrapped to its width.
        heading: Text above the images.
        dpi: Pixels per inch; the figure is 3.5 inches wide.

    Raises:
        UserError: If there is no image, or if an image is no picture.
    """
    if not images:
        raise UserError("at least one image must be drawn, got none")
    for image in images:
        check_picture(image)
    height, width, _ = images[0].shape
    side, measure = panel_width(ACROSS, GAP), Canvas(1, 1, dpi)
    texts = [measure.wrap(text, side, CAPTION_LINES) for text in captions]
    below = 0.03 + LINE * max(1 + text.count("\n") for text in texts)
    size = (side, min(side * height / width, 2 * side))
    grid = Grid(-(-len(images) // ACROSS), ACROSS, size, (GAP, below + 0.06), below=below)
    canvas, panels, _ = layout(heading, grid, dpi, has_bar=False)
    for image, text, panel in zip(images, texts, panels, strict=False):
        canvas.place(image, panel)
        canvas.write(text, panel.left, panel.top + panel.height + 0.03, anchor="lt")
    return canvas.pixels()
