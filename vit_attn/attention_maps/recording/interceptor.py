"""Standing by while a network attends: each call of fused attention, by the name of the module that asked for it.

Networks call fused attention, which never forms its weights. A ``TorchFunctionMode``, on while a watched network runs,
sees those calls, and hooks of its modules know whose they are. Only the thread and task that watch are watched: the
hooks do nothing elsewhere. The network is not changed: no flag, no patched module, and nothing is left behind.
"""

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vit_attn.attention_maps.precision import shared
from vit_attn.attention_maps.recording.hugging_face import refuse_by_name
from vit_attn.attention_maps.recording.network_checks import (
    check_batch,
    check_network,
    check_parameters,
    misfit,
    unseen_hint,
)
from vit_attn.attention_maps.recording.readout import tokens_given
from vit_attn.attention_maps.recording.sdpa_call import SDPA_ARGUMENTS, SDPACall, completed
from vit_attn.errors import UserError, some_of
from vit_attn.model.attention import hard_attention

_watchers: ContextVar[tuple["SDPAInterceptor", ...]] = ContextVar("watchers", default=())
_thread = threading.local()


class SDPAInterceptor:
    """Sees each attention of a network. Subclasses say what happens at it.

    Several may watch at once, in any order: first each says what it changes, then the attention is computed once, and
    each sees what was used.

    Args:
        net: A network whose attention modules call ``scaled_dot_product_attention``, or are ``nn.MultiheadAttention``.
    """

    def __init__(self, net: nn.Module) -> None:
        net = getattr(net, "_orig_mod", net)  # what torch.compile wraps, and runs eagerly while it is watched
        check_network(net)
        refuse_by_name(getattr(net, "timm_model", net))
        self.net = net
        self.names = attention_modules(net)
        self.thread = threading.get_ident()
        self.open = self.running = self.used = False
        self.inside: list[str] = []
        self.called: list[str] = []
        self.images = torch.empty(0)
        self.failing: BaseException | None = None
        self.failed: BaseException | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every forward inside the ``with`` block; compiled networks run eagerly meanwhile."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            self.open, self.thread = True, threading.get_ident()
            _watchers.set((*_watchers.get(), self))
            stack.enter_context(shared(("network", self.net), lambda: _hooked(self.net, _net_begins, _net_ends)))
            for module in self.names:
                hooks = _attention_begins, _attention_ends
                stack.enter_context(
                    shared(("attention", module), lambda module=module, hooks=hooks: _hooked(module, *hooks))
                )
            stack.enter_context(shared("compiled networks", _eager))
            try:
                yield
            except Exception as error:
                if error is self.failed and (why := misfit(self.net, self.images)):
                    raise UserError(why) from error
                raise

    def begin(self, images: Tensor) -> None:
        """A forward of these images begins."""

    def change(self, name: str, asked: SDPACall) -> None:
        """An attention module, "" for none, asks: cut or silence what is to be changed."""

    def see(self, name: str, asked: SDPACall, output: Tensor) -> Tensor:
        """An attention was computed; what is returned, the network goes on with."""
        return output

    def end(self, images: Tensor, output: Any) -> None:
        """A forward of these images ended well."""

    def strayed(self, name: str) -> None:
        """An attention module ran outside a forward of the network."""

    def start(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Begin a forward."""
        self.images = _images_of(self.net, inputs, named)
        check_batch(self.images)
        check_parameters(self.net)
        self.inside, self.called, self.failing = [], [], sys.exception()
        self.used = True
        self.begin(self.images)
        _interceptor().start(self)
        self.running = True

    def stop(self) -> bool:
        """End a forward, and say whether it ended well: one that raised tells its own error."""
        self.running = False
        _interceptor().stop(self)
        self.failed = sys.exception() if sys.exception() is not self.failing else None
        return self.failed is None

    def check_called(self) -> None:
        """Whether each of the attention modules that attended did so once.

        Raises:
            UserError: If one attended more often.
        """
        if twice := sorted({name for name in self.called if name and self.called.count(name) > 1}):
            raise UserError(
                f"attention modules that attend more than once a forward are no layers with a number: {some_of(twice)}"
            )

    def unseen(self, names: list[str]) -> str:
        """What to say of attention modules that were not seen."""
        return (
            f"{len(names)} of {len(self.names)} attention modules of {type(self.net).__name__} were not seen calling "
            f"scaled_dot_product_attention: {some_of(names)}{unseen_hint(self.net)}"
        )

    def _close(self) -> None:
        self.open = False
        _watchers.set(tuple(each for each in _watchers.get() if each is not self))
        if self.running and threading.get_ident() == self.thread:  # interrupted in the middle of a forward
            self.stop()


class _InterceptorMode(TorchFunctionMode):
    """Sees the calls of attention in this thread while watched networks run."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[SDPAInterceptor] = []

    def start(self, watcher: SDPAInterceptor) -> None:
        self.stop(watcher)  # if it was interrupted before
        if not self.running:
            self.__enter__()
        self.running.append(watcher)

    def stop(self, watcher: SDPAInterceptor) -> None:
        if watcher in self.running:
            self.running.remove(watcher)
            if not self.running:
                self.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.scaled_dot_product_attention, hard_attention):
            given = dict(zip(SDPA_ARGUMENTS, args, strict=False)) | kwargs
            return self._attend(
                completed(func is hard_attention, self._where(), **given), lambda: func(*args, **kwargs)
            )
        if func is F.multi_head_attention_forward:
            return self._multi_head(inspect.signature(func).bind(*args, **kwargs).arguments)
        return func(*args, **kwargs)

    def _attend(self, asked: SDPACall, plain: Callable[[], Tensor] | None = None) -> Tensor:
        watching = [(each, each.inside[-1] if each.inside else "") for each in self.running]
        for watcher, name in watching:
            watcher.called.append(name)
            watcher.change(name, asked)
        output = asked.answer(plain)
        for watcher, name in watching:
            output = watcher.see(name, asked, output)
        return output

    def _where(self) -> str:
        inside = self.running[-1].inside
        return f" in {inside[-1]}" if inside else ""

    def _multi_head(self, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """What ``nn.MultiheadAttention`` does, so that its inside is seen."""
        width, heads = given["embed_dim_to_check"], given["num_heads"]
        unusual = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v", "attn_mask")
        if (
            given.get("use_separate_proj_weight")
            or given["add_zero_attn"]
            or given["key"] is not given["value"]
            or given["query"].ndim != 3
        ):
            raise UserError(
                "nn.MultiheadAttention is seen with a batch, and with keys and values of one source and one width only"
            )
        if found := [name for name in unusual if given.get(name) is not None]:
            raise UserError(f"nn.MultiheadAttention is not seen through with {', '.join(found)}")
        q, k, v = (each.unflatten(-1, (heads, width // heads)).permute(1, 2, 0, 3) for each in _projected(given, width))
        drop = given["dropout_p"] if given["training"] else 0.0
        asked = completed(False, self._where(), q, k, v, dropout_p=drop)
        mixed = self._attend(asked).permute(2, 0, 1, 3).flatten(2)  # (N, B, D)
        weights = None
        if given.get("need_weights", True):
            weights = asked.weights()
            weights = weights.mean(dim=1) if given.get("average_attn_weights", True) else weights
        return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]), weights


def _projected(given: dict[str, Any], width: int) -> tuple[Tensor, ...]:
    """Queries, keys and values of ``nn.MultiheadAttention``, each (N, B, D); a pool's queries have another source."""
    query, memory, weight, bias = (given[name] for name in ("query", "key", "in_proj_weight", "in_proj_bias"))
    if query is memory:
        return F.linear(query, weight, bias).split(width, dim=-1)
    weights, biases = weight.split(width), (None,) * 3 if bias is None else bias.split(width)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, memory, memory), weights, biases, strict=True))


def _interceptor() -> _InterceptorMode:
    if not hasattr(_thread, "interceptor"):
        _thread.interceptor = _InterceptorMode()
    return _thread.interceptor


def _here() -> list[SDPAInterceptor]:
    """Who watches in this thread and task; a thread or task that was begun meanwhile may have been given their list."""
    return [each for each in _watchers.get() if each.open and each.thread == threading.get_ident()]


# Hooks are functions without a state, so that a network that is copied or pickled meanwhile takes no watcher along.


def _net_begins(module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any] | None = None) -> None:
    # without names where another thread's watcher went between torch's looking at a hook and calling it
    for watcher in _here():
        if watcher.net is module:
            watcher.start(inputs, named or {})


def _net_ends(module: nn.Module, _inputs: Any, output: Any) -> None:
    ending = [watcher for watcher in _here() if watcher.net is module and watcher.running]
    if all([watcher.stop() for watcher in ending]):
        for watcher in ending:
            watcher.end(watcher.images, output)


def _attention_begins(module: nn.Module, _inputs: Any) -> None:
    for watcher in _here():
        if name := watcher.names.get(module):
            watcher.inside.append(name) if watcher.running else watcher.strayed(name)


def _attention_ends(module: nn.Module, _inputs: Any, _output: Any) -> None:
    for watcher in _here():
        if module in watcher.names and watcher.inside:
            watcher.inside.pop()


def unwatched(net: nn.Module) -> nn.Module:
    """The network without the hooks that it took along if it was copied while another was watched."""
    ours = (_net_begins, _net_ends, _attention_begins, _attention_ends, tokens_given)
    for module in net.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook in ours]:
                del hooks[key]
    return net


def _hooked(module: nn.Module, begins: Any, ends: Any) -> Callable[[], object]:
    hooks = contextlib.ExitStack()
    hooks.callback(module.register_forward_pre_hook(begins, with_kwargs=begins is _net_begins).remove)
    hooks.callback(module.register_forward_hook(ends, always_call=True).remove)
    return hooks.close


def _eager() -> Callable[[], object]:
    stance = contextlib.ExitStack()
    stance.enter_context(torch.compiler.set_stance("force_eager"))
    return stance.close


def _images_of(net: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """The images among what a network is called with: the first tensor of four axes, or else the first."""
    given = [*inputs, *named.values()]
    tensors = [each for each in given if isinstance(each, Tensor)]
    if not tensors:
        kinds = ", ".join(type(each).__name__ for each in given) or "nothing"
        hint = ": unpack it, net(**inputs)" if any(isinstance(each, Mapping) for each in given) else ""
        raise UserError(f"{type(net).__name__} must be called with a tensor of images, got {kinds}{hint}")
    return next((each for each in tensors if each.ndim == 4), tensors[0])


def attention_modules(net: nn.Module) -> dict[nn.Module, str]:
    """The innermost modules whose class is named after attention, with their names in the network.

    Raises:
        UserError: If there are none, or if their attention is in parallel.
    """

    def is_attention(module: nn.Module) -> bool:
        return any(part in type(module).__name__.lower() for part in ("attention", "attn", "xca"))

    found = {module: name for name, module in net.named_modules() if is_attention(module) and module is not net}
    inner = {m: name for m, name in found.items() if not any(c in found for c in m.modules() if c is not m)}
    if parallel := [name for name, module in net.named_modules() if type(module).__name__ == "ParallelThingsBlock"]:
        raise UserError(f"attention in parallel is no chain of layers: {', '.join(parallel)}")
    if not inner:
        raise UserError(f"{type(net).__name__} has no attention modules to record")
    return inner


def ends_with_pool(net: nn.Module, found: Mapping[nn.Module, str]) -> bool:
    """Whether the last of these attention modules is a pool and no layer.

    The network's ``global_pool`` says so; or a module's class, the only one of that name: its own, or that of a module
    around it that holds no other attention.
    """
    if getattr(getattr(net, "timm_model", net), "global_pool", "") in ("map", "prr"):  # in Hugging Face's wrapper
        return True
    last = list(found)[-1]
    around = [m for m in net.modules() if m is not net and [c for c in m.modules() if c in found] == [last]]
    kinds = [type(module) for module in net.modules()]
    return any("pool" in type(m).__name__.lower() and kinds.count(type(m)) == 1 for m in around)
