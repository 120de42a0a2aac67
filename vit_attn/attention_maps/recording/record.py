"""``with record(net) as recording: net(images)`` keeps what every attention of the network was computed from."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.recording.interceptor import SDPAInterceptor
from vit_attn.attention_maps.recording.network_checks import recomputes
from vit_attn.attention_maps.recording.readout import TokenReadout
from vit_attn.attention_maps.recording.recording import AttentionCall, Forward, Recording
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.attention_maps.recording.token_layout import UNKNOWN_POOL, layout_of
from vit_attn.errors import UserError, some_of


@contextlib.contextmanager
def record(net: nn.Module, gradients: bool = False) -> Iterator[Recording]:
    """Record the attention of every forward of ``net`` inside the ``with`` block.

    The network may be compiled: inside the block it runs eagerly. Parameters, gradients, hooks, modes and random state
    stay as they are. Recorded queries, keys and values are detached. Under :func:`knockout` and :func:`ablate`, begun
    before or after, the weights are those that the network used. Only forwards of the thread, or asyncio task, that
    records are recorded; others run on undisturbed.

    Args:
        net: A vision transformer of ours, timm's, torchvision's (``nn.MultiheadAttention``) or Hugging Face's.
        gradients: Whether outputs keep their graph, for the methods of ``relevance``; forwards then need gradients to
            be enabled, and the graph lives as long as the recording.

    Yields:
        A recording that grows with each forward.

    Raises:
        UserError: If the network is not a vision transformer, if it was run otherwise than by ``net(images)``, or if a
            forward was not seen whole: an attention module that did not attend, attended twice or not over all tokens,
            or attention outside of them; they are listed.
    """
    recorder = _Recorder(net, gradients)
    with recorder.watching(), recorder.reading.watching(m for m in recorder.net.modules() if m is not recorder.net):
        yield recorder.recording
    recorder.check_recorded()


class _Recorder(SDPAInterceptor):
    """Keeps what each attention was computed from, and refuses what was not seen whole."""

    def __init__(self, net: nn.Module, gradients: bool) -> None:
        super().__init__(net)
        self.recording = Recording(0, (0, 0), "", gradients=gradients)
        self.calls: list[tuple[str, AttentionCall]] = []
        self.reading = TokenReadout()
        self.strays: list[str] = []

    def begin(self, images: Tensor) -> None:
        if self.recording.gradients and not torch.is_grad_enabled():
            how = "torch.inference_mode()" if torch.is_inference_mode_enabled() else "torch.no_grad()"
            raise UserError(f"recording gradients needs them to be enabled: leave out {how}")
        self.calls = []
        self.reading.begin()

    def see(self, name: str, asked: SDPACall, output: Tensor) -> Tensor:
        kept = None
        if self.recording.gradients:
            if not torch.is_grad_enabled():
                raise UserError(
                    f"{name} runs without gradients inside {type(self.net).__name__}, so none can be recorded: leave "
                    "out torch.no_grad() there, and gradient checkpointing with use_reentrant=True"
                )
            if not output.requires_grad and recomputes(self.net):
                raise UserError(
                    "gradient checkpointing of frozen layers leaves nothing to record gradients of: call "
                    "net.set_grad_checkpointing(False) or net.gradient_checkpointing_disable()"
                )
            if not output.requires_grad:  # nothing before it is trained: the graph begins here
                output = output.detach().requires_grad_()
            kept = output
        q, k, v = asked.q.detach(), asked.k.detach(), asked.v.detach()
        mask = None if asked.mask is None else asked.mask.detach()
        silent = _silent(mask, asked.silent)
        rows = q.shape[:3]
        mask = None if mask is None else mask.expand(*rows, k.shape[2])
        silent = None if silent is None else silent.expand(*rows, 1)
        self.calls.append((name, AttentionCall(q, k, v, mask, asked.scale, asked.hard, kept, silent)))
        return output

    def strayed(self, name: str) -> None:
        self.strays.append(name)

    def check_recorded(self) -> None:
        """Whether the network was run as a whole, if it was run."""
        if self.strays and not self.recording.forwards:
            raise UserError(
                f"{self.strays[0]} of {type(self.net).__name__} ran, but not in net(images): call the network itself, "
                "not its forward, forward_features or another part, which is not recorded"
            )

    def end(self, images: Tensor, output: Any) -> None:
        seen = [name for name, _ in self.calls]
        if "" in seen:
            raise UserError(
                f"{type(self.net).__name__} attends outside its attention modules {some_of(list(self.names.values()))}"
            )
        if missing := [name for name in self.names.values() if name not in seen]:
            raise UserError(self.unseen(missing))
        self.check_called()
        self._lay_out(images, output)
        self._check_tokens()
        recording, seen = self.recording, [name for name, _ in self.calls]
        if recording.forwards and seen != [name for name, _ in recording.forwards[0].calls]:
            raise UserError(f"this forward used other attention modules than the first one: {some_of(seen)}")
        if recording.forwards and recording.device != self.calls[0][1].q.device:
            raise UserError(f"a recording is on one device, got {recording.device} and {self.calls[0][1].q.device}")
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
            one = recording.global_pool == "map" or (
                recording.global_pool == UNKNOWN_POOL and calls[-1][1].q.shape[2] == 1
            )
            wanted[-1] = (batch, 1 if one else pooled, pooled)
        wrong = []
        for (name, call), expected in zip(calls, wanted, strict=True):
            found = (call.q.shape[0], call.q.shape[2], call.k.shape[2])
            if found != expected:
                wrong.append(f"{name} {found}")
        if wrong:
            raise UserError(
                f"attention of {recording.num_tokens} tokens to all {recording.num_tokens} tokens was expected of "
                f"{batch} images, got images, queries and keys in {some_of(wrong)}"
            )


def _silent(mask: Tensor | None, silent: Tensor | None) -> Tensor | None:
    """Rows that give zeros since they were silenced, or since their mask leaves them no key."""
    if mask is None:
        return silent
    empty = (
        ~mask.any(dim=-1, keepdim=True) if mask.dtype == torch.bool else mask.amax(dim=-1, keepdim=True) == -torch.inf
    )
    if silent is not None:
        return silent | empty
    return empty if bool(empty.any()) else None
