"""Figures of ``vit-attn explore``, against their goals: first map of a picture, rollout of a click, a cut, memory.

Command   python scripts/bench_explore.py [--model NAME]   (Chromium and `pip install playwright`; a minute, 2 GB)
Network   ViT-S/16 at 224 pixels with random weights, or another by its name in timm's registry.
Pictures  made up, as large as a phone's: 4000x3000 pixels in JPEG. They are dropped onto the page in headless Chromium.
Figures   medians. A cut is compared with plain forwards of the same picture, which are timed in turn with it, so their
          ratio holds on a busy machine; seconds depend on what else it does: the load is printed, too. Memory is the
          largest resident set above that after one plain forward, while all of it is done.
"""

import argparse
import base64
import io
import os
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import torch
from bench_plugin import CLICK, Goal, report
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from werkzeug.test import Client

from vit_attn.explore.app import ExploreApp
from vit_attn.explore.networks import LiveNetwork, open_networks
from vit_attn.explore.pictures import Pictures
from vit_attn.explore.rows import RowQuestion, compute_row
from vit_attn.explore.server import HOST, listen, make_live_server
from vit_attn.explore.session import Place, Session

PHOTOS, CUTS = 5, 15
FIRST_MAP = Goal("picture dropped to its first map", 1.5, "s")
ROLLOUT = Goal("click on a patch to its rollout", 100, "ms")
CUT = Goal("a cut to new logits, by a plain forward", 1.2, "x")
MEMORY = Goal("memory above the network", 300, "MB")
DROP = """async ([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
  const start = performance.now();
  const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
  document.querySelector("main").dispatchEvent(drop);
  const idle = () => document.title.startsWith(name) && document.body.getAttribute("aria-busy") === "false";
  const shown = () => idle() && document.querySelector("figure[data-name=Map] .marks")?.offsetWidth;
  while (!shown()) {
    if (performance.now() - start > 60000) throw new Error("no map after a minute");
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  }
  return performance.now() - start;
}"""
CUT_PATCHES = """async (canvas) => {
  const place = canvas.getBoundingClientRect(), times = [];
  const said = () => document.querySelector(".cut-outcome [data-after]")?.getAttribute("data-after");
  for (let i = 0; i < 5; i++) {
    const [start, before] = [performance.now(), said()];
    const [x, y] = [place.left + place.width * (0.1 + 0.15 * i), place.top + place.height * (0.9 - 0.15 * i)];
    canvas.dispatchEvent(new MouseEvent("click", {clientX: x, clientY: y, bubbles: true}));
    while (said() === before) {
      if (performance.now() - start > 60000) throw new Error("no logits after a minute");
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    }
    times.push(performance.now() - start);
  }
  return times;
}"""


def make_photo(seed: int) -> bytes:
    """A JPEG of soft colours with grain."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((4000, 3000), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.integers(-8, 9, (3000, 4000, 1), dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def resident_megabytes(name: str) -> float:
    """Resident memory of this process, now (``VmRSS``) or at most (``VmHWM``)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"Linux alone tells {name}")


def forward(session: Session, live: LiveNetwork) -> float:
    """Seconds of a plain forward of the first picture."""
    images = session.images(live.name, 0)
    start = time.perf_counter()
    with torch.inference_mode():
        live.network.net(images)
    return time.perf_counter() - start


def measure_page(address: str, chromium: str, photos: list[bytes]) -> None:
    """Drop photos, click patches and cut some, and print the seconds that a user waits."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page: Page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address)
        page.locator("body[aria-busy=false]").wait_for()
        cpu, times = time.process_time(), []
        for number, photo in enumerate(photos):
            times.append(page.evaluate(DROP, [f"photo {number}.jpg", base64.b64encode(photo).decode()]) / 1e3)
        cpu = (time.process_time() - cpu) / len(photos)
        report(FIRST_MAP, statistics.median(times), f"first {times[0]:.2f}, {cpu:.2f} s of the server's CPU each")
        page.get_by_label("Method").and_(page.locator("select")).select_option("rollout")
        canvas = page.locator("figure[data-name=Map] .marks")
        times = canvas.evaluate(CLICK)
        report(ROLLOUT, statistics.median(times), f"most {max(times):.0f}")
        page.locator("button[data-value=patch]").first.click()
        times = canvas.evaluate(CUT_PATCHES)
        print(f"click on a patch to the logits without it: {statistics.median(times):.0f} ms, most {max(times):.0f}")
        browser.close()


def measure_cuts(session: Session, live: LiveNetwork, port: int) -> None:
    """Ask for cuts and run plain forwards in turn, and print their ratio."""
    client, origin = Client(ExploreApp(session, port)), f"http://{HOST}:{port}"
    tokens, ratios, plain = session.look(Place(live.name, 0, 0)).recording.num_tokens, [], []
    for number in range(CUTS):
        plain.append(forward(session, live))
        cut = {"kind": "patch", "token": tokens - 1 - number}
        start = time.perf_counter()
        body = {"run": live.name, "image": 0, "cuts": [cut]}
        reply = client.post("/cut", base_url=origin, json=body, headers={"Origin": origin})
        seconds = time.perf_counter() - start
        if reply.status_code != 200:
            raise RuntimeError(reply.text)
        ratios.append(seconds / ((plain[-1] + forward(session, live)) / 2))
    report(CUT, statistics.median(ratios), f"a forward takes {1e3 * statistics.median(plain):.0f} ms")


def measure_rows(session: Session, live: LiveNetwork) -> None:
    """Print the milliseconds of a row by each kind of method, computed in Python."""
    seconds = {}
    for method in ("rollout", "relevance", "legrad"):
        start = time.perf_counter()
        compute_row(session, Place(live.name, 0, 0), RowQuestion(method, target=1))
        seconds[method] = time.perf_counter() - start
    print("rows in Python: " + ", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in seconds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    (live,) = open_networks([chosen.model], "none", None, torch.device("cpu"))
    session = Session([live], Pictures({live.name: live.network}))
    photos = [make_photo(seed) for seed in range(PHOTOS)]
    with torch.inference_mode():
        live.network.net(torch.zeros(1, *live.network.card.input_size))
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident set counts from here on
    before = resident_megabytes("VmRSS")
    with listen(None) as opened:
        server = make_live_server(session, opened)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            measure_page(f"http://{HOST}:{server.port}/", chosen.chromium, photos)
            measure_cuts(session, live, server.port)
            measure_rows(session, live)
        finally:
            server.shutdown()
            thread.join()
    report(MEMORY, resident_megabytes("VmHWM") - before, f"the process with the network {before:.0f} MB")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
