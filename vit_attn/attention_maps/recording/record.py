"""Recording of a network's attention while it runs: ``with record(net) as recording: net(images)``."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.inputs import Inputs, patches_of
from vit_attn.attention_maps.recording.interceptor import SDPAInterceptor
from vit_attn.attention_maps.recording.network_checks import (
    attends_in_windows,
    uses_gradient_checkpointing,
    windowed_message,
)
from vit_attn.attention_maps.recording.readout import TokenReadout
from vit_attn.attention_maps.recording.recording import Forward, Recording
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.recording.windows import WindowRecorder
from vit_attn.errors import UserError, some_of


@contextlib.contextmanager
def record(net: nn.Module, gradients: bool = False) -> Iterator[Recording]:
    """Record the attention of every forward of ``net`` inside the ``with`` block.

    The network may be compiled: inside the block it runs eagerly. Parameters, gradients, hooks, modes and random state
    stay as they are. Recorded queries, keys and values are detached. Under :func:`knockout` and :func:`ablate`, opened
    before or after, the weights are those that the network used. Only forwards of the thread, or asyncio task, that
    opened the block are recorded; others run on undisturbed.

    Args:
        net: A vision transformer of ours, timm's, torchvision's (``nn.MultiheadAttention``), open_clip's or Hugging
            Face's, or another whose layout :func:`register_layout` gave. It is called as it is otherwise: on images, by
            keywords, or on patches with their positions, of which padding is left out.
        gradients: Whether outputs keep their graph, for the methods of ``relevance``; forwards then need gradients to
            be enabled, and the graph lives as long as the recording.

    Yields:
        A recording that grows with each forward; of a network that attends within windows (Swin, Swin V2, the encoder
        of SAM, Hiera) a ``WindowedRecording``, which has the raw maps of each layer only.

    Raises:
        UserError: If the network is not a vision transformer, if gradients are asked of one that attends in windows,
            if it was run otherwise than by ``net(images)``, or if a forward was not recorded as a whole: an attention
            module that did not attend, attended twice or not over all tokens, changed its weights after the softmax, or
            attention outside of them; they are listed.
    """
    if attends_in_windows(net):
        windows = WindowRecorder(net)
        if gradients:
            raise UserError(windowed_message(windows.recording.network))
        with windows.attached():
            yield windows.recording
        return
    recorder = _AttentionRecorder(net, gradients)
    modules = [module for module in recorder.net.modules() if module is not recorder.net]
    with recorder.attached(), recorder.readout.attached(modules):
        yield recorder.recording
    recorder.check_recorded()


class _AttentionRecorder(SDPAInterceptor):
    """Interceptor that keeps the inputs of each attention call, and refuses a forward of which one is missing."""

    def __init__(self, net: nn.Module, gradients: bool) -> None:
        super().__init__(net)
        self.recording = Recording(0, (0, 0), "", gradients=gradients)
        self.calls: list[tuple[str, AttentionCall]] = []
        self.readout = TokenReadout()
        self.outside_forward: list[str] = []

    def on_forward_start(self, images: Inputs) -> None:
        if self.recording.gradients and not torch.is_grad_enabled():
            how = "torch.inference_mode()" if torch.is_inference_mode_enabled() else "torch.no_grad()"
            raise UserError(f"recording gradients needs them to be enabled: leave out {how}")
        self.calls = []
        self.readout.start()

    def after_attention(self, name: str, call: SDPACall, output: Tensor) -> Tensor:
        if self.recording.gradients:
            self._check_gradients(name, output)
            if not output.requires_grad:  # no parameter before it is trained: the graph starts here
                output = output.detach().requires_grad_()
        attention = call.recorded(output if self.recording.gradients else None)
        if self.order is not None:
            attention = self.order.reorder(name, attention)
            if attention.output is not None:  # the network goes on from what is kept
                output = self.order.put_back(output, attention.output)
        self.calls.append((name, attention))
        return output

    def _check_gradients(self, name: str, output: Tensor) -> None:
        if not torch.is_grad_enabled():
            raise UserError(
                f"{name} runs without gradients inside {type(self.net).__name__}, so none can be recorded: leave "
                "out torch.no_grad() there, and gradient checkpointing with use_reentrant=True"
            )
        if not output.requires_grad and uses_gradient_checkpointing(self.net):
            raise UserError(
                "gradient checkpointing of frozen layers leaves nothing to record gradients of: call "
                "net.set_grad_checkpointing(False) or net.gradient_checkpointing_disable()"
            )

    def on_attention_outside_forward(self, name: str) -> None:
        self.outside_forward.append(name)

    def check_recorded(self) -> None:
        """Refuse a block in which parts of the network ran, but not the network itself.

        Raises:
            UserError: If so.
        """
        if self.outside_forward and not self.recording.forwards:
            raise UserError(
                f"{self.outside_forward[0]} of {type(self.net).__name__} ran, but not in net(images): call the network "
                "itself, not its forward, forward_features or another part, which is not recorded"
            )

    def on_forward_end(self, images: Inputs, output: Any) -> None:
        self.check_weights_used(self.module_names.values())
        seen = [name for name, _ in self.calls]
        if "" in seen:
            modules = some_of(list(self.module_names.values()))
            raise UserError(f"{type(self.net).__name__} attends outside its attention modules {modules}")
        if missing := [name for name in self.module_names.values() if name not in seen]:
            raise UserError(self.unseen_message(missing))
        self.check_called_once()
        self._set_layout(images, output)
        self._check_tokens()
        recording, seen = self.recording, [name for name, _ in self.calls]
        if recording.forwards and seen != [name for name, _ in recording.forwards[0].calls]:
            raise UserError(f"this forward used other attention modules than the first one: {some_of(seen)}")
        if recording.forwards and recording.device != self.calls[0][1].q.device:
            raise UserError(f"a recording is on one device, got {recording.device} and {self.calls[0][1].q.device}")
        recording.forwards.append(Forward(tuple(self.calls), output if recording.gradients else None))

    def _set_layout(self, images: Inputs, output: Any) -> None:
        recording = self.recording
        layout, self.calls = self.readout.measure(token_layout(self.net, images), self.calls, output)
        if recording.forwards and layout.grid_size != recording.grid_size:
            raise UserError(f"a recording has one grid, got images of {recording.grid_size} and {layout.grid_size}")
        for name, value in layout._asdict().items():
            if name not in ("order", "num_padding_tokens"):  # calls are recorded in the layout's order
                setattr(recording, name, value)

    def _check_tokens(self) -> None:
        """Check that layers attend from all tokens to all, and the pool from one query, or all, to all pooled ones."""
        recording, calls = self.recording, self.calls
        batch = (self.images if isinstance(self.images, Tensor) else patches_of(self.images)).shape[0]
        pooled = recording.num_tokens - (0 if recording.pool_include_prefix else recording.num_prefix_tokens)
        expected = [(batch, recording.num_tokens, recording.num_tokens)] * len(calls)
        if recording.pools_by_attention:
            queries = {"map": 1, "prr token": pooled, "prr avg": pooled}
            expected[-1] = (batch, queries.get(recording.global_pool, calls[-1][1].q.shape[2]), pooled)
        wrong = []
        for (name, call), shape in zip(calls, expected, strict=True):
            found = (call.q.shape[0], call.q.shape[2], call.k.shape[2])
            if found != shape:
                wrong.append(f"{name} {found}")
        if wrong:
            raise UserError(
                f"attention of {recording.num_tokens} tokens to all {recording.num_tokens} tokens was expected of "
                f"{batch} images, got images, queries and keys in {some_of(wrong)}"
            )
