import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps import legrad, record, relevance, rollout
from vit_attn.attention_maps.methods.measures import divergence, measure
from vit_attn.attention_maps.summary import head_rows, summarize
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": (16, 24), "patch_size": 8, "num_classes": 5, "embed_dim": 48, "depth": 3, "num_heads": 4}


def net_of(**options) -> VisionTransformer:
    net = VisionTransformer(**SIZES, **options).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(15)
        net.head.weight.mul_(9)
    return net


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
@pytest.mark.parametrize("query", [None, 3])
def test_a_summary_has_the_rows_of_the_methods(pool, query):
    net, images = net_of(global_pool=pool), torch.randn(3, 3, 16, 24)
    summaries = summarize(net, images, query)
    with record(net, gradients=True) as recording:
        logits = net(images)
    asked = None if query is None else [query]
    rows = recording.query_rows(asked)
    for i, summary in enumerate(summaries):
        assert summary.predicted == summary.target == logits[i].argmax()
        assert_close(summary.probabilities, logits[i].softmax(-1).detach().numpy())
        assert_close(summary.rollout, rollout(recording, asked)[i, 0].numpy())
        expected = torch.stack([rows[i % len(rows), 0] @ layer.weights()[i] for layer in recording])
        assert_close(summary.heads, expected.numpy(), rtol=1e-4, atol=1e-6)
        assert_close(summary.heads.sum(-1), np.ones((3, 4), dtype=np.float32), rtol=1e-4, atol=1e-5)
        related = relevance(recording, queries=asked)[i, 0]
        if not (pool == "map" and query is None):
            related = related - rows[i % len(rows), 0]
        assert_close(summary.relevance, related.clamp_min(0).numpy())
        patches = summary.patches(summary.heads)
        assert patches.shape == (3, 4, 2, 3)
        assert patches[1, 2, 1, 0] == summary.heads[1, 2, summary.num_prefix_tokens + 3]


def test_the_last_token_is_named_by_its_number():
    summaries = summarize(net_of(), torch.randn(1, 3, 16, 24), query=-1)
    assert summaries[0].query == 6


def test_summarizing_leaves_gradients_and_random_state_alone_and_works_without_gradients():
    net, images = net_of(), torch.randn(2, 3, 16, 24)
    state = torch.get_rng_state()
    net.requires_grad_(False)
    with torch.no_grad():
        summaries = summarize(net, images, target=[1, 4])
    assert [summary.target for summary in summaries] == [1, 4]
    assert summaries[0].relevance.max() > 0
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": 7}, r"queries must be tokens in 0..6, got \[7\]"),
        ({"target": 5}, r"class in 0..4, got \[5\]"),
        ({"target": [1, 2, 3]}, "one for each of 2 images, got 3"),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        summarize(net_of(), torch.randn(2, 3, 16, 24), **options)


def test_layers_with_unequally_many_heads_are_refused_wherever_there_is_a_table():
    net, images = net_of(), torch.randn(2, 3, 16, 24)
    net.blocks[1].attn = type(net.blocks[1].attn)(48, num_heads=2)
    with record(net, gradients=True) as recording:
        net(images)
    tables = (
        lambda: summarize(net, images),
        lambda: head_rows(recording),
        lambda: measure(recording),
        lambda: divergence(recording, recording),
    )
    for table in tables:
        with pytest.raises(UserError, match=r"unequally many heads have no table of layers and heads, got \[4, 2, 4\]"):
            table()
    assert relevance(recording).shape == (2, 1, 7)


WRONG_TARGETS = {
    "one number": (lambda logits: logits[0, 1], r"for each image, a float tensor \(3,\)"),
    "the logits of an image": (lambda logits: logits[1], r"for each image, a float tensor \(3,\)"),
    "a mean over images": (lambda logits: logits[:, 1].mean(), r"for each image, a float tensor \(3,\)"),
    "logits of the first image": (lambda logits: logits[0, :3], "of that image alone"),
    "numbers of all images": (lambda logits: logits.softmax(dim=0)[:, 1], "of that image alone"),
}


@pytest.mark.parametrize("wrong", WRONG_TARGETS)
def test_a_target_function_gives_a_number_of_each_image(wrong: str):
    target, message = WRONG_TARGETS[wrong]
    net, images = net_of(), torch.randn(3, 3, 16, 24)
    for method in (summarize, legrad):
        with pytest.raises(UserError, match=message):
            method(net, images, target=target)
    assert_close(legrad(net, images, lambda logits: logits[:, 1]), legrad(net, images, 1))
