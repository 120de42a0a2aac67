"""Figures of the Attention tab: writing a step, the first view, and from a click to the drawn map, in Chromium.

Command   python scripts/bench_plugin.py [--folder FOLDER]   (Chromium and `pip install playwright`; about two minutes)
Logs      made up, with a sink and noise: 100 steps x 16 images of 64 patches, 9 layers x 3 heads; 2 steps x 2 images
          of 196 patches, 12 × 12 heads. Kept in FOLDER, for inspection.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import FrameLocator, sync_playwright
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vit_attn.tb_plugin.summary import TabImages, Tokens, write_attention

CLICK = """async (canvas) => {
  const place = canvas.getBoundingClientRect(), times = [];
  for (let i = 0; i < 15; i++) {
    await new Promise((done) => setTimeout(done, 60));
    const start = performance.now();
    const [x, y] = [place.left + place.width * (0.05 + 0.06 * i), place.top + place.height * (0.9 - 0.05 * i)];
    canvas.dispatchEvent(new MouseEvent("click", {clientX: x, clientY: y, bubbles: true}));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - start);
  }
  return times;
}"""


def make_maps(rng: np.random.Generator, images: int, heads: int, tokens: int) -> np.ndarray:
    """(images, heads, tokens, tokens) rows that sum to 1, with a sink."""
    scores = 2 * rng.standard_normal((images, heads, tokens, tokens), dtype=np.float32)
    scores[..., tokens // 2] += 2
    weights = np.exp(scores)
    return weights / weights.sum(axis=-1, keepdims=True)


def write(
    folder: Path, steps: int, images: int, side: int, pixels: int, layers: int, heads: int
) -> tuple[float, float]:
    """Seconds and megabytes of a step."""
    rng, tokens = np.random.default_rng(0), side * side + 1
    shown = TabImages(
        rng.integers(0, 256, (images, pixels, pixels, 3), dtype=np.uint8),
        [0] * images,
        [f"class {i}" for i in range(10)],
    )
    row = np.zeros((1, tokens), np.float32)
    row[0, 0] = 1.0
    chances = rng.dirichlet(np.ones(10), images).astype(np.float32)
    maps = [make_maps(rng, images, heads, tokens) for _ in range(layers)]
    writer, seconds, size = EventFileWriter(str(folder)), [], 0
    for step in range(steps):
        start = time.perf_counter()
        size = write_attention(writer, step, shown, chances, maps, Tokens((side, side), 1, row))
        seconds.append(time.perf_counter() - start)
    writer.close()
    return statistics.median(seconds), size / 1e6


def serve(folder: Path, port: int, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure_page(port: int, chromium: str) -> dict[str, Any]:
    """First view in seconds, clicks in milliseconds and what the page holds."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"http://localhost:{port}/#vit_attn", wait_until="commit")
        frame: FrameLocator = page.frame_locator("iframe")
        frame.locator("figure[data-name=Map] .marks").wait_for(timeout=60_000)
        first = frame.locator("body").evaluate("() => performance.getEntriesByName('first view')[0].startTime")
        frame.get_by_role("radio", name="Rollout").click()
        clicks = frame.locator("figure[data-name=Map] .marks").evaluate(CLICK)
        frame.get_by_role("radio", name="Raw").click()
        raw = frame.locator("figure[data-name=Map] .marks").evaluate(CLICK)
        heap = frame.locator("body").evaluate("() => performance.memory.usedJSHeapSize / 1e6")
        held = frame.locator(".notes li", has_text="The page holds").inner_text()
        browser.close()
    return {"first": first / 1e3, "rollout": clicks, "raw": raw, "heap": heap, "held": held}


def wait_for(port: int, steps: int) -> None:
    """Until TensorBoard has read all steps, so that what is measured is the page."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/data/plugin/vit_attn/steps?run=.") as reply:
                if len(json.load(reply)["steps"]) == steps:
                    return
        except OSError:
            pass
        time.sleep(0.5)
    raise TimeoutError("TensorBoard did not read the log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vit_attn_bench")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    parser.add_argument("--port", type=int, default=6123)
    chosen = parser.parse_args()
    sizes = {
        "64 patches, 9 layers x 3 heads, 100 steps x 16 images": (100, 16, 8, 32, 9, 3),
        "196 patches, 12 layers x 12 heads, 2 steps x 2 images": (2, 2, 14, 224, 12, 12),
    }
    for i, (name, size) in enumerate(sizes.items()):
        folder = chosen.folder / f"{size[2] ** 2}_patches"
        if not folder.exists():
            seconds, megabytes = write(folder, *size)
            print(f"{name}\n  writing a step: {seconds:.2f} s, {megabytes:.2f} MB")
        for reader, options in (("fast reader", []), ("Python reader", ["--load_fast=false"])):
            port = chosen.port + 2 * i + bool(options)
            server = serve(folder, port, *options)
            try:
                wait_for(port, size[0])
                found = measure_page(port, chosen.chromium)
            finally:
                server.terminate()
                server.wait()
            print(f"  {reader}: first view {found['first']:.2f} s; heap {found['heap']:.0f} MB. {found['held']}")
            for method in ("rollout", "raw"):
                times = found[method]
                print(
                    f"    click to drawn map, {method}: median {statistics.median(times):.0f} ms, most {max(times):.0f}"
                )


if __name__ == "__main__":
    main()
