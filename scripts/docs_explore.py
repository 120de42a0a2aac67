"""A photograph of the page of ``vit-attn explore`` in headless Chromium, for docs/explore.md."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from docs_tab import chromium
from PIL import Image
from playwright.sync_api import sync_playwright

from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.data import Coins
from vit_attn.explore.cuts import PatchCut, cutting
from vit_attn.explore.networks import LiveNetwork, open_networks
from vit_attn.explore.pictures import Pictures
from vit_attn.explore.server import HOST, listen, make_live_server
from vit_attn.explore.session import Session

NETWORK = "vit_attn_coins_patch4_32"
SIZE = {"width": 1440, "height": 900}
PICTURES = 3
TRIED = 50
"""Test images among which one is looked for whose prediction changes."""


def photograph_explore(picture: Path) -> str:
    """Save the page after a cut of the bought coin, and return what it says of the prediction.

    The picture is the first test image that the network gets right, and not without that patch.
    """
    (live,) = open_networks([NETWORK], None, None, torch.device("cpu"))
    coins = Coins("test")
    shown = first_changed(live, coins)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"coins_{number}.png") for number in range(shown, shown + PICTURES)]
        for number, file in enumerate(files, shown):
            Image.fromarray(coins[number][0].permute(1, 2, 0).numpy()).save(file)
        session = Session([live], Pictures({live.name: live.network}, files))
        with serving(session) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            page.goto(address)
            marks = page.locator("figure[data-name=Map] .marks")
            marks.wait_for()
            page.locator("button[data-value=patch]").first.click()
            box = marks.bounding_box()
            if box is None:
                raise SystemExit("the page shows no map")
            row, col = divmod(coins.answer(shown).bought, 8)
            marks.click(position={"x": (col + 0.5) * box["width"] / 8, "y": (row + 0.5) * box["height"] / 8})
            page.locator(".cut-outcome [data-after]").first.wait_for()
            page.mouse.move(2, 2)
            page.wait_for_timeout(4000)  # until the short message has gone
            said = " · ".join(page.locator(".cut-outcome .watched").all_inner_texts())
            page.screenshot(path=str(picture))
            browser.close()
    Image.open(picture).convert("RGB").save(picture, optimize=True)
    return said


def first_changed(live: LiveNetwork, coins: Coins) -> int:
    """Index of the first test image whose right prediction changes without the bought coin."""
    net = live.network.net
    for number in range(TRIED):
        pixels, label = coins[number]
        images = live.network.normalize([pixels.permute(1, 2, 0).numpy()], torch.device("cpu"))
        layout = token_layout(net, images)
        cut = PatchCut(layout.num_prefix_tokens + coins.answer(number).bought)
        with torch.inference_mode():
            before = int(net(images).argmax())
            with cutting(net, [cut], layout):
                after = int(net(images).argmax())
        if before == label != after:
            return number
    raise SystemExit(f"the cut changes the prediction of none of {TRIED} images")


@contextmanager
def serving(session: Session) -> Iterator[str]:
    """Address of a server of a session."""
    with listen(None) as opened:
        server = make_live_server(session, opened)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.port}/"
        finally:
            server.shutdown()
            thread.join()
