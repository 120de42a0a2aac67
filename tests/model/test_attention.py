import pytest
import torch
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.model import Attention

EACH_FORM = pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"qkv_bias": False}, {"num_heads": 1}])


def attention(**options) -> Attention:
    """Attention with weights large enough that it is far from uniform."""
    module = Attention(24, **({"num_heads": 4} | options))
    with torch.no_grad():
        module.qkv.weight.mul_(6)
    return module


@EACH_FORM
def test_each_query_shares_out_all_of_its_attention(options):
    weights = attention(**options).weights(torch.randn(2, 7, 24))
    assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert weights.max() > 10 * weights.min()


@EACH_FORM
def test_the_fused_forward_uses_the_explicit_weights(options):
    module, x = attention(**options), torch.randn(2, 7, 24)
    _, _, v = module._heads(x)
    mixed = (module.weights(x) @ v).transpose(1, 2).flatten(-2)
    assert_close(module(x), module.proj(mixed))


@EACH_FORM
def test_permuting_tokens_permutes_outputs(options):
    module, x, order = attention(**options), torch.randn(2, 7, 24), torch.randperm(7)
    assert_close(module(x[:, order]), module(x)[:, order])


def test_weights_agree_with_the_formula_in_float64():
    module, x = attention(num_heads=2).double(), torch.randn(1, 5, 24, dtype=torch.float64)
    query_bias, key_bias, _ = module.qkv.bias.chunk(3)
    queries = x @ module.query_weights.T + query_bias
    keys = x @ module.key_weights.T + key_bias
    for head in range(2):
        channels = slice(12 * head, 12 * (head + 1))
        scores = queries[0, :, channels] @ keys[0, :, channels].T / 12**0.5
        expected = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        assert_close(module.weights(x)[0, head], expected, rtol=0, atol=1e-12)


def test_gradients_reach_query_key_and_value_weights():
    module = attention()
    module(torch.randn(2, 7, 24)).square().sum().backward()
    assert all(part.abs().max() > 0 for part in module.qkv.weight.grad.chunk(3))


@pytest.mark.parametrize("num_heads", [5, 0, -1])
def test_heads_that_do_not_divide_the_width_are_refused(num_heads):
    with pytest.raises(UserError, match=f"dim must be a multiple of num_heads, got dim=24, num_heads={num_heads}"):
        Attention(24, num_heads=num_heads)
