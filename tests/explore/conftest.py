import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from werkzeug.test import Client, TestResponse

from vit_attn.explore.app import ExploreApp
from vit_attn.explore.networks import LiveNetwork, open_networks
from vit_attn.explore.pictures import Pictures
from vit_attn.explore.session import Session
from vit_attn.inference.network import TrainedNetwork

PORT = 8765
BASE = f"http://127.0.0.1:{PORT}"
COINS = "vit_attn_coins_patch4_32"


def encoded(mode: str = "RGB", form: str = "PNG", size: tuple[int, int] = (48, 40), seed: int = 0) -> bytes:
    """Bytes of an image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


class Page:
    """What the page of a session sends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.client = Client(ExploreApp(session, PORT))

    def get(self, path: str, **parameters: object) -> TestResponse:
        return self.client.get(path, base_url=BASE, query_string={k: str(v) for k, v in parameters.items()})

    def json(self, path: str, **parameters: object) -> dict[str, Any]:
        reply = self.get(path, **parameters)
        assert reply.status_code == 200, reply.text
        return json.loads(reply.data)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> TestResponse:
        return self.client.post(path, base_url=BASE, data=body, headers={"Origin": BASE} | (headers or {}))


@pytest.fixture(scope="session")
def coins() -> TrainedNetwork:
    (live,) = open_networks([COINS], None, None, torch.device("cpu"))
    return live.network


@pytest.fixture
def session_of() -> Callable[..., Session]:
    """Makes a session of networks by name and of files."""

    def make(networks: dict[str, TrainedNetwork], files: list[Path] | None = None) -> Session:
        live = [LiveNetwork(name, network, name) for name, network in networks.items()]
        return Session(live, Pictures(networks, files or []))

    return make


@pytest.fixture
def page(coins: TrainedNetwork, session_of) -> Page:
    """A page of one network, which has sent a picture."""
    page = Page(session_of({"coins": coins}))
    reply = page.post("/picture", encoded())
    assert reply.status_code == 200, reply.text
    return page
