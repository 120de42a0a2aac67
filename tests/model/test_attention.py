import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.model import Attention, Form
from vit_attn.model.attention import NORMALISERS, hard_attention
from vit_attn.model.pool import AttentionPool
from vit_attn.model.positions import AttentionContext, local_attn_mask, rope_table
from vit_attn.model.scores import AFFINITIES, Additive, Cosine

FORMS = {
    "scaled dot product": {},
    "qk-norm": {"qk_norm": True},
    "no bias": {"qkv_bias": False},
    "one head": {"num_heads": 1},
} | {
    f"{affinity}, {normaliser}": {"form": Form(affinity, normaliser, top_k=3)}
    for affinity, normaliser in itertools.product(AFFINITIES, NORMALISERS)
}
EACH_FORM = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
LOCAL = local_attn_mask((2, 3), 1, 1)
ROPE = AttentionContext(rope=rope_table((2, 3), 8))
CROSS = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
INPUTS = {name: (options, {}) for name, options in FORMS.items()}
for affinity in AFFINITIES:
    form = Form(affinity)
    INPUTS[f"{affinity}, local"] = ({"form": form}, {"context": AttentionContext(LOCAL)})
    INPUTS[f"{affinity}, local, hard"] = ({"form": Form(affinity, "hard")}, {"context": AttentionContext(LOCAL)})
    INPUTS[f"{affinity}, rope"] = ({"form": form}, {"context": ROPE})
    for normaliser in NORMALISERS:
        form = Form(affinity, normaliser, 3, "cross")
        INPUTS[f"{affinity}, {normaliser}, cross"] = ({"form": form}, {"source": CROSS})
EACH_FORM_AND_CONTEXT = pytest.mark.parametrize(("options", "inputs"), INPUTS.values(), ids=INPUTS.keys())
EACH_AFFINITY = pytest.mark.parametrize("affinity", AFFINITIES)


def attention(**options) -> Attention:
    """Attention with weights large enough that it is far from uniform."""
    module = Attention(32, **({"num_heads": 4} | options))
    with torch.no_grad():
        for name in ("qkv", "q", "kv"):
            if hasattr(module, name):
                getattr(module, name).weight.mul_(6)
        for parameter in module.affinity.parameters():
            if parameter.ndim == 2:  # weights, not a temperature
                parameter.mul_(6)
    return module


@EACH_FORM_AND_CONTEXT
def test_the_weights_of_each_query_sum_to_1(options, inputs):
    weights = attention(**options).weights(torch.randn(2, 7, 32), **inputs)
    assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert weights.max() > 10 * weights.min()


@EACH_FORM_AND_CONTEXT
def test_the_fused_forward_uses_the_explicit_weights(options, inputs):
    module, x = attention(**options), torch.randn(2, 7, 32)
    _, _, v = module._heads(x, inputs.get("source"), AttentionContext())
    mixed = (module.weights(x, **inputs) @ v).transpose(1, 2).flatten(-2)
    assert_close(module(x, **inputs), module.proj(mixed))


@EACH_FORM_AND_CONTEXT
def test_in_float64_both_paths_agree_to_twelve_digits(options, inputs):
    module, x = attention(**options).double(), torch.randn(2, 7, 32, dtype=torch.float64)
    inputs = {name: each.double() if isinstance(each, Tensor) else each for name, each in inputs.items()}
    _, _, v = module._heads(x, inputs.get("source"), AttentionContext())
    mixed = (module.weights(x, **inputs) @ v).transpose(1, 2).flatten(-2)
    assert_close(module(x, **inputs), module.proj(mixed), rtol=1e-12, atol=1e-12)


@EACH_AFFINITY
def test_each_affinity_scores_every_pair_by_itself(affinity):
    """The score of one query and one key, up to what is the same for all keys of a query, is that of the whole."""
    score = AFFINITIES[affinity](4, 8).double()
    q, k = torch.randn(2, 2, 4, 5, 8, dtype=torch.float64)
    scores = score(q, k).materialize()
    pairs = [[score(q[:, :, [i]], k[:, :, [j]]).materialize() for j in range(5)] for i in range(5)]
    alone = torch.cat([torch.cat(row, dim=-1) for row in pairs], dim=-2)
    assert_close(scores.softmax(dim=-1), alone.softmax(dim=-1), rtol=0, atol=1e-12)
    assert (scores.amax(dim=-1) - scores.amin(dim=-1)).min() > 1e-3  # keys differ


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


@EACH_FORM_AND_CONTEXT
def test_gradients_reach_query_key_and_value_weights(options, inputs):
    module = attention(**options)
    module(torch.randn(2, 7, 32), **inputs).square().sum().backward()
    across = module.form.source == "cross"
    parts = [module.q.weight.grad, *module.kv.weight.grad.chunk(2)] if across else module.qkv.weight.grad.chunk(3)
    assert all(part.abs().max() > 0 for part in parts)
    assert all(parameter.grad is not None for parameter in module.parameters())


FORMULAS = {
    "dot_product": lambda _, q, k, h: q @ k,
    "scaled_dot_product": lambda _, q, k, h: q @ k / len(q) ** 0.5,
    "cosine": lambda affinity, q, k, h: affinity.log_temperature[h].exp() * (q @ k) / (q.norm() * k.norm()),
    "gaussian": lambda _, q, k, h: -(q - k).square().sum() / (2 * len(q) ** 0.5),
    "additive": lambda affinity, q, k, h: affinity.direction[h] @ torch.tanh(q + k),
}
"""Each affinity as its paper writes it, for one query and one key of head ``h``."""


@EACH_AFFINITY
def test_each_affinity_agrees_with_its_formula_in_float64(affinity):
    module, x = attention(form=Form(affinity)).double(), torch.randn(2, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        q, k, _ = module._heads(x, None, AttentionContext())
        scores = torch.empty(2, 4, 5, 5, dtype=torch.float64)
        for b, h, i, j in itertools.product(*map(range, scores.shape)):
            scores[b, h, i, j] = FORMULAS[affinity](module.affinity, q[b, h, i], k[b, h, j], h)
        assert_close(module.weights(x), scores.softmax(dim=-1), rtol=0, atol=1e-12)


def cosine_attention(temperature: float) -> Attention:
    module = attention(form=Form("cosine")).double()
    torch.nn.init.constant_(module.affinity.log_temperature, math.log(temperature))
    return module


@pytest.mark.parametrize(("temperature", "used"), [(50.0, 50.0), (99.0, 99.0), (101.0, 100.0), (1e6, 100.0)])
def test_the_temperature_of_cosine_attention_is_capped_at_100_in_weights_and_forward(temperature, used):
    module, x = cosine_attention(temperature), torch.randn(2, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        q, k, v = module._heads(x, None, AttentionContext())
        cosines = q @ k.mT / (q.norm(dim=-1)[..., None] * k.norm(dim=-1)[..., None, :])
        expected = (used * cosines).softmax(dim=-1)
        assert_close(module.weights(x), expected, rtol=1e-9, atol=1e-12)
        assert_close(module(x), module.proj((expected @ v).transpose(1, 2).flatten(-2)), rtol=1e-9, atol=1e-12)


def test_the_direction_of_a_new_additive_attention_has_about_length_1():
    assert Additive(64, 64).direction.square().sum(dim=-1).mean().item() == pytest.approx(1.0, rel=0.1)


def test_a_new_cosine_attention_has_the_temperature_10_in_every_head():
    q = torch.randn(2, 3, 5, 8)
    scores = Cosine(3, 8)(q, 7 * q).materialize()
    assert_close(scores.diagonal(dim1=-2, dim2=-1), torch.full((2, 3, 5), 10.0))


def test_training_beyond_the_cap_of_the_temperature_changes_no_weights():
    affinity = Cosine(1, 8)
    optimizer = torch.optim.SGD(affinity.parameters(), lr=0.5)
    q = torch.randn(1, 1, 3, 8)
    k = q + 0.1 * torch.randn(1, 1, 3, 8)
    sharpest = []
    for _ in range(30):  # the loss asks for ever higher scores of each query and its own key
        optimizer.zero_grad()
        scores = affinity(q, k).materialize()
        scores.diagonal(dim1=-2, dim2=-1).mean().neg().backward()
        optimizer.step()
        sharpest.append(scores.abs().max().item())
    assert affinity.log_temperature.item() > math.log(100)  # the steps went on beyond it
    assert sharpest[0] < 11
    assert 90 < sharpest[-1] <= 100 + 1e-3
    assert sharpest[-1] == sharpest[-2]


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


def test_ties_leave_no_more_than_top_k_keys():
    module, same = attention(form=Form(normaliser="top_k", top_k=2)), torch.ones(1, 7, 32)
    assert ((module.weights(same) > 0).sum(dim=-1) == 2).all()


def test_hard_attention_is_decided_in_float32_whatever_the_network_runs_in():
    module, x = attention(form=Form(normaliser="hard")), torch.randn(2, 40, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        q, k, v = module._heads(x, None, AttentionContext())
        output = hard_attention(q, k, v, scale=q.shape[-1] ** -0.5)
    best = (q.float() @ k.float().mT).argmax(dim=-1, keepdim=True)
    assert torch.equal(output, v.gather(2, best.expand_as(v)))


def test_top_k_of_more_keys_than_there_are_is_soft_attention():
    top, soft, x = attention(form=Form(normaliser="top_k", top_k=99)), attention(), torch.randn(2, 7, 32)
    soft.load_state_dict(top.state_dict())
    assert_close(top(x), soft(x))


def test_local_attention_is_a_window_of_patches_and_all_prefix_tokens():
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


def test_the_rotary_table_has_half_of_the_channels_by_row_and_half_by_column_to_base_100():
    table = rope_table((3, 4), 8)
    for row, col in itertools.product(range(3), range(4)):
        angles = torch.tensor([row, row / 10, col, col / 10]).repeat_interleave(2)  # 100 ** (-i / 2)
        assert_close(table[4 * row + col], torch.cat([angles.sin(), angles.cos()]))


def test_rotary_scores_depend_on_how_far_patches_are_apart_only():
    module, context = attention(), AttentionContext(rope=rope_table((4, 4), 8))
    same = torch.randn(1, 1, 32).expand(1, 17, 32)  # every token is the same: only positions differ
    weights = module.weights(same, context=context).log()
    scores = weights[0, :, 1:, 1:] - weights[0, :, 1:, :1]  # relative to CLS, which has no position
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
    ("source", "inputs", "takes"), [("self", {"source": CROSS}, "no source"), ("cross", {}, "a source")]
)
def test_a_source_is_refused_or_required_as_the_form_says(source, inputs, takes):
    with pytest.raises(UserError, match=f"attention with source='{source}' takes {takes}"):
        attention(form=Form(source=source))(torch.randn(2, 7, 32), **inputs)


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


@pytest.mark.parametrize(
    "form", [Form(affinity, normaliser, 2) for affinity in AFFINITIES for normaliser in NORMALISERS]
)
def test_a_pool_by_attention_is_the_same_for_any_order_of_the_tokens(form):
    pool, tokens, order = AttentionPool(32, 4, form=form), 9 * torch.randn(2, 7, 32), torch.randperm(7)
    weights = pool.weights(tokens)
    assert weights.shape == (2, 4, 1, 7)
    assert_close(weights.sum(dim=-1), torch.ones(2, 4, 1))
    assert weights.max() > 2 * weights.min()
    assert_close(pool.weights(tokens[:, order]), weights[..., order])
    assert_close(pool(tokens[:, order]), pool(tokens))
