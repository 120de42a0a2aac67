"""``with knockout(net, cut): net(images)``: the network without chosen edges from query to key, the causal arbiter.

A map says where a token looks. Whether that matters is seen by taking it away: the edge is masked in the running
network, the rest of the row shares what it had, and the change of the output is the edge's effect.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.checks import indices, whole
from vit_attn.attention_maps.recording.interceptor import SDPAInterceptor, ends_with_pool
from vit_attn.attention_maps.recording.network_checks import recomputes
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.errors import UserError, some_of

Tokens = Sequence[int] | Int64[Tensor, "_"] | Int64[Tensor, "B _"]
"""Token indices, prefix tokens first: the same for all images, or a row an image."""
Cut = Bool[Tensor, "N N"] | Bool[Tensor, "B N N"]


@contextlib.contextmanager
def knockout(
    net: nn.Module,
    cut: Cut | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    pool: Bool[Tensor, "_ pooled"] | None = None,
) -> Iterator[None]:
    """Cut edges of a network's attention inside the ``with`` block; what is left of a row is shared out anew.

    Every network that ``record`` sees can be cut. Knock-outs, ablations and recordings of one network may be nested in
    any order: what is cut adds up, and the recorded weights are those that the network used. A row without any key
    gives zeros, and its recorded weights are zeros. Of ``top_k`` attention the best keys are chosen before the cut.
    Only forwards of the thread, or asyncio task, that cuts are cut.

    Args:
        net: A vision transformer; it is left as it was.
        cut: True where a query (row) may not attend to a key (column), over all tokens, prefix tokens first; one for
            all images, or one an image. :func:`edges` makes it.
        layers: Which layers are cut, -1 is the last; by default all.
        heads: Which heads of them; by default all.
        pool: True where a pool by attention may not attend, over the tokens that it pools, for all images or each. It
            is no layer, and ``cut``, ``layers`` and ``heads`` leave it alone.

    Raises:
        UserError: If nothing is cut, if a layer, head or token does not exist, if an attention was not seen, or if the
            network was run otherwise than by ``net(images)``, or not at all.

    References:
        Geva 2023, "Dissecting recall of factual associations", arXiv 2304.14767, section 4 ("attention knockout").
    """
    if cut is None and pool is None:
        raise UserError("knockout needs a cut, or a pool to cut")
    surgeon = _Knockout(net, cut, layers, heads, pool)
    with surgeon.watching():
        yield
    surgeon.check_used()


@contextlib.contextmanager
def ablate(net: nn.Module, heads: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Let chosen heads give zeros inside the ``with`` block; their recorded weights and their relevance are zeros.

    Args:
        net: A vision transformer; it is left as it was.
        heads: Heads by layer; -1 is the last layer.

    Raises:
        UserError: If a layer or head does not exist, if an attention was not seen, or if the network was run otherwise
            than by ``net(images)``, or not at all.

    References:
        Michel 2019, "Are sixteen heads really better than one?", arXiv 1905.10650, section 2.
    """
    surgeon = _Ablation(net, heads)
    with surgeon.watching():
        yield
    surgeon.check_used()


def edges(num_tokens: int, queries: Tokens, keys: Tokens) -> Cut:
    """True from each of the queries to each of the keys; per image where either is.

    >>> edges(3, [0], [1, 2]).int().tolist()
    [[0, 1, 1], [0, 0, 0], [0, 0, 0]]

    Raises:
        UserError: If a token does not exist.
    """
    return members(num_tokens, queries).unsqueeze(-1) & members(num_tokens, keys).unsqueeze(-2)


def members(num_tokens: int, tokens: Tokens) -> Bool[Tensor, "*B N"]:
    """Which of all tokens are named; negative indices count from the last.

    Raises:
        UserError: If a token does not exist.
    """
    count = whole("num_tokens", num_tokens)
    if isinstance(tokens, Tensor) and tokens.ndim == 2:
        checked = [indices("tokens", row, count) for row in tokens]
        chosen = torch.tensor(checked, dtype=torch.int64, device=tokens.device).reshape(tokens.shape)
    else:
        device = tokens.device if isinstance(tokens, Tensor) else None
        chosen = torch.tensor(indices("tokens", tokens, count), dtype=torch.int64, device=device)
    named = torch.zeros(*chosen.shape[:-1], count, dtype=torch.bool, device=chosen.device)
    return named.scatter(-1, chosen, True)


class AttentionIntervention(SDPAInterceptor):
    """A watcher that changes layers, by number, and insists on having seen them."""

    def __init__(self, net: nn.Module, layers: Sequence[int] | None) -> None:
        super().__init__(net)
        names = list(self.names.values())
        self.pool_name = names.pop() if ends_with_pool(self.net, self.names) else None
        self.last = names[-1] if names else ""
        count = len(names)
        numbers = range(count) if layers is None else indices("layers", layers, count)
        self.from_last = any(each < 0 for each in ([] if layers is None else layers))
        self.numbers = {names[number]: number for number in numbers}
        self.wanted = set(self.numbers)
        self.one_query: set[str] = set()

    def begin(self, images: Tensor) -> None:
        """Refuse a network whose backward pass would run without the change."""
        if torch.is_grad_enabled() and recomputes(self.net):
            raise UserError(
                "gradient checkpointing computes attention again in the backward pass, where nothing would be cut: "
                "call net.set_grad_checkpointing(False) or net.gradient_checkpointing_disable(), or use torch.no_grad()"
            )

    def check_used(self) -> None:
        """Whether the network was called, since what was called in its place was not cut."""
        if not self.used:
            raise UserError(
                "nothing was cut: call the network itself, no copy or replica of it, inside the `with` block, in the "
                "same thread"
            )

    def change(self, name: str, asked: SDPACall) -> None:
        """Change a call of a wanted layer."""
        if asked.q.shape[2] == 1 < asked.k.shape[2]:
            self.one_query.add(name)
        if self.one_query == {self.last} and (self.from_last or name in self.wanted):
            raise UserError(
                f"{name} of {type(self.net).__name__} attends from one query, so it is a pool and no layer: name the "
                "layers, counted from 0, or name the pool's class after a pool"
            )
        if name in self.wanted:
            self.operate(name, asked)

    def operate(self, name: str, asked: SDPACall) -> None:
        """Change a chosen attention."""
        raise NotImplementedError

    def strayed(self, name: str) -> None:
        """Refuse a wanted layer that runs outside a forward of the network."""
        if name in self.wanted:
            raise UserError(
                f"{name} of {type(self.net).__name__} runs, but not in net(images), so nothing would be cut there: "
                "call the network itself, not its forward, forward_features or another part"
            )

    def end(self, images: Tensor, output: Any) -> None:
        """Refuse a forward in which a wanted layer was not seen, or layers came in another order."""
        if unseen := sorted(self.wanted - set(self.called)):
            raise UserError(f"nothing was cut: {self.unseen(unseen)}")
        self.check_called()
        order = [name for name in self.called if name in self.numbers]
        if order != (wanted := sorted(order, key=self.numbers.__getitem__)):
            raise UserError(
                f"layers are numbered as their modules are listed, but these attend in another order: "
                f"{some_of(order)}, not {some_of(wanted)}"
            )


class _Knockout(AttentionIntervention):
    def __init__(
        self,
        net: nn.Module,
        cut: Cut | None,
        layers: Sequence[int] | None,
        heads: Sequence[int] | None,
        pool: Bool[Tensor, "_ pooled"] | None,
    ) -> None:
        super().__init__(net, layers)
        _check_cut("cut", cut, (2, 3))
        _check_cut("pool", pool, (2,))
        if cut is None:
            self.wanted = set()
        if pool is not None:
            if self.pool_name is None:
                raise UserError(f"{type(net).__name__} does not pool by attention, so no pool can be cut")
            self.wanted = self.wanted | {self.pool_name}
        self.cut, self.heads, self.pool = cut, heads, pool

    def operate(self, name: str, asked: SDPACall) -> None:
        in_pool = name == self.pool_name
        given: Any = self.pool if in_pool else self.cut
        cut = given.to(asked.q.device)
        cut = (
            cut[:, None, None].expand(-1, -1, asked.q.shape[2], -1) if in_pool else cut.reshape(-1, 1, *cut.shape[-2:])
        )  # (B or 1, 1, M, N)
        shape = (asked.q.shape[0], asked.q.shape[2], asked.k.shape[2])
        if cut.shape[2:] != shape[1:] or cut.shape[0] not in (1, shape[0]):
            raise UserError(
                f"the cut is of images, queries and keys {(cut.shape[0], *cut.shape[2:])}, but {name} has {shape}"
            )
        if self.heads is not None and not in_pool:
            cut = cut & _of_heads(asked, self.heads)
        asked.take_away(cut)


class _Ablation(AttentionIntervention):
    def __init__(self, net: nn.Module, heads: Mapping[int, Sequence[int]]) -> None:
        if not isinstance(heads, Mapping):
            raise UserError(f"heads must be listed by layer, as {{-1: [0, 3]}}, got {type(heads).__name__}")
        super().__init__(net, list(heads))
        count = len(self.names) - (self.pool_name is not None)
        self.heads: dict[int, list[int]] = {}
        for layer, chosen in heads.items():
            if not isinstance(chosen, Iterable):
                raise UserError(f"heads must be a list for each layer, as {{{layer}: [{chosen}]}}, got {chosen!r}")
            self.heads.setdefault(layer % count, []).extend(chosen)

    def operate(self, name: str, asked: SDPACall) -> None:
        asked.silence(_of_heads(asked, self.heads[self.numbers[name]]))


def _of_heads(asked: SDPACall, heads: Sequence[int]) -> Bool[Tensor, "1 H 1 1"]:
    """True for these heads."""
    count = asked.q.shape[1]
    chosen = torch.zeros(count, dtype=torch.bool, device=asked.q.device)
    chosen[indices("heads", heads, count)] = True
    return chosen[None, :, None, None]


def _check_cut(name: str, cut: Any, axes: tuple[int, ...]) -> None:
    if cut is None or (isinstance(cut, Tensor) and cut.dtype == torch.bool and cut.ndim in axes):
        return
    found = f"{cut.dtype} {tuple(cut.shape)}" if isinstance(cut, Tensor) else type(cut).__name__
    shape = "(tokens, tokens), or one an image" if 3 in axes else "(images or 1, pooled tokens)"
    raise UserError(f"{name} must be a tensor of truth values {shape}, got {found}")
