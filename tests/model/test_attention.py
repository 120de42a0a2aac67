import itertools

import pytest
import torch
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.model import Attention, Form
from vit_attn.model.attention import hard_attention
from vit_attn.model.pool import AttentionPool
from vit_attn.model.positions import AttentionContext, local_attn_mask, rope_table

FORMS = {
    "scaled dot product": {},
    "qk-norm": {"qk_norm": True},
    "no bias": {"qkv_bias": False},
    "one head": {"num_heads": 1},
    "dot product": {"form": Form("dot_product")},
    "cosine": {"form": Form("cosine")},
    "gaussian": {"form": Form("gaussian")},
    "additive": {"form": Form("additive")},
    "hard": {"form": Form(normaliser="hard")},
    "top 3": {"form": Form(normaliser="top_k", top_k=3)},
    "cosine, top 3": {"form": Form("cosine", "top_k", top_k=3)},
    "gaussian, hard": {"form": Form("gaussian", "hard")},
    "additive, top 3": {"form": Form("additive", "top_k", top_k=3)},
}
EACH_FORM = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
LOCAL = local_attn_mask((2, 3), 1, 1)
ROPE = AttentionContext(rope=rope_table((2, 3), 8))
CROSS = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
ASKED = {name: (options, {}) for name, options in FORMS.items()} | {
    "local": ({}, {"context": AttentionContext(LOCAL)}),
    "gaussian, local": ({"form": Form("gaussian")}, {"context": AttentionContext(LOCAL)}),
    "additive, local, hard": ({"form": Form("additive", "hard")}, {"context": AttentionContext(LOCAL)}),
    "rope": ({}, {"context": ROPE}),
    "cross": ({"form": Form(source="cross")}, {"source": CROSS}),
    "additive, cross, top 3": ({"form": Form("additive", "top_k", 3, "cross")}, {"source": CROSS}),
    "cosine, cross, hard": ({"form": Form("cosine", "hard", source="cross")}, {"source": CROSS}),
}
EACH_FORM_AND_PLACE = pytest.mark.parametrize(("options", "asked"), ASKED.values(), ids=ASKED.keys())


def attention(**options) -> Attention:
    """Attention with weights large enough that it is far from uniform."""
    module = Attention(32, **({"num_heads": 4} | options))
    with torch.no_grad():
        for name in ("qkv", "q", "kv"):
            if hasattr(module, name):
                getattr(module, name).weight.mul_(6)
        if hasattr(module.affinity, "direction"):
            module.affinity.direction.mul_(6)
    return module


@EACH_FORM_AND_PLACE
def test_each_query_shares_out_all_of_its_attention(options, asked):
    weights = attention(**options).weights(torch.randn(2, 7, 32), **asked)
    assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert weights.max() > 10 * weights.min()


@EACH_FORM_AND_PLACE
def test_the_fused_forward_uses_the_explicit_weights(options, asked):
    module, x = attention(**options), torch.randn(2, 7, 32)
    _, _, v = module._heads(x, asked.get("source"), AttentionContext())
    mixed = (module.weights(x, **asked) @ v).transpose(1, 2).flatten(-2)
    assert_close(module(x, **asked), module.proj(mixed))


@EACH_FORM
def test_permuting_tokens_permutes_outputs(options):
    module, x, order = attention(**options), torch.randn(2, 7, 32), torch.randperm(7)
    assert_close(module(x[:, order]), module(x)[:, order])


def test_weights_agree_with_the_formula_in_float64():
    module, x = attention(num_heads=2).double(), torch.randn(1, 5, 32, dtype=torch.float64)
    query_bias, key_bias, _ = module.qkv.bias.chunk(3)
    queries = x @ module.query_weights.T + query_bias
    keys = x @ module.key_weights.T + key_bias
    for head in range(2):
        channels = slice(16 * head, 16 * (head + 1))
        scores = queries[0, :, channels] @ keys[0, :, channels].T / 16**0.5
        expected = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        assert_close(module.weights(x)[0, head], expected, rtol=0, atol=1e-12)


@EACH_FORM_AND_PLACE
def test_gradients_reach_query_key_and_value_weights(options, asked):
    module = attention(**options)
    module(torch.randn(2, 7, 32), **asked).square().sum().backward()
    across = module.form.source == "cross"
    parts = [module.q.weight.grad, *module.kv.weight.grad.chunk(2)] if across else module.qkv.weight.grad.chunk(3)
    assert all(part.abs().max() > 0 for part in parts)
    assert all(parameter.grad is not None for parameter in module.parameters())


def expected_scores(affinity: str, module: Attention, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Each form's formula, for one query and one key of one head at a time, as its paper writes it."""
    scores = torch.empty(*q.shape[:-1], k.shape[-2], dtype=q.dtype)
    for index in itertools.product(*map(range, scores.shape)):
        b, h, i, j = index
        a, c = q[b, h, i], k[b, h, j]
        scores[index] = {
            "dot_product": lambda a=a, c=c: a @ c,
            "cosine": lambda a=a, c=c, h=h: module.affinity.log_temperature[h].exp() * (a @ c) / (a.norm() * c.norm()),
            "gaussian": lambda a=a, c=c: -(a - c).square().sum() / (2 * len(a) ** 0.5),
            "additive": lambda a=a, c=c, h=h: module.affinity.direction[h] @ torch.tanh(a + c),
        }[affinity]()
    return scores


@pytest.mark.parametrize("affinity", ["dot_product", "cosine", "gaussian", "additive"])
def test_each_affinity_agrees_with_its_formula_in_float64(affinity):
    module, x = attention(form=Form(affinity)).double(), torch.randn(2, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        q, k, _ = module._heads(x, None, AttentionContext())
        expected = expected_scores(affinity, module, q, k).softmax(dim=-1)
        assert_close(module.weights(x), expected, rtol=0, atol=1e-12)


def test_hard_attention_takes_the_best_key_and_learns_as_soft_attention_does():
    hard, soft, x = attention(form=Form(normaliser="hard")), attention(), torch.randn(2, 7, 32)
    soft.load_state_dict(hard.state_dict())
    weights = hard.weights(x)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(weights.argmax(-1), soft.weights(x).argmax(-1))
    weight = torch.randn(2, 4, 7, 7)
    gradients = [torch.autograd.grad((m.weights(x) * weight).sum(), m.qkv.weight)[0] for m in (hard, soft)]
    assert_close(*gradients)


def test_top_k_leaves_each_query_its_best_keys_in_proportion():
    top, soft, x = attention(form=Form(normaliser="top_k", top_k=3)), attention(), torch.randn(2, 7, 32)
    soft.load_state_dict(top.state_dict())
    weights, whole = top.weights(x), soft.weights(x)
    kept = weights > 0
    assert (kept.sum(dim=-1) == 3).all()
    best = whole * kept
    assert_close(weights, best / best.sum(dim=-1, keepdim=True))
    assert (whole.masked_fill(kept, 0).amax(-1) <= whole.masked_fill(~kept, 1).amin(-1)).all()


def test_ties_leave_no_more_keys_than_were_asked_for():
    module, same = attention(form=Form(normaliser="top_k", top_k=2)), torch.ones(1, 7, 32)
    assert ((module.weights(same) > 0).sum(dim=-1) == 2).all()


def test_hard_attention_is_decided_in_float32_whatever_the_network_runs_in():
    module, x = attention(form=Form(normaliser="hard")), torch.randn(2, 40, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        q, k, v = module._heads(x, None, AttentionContext())
        output = hard_attention(q, k, v, scale=q.shape[-1] ** -0.5)
    best = (q.float() @ k.float().mT).argmax(dim=-1, keepdim=True)
    assert torch.equal(output, v.gather(2, best.expand_as(v)))


def test_more_keys_than_there_are_is_soft_attention():
    top, soft, x = attention(form=Form(normaliser="top_k", top_k=99)), attention(), torch.randn(2, 7, 32)
    soft.load_state_dict(top.state_dict())
    assert_close(top(x), soft(x))


def test_local_scope_is_a_window_of_patches_and_all_prefix_tokens():
    attn_mask = local_attn_mask((4, 5), 2, 3)
    assert attn_mask.shape == (22, 22)
    assert attn_mask[:2].all()
    assert attn_mask[:, :2].all()
    row_7 = attn_mask[2 + 7, 2:].view(4, 5)  # the patch in row 1, column 2
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[0:3, 1:4] = True
    assert torch.equal(row_7, expected)
    corner = attn_mask[2, 2:].view(4, 5)
    assert corner.sum() == 4
    weights = attention().weights(torch.randn(2, 7, 32), context=AttentionContext(LOCAL))
    assert (weights[..., ~LOCAL] == 0).all()
    assert (weights[..., LOCAL] > 0).all()


@pytest.mark.parametrize("window", [2, 0, 5, -1])
def test_a_window_that_does_not_fit_the_grid_is_refused(window):
    with pytest.raises(UserError, match=f"window must be odd and at most the grid of 4x5 patches, got {window}"):
        local_attn_mask((4, 5), 1, window)


def test_rotary_scores_depend_on_how_far_patches_are_apart_only():
    module, context = attention(), AttentionContext(rope=rope_table((4, 4), 8))
    same = torch.randn(1, 1, 32).expand(1, 17, 32)  # every token is the same: only places differ
    weights = module.weights(same, context=context).log()
    scores = weights[0, :, 1:, 1:] - weights[0, :, 1:, :1]  # relative to CLS, which has no place
    across = [scores[:, i, i + 1] - scores[:, i, i] for i in (0, 4, 9)]
    down = [scores[:, i, i + 4] - scores[:, i, i] for i in (0, 3, 9)]
    for steps in (across, down):
        assert_close(steps[1], steps[0], rtol=1e-3, atol=1e-3)
        assert_close(steps[2], steps[0], rtol=1e-3, atol=1e-3)
    assert (across[0] - down[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"affinity": "cosin"}, "affinity must be one of .*, got 'cosin', did you mean 'cosine'"),
        ({"normaliser": "sof"}, "normaliser must be one of soft, hard, top_k, got 'sof', did you mean 'soft'"),
        ({"source": "crosss"}, "source must be one of self, cross, got 'crosss', did you mean 'cross'"),
        ({"top_k": 0}, "top_k must be a whole number from 1, got 0"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Form(**options)


@pytest.mark.parametrize("num_heads", [5, 0, -1])
def test_heads_that_do_not_divide_the_width_are_refused(num_heads):
    with pytest.raises(UserError, match=f"dim must be a multiple of num_heads, got dim=24, num_heads={num_heads}"):
        Attention(24, num_heads=num_heads)


@pytest.mark.parametrize(
    ("source", "asked", "takes"), [("self", {"source": CROSS}, "no source"), ("cross", {}, "a source")]
)
def test_attention_is_asked_as_its_source_says(source, asked, takes):
    with pytest.raises(UserError, match=f"attention with source='{source}' takes {takes}"):
        attention(form=Form(source=source))(torch.randn(2, 7, 32), **asked)


def test_cross_attention_to_oneself_is_self_attention():
    own, cross, x = attention(), attention(form=Form(source="cross")), torch.randn(2, 7, 32)
    with torch.no_grad():
        cross.q.weight.copy_(own.query_weights)
        cross.kv.weight.copy_(torch.cat([own.key_weights, own.value_weights]))
        cross.q.bias.copy_(own.qkv.bias[:32])
        cross.kv.bias.copy_(own.qkv.bias[32:])
        cross.proj.load_state_dict(own.proj.state_dict())
    assert_close(cross(x, x), own(x))
    assert torch.equal(cross.query_weights, own.query_weights)
    assert torch.equal(cross.key_weights, own.key_weights)
    assert torch.equal(cross.value_weights, own.value_weights)


@pytest.mark.parametrize("form", [Form(), Form("cosine"), Form("additive", "top_k", 2), Form(normaliser="hard")])
def test_a_pool_by_attention_takes_from_the_tokens_in_whatever_order_they_come(form):
    pool, tokens, order = AttentionPool(32, 4, form=form), 9 * torch.randn(2, 7, 32), torch.randperm(7)
    weights = pool.weights(tokens)
    assert weights.shape == (2, 4, 1, 7)
    assert_close(weights.sum(dim=-1), torch.ones(2, 4, 1))
    assert weights.max() > 2 * weights.min()
    assert_close(pool.weights(tokens[:, order]), weights[..., order])
    assert_close(pool(tokens[:, order]), pool(tokens))
