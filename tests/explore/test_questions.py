"""Questions by cutting: replies against the network cut by hand, and against the house's judgement."""

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.networks import IMAGES, built
from vit_attn.attention_maps import edges, knockout, legrad
from vit_attn.attention_maps.evaluation.baselines import judge_maps
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.summary import query_relevance, record_logits
from vit_attn.errors import UserError
from vit_attn.explore.cuts import EdgeCut, HeadCut, PatchCut
from vit_attn.explore.questions import ask_cut, ask_judge, ask_try
from vit_attn.explore.subject import Subject

PICTURE = IMAGES[:1]


def subject_of(family: str) -> Subject:
    net = built(family)
    recording, logits = record_logits(net, PICTURE)
    return Subject(net, PICTURE, recording, logits, "a network", None, None, "a.png")


def without_patches(net: nn.Module, tokens: int, chosen: list[int]) -> torch.Tensor:
    cut = edges(tokens, range(tokens), chosen).fill_diagonal_(False)
    with torch.no_grad(), knockout(net, cut):
        return logits_of(net(PICTURE))[0]


def test_a_cut_gives_both_predictions_its_step_its_words_and_its_lines():
    subject, registered = subject_of("ours"), []
    cuts = [
        {"kind": "patch", "token": 5},
        {"kind": "edge", "query": "pool", "key": 4, "layer": 0, "head": None},
        {"kind": "head", "layer": 2, "head": 1},
    ]
    reply = ask_cut(subject, {"cuts": cuts}, lambda chosen: registered.append(chosen) or 7)
    assert registered == [(PatchCut(5), EdgeCut(None, 4, 0), HeadCut(2, 1))]
    assert reply["step"] == 7
    assert reply["said"] == [
        "no other token attends to row 1, column 3, in all layers and heads",
        "CLS does not attend to row 1, column 2, in layer 1, all heads",
        "layer 3, head 2 gives zeros",
    ]
    assert "ablate(net, {2: [1]})" in reply["code"]
    with torch.no_grad():
        plain = logits_of(subject.net(PICTURE))[0]
    assert_close(torch.tensor(reply["before"]["logits"]), plain, rtol=1e-5, atol=1e-5)
    after = torch.tensor(reply["after"]["logits"])
    assert not torch.allclose(after, plain, atol=1e-3)
    assert_close(torch.tensor(reply["after"]["probabilities"]), after.softmax(dim=-1))
    json.dumps(reply, allow_nan=False)


@pytest.mark.parametrize("family", ["ours", "ours, mean", "timm siglip"])
def test_only_patches_are_cut_as_by_hand(family: str):
    subject = subject_of(family)
    first = subject.recording.num_prefix_tokens
    reply = ask_cut(subject, {"cuts": [{"kind": "patch", "token": first + 6}]}, lambda cuts: 1)
    expected = without_patches(subject.net, subject.recording.num_tokens, [first + 6])
    same = torch.allclose(torch.tensor(reply["after"]["logits"]), expected, atol=1e-5)
    assert same is (family != "timm siglip")  # its pool is cut, too


def test_no_cuts_are_the_network_as_it_is_without_a_forward():
    subject = subject_of("ours")
    with torch.no_grad():
        subject.net.head.weight.zero_()
    reply = ask_cut(subject, {"cuts": []}, lambda cuts: 0)
    assert reply["after"] == reply["before"]


def test_a_try_cuts_the_patches_that_the_map_ranks_first_and_as_many_random_ones():
    subject = subject_of("ours")
    reply = ask_try(subject, {"method": "relevance", "query": "pool", "target": 4, "count": 2})
    row = query_relevance(subject.recording, torch.tensor([4]))[0, 3:]
    ranked = row.argsort(descending=True)[:2].tolist()
    assert reply["ranked"]["patches"] == ranked
    before = subject.logits[0]
    for found in (reply["ranked"], reply["random"][3]):
        after = without_patches(subject.net, 19, [3 + patch for patch in found["patches"]])
        assert found["logit"] == pytest.approx((after - before)[4].item(), abs=1e-5)
        change = after.softmax(dim=-1) - before.softmax(dim=-1)
        assert found["probability"] == pytest.approx(change[4].item(), abs=1e-5)
    assert len(reply["random"]) == 8
    assert len({tuple(each["patches"]) for each in reply["random"]}) > 6
    assert reply == ask_try(subject, {"method": "relevance", "query": "pool", "target": 4, "count": 2})


def test_a_try_follows_method_query_and_target():
    subject = subject_of("ours")
    as_is = {"method": "rollout", "query": "pool", "target": "", "count": 3}
    replies = [
        ask_try(subject, as_is | change)["ranked"]
        for change in ({}, {"method": "last_layer"}, {"query": 9}, {"target": int(subject.logits.argmin())})
    ]
    assert replies[0]["patches"] != replies[1]["patches"]
    assert replies[0]["patches"] != replies[2]["patches"]
    assert replies[0]["patches"] == replies[3]["patches"]  # rollout is the same for every class
    assert replies[0]["logit"] != replies[3]["logit"]


@pytest.mark.parametrize(("ranked", "verdict"), [(-2.0, "better"), (-0.3, "no measurable difference"), (1.0, "worse")])
def test_a_verdict_is_the_drop_against_the_spread_of_random_orders(
    ranked: float, verdict: str, monkeypatch: pytest.MonkeyPatch
):
    changes = iter([ranked, -0.1, 0.1, -0.2, 0.2, -0.1, 0.1, -0.2, 0.2])

    def effect(*_: Any) -> dict[str, Any]:
        change = next(changes)
        return {"patches": [0], "logit": change, "probability": change / 10}

    monkeypatch.setattr("vit_attn.explore.questions._effect", effect)
    reply = ask_try(subject_of("ours"), {"method": "rollout", "query": "pool", "target": 0})
    assert reply["verdict"] == verdict
    assert reply["mean"]["logit"] == pytest.approx(0, abs=1e-6)
    assert reply["margin"]["logit"] == pytest.approx(2.36 * 0.169 * (1 + 1 / 8) ** 0.5, rel=0.01)
    assert ("no measurable difference" in reply["said"][0]) is (verdict == "no measurable difference")


def test_a_try_says_that_a_mean_still_reads_the_patches():
    body = {"method": "rollout", "query": "pool", "target": ""}
    assert "the mean still reads them" in ask_try(subject_of("ours, mean"), body)["said"][1]
    assert "mean" not in ask_try(subject_of("ours"), body)["said"][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"count must be in 1\.\.16, got 0"),
        ({"count": 17}, "got 17"),
        ({"count": "3"}, "got '3'"),
        ({"count": True}, "got True"),
        ({"method": "rolout"}, "did you mean 'rollout'"),
        ({"method": None}, "the method must be a name"),
        ({"query": 19}, r"query must be a whole number in 0\.\.18"),
        ({"query": "CLS"}, r"query must be a whole number in 0\.\.18"),
        ({"target": 10}, r"target must be a whole number in 0\.\.9"),
        ({"method": "legrad", "query": 3}, "one map for the whole image"),
    ],
)
def test_a_try_of_what_does_not_exist_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        ask_try(subject_of("ours"), {"method": "rollout", "query": "pool", "target": ""} | change)


def test_a_judgement_is_that_of_the_house_in_the_form_of_the_index():
    subject = subject_of("ours")
    reply = ask_judge(subject, {"methods": ["relevance", "legrad"]})
    target = subject.logits.argmax(dim=-1)
    maps = {
        "relevance": query_relevance(subject.recording, target)[:, 3:],
        "LeGrad": legrad(subject.net, PICTURE, target)[:, 3:],
    }
    expected = judge_maps(subject.net, PICTURE, maps, target)
    assert list(reply["image"]) == list(maps)
    for label, measures in reply["image"].items():
        assert list(measures) == ["deletion", "insertion"]
        for name, numbers in measures.items():
            assert numbers == pytest.approx(tuple(expected.by_image[0][label][name]), abs=1e-5)
    assert reply["judged"] == {"orders": 8, "images": 1, "methods": reply["image"]}
    json.dumps(reply, allow_nan=False)


def test_the_forwards_of_a_judgement_are_counted(monkeypatch: pytest.MonkeyPatch):
    subject, images = subject_of("ours"), []
    subject.net.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    reply = ask_judge(subject, {"methods": ["rollout", "last_layer"]})
    assert sum(images) == reply["forwards"] == 2 + 7 * (2 * 3 + 8)
    assert max(images) == 16


def test_the_last_layer_of_a_network_with_a_pool_is_judged_as_the_page_shows_it():
    assert list(ask_judge(subject_of("timm siglip"), {"methods": ["last_layer"]})["image"]) == ["last layer, pooled"]


def test_the_drawn_methods_are_judged_by_default_and_too_many_are_refused():
    subject = subject_of("ours")
    assert {"relevance", "last layer", "rollout, mean"} <= set(ask_judge(subject, {})["image"])
    for methods in (["rollout"] * 9, "rollout", [3]):
        with pytest.raises(UserError, match=r"methods must be a list of at most 8|must be a name"):
            ask_judge(subject, {"methods": methods})
