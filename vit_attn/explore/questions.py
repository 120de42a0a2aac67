"""Questions by cutting: the logits of a cut network, a try of the top-ranked patches, and a judgement of maps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vit_attn.attention_maps.checks import call_network, check_logits
from vit_attn.attention_maps.evaluation.baselines import (
    RANDOM_ORDERS,
    SMALLEST_DIFFERENCE,
    judge_maps,
    t_quantile,
)
from vit_attn.attention_maps.evaluation.faithfulness import order_of, random_maps
from vit_attn.attention_maps.methods.registry import (
    AttributionInput,
    AttributionMethod,
    attribution_methods,
    drawn_methods,
    find_method,
)
from vit_attn.attention_maps.methods.rollout import raw_rows
from vit_attn.attention_maps.recording.layout import is_attention_pool
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.recording.token_layout import pooling_row
from vit_attn.attention_maps.summary import query_relevance
from vit_attn.errors import UserError
from vit_attn.explore.cut_text import code_of, describe_cut
from vit_attn.explore.cuts import Cut, PatchCut, cutting
from vit_attn.explore.cuts_json import POOL, checked_index, parse_cuts, shown
from vit_attn.explore.subject import Subject
from vit_attn.tb_plugin.inputs import POOLED_LAYER

MOST_TRIED = 32
"""Patches that are tried at once at most."""
MOST_JUDGED = 8
"""Methods that are judged at once at most."""
JUDGED_STEPS = 8
"""Points of each curve of deletion and insertion after the first, as the logger measures them."""
JUDGED_AT_ONCE = 16
"""Masked images a forward: 16 of ViT-S/16 at 224 take about 100 MB."""
Classes = Float[Tensor, " classes"]


def ask_cut(subject: Subject, body: Mapping[str, Any], register: Callable[[tuple[Cut, ...]], int]) -> dict[str, Any]:
    """Compute the logits with and without cuts.

    Args:
        subject: Network and picture.
        body: ``{"cuts": [...]}``, as :func:`parse_cuts` takes them.
        register: Returns the step of a list of cuts.

    Returns:
        ``step``; ``before`` and ``after``, each with all ``logits`` and ``probabilities``; ``said``, a sentence a cut;
        ``code``, lines of Python that repeat the cuts.

    Raises:
        UserError: If a cut does not exist, or if the cut network gives NaN.
    """
    cuts = parse_cuts(body.get("cuts"), subject.recording, subject.heads)
    after = cut_logits(subject, cuts)
    return {
        "step": register(cuts),
        "before": _prediction(subject.logits[0].float()),
        "after": _prediction(after),
        "said": [describe_cut(cut, subject.recording, subject.prefix) for cut in cuts],
        "code": code_of(cuts, subject),
    }


def cut_logits(subject: Subject, cuts: Sequence[Cut]) -> Classes:
    """Logits of the network with these cuts, by one forward; errors as for :func:`cutting`."""
    if not cuts:
        return subject.logits[0].float()
    with torch.inference_mode(), cutting(subject.net, cuts, subject.recording):
        return check_logits(logits_of(call_network(subject.net, subject.images)))[0].float()


def _prediction(logits: Classes) -> dict[str, list[float]]:
    return {"logits": logits.tolist(), "probabilities": logits.softmax(dim=-1).tolist()}


def ask_try(subject: Subject, body: Mapping[str, Any]) -> dict[str, Any]:
    """Cut the patches that a map ranks first, and as many random ones, and compare what the target class loses.

    It takes nine forwards: one with the ranked patches cut, and one for each of eight random orders.

    Args:
        subject: Network and picture; its recording has gradients.
        body: ``method``; ``query``, a token or ``"pool"``; ``target``, a class or ``""`` for the predicted one;
            ``count`` of patches, 3 by default.

    Returns:
        ``ranked`` and each of ``random``: the ``patches`` (from 0) and the change of ``logit`` and ``probability`` of
        the target; ``mean`` of the random ones; ``margin`` within which the change by another random order would lie in
        95 of 100 cases, at least 0.01; ``verdict`` on the logit (better, no measurable difference, worse); ``said``.

    Raises:
        UserError: If a value does not exist or is not supported, or if the network gives NaN.
    """
    rows, cols = subject.recording.grid_size
    count = body.get("count", 3)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= min(MOST_TRIED, rows * cols):
        raise UserError(f"count must be in 1..{min(MOST_TRIED, rows * cols)}, got {shown(count)}")
    method, target = _find_method(body.get("method")), _target(subject, body.get("target"))
    prefix = subject.recording.num_prefix_tokens
    map_row = _map(subject, method, _query(subject, body.get("query")), target)[prefix:].cpu()
    orders = [
        order_of(map_row[None]),
        *(order_of(random_maps((1, rows * cols), seed)) for seed in range(RANDOM_ORDERS)),
    ]
    ranked, *random = [_effect(subject, order[0, :count], target) for order in orders]
    of_random = {name: torch.tensor([each[name] for each in random]) for name in ("logit", "probability")}
    mean = {name: values.mean().item() for name, values in of_random.items()}
    margin = {name: _margin(values) for name, values in of_random.items()}
    gain = mean["logit"] - ranked["logit"]  # what is lost beyond the random ones
    verdict = "better" if gain > 0 else "worse"
    verdict = "no measurable difference" if abs(gain) <= margin["logit"] else verdict
    return {
        "ranked": ranked,
        "random": random,
        "mean": mean,
        "margin": margin,
        "target": target,
        "method": method.name,
        "verdict": verdict,
        "said": [_say_verdict(verdict, method, count, ranked["logit"], mean["logit"], margin["logit"]), _note(subject)],
    }


def _effect(subject: Subject, patches: Int64[Tensor, " count"], target: int) -> dict[str, Any]:
    prefix, chosen = subject.recording.num_prefix_tokens, patches.tolist()
    before, after = subject.logits[0].float(), cut_logits(subject, [PatchCut(prefix + patch) for patch in chosen])
    logit, probability = (
        (x[target] - y[target]).item() for x, y in ((after, before), (after.softmax(dim=-1), before.softmax(dim=-1)))
    )
    return {"patches": chosen, "logit": logit, "probability": probability}


def _margin(values: Float[Tensor, " orders"]) -> float:
    """Range around the mean of random orders in which another one lies in 95 of 100 cases, as when maps are judged."""
    spread = t_quantile(len(values) - 1) * values.double().std().item() * math.sqrt(1 + 1 / len(values))
    return max(spread, SMALLEST_DIFFERENCE)


def _say_verdict(verdict: str, method: AttributionMethod, count: int, ranked: float, mean: float, margin: float) -> str:
    patches = "patch" if count == 1 else f"{count} patches"
    others = "a random one" if count == 1 else f"{count} random ones"
    numbers = f"{ranked:+.2f} by the {patches} that {method.label} ranks first, {mean:+.2f} ± {margin:.2f} by {others}"
    meaning = {
        "better": "the map found patches that this prediction depends on more than on others",
        "worse": "the prediction depends less on these patches than on others",
        "no measurable difference": "no measurable difference, so this try does not tell the map from chance",
    }
    return f"Change of the logit: {numbers} (mean of {RANDOM_ORDERS} orders, 95 %): {meaning[verdict]}."


def _note(subject: Subject) -> str:
    """What cutting patches does not remove from this network."""
    row = None if is_attention_pool(subject.recording.global_pool) else pooling_row(subject.recording)
    averages = row is not None and bool(row[subject.recording.num_prefix_tokens :].any())
    more = " This network averages its patches, and the mean still reads them." if averages else ""
    return f"A patch that is cut is still in the picture: no other token attends to it.{more}"


def ask_judge(subject: Subject, body: Mapping[str, Any]) -> dict[str, Any]:
    """Judge maps of the pooled row for the predicted class by deletion and insertion, on this picture alone.

    It takes 2 + 7 · (2 · (methods + 1) + 8) forwards: 86 for one method, 184 for eight, which is the most.

    Args:
        subject: Network and picture; its recording has gradients.
        body: ``methods``, names of methods; all that are drawn by default where it is missing or empty.

    Returns:
        ``judged``, as the index of a step has it for the whole, and ``image``, as it has it for one picture;
        ``forwards``, their number.

    Raises:
        UserError: If a method does not exist or is not supported, or if there are too many.
    """
    given = body.get("methods") or [method.name for method in drawn_methods() if method.supports(subject.net)]
    if not isinstance(given, list) or len(given) > MOST_JUDGED:
        raise UserError(f"methods must be a list of at most {MOST_JUDGED} names, got {shown(given)}")
    target, prefix = int(subject.logits.argmax()), subject.recording.num_prefix_tokens
    rows: dict[str, Tensor] = {}
    for method in dict.fromkeys(map(_find_method, given)):
        label = POOLED_LAYER if _is_pooled_layer(subject, method, None) else method.label
        rows[label] = _map(subject, method, None, target)[None, prefix:].detach().cpu()
    classes = torch.tensor([target], device=subject.images.device)
    judged = judge_maps(subject.net, subject.images, rows, classes, JUDGED_STEPS, batch=JUDGED_AT_ONCE)
    (by_label,) = (
        {label: {name: _plain(each) for name, each in of.items()} for label, of in image.items()}
        for image in judged.by_image
    )
    forwards = 2 + (JUDGED_STEPS - 1) * (2 * (len(rows) + 1) + RANDOM_ORDERS)
    return {
        "judged": {"orders": judged.orders, "images": 1, "methods": by_label},
        "image": by_label,
        "forwards": forwards,
    }


def _plain(numbers: Sequence[float]) -> list[float | None]:
    return [round(each, 6) if math.isfinite(each) else None for each in numbers]


def _find_method(name: object) -> AttributionMethod:
    if not isinstance(name, str):
        raise UserError(f"the method must be a name, such as {next(iter(attribution_methods()))}, got {shown(name)}")
    return find_method(name)


def _target(subject: Subject, given: object) -> int:
    if given is None or given == "":
        return int(subject.logits.argmax())
    return checked_index("target", given, subject.logits.shape[-1])


def _query(subject: Subject, given: object) -> int | None:
    return None if given in (None, POOL) else checked_index("query", given, subject.recording.num_tokens)


def _map(subject: Subject, method: AttributionMethod, query: int | None, target: int) -> Float[Tensor, " N"]:
    """Map over all tokens, as the page shows it: relevance is without the identity of its query."""
    if _is_pooled_layer(subject, method, query):
        return raw_rows(subject.recording)[0, 0]
    queries = None if query is None else [query]
    classes = torch.tensor([target], device=subject.logits.device)
    if method.name == "relevance":
        return query_relevance(subject.recording, classes, queries)[0]
    inputs = AttributionInput(subject.net, subject.images, subject.recording, classes)
    return method.rows(inputs, queries)[0, 0].float()


def _is_pooled_layer(subject: Subject, method: AttributionMethod, query: int | None) -> bool:
    """Tell whether the page shows the last layer's rows, mixed by an attention pool, in place of the pool's own row."""
    return method.name == "last_layer" and query is None and subject.recording.pool is not None
