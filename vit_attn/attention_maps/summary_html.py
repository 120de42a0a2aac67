"""Small HTML of maps for a notebook's output cell, light or dark; without matplotlib."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

VIRIDIS = (
    "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c1f988b1fa08822a785"
    "28ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725"
)
"""Viridis at equal distances, as on the page of the Attention tab: in order without colour vision too."""
PIXELS = 168
"""Longer side of a map."""
LEAST_TIMES = 4
"""The scale of attention reaches at least this many times 1/N, as on the page: else noise would look like a pattern."""


@dataclass(frozen=True)
class Panel:
    """A map with its caption.

    Args:
        title: Name of the map.
        patches: Values of the patches.
        note: What else belongs to it, such as the attention to prefix tokens.
        least: Value that the scale reaches at least.
    """

    title: str
    patches: Float[np.ndarray, "rows cols"]
    note: str = ""
    least: float = 0.0


def panels_html(heading: str, panels: Sequence[Panel]) -> str:
    """Return a heading above maps side by side, each on its own scale from 0, which is stated.

    Args:
        heading: Text above the maps.
        panels: The maps.
    """
    figures = "".join(map(_figure, panels))
    row = f'<div style="display: flex; flex-wrap: wrap; gap: 16px">{figures}</div>'
    return f'<div style="font: 13px/1.4 system-ui, sans-serif; color: inherit"><p>{html.escape(heading)}</p>{row}</div>'


def _figure(panel: Panel) -> str:
    rows, cols = panel.patches.shape
    width, height = (round(PIXELS * side / max(rows, cols)) for side in (cols, rows))
    high = max(panel.least, float(np.nanmax(panel.patches, initial=0.0)))
    image = f"data:image/png;base64,{base64.b64encode(_png(panel.patches, high)).decode()}"
    title, note = html.escape(panel.title), html.escape(panel.note)
    alt = html.escape(f"{panel.title}: {rows} by {cols} patches, from 0 to {high:.3g}")
    colours = ", ".join(f"#{VIRIDIS[at : at + 6]}" for at in range(0, len(VIRIDIS), 6))
    return (
        f'<div style="width: {PIXELS}px"><div><b>{title}</b></div>'
        f'<img src="{image}" alt="{alt}" style="width: {width}px; height: {height}px; image-rendering: pixelated">'
        f'<div style="height: 6px; background: linear-gradient(90deg, {colours})"></div>'
        f'<div style="display: flex; justify-content: space-between"><span>0</span><span>{high:.3g}</span></div>'
        f'<div style="opacity: 0.75">{note}</div></div>'
    )


def _png(patches: Float[np.ndarray, "rows cols"], high: float) -> bytes:
    """Encode a map, a pixel a patch."""
    codes = np.rint(255 * np.nan_to_num(patches / (high or 1.0)).clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(codes).convert("P")
    picture.putpalette(_colours().tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _colours() -> np.ndarray:
    """Return 256 colours of viridis, (256, 3)."""
    stops = np.frombuffer(bytes.fromhex(VIRIDIS), np.uint8).reshape(-1, 3)
    at = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(at, range(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)
