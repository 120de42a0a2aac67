"""Cuts in the form of JSON, as the page sends them: checked, and written again."""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_attn.attention_maps.recording.layout import HasPooling, is_attention_pool
from vit_attn.errors import UserError, did_you_mean, one_line, shortened
from vit_attn.explore.cuts import Cut, EdgeCut, HeadCut, PatchCut, first_pooled, pooled_tokens

POOL = "pool"
"""Query of an edge that leads from what the network pools."""
MAX_CUTS = 500
"""Cuts at once; a question with more is refused before anything is computed."""


def parse_cuts(given: object, layout: HasPooling, heads: Sequence[int]) -> tuple[Cut, ...]:
    """Check cuts in the form of JSON; repeated ones are dropped.

    Args:
        given: List of ``{"kind": "patch", "token"}``, ``{"kind": "edge", "query", "key", "layer", "head"}`` and
            ``{"kind": "head", "layer", "head"}``. All numbers count from 0; the query may be ``"pool"``, and layer and
            head of an edge null, for all.
        layout: Recording or token layout of the network.
        heads: Number of heads of each layer.

    Raises:
        UserError: If a cut is not of this form, if a token, layer or head does not exist, or if there are too many.
    """
    if not isinstance(given, list):
        raise UserError(f'cuts must be a list such as [{{"kind": "patch", "token": 3}}], got {shown(given)}')
    if len(given) > MAX_CUTS:
        raise UserError(f"at most {MAX_CUTS} cuts can be made at once, got {len(given):,}")
    return tuple(dict.fromkeys(_parse_cut(each, layout, heads) for each in given))


def _parse_cut(given: object, layout: HasPooling, heads: Sequence[int]) -> Cut:
    kinds: dict[str, tuple[str, ...]] = {
        "patch": ("token",),
        "edge": ("query", "key", "layer", "head"),
        "head": ("layer", "head"),
    }
    kind = given.get("kind") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(kind, str) or kind not in kinds:
        hint = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
        raise UserError(f"a cut must be of the kind patch, edge or head, got {shown(given)}{hint}")
    if unknown := [name for name in given if name not in ("kind", *kinds[kind])]:
        raise UserError(f"a cut of the kind {kind} has {', '.join(kinds[kind])}, got {shown(unknown[0])}")
    if kind == "patch":
        return PatchCut(checked_index("token", given.get("token"), layout.num_tokens))
    if kind == "head":
        layer = checked_index("layer", given.get("layer"), len(heads))
        return HeadCut(layer, checked_index(f"head of layer {layer}", given.get("head"), heads[layer]))
    return _parse_edge(given, layout, heads)


def cuts_as_json(cuts: Sequence[Cut]) -> list[dict[str, Any]]:
    """Write cuts in the form that :func:`parse_cuts` takes."""
    return [_cut_as_json(cut) for cut in cuts]


def _cut_as_json(cut: Cut) -> dict[str, Any]:
    match cut:
        case PatchCut(token):
            return {"kind": "patch", "token": token}
        case EdgeCut(query, key, layer, head):
            return {"kind": "edge", "query": POOL if query is None else query, "key": key, "layer": layer, "head": head}
        case HeadCut(layer, head):
            return {"kind": "head", "layer": layer, "head": head}


def _parse_edge(given: Mapping[str, object], layout: HasPooling, heads: Sequence[int]) -> EdgeCut:
    layer, head, query = given.get("layer"), given.get("head"), given.get("query")
    key = checked_index("key", given.get("key"), layout.num_tokens)
    if layer is not None:
        layer = checked_index("layer", layer, len(heads))
    if head is not None:
        of = "head of every layer" if layer is None else f"head of layer {layer}"
        head = checked_index(of, head, min(heads) if layer is None else heads[layer])
    if query != POOL:
        return EdgeCut(checked_index("query", query, layout.num_tokens), key, layer, head)
    if not is_attention_pool(layout.global_pool):
        pooled_tokens(layout)
    elif layer is not None or head is not None:
        raise UserError("an attention pool is no layer: leave layer and head empty, or name a token as the query")
    elif key < (first := first_pooled(layout)):
        raise UserError(f"the attention pool reads tokens in {first}..{layout.num_tokens - 1}, got the key {key}")
    return EdgeCut(None, key, layer, head)


def checked_index(name: str, value: object, count: int) -> int:
    """Check a whole number from 0; unlike in Python, negative ones do not count from the last.

    Raises:
        UserError: If it is none, or not below ``count``.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    raise UserError(f"{name} must be a whole number in 0..{count - 1}, got {shown(value)}")


def shown(value: object) -> str:
    """Format a value of a request for a message."""
    return shortened(one_line(repr(value)), 80)
