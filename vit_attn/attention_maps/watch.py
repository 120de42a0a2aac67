"""Standing by while a network attends: each call of fused attention, by the name of the module that asked for it.

Networks call fused attention, which never forms its weights. A ``TorchFunctionMode`` sees those calls, and global hooks
know whose they are. The network is not changed: no flag, no patched module, and nothing is left behind.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from vit_attn.errors import UserError
from vit_attn.model.attention import hard_attention

SDPA_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


@dataclass
class Asked:
    """The arguments of one attention, completed: as many heads of keys as of queries, and a mask or none."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float
    hard: bool

    def answer(self) -> Tensor:
        """What the attention gives."""
        attend: Any = hard_attention if self.hard else F.scaled_dot_product_attention
        return attend(self.q, self.k, self.v, attn_mask=self.mask, scale=self.scale)


class Watcher(TorchFunctionMode):
    """Sees each attention of a network. Subclasses say what happens at it.

    Args:
        net: A network whose attention modules call ``scaled_dot_product_attention``, or are ``nn.MultiheadAttention``.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.names = attention_modules(net)
        self.inside: list[str] = []
        self.running = False
        self.images = torch.empty(0)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every forward inside the ``with`` block; a compiled network runs eagerly there."""
        with contextlib.ExitStack() as hooks:
            hooks.callback(register_module_forward_pre_hook(self._enter).remove)
            hooks.callback(register_module_forward_hook(self._leave, always_call=True).remove)
            # of the network itself, since torch does not forget that a global hook took arguments by name
            hooks.callback(self.net.register_forward_pre_hook(self._take, with_kwargs=True).remove)
            with torch.compiler.set_stance("force_eager"), self:
                yield

    def begin(self) -> None:
        """A forward begins."""

    def end(self, images: Tensor, output: Any) -> None:
        """A forward of these images ended well."""

    def attend(self, name: str, asked: Asked, answer: Callable[[], Tensor]) -> Tensor:
        """An attention module, "" for none, asks; ``answer`` is what the network itself would do."""
        return answer()

    def _enter(self, module: nn.Module, _inputs: Any) -> None:
        if module is self.net:
            self.running = True
            self.inside.clear()
            self.begin()
        if module in self.names:
            self.inside.append(self.names[module])

    def _take(self, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.images = next(x for x in (*inputs, *named.values()) if isinstance(x, Tensor))

    def _leave(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        if module in self.names and self.inside:
            self.inside.pop()
        if module is self.net and self.running:
            self.running = False
            if output is not None:  # a forward that raised tells its own error
                self.end(self.images, output)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.running:
            return func(*args, **kwargs)
        if func in (F.scaled_dot_product_attention, hard_attention):
            name, given = self.inside[-1] if self.inside else "", dict(zip(SDPA_ARGUMENTS, args, strict=False)) | kwargs
            shape = tuple(given.get("query", given.get("q")).shape)
            if len(shape) != 4:
                raise UserError(f"attention of (images, heads, tokens, channels) was expected, got {shape} in {name}")
            return self.attend(name, _asked(func is hard_attention, **given), lambda: func(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            return self._multi_head(inspect.signature(func).bind(*args, **kwargs).arguments)
        return func(*args, **kwargs)

    def _multi_head(self, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """What ``nn.MultiheadAttention`` does, so that its inside is seen."""
        width, heads = given["embed_dim_to_check"], given["num_heads"]
        unusual = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v", "attn_mask")
        if given.get("use_separate_proj_weight") or given["add_zero_attn"] or given["key"] is not given["value"]:
            raise UserError("nn.MultiheadAttention is seen with keys and values of one source and one width only")
        if found := [name for name in unusual if given.get(name) is not None]:
            raise UserError(f"nn.MultiheadAttention is not seen through with {', '.join(found)}")
        q, k, v = (each.unflatten(-1, (heads, width // heads)).permute(1, 2, 0, 3) for each in _projected(given, width))
        drop = given["dropout_p"] if given["training"] else 0.0
        asked = _asked(False, q, k, v, dropout_p=drop)
        output = self.attend(self.inside[-1] if self.inside else "", asked, asked.answer)
        mixed = output.permute(2, 0, 1, 3).flatten(2)  # (N, B, D)
        weights = None
        if given.get("need_weights", True):
            scores = q @ k.mT * asked.scale
            weights = scores.softmax(dim=-1)
            weights = weights.mean(dim=1) if given.get("average_attn_weights", True) else weights
        return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]), weights


def _projected(given: dict[str, Any], width: int) -> tuple[Tensor, ...]:
    """Queries, keys and values of ``nn.MultiheadAttention``, each (N, B, D); a pool's queries have another source."""
    query, memory, weight, bias = (given[name] for name in ("query", "key", "in_proj_weight", "in_proj_bias"))
    if query is memory:
        return F.linear(query, weight, bias).split(width, dim=-1)
    weights, biases = weight.split(width), (None,) * 3 if bias is None else bias.split(width)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, memory, memory), weights, biases, strict=True))


def _asked(  # noqa: PLR0913  the arguments of torch's scaled_dot_product_attention
    hard: bool,
    query: Tensor | None = None,
    key: Tensor | None = None,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **by_short_name: Any,
) -> Asked:
    q, k, v = (by_short_name.get(name, given) for name, given in (("q", query), ("k", key), ("v", value)))
    if dropout_p:
        raise UserError(f"attention dropout is on (p={dropout_p}), so no map would be what was used: call net.eval()")
    if k.shape[1] != q.shape[1]:  # grouped heads
        k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    if is_causal:
        attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return Asked(q, k, v, attn_mask, q.shape[-1] ** -0.5 if scale is None else scale, hard)


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
