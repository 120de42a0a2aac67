"""The routes of questions by cutting: the network cut in Python, and hostile bodies."""

import json
from typing import Any

import pytest
import torch
from werkzeug.test import TestResponse

from tests.explore.conftest import Page
from vit_attn.attention_maps import edges, knockout, raw_rows
from vit_attn.attention_maps.summary import record_logits
from vit_attn.explore.session import Place

PLACE = {"run": "coins", "image": 0}


def post(page: Page, route: str, **body: Any) -> TestResponse:
    return page.post(route, json.dumps(PLACE | body).encode(), {"Content-Type": "application/json"})


def test_a_cut_gives_a_step_whose_maps_are_those_of_the_cut_network(page: Page, coins):
    reply = post(page, "/cut", cuts=[{"kind": "patch", "token": 9}])
    assert reply.status_code == 200, reply.text
    answer = json.loads(reply.data)
    images = page.session.images("coins", 0)
    tokens = page.session.look(Place("coins", 0, 0)).recording.num_tokens
    with torch.no_grad(), knockout(coins.net, edges(tokens, range(tokens), [9]).fill_diagonal_(False)):
        recording, logits = record_logits(coins.net, images)
    assert answer["after"]["logits"] == pytest.approx(logits[0].tolist(), abs=1e-5)
    assert answer["step"] == 1
    assert page.json("/steps", run="coins") == {"steps": [0, 1]}
    place = {"run": "coins", "image": 0, "step": 1}
    assert page.json("/step", **place)["cuts"] == 1
    row = page.get("/row", **place, method="last_layer", query="pool", target="")
    found = torch.frombuffer(bytearray(row.data), dtype=torch.float32)
    torch.testing.assert_close(found, raw_rows(recording)[0, 0], rtol=1e-4, atol=1e-6)
    assert json.loads(post(page, "/cut", cuts=[{"kind": "patch", "token": 9}]).data)["step"] == 1
    assert json.loads(post(page, "/cut", cuts=[]).data)["step"] == 0


def test_the_cuts_of_a_step_are_given_back_as_they_were_sent(page: Page):
    cuts = [
        {"kind": "edge", "query": "pool", "key": 7, "layer": 1, "head": None},
        {"kind": "head", "layer": 0, "head": 1},
    ]
    step = json.loads(post(page, "/cut", cuts=cuts).data)["step"]
    assert page.json("/cuts", run="coins", step=step) == {"cuts": cuts}
    assert page.json("/cuts", run="coins", step=0) == {"cuts": []}
    unknown = page.get("/cuts", run="coins", step=step + 1)
    assert (unknown.status_code, unknown.text) == (404, "coins has steps 0 to 1, got 2")


def test_a_cut_runs_the_network_once(page: Page, coins):
    page.session.look(Place("coins", 0, 0), gradients=True)
    forwards = []
    hook = coins.net.register_forward_hook(lambda *_: forwards.append(1))
    try:
        post(page, "/cut", cuts=[{"kind": "patch", "token": 9}, {"kind": "head", "layer": 0, "head": 0}])
    finally:
        hook.remove()
    assert len(forwards) == 1


def test_a_try_and_a_judgement_are_answered(page: Page):
    tried = post(page, "/try", method="rollout", query="pool", target="", count=2)
    assert tried.status_code == 200, tried.text
    assert len(json.loads(tried.data)["ranked"]["patches"]) == 2
    judged = post(page, "/judge", methods=["rollout"])
    assert judged.status_code == 200, judged.text
    assert list(json.loads(judged.data)["image"]) == ["rollout, mean"]


@pytest.mark.parametrize(
    ("route", "body", "sentence"),
    [
        ("/cut", {}, "cuts must be a list"),
        ("/cut", {"cuts": [{"kind": "patch", "token": 10**9}]}, "token must be a whole number in 0.."),
        ("/cut", {"cuts": [{"kind": "patch", "token": -1}]}, "got -1"),
        ("/cut", {"cuts": [{"kind": "patch", "token": 1}] * 10_000}, "at most 500 cuts"),
        ("/cut", {"cuts": [{"kind": "head", "layer": 0, "head": 99}]}, "head of layer 0 must be a whole number"),
        ("/cut", {"cuts": [{"kind": "knife"}]}, "of the kind patch, edge or head"),
        ("/cut", {"cuts": [[[[]]]]}, "of the kind patch, edge or head"),
        ("/cut", {"cuts": [], "run": 3}, "run must be a name"),
        ("/cut", {"cuts": [], "run": "other"}, "there is no network"),
        ("/cut", {"cuts": [], "image": 7}, "picture"),
        ("/cut", {"cuts": [], "image": True}, "image a number"),
        ("/try", {"method": "nothing"}, "unknown attribution method"),
        ("/try", {"method": "rollout", "count": 10**6}, "count must be in"),
        ("/judge", {"methods": ["rollout"] * 100}, "at most 8 names"),
        ("/judge", {"methods": {"a": 1}}, "at most 8 names"),
    ],
)
def test_hostile_questions_are_refused_in_a_sentence(page: Page, route: str, body: dict[str, Any], sentence: str):
    reply = post(page, route, **body)
    assert reply.status_code in (404, 422)
    assert reply.mimetype == "text/plain"
    assert sentence in reply.text
    assert "\n" not in reply.text
    assert post(page, "/cut", cuts=[]).status_code == 200  # it goes on
