"""Figures of the Attention tab, against their goals: bytes, seconds of a step, first view, clicks, heap, scroll.

Command   python scripts/bench_plugin.py [--folder FOLDER]   (Chromium and `pip install playwright`; minutes, 250 MB)
Log       made up, of ViT-S/16: 12 layers x 6 heads, 197 tokens, 16 images, 10 steps. Scores are noise with a sink.
          Maps are of at most 3.4 bits a weight, as the logger writes them where a run's budget is short; one more step
          is written in 8 bits. Kept in FOLDER, for inspection.
Read      by headless Chromium from a TensorBoard of its own. Seconds depend on what else the machine does: CPU time and
          load are printed, too.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
from playwright.sync_api import Page, sync_playwright
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vit_attn.tb_plugin.summary import MethodRows, QueriesKeys, TabImages, Tokens, write_attention

IMAGES, SIDE, PIXELS, LAYERS, HEADS, CHANNELS, CLASSES = 16, 14, 224, 12, 6, 64, 10
TOKENS = 1 + SIDE * SIDE
WIDTHS = (360, 390, 800, 1440)
BITS = 3.4
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


class Goal(NamedTuple):
    """A figure, and what it should not exceed."""

    name: str
    most: float
    unit: str


WRITING = Goal("writing a step", 3, "s")
BYTES = Goal("bytes of a step", 24, "MB")
FIRST_VIEW = Goal("first view inside the frame", 1.5, "s")
CLICKS = {"rollout": Goal("click to drawn, rollout", 60, "ms"), "raw": Goal("click to drawn, last layer", 60, "ms")}
HEAP = Goal("heap of the page after collecting garbage", 60, "MB")
SCROLL = Goal(f"pixels of horizontal scroll, widths {', '.join(map(str, WIDTHS))}", 0, "px")


def report(goal: Goal, value: float, detail: str = "") -> None:
    """Print a figure beside its goal."""
    reached = "reached" if value <= goal.most else "MISSED"
    print(f"{goal.name:<58} {value:8.2f} {goal.unit:<3} goal {goal.most:g}  {reached}  {detail}", flush=True)


def make_maps(rng: np.random.Generator) -> np.ndarray:
    """(images, heads, tokens, tokens) rows that sum to 1, with a sink."""
    scores = 2 * rng.standard_normal((IMAGES, HEADS, TOKENS, TOKENS), dtype=np.float32)
    scores[..., TOKENS // 2] += 2
    weights = np.exp(scores)
    return weights / weights.sum(axis=-1, keepdims=True)


def make_images(rng: np.random.Generator) -> TabImages:
    """Smooth pictures with the noise of a camera."""
    y, x = np.mgrid[:PIXELS, :PIXELS] / PIXELS
    waves = rng.uniform(-9, 9, (IMAGES, 3, 4, 3)).astype(np.float32)
    angles = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y + waves[..., 2, None, None]
    pixels = 128 + 30 * np.sin(angles).sum(axis=2) + rng.normal(0, 3, (IMAGES, 3, PIXELS, PIXELS))
    targets = [[0, 1, 2]] * IMAGES
    names = [f"class {i}" for i in range(CLASSES)]
    return TabImages(pixels.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1), [0] * IMAGES, names, targets=targets)


def make_methods(rng: np.random.Generator) -> list[MethodRows]:
    """As many maps of the pooled row as the logger writes."""
    methods = [MethodRows("relevance", "relevance", class_specific=True, target_rows=rng.random((IMAGES, 3, TOKENS)))]
    for name, specific in (("value_weighted", False), ("discard", False), ("gradient_rollout", True), ("legrad", True)):
        by_target = rng.random((IMAGES, 3, TOKENS)) if specific else None
        methods.append(MethodRows(name, name, "", specific, True, rng.random((IMAGES, TOKENS)), by_target))
    return methods


def write(folder: Path, steps: int, bits: float) -> tuple[float, float, float]:
    """Write a log; returns seconds, seconds of CPU and megabytes of a step."""
    rng = np.random.default_rng(0)
    images, methods, row = make_images(rng), make_methods(rng), np.eye(TOKENS, dtype=np.float32)[:1]
    chances = rng.dirichlet(np.ones(CLASSES), IMAGES).astype(np.float32)
    maps = [make_maps(rng) for _ in range(LAYERS)]
    vectors = rng.standard_normal((LAYERS, 2, 1, HEADS, TOKENS, CHANNELS)).astype(np.float32)
    queries_keys = QueriesKeys([(q, k) for q, k in vectors], [CHANNELS**-0.5] * LAYERS)
    names = ("entropy", "distance", "sink", "prefix")
    measures = {name: rng.random((LAYERS, HEADS)).tolist() for name in names}
    writer, seconds, cpu, size = EventFileWriter(str(folder)), [], [], 0
    for step in range(steps):
        start, begun = time.perf_counter(), time.process_time()
        size = write_attention(
            writer, step, images, chances, maps, Tokens((SIDE, SIDE), 1, row), maps[0][:, 0], methods,
            head_measures=measures, queries_keys=queries_keys, max_bits=bits,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - begun)
    writer.close()
    return statistics.median(seconds), statistics.median(cpu), size / 1e6


def serve(folder: Path, port: int, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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


def heap_megabytes(page: Page) -> float:
    """JavaScript heap in use after garbage was collected, TensorBoard's own page included."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return metrics["JSHeapUsedSize"] / 1e6


def measure_page(port: int, chromium: str) -> None:
    """Open the tab, click and narrow the window, and print the figures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"http://localhost:{port}/#vit_attn", wait_until="commit")
        frame = page.frame_locator("iframe")
        canvas = frame.locator("figure[data-name=Map] .marks")
        canvas.wait_for(timeout=120_000)
        report(
            FIRST_VIEW,
            frame.locator("body").evaluate("() => performance.getEntriesByName('first view')[0].startTime") / 1e3,
        )
        for method, goal in CLICKS.items():
            frame.locator(f"button[data-value={method}]").first.click()
            times = canvas.evaluate(CLICK)
            report(goal, statistics.median(times), f"most {max(times):.0f}")
        report(HEAP, heap_megabytes(page))
        beyond = []
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(500)
            over = "() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
            beyond.append(frame.locator("body").evaluate(over))
        report(SCROLL, max(beyond))
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vit_attn_bench")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    parser.add_argument("--port", type=int, default=6123)
    parser.add_argument("--python-reader", action="store_true", help="read by TensorBoard's Python code")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    folder = chosen.folder / "log"
    shutil.rmtree(chosen.folder, ignore_errors=True)
    seconds, cpu, megabytes = write(folder, chosen.steps, BITS)
    report(WRITING, seconds, f"{cpu:.2f} s of CPU, {BITS} bits a weight")
    report(BYTES, megabytes)
    seconds, cpu, megabytes = write(chosen.folder / "exact", 1, 8)
    print(f"in 8 bits a weight: {seconds:.2f} s, {cpu:.2f} s of CPU, {megabytes:.1f} MB")
    server = serve(folder, chosen.port, *(["--load_fast=false"] if chosen.python_reader else []))
    try:
        wait_for(chosen.port, chosen.steps)
        measure_page(chosen.port, chosen.chromium)
    finally:
        server.terminate()
        server.wait()
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
