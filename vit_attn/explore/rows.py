"""Map of any query and class by any registered method, from a kept recording."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.methods.registry import find_method
from vit_attn.attention_maps.methods.rollout import rollout
from vit_attn.attention_maps.recording.recording import Forward, Recording
from vit_attn.attention_maps.summary import query_relevance
from vit_attn.errors import UserError
from vit_attn.explore.session import Place, Session

ROLLOUTS = {"rollout": "mean", "rollout_max": "max", "rollout_min": "min"}
"""Methods that have a map up to each layer, and how they fuse heads."""


class RowQuestion(NamedTuple):
    """What a row is of.

    Args:
        method: Name of an attribution method.
        query: Index of the query token; None for what the network pools.
        target: Class that a class-specific map is for; None for the predicted one.
        layer: Layer up to which attention is rolled out; None for all.
        fusion: How rollout fuses heads: ``mean``, ``max`` or ``min``; None as the method's name says.
    """

    method: str
    query: int | None = None
    target: int | None = None
    layer: int | None = None
    fusion: str | None = None


def compute_row(session: Session, place: Place, question: RowQuestion) -> Float[np.ndarray, " N"]:
    """Compute a map over all tokens, prefix tokens first; relevance is without the identity of its query.

    Args:
        session: The session.
        place: Network, step and picture.
        question: What the map is of.

    Raises:
        UserError: If there is no such place, method, token, class or layer, or if the method does not support them.
    """
    method = find_method(question.method)
    with session.lock:
        _check_target(session, place.run, question.target)
        inputs = session.inputs(place, question.target, method.needs_gradients)
        queries = None if question.query is None else [question.query]
        if question.layer is not None or question.fusion is not None:
            row = _rollout(inputs.recording, question, queries)
        elif method.name == "relevance":
            row = query_relevance(inputs.recording, inputs.target, queries)[0]
        else:
            row = _rows_under_cuts(session, place, lambda: method.rows(inputs, queries))[0, 0]
        return row.float().cpu().numpy()


def _rows_under_cuts(session: Session, place: Place, compute: Callable[[], Tensor]) -> Tensor:
    """Compute rows with the network cut as the step says, where the method runs the network again."""

    def refuse(*_: object) -> None:
        raise _RunsAgain

    if place.step == 0:
        return compute()
    hook = session.live(place.run).network.net.register_forward_pre_hook(refuse)
    try:
        return compute()
    except _RunsAgain:
        hook.remove()
        with session.cut(place):
            return compute()
    finally:
        hook.remove()


class _RunsAgain(BaseException):
    """A method ran the network; no handler of errors on the way may take it for one."""


def _rollout(recording: Recording, question: RowQuestion, queries: list[int] | None) -> Tensor:
    if question.method not in ROLLOUTS:
        raise UserError(f"layer and fusion are for {', '.join(ROLLOUTS)}, got method={question.method}")
    fusion = question.fusion or ROLLOUTS[question.method]
    return rollout(up_to_layer(recording, question.layer), queries, fusion)[0, 0]


def up_to_layer(recording: Recording, layer: int | None) -> Recording:
    """Return the recording of one picture without the layers after this one; the pooled row stays.

    Args:
        recording: Recording of one picture.
        layer: Index of the last layer that is kept; None for all.

    Raises:
        UserError: If there is no such layer.
    """
    if layer is None:
        return recording
    if not 0 <= layer < len(recording):
        raise UserError(f"layer must be in 0..{len(recording) - 1}, got {layer}")
    pooled = recording.query_rows()[0, 0].float().cpu()
    forwards = [Forward(forward.calls[: layer + 1]) for forward in recording.forwards]
    return replace(recording, forwards=forwards, global_pool="tokens", pooled=pooled, gradients=False)


def _check_target(session: Session, run: str, target: int | None) -> None:
    count = session.live(run).network.num_classes
    if target is not None and not 0 <= target < count:
        raise UserError(f"target must be a class in 0..{count - 1}, got {target}")
