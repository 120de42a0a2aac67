"""Cuts of patches, edges and heads, against knock-outs and ablations by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

from tests.networks import IMAGES, built
from vit_attn.attention_maps import ablate, edges, knockout
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.summary import record_logits
from vit_attn.errors import UserError
from vit_attn.explore.cut_text import code_of, describe_cut
from vit_attn.explore.cuts import Cut, EdgeCut, HeadCut, PatchCut, cutting, edge_groups
from vit_attn.explore.cuts_json import cuts_as_json, parse_cuts
from vit_attn.explore.subject import Subject
from vit_attn.inference.images import ImageReader, to_batch
from vit_attn.inference.network import network_for_fit, open_network

PICTURE = IMAGES[:1]
MIXED: tuple[Cut, ...] = (
    PatchCut(5),
    EdgeCut(None, 7),
    EdgeCut(3, 9, layer=1),
    EdgeCut(4, 9, layer=2, head=1),
    EdgeCut(4, 9, layer=2, head=3),
    EdgeCut(6, 8, head=0),
    HeadCut(0, 2),
    HeadCut(2, 0),
    HeadCut(2, 1),
)


def logits(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return logits_of(net(PICTURE))


def cut_logits(net: nn.Module, *cuts: Cut) -> Tensor:
    recording, _ = record_logits(net, PICTURE)
    with cutting(net, cuts, recording):
        return logits(net)


def recorded(family: str) -> tuple[nn.Module, Recording]:
    net = built(family)
    return net, record_logits(net, PICTURE)[0]


def others_to(tokens: int, token: int) -> Tensor:
    return edges(tokens, [each for each in range(tokens) if each != token], [token])


def test_cuts_as_json_are_parsed_to_the_same_cuts():
    _, recording = recorded("ours")
    heads = [4, 4, 4]
    written = json.loads(json.dumps(cuts_as_json(MIXED)))
    assert parse_cuts(written, recording, heads) == MIXED
    assert cuts_as_json(parse_cuts(written, recording, heads)) == written
    assert cuts_as_json(()) == []


@pytest.mark.parametrize(
    ("family", "pooled"),
    [
        ("ours", [0]),
        ("ours, mean", range(16)),
        ("timm vit", [0]),
        ("timm dinov3", range(5, 21)),
        ("hugging face dinov2", range(17)),
    ],
)
def test_what_the_network_pools_is_cut_off_from_a_key(family: str, pooled):
    net, recording = recorded(family)
    with knockout(net, edges(recording.num_tokens, pooled, [8]), layers=[1], heads=[2]):
        expected = logits(net)
    assert torch.equal(cut_logits(net, EdgeCut(None, 8, layer=1, head=2)), expected)
    assert not torch.equal(expected, logits(net))


@pytest.mark.parametrize("family", ["ours", "ours, mean", "torchvision vit", "hugging face vit"])
def test_a_patch_is_cut_off_from_all_other_tokens(family: str):
    net, recording = recorded(family)
    with knockout(net, others_to(recording.num_tokens, 6)):
        expected = logits(net)
    assert torch.equal(cut_logits(net, PatchCut(6)), expected)
    assert not torch.equal(expected, logits(net))


@pytest.mark.parametrize(("family", "prefix"), [("ours, pool by attention", 1), ("timm siglip", 0)])
def test_an_attention_pool_loses_patches_and_its_own_edges(family: str, prefix: int):
    net, recording = recorded(family)
    pool = torch.zeros(1, 16, dtype=torch.bool)
    pool[0, 5] = True
    with knockout(net, pool=pool):
        assert torch.equal(cut_logits(net, EdgeCut(None, prefix + 5)), logits(net))
    with knockout(net, others_to(16 + prefix, prefix + 5), pool=pool):
        expected = logits(net)
    assert torch.equal(cut_logits(net, PatchCut(prefix + 5)), expected)
    said = describe_cut(EdgeCut(None, prefix + 5), recording, ["CLS"][:prefix])
    assert said == "the attention pool does not attend to row 2, column 2"


@pytest.mark.parametrize("family", ["ours", "ours, mean", "timm vit", "hugging face vit"])
def test_mixed_cuts_are_nested_knockouts_and_ablations_in_any_order(family: str):
    net, recording = recorded(family)
    tokens = recording.num_tokens
    pooled = [0] if recording.num_prefix_tokens else range(16)
    with (
        ablate(net, {2: [0, 1], 0: [2]}),
        knockout(net, edges(tokens, [6], [8]), heads=[0]),
        knockout(net, edges(tokens, [4], [9]), layers=[2], heads=[1, 3]),
        knockout(net, edges(tokens, [3], [9]), layers=[1]),
        knockout(net, edges(tokens, pooled, [7])),
        knockout(net, others_to(tokens, 5)),
    ):
        expected = logits(net)
    for cuts in (MIXED, MIXED[::-1]):
        assert_close(cut_logits(net, *cuts), expected, rtol=1e-6, atol=1e-6)


def test_cuts_of_the_same_layers_and_heads_share_one_knock_out():
    _, recording = recorded("ours")
    groups = edge_groups(MIXED, recording)
    assert [(group.layers, group.heads) for group in groups] == [
        (None, None),
        ((1,), None),
        ((2,), (1, 3)),
        (None, (0,)),
    ]
    (every_layer,) = edge_groups([EdgeCut(1, 2, layer, 3) for layer in (0, None, 1)], recording)
    assert (every_layer.layers, every_layer.heads) == (None, (3,))
    (two_by_two,) = edge_groups([EdgeCut(1, 2, layer, head) for layer in (0, 1) for head in (2, 3)], recording)
    assert (two_by_two.layers, two_by_two.heads) == ((0, 1), (2, 3))


def test_no_cuts_leave_the_network_as_it_is():
    net, _ = recorded("ours")
    assert torch.equal(cut_logits(net), logits(net))


HOSTILE = [
    ("token", "cuts must be a list"),
    ({"kind": "patch", "token": 1}, "cuts must be a list"),
    ([{"kind": "patch", "token": 1}] * 10_000, "at most 500 cuts can be made at once, got 10,000"),
    (["patch"], "a cut must be of the kind patch, edge or head, got 'patch'"),
    ([{"kind": "pach", "token": 1}], "did you mean 'patch'"),
    ([{"kind": ["patch"], "token": 1}], "of the kind patch, edge or head"),
    ([{"kind": "patch"}], r"token must be a whole number in 0\.\.18, got None"),
    ([{"kind": "patch", "token": 10**9}], r"in 0\.\.18, got 1000000000"),
    ([{"kind": "patch", "token": 10**900}], r"in 0\.\.18, got 1000"),
    ([{"kind": "patch", "token": -1}], r"in 0\.\.18, got -1"),
    ([{"kind": "patch", "token": True}], r"in 0\.\.18, got True"),
    ([{"kind": "patch", "token": 1.0}], r"in 0\.\.18, got 1\.0"),
    ([{"kind": "patch", "token": "1"}], r"in 0\.\.18, got '1'"),
    ([{"kind": "patch", "token": 1, "tokens": [2]}], "a cut of the kind patch has token, got 'tokens'"),
    ([{"kind": "edge", "query": "CLS", "key": 1}], r"query must be a whole number in 0\.\.18, got 'CLS'"),
    ([{"kind": "edge", "query": 0, "key": 19}], r"key must be a whole number in 0\.\.18, got 19"),
    ([{"kind": "edge", "query": 0, "key": 1, "layer": 3}], r"layer must be a whole number in 0\.\.2, got 3"),
    ([{"kind": "edge", "query": 0, "key": 1, "head": 4}], r"head of every layer must be .* in 0\.\.3, got 4"),
    ([{"kind": "head", "layer": 1, "head": 4}], r"head of layer 1 must be .* in 0\.\.3, got 4"),
    ([{"kind": "head", "layer": None, "head": 0}], r"layer must be .* in 0\.\.2, got None"),
]


@pytest.mark.parametrize(("given", "message"), HOSTILE)
def test_what_cannot_be_cut_is_refused_in_one_line(given, message: str):
    _, recording = recorded("ours")
    with pytest.raises(UserError, match=message) as caught:
        parse_cuts(given, recording, [4, 4, 4])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_cuts_of_a_picture_with_more_tokens_are_refused():
    net, recording = recorded("ours")
    for cut in (PatchCut(19), EdgeCut(0, 40), EdgeCut(19, 3)):
        with pytest.raises(UserError, match=r"in 0\.\.18 of this picture"), cutting(net, [cut], recording):
            pass


def test_a_head_of_another_layer_is_refused_where_layers_differ():
    _, recording = recorded("ours")
    cut = {"kind": "head", "layer": 0, "head": 3}
    assert parse_cuts([cut], recording, [4, 2, 4]) == (HeadCut(0, 3),)
    with pytest.raises(UserError, match=r"head of layer 1 must be a whole number in 0\.\.1, got 3"):
        parse_cuts([cut | {"layer": 1}], recording, [4, 2, 4])


def test_an_attention_pool_has_no_layer_and_reads_no_prefix():
    _, recording = recorded("ours, pool by attention")
    edge = {"kind": "edge", "query": "pool", "key": 3}
    assert parse_cuts([edge], recording, [4, 4, 4]) == (EdgeCut(None, 3),)
    with pytest.raises(UserError, match="an attention pool is no layer"):
        parse_cuts([edge | {"layer": 1}], recording, [4, 4, 4])
    with pytest.raises(UserError, match=r"reads tokens in 1\.\.16, got the key 0"):
        parse_cuts([edge | {"key": 0}], recording, [4, 4, 4])


def test_a_pooling_that_is_not_known_needs_a_token_as_the_query():
    _, recording = recorded("ours")
    recording.global_pool = "a difference of its tokens"
    with pytest.raises(UserError, match="not known which tokens this network pools: name a token"):
        parse_cuts([{"kind": "edge", "query": "pool", "key": 3}], recording, [4, 4, 4])


def test_json_becomes_cuts_without_repeats():
    _, recording = recorded("ours")
    edge = {"kind": "edge", "query": 2, "key": 3, "layer": None, "head": 1}
    given = [{"kind": "patch", "token": 1}, edge, {"kind": "head", "layer": 2, "head": 0}, edge]
    assert parse_cuts(given, recording, [4, 4, 4]) == (PatchCut(1), EdgeCut(2, 3, None, 1), HeadCut(2, 0))


@pytest.mark.parametrize("fit", ["auto", "letterbox", "whole"])
def test_the_lines_of_python_give_the_same_logits(tmp_path: Path, fit: str):
    picture = tmp_path / "a 'strange' \n name.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    network = network_for_fit(open_network("vit_attn_cifar10_patch4_32"), fit)
    shown = ImageReader(network, fit).read(picture)
    assert not isinstance(shown, str)
    images = to_batch([shown], network, torch.device("cpu"))
    recording, before = record_logits(network.net, images)
    subject = Subject(
        network.net, images, recording, before, "vit_attn_cifar10_patch4_32", None, None, str(picture), fit
    )
    mixed = (PatchCut(5), EdgeCut(None, 7), EdgeCut(3, 9, layer=1), EdgeCut(4, 9, head=1), HeadCut(0, 0), HeadCut(2, 1))
    for cuts in (mixed, (PatchCut(3),), (HeadCut(1, 0),), ()):
        with torch.no_grad(), cutting(network.net, cuts, recording):
            expected = network.net(images)
        names: dict[str, Tensor] = {}
        exec(code_of(cuts, subject), names)
        assert_close(names["logits"], expected, rtol=1e-6, atol=1e-6)
