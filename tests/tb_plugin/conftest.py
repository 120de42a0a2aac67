"""Logs that are made up, a TensorBoard of their own, and the tab in a browser."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from vit_attn.tb_plugin.metadata import image_tag
from vit_attn.tb_plugin.summary import TabImages, Tokens, write_attention


def make_maps(images: int, heads: int, tokens: int, seed: int = 0) -> np.ndarray:
    """Rows that sum to 1, with a sink."""
    scores = 2 * np.random.default_rng(seed).standard_normal((images, heads, tokens, tokens))
    scores[..., tokens // 2] += 6
    weights = np.exp(scores)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def _write_step(
    folder: Path,
    step: int,
    grid: tuple[int, int] = (4, 6),
    prefix: int = 2,
    heads: tuple[int, ...] = (2, 3),
    images: int = 2,
    **more: Any,
) -> list[np.ndarray]:
    """A step of a made-up network, and its maps; ``pixels`` is the seed of the images, the same at every step."""
    tokens = prefix + grid[0] * grid[1]
    rng = np.random.default_rng(more.pop("pixels", 0))
    pixels = rng.integers(0, 256, (images, 8 * grid[0], 8 * grid[1], 3), dtype=np.uint8)
    regions, answers = more.pop("ground_truth", None), more.pop("answers", None)
    shown = TabImages(pixels, [1] * images, ["cat", "dog", "<b>owl</b>"], regions, answers)
    chances = np.array([[0.2, 0.7, 0.1], [0.1, 0.2, 0.7], *[[0.1, 0.8, 0.1]] * images], np.float32)[:images]
    pooled = np.eye(tokens, dtype=np.float32)[:1] if prefix else np.full((1, tokens), 1 / tokens, np.float32)
    maps = [make_maps(images, count, tokens, 10 * step + i) for i, count in enumerate(heads)]
    write_attention(folder, step, shown, chances, maps, Tokens(grid, prefix, pooled), **more)
    return maps


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _read(url: str) -> tuple[int, bytes]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture(scope="session")
def write_step() -> Callable[..., list[np.ndarray]]:
    """Writes a step of a made-up network."""
    return _write_step


@pytest.fixture(scope="session")
def read() -> Callable[[str], tuple[int, bytes]]:
    """Asks a server."""
    return _read


@pytest.fixture(scope="session")
def damage() -> Callable[[Path], None]:
    """Turns a byte in the last layer of the last image of a folder's last step, under a right checksum of the event."""
    return _damage


def _damage(folder: Path) -> None:
    for file in folder.glob("*tfevents*"):
        events = [Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]
        for event in events:
            for value in event.summary.value:
                if value.tag == image_tag(1):
                    blob = value.tensor.string_val[-1]
                    value.tensor.string_val[-1] = blob[:-1] + bytes([blob[-1] ^ 1])
        with file.open("wb") as opened:
            writer = RecordWriter(opened)
            for event in events:
                writer.write(event.SerializeToString())


TOOLBAR = 64
"""Height of what TensorBoard's page has above the tab, in pixels."""


@pytest.fixture
def open_plugin(page: Any) -> Callable[..., Any]:
    """Opens the tab with a state of its own.

    It is opened as TensorBoard serves it for the frame of its page, in a window of that frame's size, or in the whole
    page of TensorBoard, whose own modules take four times as long to load.
    """

    def open_it(
        address: str,
        state: dict[str, Any] | None = None,
        size: tuple[int, int] = (1400, 1000),
        link: str | None = None,
        in_tensorboard: bool = False,
    ) -> Any:
        within = in_tensorboard or link is not None
        page.set_viewport_size({"width": size[0], "height": size[1] - (0 if within else TOOLBAR)})
        if state is not None:
            page.add_init_script(f"localStorage['vit_attn.attention'] ||= {json.dumps(json.dumps(state))}")
        path = f"#vit_attn{link or ''}" if within else "data/plugin_entry.html?name=vit_attn"
        page.goto(f"{address}/{path}", wait_until="commit")
        return page.frame_locator("iframe") if within else page

    return open_it


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Starts TensorBoard over a folder and gives its address; the entry point is what finds the plugin."""
    started = []

    def start(logdir: Path, *options: str, run: str | None = None) -> str:
        port = _free_port()
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen([*command, "--reload_interval", "1", *options], **quiet))
        address = f"http://localhost:{port}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                status, body = _read(f"{address}/data/plugin/vit_attn/runs")
            except OSError:
                time.sleep(0.2)
                continue
            if status == 404:
                pytest.fail("TensorBoard does not find the plugin: install the package again, for its entry point")
            if run is None or f'"{run}"' in body.decode():
                return address
            time.sleep(0.2)
        raise TimeoutError(f"TensorBoard did not show {run} of {logdir}")

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
