"""Recording of a network that attends within windows: the raw maps of each layer on the grid of its stage."""

import math
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vit_attn.attention_maps.checks import indices
from vit_attn.attention_maps.precision import in_float32
from vit_attn.attention_maps.recording.network_checks import windowed_message
from vit_attn.attention_maps.recording.recording import Layer, Recording
from vit_attn.errors import UserError


@dataclass(frozen=True)
class Windows:
    """Windows of one layer: where their keys and queries are on the grid of the layer's stage."""

    grid_size: tuple[int, int]
    """Rows and columns of the keys; of the first stage they are the patches."""
    keys: Int64[Tensor, "W N"]
    """Index of each key on that grid, row by row, after shifts; -1 where a window is padded."""
    query_grid_size: tuple[int, int]
    """Rows and columns of the queries, which are fewer where a layer pools them."""
    queries: Int64[Tensor, "W M"]
    """Index of each query on its grid."""

    def equals(self, other: "Windows") -> bool:
        """Tell whether two layers have the same windows."""
        sizes = (self.grid_size, self.query_grid_size) == (other.grid_size, other.query_grid_size)
        return sizes and torch.equal(self.keys, other.keys) and torch.equal(self.queries, other.queries)


@dataclass(frozen=True)
class WindowedLayer(Layer):
    """One attention module that attends within windows, over all recorded forwards."""

    windows: Windows

    @in_float32
    def weights(self) -> Float[Tensor, "B W H M N"]:  # pyrefly: ignore[bad-override]
        """Attention weights within each window; rows are queries and sum to 1, keys that are padding included."""
        return torch.cat([call.weights() for call in self.calls]).unflatten(0, (-1, len(self.windows.keys)))

    @in_float32
    def token_map(self, row: int, col: int) -> Float[Tensor, "B H rows cols"]:
        """Attention of one token to the tokens of its stage, 0 outside its window, in every head.

        It sums to 1 but for what goes to padding, where the grid is no multiple of the window.

        Args:
            row: Row of the token, from 0, on the grid of the layer's queries.
            col: Its column.

        Raises:
            UserError: If there is no such token.
        """
        rows, cols = self.windows.query_grid_size
        token = indices("rows", [row], rows)[0] * cols + indices("columns", [col], cols)[0]
        window, place = (self.windows.queries == token).nonzero()[0].tolist()
        images = slice(window, None, len(self.windows.keys))
        rows_of_query = [call.part(images, queries=[place]).weights()[:, :, 0] for call in self.calls]
        return self._on_grid(torch.cat(rows_of_query), self.windows.keys[window])

    def _on_grid(self, weights: Float[Tensor, "B H N"], keys: Int64[Tensor, " N"]) -> Float[Tensor, "B H rows cols"]:
        whole = weights.new_zeros(*weights.shape[:2], math.prod(self.windows.grid_size))
        whole[..., keys[keys >= 0]] = weights[..., keys >= 0]
        return whole.unflatten(-1, self.windows.grid_size)


@dataclass
class WindowedRecording(Recording):
    """Recorded attention of a network that attends within windows: only the raw maps of its layers.

    Its tokens change from stage to stage, so nothing that follows tokens through all layers is defined: ``rollout`` and
    the other methods raise.
    """

    network: str = ""
    """Name of the network's class."""
    windows: list[Windows] = field(default_factory=list)
    """Windows of each layer."""

    def _layers(self) -> list[Layer]:
        layers = super()._layers()
        return [
            WindowedLayer(layer.name, layer.calls, windows) for layer, windows in zip(layers, self.windows, strict=True)
        ]

    @property
    def batch_size(self) -> int:
        """Number of images of all forwards."""
        return super().batch_size // len(self.windows[0].keys)

    @property
    def num_tokens(self) -> int:
        """Raises, as the number of tokens differs from layer to layer."""
        self._refuse()

    def check_heads(self) -> None:
        """Refuse what compares the same tokens in all layers."""
        self._refuse()

    def query_rows(self, queries: Any = None) -> NoReturn:
        """Refuse what follows queries through all layers."""
        self._refuse()

    def token_indices(self, queries: Any) -> NoReturn:
        """Refuse tokens that are numbered alike in all layers."""
        self._refuse()

    def output_gradients(self, target: Any = None) -> NoReturn:
        """Refuse gradients, which only such methods need."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(windowed_message(self.network))
