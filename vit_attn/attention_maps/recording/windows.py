"""Recording of networks that attend within windows: Swin, Swin V2, the encoder of SAM, and Hiera."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.inputs import Inputs, count_images
from vit_attn.attention_maps.recording.interceptor import SDPAInterceptor
from vit_attn.attention_maps.recording.positions import PositionTracer
from vit_attn.attention_maps.recording.recording import Forward
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.attention_maps.recording.windowed_recording import WindowedRecording, Windows
from vit_attn.errors import UserError, some_of

STARTS = ("Unroll",)
"""Names of the classes of modules that order the tokens by windows, before all blocks."""


class WindowRecorder(SDPAInterceptor):
    """Interceptor that keeps each attention call and where its tokens are on the grid of its stage."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.recording = WindowedRecording(0, (0, 0), "", network=type(self.net).__name__)
        around = [module for module in self.net.modules() if module is not self.net and module not in self.module_names]
        self.positions = PositionTracer(
            module
            for module in around
            if type(module).__name__ in STARTS or any(each in self.module_names for each in module.modules())
        )
        self.tracer = self.positions
        self.calls: list[tuple[str, AttentionCall]] = []
        self.windows: list[Windows] = []

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Record every forward inside the ``with`` block."""
        with super().attached(), self.positions.attached():
            yield

    def on_forward_start(self, images: Inputs) -> None:
        """Follow the tokens of the forward that starts."""
        self.calls, self.windows = [], []
        self.positions.start(count_images(images))

    def after_attention(self, name: str, call: SDPACall, output: Tensor) -> Tensor:
        """Keep the call and its windows."""
        self.windows.append(self._windows_of(name, call))
        self.calls.append((name, call.recorded(None)))
        return output

    def on_forward_end(self, images: Inputs, output: Any) -> None:
        """Add the forward to the recording, if each attention module was seen once and as in the first forward."""
        self.positions.stop()
        self.check_weights_used(self.module_names.values())
        seen = [name for name, _ in self.calls]
        if missing := [name for name in self.module_names.values() if name not in seen]:
            raise UserError(self.unseen_message(missing))
        self.check_called_once()
        recording = self.recording
        if recording.forwards:
            if seen != [name for name, _ in recording.forwards[0].calls]:
                raise UserError(f"this forward used other attention modules than the first one: {some_of(seen)}")
            if not all(map(Windows.equals, recording.windows, self.windows)):
                raise UserError(f"a recording has one grid, got {recording.grid_size} and {self.windows[0].grid_size}")
        recording.windows, recording.grid_size = self.windows, self.windows[0].grid_size
        recording.forwards.append(Forward(tuple(self.calls)))

    def _windows_of(self, name: str, call: SDPACall) -> Windows:
        """Find the windows of a call.

        Raises:
            UserError: If the tokens' positions are not known, or if windows overlap.
        """
        queries, values = call.sources
        keys, rows = self._places(values, call.k), self._places(queries, call.q)
        if keys is None or rows is None:
            raise UserError(
                f"{name} of {type(self.net).__name__} attends within windows whose tokens could not be followed from "
                "their grid, so its maps have no position"
            )
        return Windows(*keys, *rows)

    def _places(self, source: Tensor | None, vectors: Tensor) -> tuple[tuple[int, int], Tensor] | None:
        """Find the grid of queries or keys, and the index on it of each token (W, N), -1 for padding.

        Args:
            source: The tensor that the network gave.
            vectors: The same as (B W, H, N, D).
        """
        axes, numbers, images = (
            self.positions.head_axes(source),
            self.positions.numbers(source),
            count_images(self.images),
        )
        if axes is None or numbers is None or len(vectors) % images:
            return None
        by_head = axes.split(numbers)[..., 0].long()
        if by_head.shape != vectors.shape[:3] or not torch.equal(by_head, by_head[:, :1].expand_as(by_head)):
            return None
        rows, cols = self.positions.grid_size
        places = by_head[:, 0].unflatten(0, (images, -1)) - 1  # (B, W, N)
        first = torch.arange(images, device=places.device)[:, None, None] * (rows * cols)
        places = torch.where(places < 0, -1, places - first)
        tokens = places[0]
        if not torch.equal(places, tokens.expand_as(places)):
            return None
        return _on_lattice(tokens, (rows, cols))


def _on_lattice(tokens: Tensor, grid: tuple[int, int]) -> tuple[tuple[int, int], Tensor] | None:
    """Count tokens on the grid that they occupy, each place once: all of it, or every second row and column, ….

    Args:
        tokens: Indices (W, N) on the whole grid; each pooled token has that of its upper left one.
        grid: Rows and columns of the whole grid.
    """
    found = tokens[tokens >= 0].sort().values
    stride = math.isqrt(grid[0] * grid[1] // max(1, len(found)))
    rows, cols = grid[0] // max(1, stride), grid[1] // max(1, stride)
    across, down = torch.arange(cols, device=tokens.device), torch.arange(rows, device=tokens.device)
    if not torch.equal(found, (down[:, None] * stride * grid[1] + across * stride).flatten()):
        return None
    row, col = tokens // grid[1], tokens % grid[1]
    return (rows, cols), torch.where(tokens < 0, -1, row // stride * cols + col // stride)
