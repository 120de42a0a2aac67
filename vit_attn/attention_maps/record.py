"""``with record(net) as recording: net(images)`` keeps what every attention of the network was computed from."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.layout import layout_of
from vit_attn.attention_maps.reading import TokenReading
from vit_attn.attention_maps.recording import AttentionCall, Forward, Recording
from vit_attn.attention_maps.watch import Asked, Watcher
from vit_attn.errors import UserError


@contextlib.contextmanager
def record(net: nn.Module, gradients: bool = False) -> Iterator[Recording]:
    """Record the attention of every forward of ``net`` inside the ``with`` block.

    The network may be compiled: inside the block it runs eagerly. Parameters, gradients, hooks, modes and random state
    stay as they are. Recorded queries, keys and values are detached.

    Args:
        net: A vision transformer of ours, timm's, torchvision's (``nn.MultiheadAttention``) or Hugging Face's.
        gradients: Whether outputs keep their graph, for the methods of ``relevance``; forwards then need gradients to
            be enabled, and the graph lives as long as the recording.

    Yields:
        A recording that grows with each forward.

    Raises:
        UserError: If the network is not a vision transformer, or if a forward was not seen whole: an attention module
            that did not attend, attended twice or not over all tokens, or attention outside of them; they are listed.
    """
    recorder = _Recorder(net, gradients)
    with recorder.watching(), recorder.reading.watching(net):
        yield recorder.recording


class _Recorder(Watcher):
    """Keeps what each attention was computed from, and refuses what was not seen whole."""

    def __init__(self, net: nn.Module, gradients: bool) -> None:
        super().__init__(net)
        self.recording = Recording(0, (0, 0), "", gradients=gradients)
        self.calls: list[tuple[str, AttentionCall]] = []
        self.reading = TokenReading()

    def begin(self) -> None:
        if self.recording.gradients and not torch.is_grad_enabled():
            raise UserError("recording gradients needs them to be enabled: leave out torch.no_grad()")
        self.calls = []
        self.reading.begin()

    def attend(self, name: str, asked: Asked, answer: Callable[[], Tensor]) -> Tensor:
        output, kept = answer(), None
        if self.recording.gradients:
            if not output.requires_grad:  # nothing before it is trained: the graph begins here
                output = output.detach().requires_grad_()
            kept = output
        q, k, v = asked.q.detach(), asked.k.detach(), asked.v.detach()
        mask = None if asked.mask is None else asked.mask.detach().expand(*q.shape[:3], k.shape[2])
        self.calls.append((name, AttentionCall(q, k, v, mask, asked.scale, asked.hard, kept)))
        return output

    def end(self, images: Tensor, output: Any) -> None:
        seen = [name for name, _ in self.calls]
        if "" in seen:
            raise UserError(f"{type(self.net).__name__} attends outside its attention modules {self._known()}")
        if missing := [name for name in self.names.values() if name not in seen]:
            raise UserError(
                f"{len(missing)} of {len(self.names)} attention modules of {type(self.net).__name__} were not seen "
                f"calling scaled_dot_product_attention: {', '.join(missing)}"
            )
        if twice := {name for name in seen if seen.count(name) > 1}:
            raise UserError(f"attention modules that attend more than once a forward: {', '.join(sorted(twice))}")
        self._lay_out(images, output)
        self._check_tokens()
        recording, seen = self.recording, [name for name, _ in self.calls]
        if recording.forwards and seen != [name for name, _ in recording.forwards[0].calls]:
            raise UserError(f"this forward used other attention modules than the first one: {', '.join(seen)}")
        recording.forwards.append(Forward(tuple(self.calls), output if recording.gradients else None))

    def _lay_out(self, images: Tensor, output: Any) -> None:
        recording = self.recording
        layout, self.calls = self.reading.checked(layout_of(self.net, images), self.calls, output)
        if recording.forwards and layout.grid_size != recording.grid_size:
            raise UserError(f"a recording has one grid, got images of {recording.grid_size} and {layout.grid_size}")
        for name, value in layout._asdict().items():
            setattr(recording, name, value)

    def _check_tokens(self) -> None:
        """Layers attend from all tokens to all; a pool, which comes last, by one query to all that are pooled."""
        recording, calls = self.recording, self.calls
        batch = self.images.shape[0]
        pooled = recording.num_tokens - (0 if recording.pool_include_prefix else recording.num_prefix_tokens)
        wanted = [(batch, recording.num_tokens, recording.num_tokens)] * len(calls)
        if recording.pools_by_attention:
            wanted[-1] = (batch, 1 if recording.global_pool == "map" else pooled, pooled)
        wrong = []
        for (name, call), expected in zip(calls, wanted, strict=True):
            found = (call.q.shape[0], call.q.shape[2], call.k.shape[2])
            if found != expected:
                wrong.append(f"{name} {found}")
        if wrong:
            raise UserError(
                f"attention of {recording.num_tokens} tokens to all {recording.num_tokens} tokens was expected of "
                f"{batch} images, got images, queries and keys in {', '.join(wrong)}"
            )

    def _known(self) -> str:
        return ", ".join(self.names.values())
