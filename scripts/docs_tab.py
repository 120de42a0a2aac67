"""A photograph of the Attention tab in headless Chromium, for the README."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import FrameLocator, sync_playwright

SIZE = {"width": 1400, "height": 1150}
"""The README shows it 830 pixels wide."""
STATE = "vit_attn.attention"


def photograph(
    run: Path, picture: Path, method: str | None, image: int, place: tuple[int, int, int, int]
) -> tuple[str, float]:
    """Save the tab at the run's last step, the ground truth marked.

    Args:
        run: Folder of event files.
        picture: What to write.
        method: ``raw``, ``rollout`` or ``relevance``; what the tab shows by itself, if none.
        image: Which, from 1.
        place: Row and column, from 0, of the patch to read the value of, and rows and columns of the grid.

    Returns:
        The method that is shown, and the value that the page gives the patch.
    """
    name = f"{run.parent.name}/{run.name}"
    state = {"run": name, "image": image - 1, "groundTruth": True} | ({"method": method} if method else {})
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        copied = Path(folder, run.parent.name, run.name)
        copied.mkdir(parents=True)
        for file in run.glob("*tfevents*"):
            shutil.copy(file, copied)
        with tensorboard(Path(folder), name) as address:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport=SIZE)
            page.add_init_script(f"localStorage['{STATE}'] ||= {json.dumps(json.dumps(state))}")
            page.goto(f"{address}/#vit_attn")
            frame = page.frame_locator("iframe")
            frame.locator(".small").first.wait_for()
            frame.locator(".notes li").first.wait_for()
            page.wait_for_timeout(1500)  # for the thumbnails and the fonts
            page.screenshot(path=str(picture))
            shown = chosen(frame)
            value = value_at(frame, place)
            browser.close()
    return shown, value


def chosen(frame: FrameLocator) -> str:
    """The method that the tab shows."""
    method = frame.locator(".chooser")
    return method.get_attribute("data-value") or ""


def value_at(frame: FrameLocator, place: tuple[int, int, int, int]) -> float:
    """Return the value that the page shows of a patch under the pointer."""
    row, col, rows, cols = place
    marks = frame.locator("figure[data-name=Map] .marks")
    box = marks.bounding_box()
    if box is None:
        raise SystemExit("the tab shows no map")
    marks.hover(position={"x": (col + 0.5) * box["width"] / cols, "y": (row + 0.5) * box["height"] / rows})
    readout = frame.locator(".readout").inner_text()
    found = re.search(r": <?\s*([\d.e-]+)(\s*%)?", readout)
    if found is None:
        raise SystemExit(f"the tab gives no number of the patch: {readout}")
    return float(found[1]) / (100 if found[2] else 1)


@contextmanager
def tensorboard(folder: Path, run: str) -> Iterator[str]:
    """A TensorBoard over a folder, when it has read the run."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    address = f"http://localhost:{port}"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{address}/data/plugin/vit_attn/runs", timeout=10) as reply:
                    if f'"{run}"' in reply.read().decode():
                        break
            except (OSError, urllib.error.HTTPError):
                pass
            time.sleep(0.3)
        else:
            raise SystemExit(f"TensorBoard did not show {run}: is the package installed, for its entry point?")
        yield address
    finally:
        process.terminate()
        process.wait(10)


def chromium() -> str:
    """The browser's program."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise SystemExit("no Chromium on this machine: `apt-get install chromium`, or name it in CHROMIUM")
    return found
