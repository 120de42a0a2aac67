"""A server of live questions for tests of the page, the page in a browser, and the same numbers by Python."""

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from werkzeug.serving import WSGIRequestHandler, make_server

from vit_attn.attention_maps import record
from vit_attn.attention_maps.methods.registry import AttributionInput, find_method
from vit_attn.data.images.image_file import fit_picture
from vit_attn.explore.app import ExploreApp
from vit_attn.explore.networks import open_networks
from vit_attn.explore.pictures import Pictures
from vit_attn.explore.server import HOST, listen
from vit_attn.explore.session import Session
from vit_attn.inference.network import open_network

DROP = """files => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) data.items.add(new File([Uint8Array.from(bytes)], name));
  return data;
}"""


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@contextmanager
def serving(models: Sequence[str], files: Sequence[Path] = ()) -> Iterator[str]:
    """Address of a server of these networks and pictures."""
    with listen(0) as opened:
        networks = open_networks(models, None, None, torch.device("cpu"))
        session = Session(networks, Pictures({live.name: live.network for live in networks}, files))
        port = opened.getsockname()[1]
        app = ExploreApp(session, port)
        server = make_server(HOST, port, app, threaded=True, request_handler=_Quiet, fd=opened.fileno())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{port}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def picture(seed: int, size: tuple[int, int] = (40, 48)) -> bytes:
    """A PNG of soft colours, the same for a seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def drop(page: Any, *files: tuple[str, bytes]) -> None:
    """Drop files anywhere on the page."""
    data = page.evaluate_handle(DROP, [[name, list(content)] for name, content in files])
    page.dispatch_event("main", "dragover", {"dataTransfer": data})
    page.dispatch_event("main", "drop", {"dataTransfer": data})


def settled(page: Any) -> None:
    """Wait until the page has all that it asked for."""
    page.locator("body[aria-busy=false]").wait_for()


def values(page: Any) -> dict[str, np.ndarray]:
    """The numbers of the view, as the page saves them."""
    with page.expect_download() as download:
        page.get_by_role("button", name="npz").click()
    with np.load(download.value.path()) as arrays:
        return {name: arrays[name] for name in arrays.files}


class Reference:
    """A network and a picture, recorded here."""

    def __init__(self, model: str, content: bytes) -> None:
        self.network = open_network(model)
        card = self.network.card
        pixels = fit_picture(Image.open(io.BytesIO(content)).convert("RGB"), card.img_size, card.crop_pct)
        self.images = self.network.normalize([pixels], torch.device("cpu"))
        with record(self.network.net, gradients=True) as self.recording:
            self.logits = self.network.net(self.images)

    def top(self) -> list[tuple[str, float]]:
        """The five most probable classes."""
        chances, classes = self.logits[0].detach().softmax(dim=-1).topk(5)
        return [(self.network.class_name(int(i)), float(chance)) for chance, i in zip(chances, classes, strict=True)]

    def row(self, method: str, query: int | None = None, target: str | None = None) -> np.ndarray:
        """A map over all tokens, as the methods compute it."""
        names = [self.network.class_name(i) for i in range(self.network.num_classes)]
        index = int(self.logits.argmax()) if target is None else names.index(target)
        inputs = AttributionInput(self.network.net, self.images, self.recording, torch.tensor([index]))
        rows = find_method(method).rows(inputs, None if query is None else [query])
        return rows[0, 0].detach().float().numpy()
