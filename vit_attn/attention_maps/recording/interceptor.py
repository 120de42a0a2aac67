"""Interception of a network's attention calls, each with the name of the module that made it.

Networks call fused attention, which never forms its weights, or a softmax and a product. A ``TorchFunctionMode``,
entered while an intercepted network runs, sees those calls, and hooks on its modules tell which module makes them. Only
the thread and asyncio task that intercept are affected: elsewhere the hooks do nothing. The network is not changed: no
flag, no patched module, and nothing is left behind.
"""

import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.precision import shared
from vit_attn.attention_maps.recording.attention_modules import attention_modules
from vit_attn.attention_maps.recording.hugging_face import check_token_grid
from vit_attn.attention_maps.recording.inputs import Inputs, find_inputs
from vit_attn.attention_maps.recording.network_checks import (
    check_batch,
    check_network,
    check_parameters,
    input_mismatch,
    unseen_hint,
    uses_gradient_checkpointing,
)
from vit_attn.attention_maps.recording.positions import PositionTracer, locate_tokens
from vit_attn.attention_maps.recording.readout import remember_tokens
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.attention_maps.recording.sdpa_mode import SDPAMode
from vit_attn.attention_maps.recording.token_layout import declared_layout
from vit_attn.attention_maps.recording.token_order import TokenOrder, order_of
from vit_attn.errors import UserError, some_of

_attached: ContextVar[tuple["SDPAInterceptor", ...]] = ContextVar("attached", default=())
_thread = threading.local()


class SDPAInterceptor:
    """Base class of what records or changes the attention calls of a network, by overriding its hooks.

    Several may be attached at once, in any order: first each changes the call, then the attention is computed once, and
    each gets the output. Hooks: :meth:`on_forward_start`, :meth:`before_attention`, :meth:`after_attention`,
    :meth:`on_forward_end` and :meth:`on_attention_outside_forward`.

    Args:
        net: A network whose attention modules call ``scaled_dot_product_attention``, are ``nn.MultiheadAttention``, or
            multiply the values with the softmax of their scores.
    """

    def __init__(self, net: nn.Module) -> None:
        net = getattr(net, "_orig_mod", net)  # what torch.compile wraps, and runs eagerly while it is intercepted
        check_token_grid(getattr(net, "timm_model", net))
        check_network(net)
        self.net = net
        self.module_names = attention_modules(net)
        self.thread = threading.get_ident()
        self.is_attached = self.running = self.was_called = False
        self.module_stack: list[str] = []
        self.called_modules: list[str] = []
        self.changed_weights: dict[str, str] = {}
        self.tracer: PositionTracer | None = None
        self.images: Inputs = torch.empty(0)
        self.order: TokenOrder | None = None
        self.outer_error: BaseException | None = None
        self.error: BaseException | None = None

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Intercept every forward inside the ``with`` block; compiled networks run eagerly meanwhile."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._detach)
            self.is_attached, self.thread = True, threading.get_ident()
            _attached.set((*_attached.get(), self))
            stack.enter_context(shared(("network", self.net), lambda: _register_network(self.net)))
            for module in self.module_names:
                stack.enter_context(shared(("attention", module), lambda module=module: _register_attention(module)))
            stack.enter_context(shared("compiled networks", _force_eager))
            try:
                yield
            except Exception as error:
                if uses_gradient_checkpointing(self.net):  # its suspended frames would keep hooks on every later graph
                    traceback.clear_frames(error.__traceback__)
                if error is self.error and (why := input_mismatch(self.net, self.images)):
                    raise UserError(why) from error
                raise

    @property
    def current_module(self) -> str:
        """Name of the attention module that runs now, or "" outside of them."""
        return self.module_stack[-1] if self.module_stack else ""

    def on_forward_start(self, images: Inputs) -> None:
        """Called before each forward of the network."""

    def before_attention(self, name: str, call: SDPACall) -> None:
        """Called before each attention call, which may be changed; ``name`` is "" outside the attention modules."""

    def after_attention(self, name: str, call: SDPACall, output: Tensor) -> Tensor:
        """Called after each attention call; the network goes on with the tensor that is returned."""
        return output

    def on_forward_end(self, images: Inputs, output: Any) -> None:
        """Called after each forward that did not raise."""

    def on_attention_outside_forward(self, name: str) -> None:
        """Called when an attention module runs outside a forward of the network."""

    def start_forward(self, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """Check the inputs of a forward and observe its attention calls."""
        self.images = find_inputs(self.net, inputs, keywords)
        check_batch(self.images)
        self.order = self._token_order()
        self.module_stack, self.called_modules, self.changed_weights = [], [], {}
        self.outer_error, self.was_called = sys.exception(), True
        self.on_forward_start(self.images)
        _mode().add(self)
        self.running = True

    def _token_order(self) -> TokenOrder | None:
        """Order of the tokens; None where the layout is not known, which is refused only where it is needed."""
        try:
            return order_of(declared_layout(self.net, self.images))
        except UserError:
            if isinstance(self.images, Tensor):
                return None
            raise

    def stop_forward(self) -> bool:
        """Stop observing, and return whether the forward succeeded; one that raised reports its own error."""
        self.running = False
        _mode().remove(self)
        self.error = sys.exception() if sys.exception() is not self.outer_error else None
        return self.error is None

    def check_called_once(self) -> None:
        """Check that no attention module attended more than once in this forward.

        Raises:
            UserError: If one did.
        """
        calls = self.called_modules
        if twice := sorted({name for name in calls if name and calls.count(name) > 1}):
            raise UserError(
                f"attention modules that attend more than once a forward are no layers with a number: {some_of(twice)}"
            )

    def check_weights_used(self, names: Iterable[str]) -> None:
        """Check that these modules multiplied the values with what their softmax gave.

        Raises:
            UserError: If one changed its weights in between.
        """
        for name in names:
            if name in self.changed_weights:
                raise UserError(self.changed_weights[name])

    def unseen_message(self, names: list[str]) -> str:
        """Compose the error about attention modules whose call was not seen."""
        return (
            f"{len(names)} of {len(self.module_names)} attention modules of {type(self.net).__name__} were not seen "
            f"calling scaled_dot_product_attention: {some_of(names)}{unseen_hint(self.net)}"
        )

    def _detach(self) -> None:
        self.is_attached = False
        _attached.set(tuple(each for each in _attached.get() if each is not self))
        if self.running and threading.get_ident() == self.thread:  # interrupted in the middle of a forward
            self.stop_forward()


def remove_hooks(net: nn.Module) -> nn.Module:
    """Remove the hooks of recordings that a network took along when it was copied inside one."""
    ours = (_start_forward, _end_forward, _enter_attention, _leave_attention, remember_tokens, locate_tokens)
    for module in net.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook in ours]:
                del hooks[key]
    return net


def _mode() -> SDPAMode:
    """Return this thread's mode."""
    if not hasattr(_thread, "mode"):
        _thread.mode = SDPAMode()
    return _thread.mode


def _attached_here() -> list[SDPAInterceptor]:
    """Interceptors of this thread and task; one that was started meanwhile may have inherited another's list."""
    return [each for each in _attached.get() if each.is_attached and each.thread == threading.get_ident()]


# The hooks are plain functions without state: a network that is copied or pickled inside takes no interceptor along.


def _start_forward(module: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any] | None = None) -> None:
    # without keywords where another thread's hook was removed between torch's looking it up and calling it
    starting = [each for each in _attached_here() if each.net is module]
    if starting:
        check_parameters(module)
    for interceptor in starting:
        interceptor.start_forward(inputs, keywords or {})


def _end_forward(module: nn.Module, _inputs: Any, output: Any) -> None:
    ending = [each for each in _attached_here() if each.net is module and each.running]
    if all([each.stop_forward() for each in ending]):
        for interceptor in ending:
            interceptor.on_forward_end(interceptor.images, output)


def _enter_attention(module: nn.Module, _inputs: Any) -> None:
    for interceptor in _attached_here():
        if name := interceptor.module_names.get(module):
            if interceptor.running:
                interceptor.module_stack.append(name)
            else:
                interceptor.on_attention_outside_forward(name)


def _leave_attention(module: nn.Module, _inputs: Any, _output: Any) -> None:
    for interceptor in _attached_here():
        if module in interceptor.module_names and interceptor.module_stack:
            interceptor.module_stack.pop()
            _mode().leave_module()


def _register_network(net: nn.Module) -> Callable[[], object]:
    """Register the hooks of a network, and return the function that removes them."""
    hooks = contextlib.ExitStack()
    hooks.callback(net.register_forward_pre_hook(_start_forward, with_kwargs=True).remove)
    hooks.callback(net.register_forward_hook(_end_forward, always_call=True).remove)
    return hooks.close


def _register_attention(module: nn.Module) -> Callable[[], object]:
    """Register the hooks of an attention module, and return the function that removes them."""
    hooks = contextlib.ExitStack()
    hooks.callback(module.register_forward_pre_hook(_enter_attention).remove)
    hooks.callback(module.register_forward_hook(_leave_attention, always_call=True).remove)
    return hooks.close


def _force_eager() -> Callable[[], object]:
    """Let compiled networks run eagerly, and return the function that ends it."""
    stance = contextlib.ExitStack()
    stance.enter_context(torch.compiler.set_stance("force_eager"))
    return stance.close
