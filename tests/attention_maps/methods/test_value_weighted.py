import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vit_attn.attention_maps import record
from vit_attn.attention_maps.methods.registry import AttributionInput, find_method
from vit_attn.attention_maps.methods.value_weighted import has_output_projections, output_projection, value_weighted
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

IMAGES = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(2))
TOKENS, HEADS, WIDTH = 7, 4, 48


class GroupedAttention(nn.Module):
    """Attention of four heads of queries to two of keys and values; no token attends to a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("allowed", torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril())

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q = self.q(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, 2, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        mixed = F.scaled_dot_product_attention(*self.heads(x), attn_mask=self.allowed, enable_gqa=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class GatedAttention(timm.layers.Attention):
    """Attention with a gate on the heads' outputs."""

    def __init__(self, dim: int, **options: object) -> None:
        super().__init__(dim, gated=True, **options)


def net_of(grouped: bool = False, pool: str = "token") -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"num_classes": 5, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
    net = VisionTransformer(img_size=(16, 24), patch_size=8, global_pool=pool, **sizes)
    for block in net.blocks if grouped else ():
        block.attn = GroupedAttention()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.eval()


def fetched(net: VisionTransformer) -> tuple[torch.Tensor, torch.Tensor]:
    """What each query of the last layer fetches from each token, (B, N, N, D), and its attention, in float64."""
    seen = []
    attention = net.blocks[-1].attn
    hook = attention.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach().double()))
    with torch.no_grad():
        net(IMAGES)
    hook.remove()
    attention = attention.double()
    with torch.no_grad():
        if isinstance(attention, GroupedAttention):
            q, k, v = attention.heads(seen[0])
            k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
            masked = ~attention.allowed
        else:
            q, k, v = attention.qkv(seen[0]).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            masked = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(masked, -torch.inf)
        weights = scores.softmax(dim=-1)
        vectors = torch.zeros(3, TOKENS, TOKENS, WIDTH, dtype=torch.float64)
        for head, columns in enumerate(attention.proj.weight.chunk(HEADS, dim=1)):
            vectors += weights[:, head, :, :, None] * (v[:, head] @ columns.T)[:, None]
        assert_close(vectors.sum(dim=2) + attention.proj.bias, attention(seen[0]))
    attention.float()
    return vectors, weights


def recorded(net: nn.Module, images: torch.Tensor = IMAGES) -> AttributionInput:
    with torch.enable_grad(), record(net, gradients=True) as recording:
        logits = net(images)
    return AttributionInput(net, images, recording, logits.argmax(dim=-1))


@pytest.mark.parametrize("grouped", [False, True])
def test_it_is_the_norm_of_the_vector_that_each_query_fetches_from_each_token(grouped):
    net = net_of(grouped)
    vectors, weights = fetched(net)
    inputs, method = recorded(net), find_method("value_weighted")
    rows = method.rows(inputs, list(range(TOKENS)))
    assert_close(rows.double(), vectors.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert_close(method.rows(inputs), rows[:, :1])  # CLS
    assert not torch.allclose(rows / rows.sum(-1, keepdim=True), weights.mean(dim=1).float(), atol=1e-2)
    assert_close(rows, value_weighted(net, inputs.recording, 1, list(range(TOKENS))))
    assert not torch.allclose(rows, value_weighted(net, inputs.recording, 0, list(range(TOKENS))), atol=1e-2)


def test_vectors_of_a_mean_over_patches_are_summed_before_the_norm_is_taken():
    net = net_of(pool="avg")
    vectors, _ = fetched(net)
    expected = vectors[:, 1:].mean(dim=1).norm(dim=-1)
    assert_close(find_method("value_weighted").rows(recorded(net))[:, 0].double(), expected, rtol=1e-4, atol=1e-5)


def test_of_a_pool_by_attention_it_is_the_pools_own_values():
    net = net_of(pool="map")
    inputs = recorded(net)
    (call,) = inputs.recording.pool.calls
    pool = net.get_submodule(inputs.recording.pool.name)
    weights, values = call.weights()[:, :, 0].double(), call.v.double()
    vectors = torch.zeros(3, values.shape[2], WIDTH, dtype=torch.float64)
    for head, columns in enumerate(pool.proj.weight.detach().double().chunk(values.shape[1], dim=1)):
        vectors += weights[:, head, :, None] * (values[:, head] @ columns.T)
    rows = find_method("value_weighted").rows(inputs)[:, 0]
    missing = TOKENS - values.shape[2]
    assert_close(rows[:, missing:].double(), vectors.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert (rows[:, :missing] == 0).all()


def test_a_token_without_a_value_gets_nothing_however_much_it_is_attended_to():
    net = net_of()
    inputs = recorded(net)
    last = inputs.recording[-1].calls[0]
    last.v[:, :, 3] = 0
    assert (find_method("value_weighted").rows(inputs, [0])[:, 0, 3] == 0).all()
    assert (last.weights()[:, :, 0, 3] > 0).all()


def test_an_ablated_or_changed_projection_is_read_from_the_network_itself():
    net = net_of()
    inputs = recorded(net)
    before = find_method("value_weighted").rows(inputs)
    with torch.no_grad():
        net.blocks[-1].attn.proj.weight.mul_(2)
        net.blocks[-1].attn.proj.bias.add_(5)  # belongs to no token
    assert_close(find_method("value_weighted").rows(inputs), 2 * before)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, True),
        ({"attn_layer": "attn", "scale_attn_norm": True}, False),
        ({"attn_layer": GatedAttention}, False),
    ],
)
def test_a_norm_or_a_gate_before_the_projection_is_refused(options, found):
    net = timm.create_model("vit_tiny_patch16_224", depth=1, **options)
    assert has_output_projections(net) == found
    assert (output_projection(net, "blocks.0.attn") is not None) == found


def test_a_network_without_a_known_projection_is_refused_in_one_line():
    net = net_of()
    inputs = recorded(net)
    for block in net.blocks:
        block.attn.last, block.attn.proj = block.attn.proj, nn.Identity()
    with pytest.raises(UserError, match="value-weighted does not support VisionTransformer"):
        find_method("value_weighted").rows(inputs)
    with pytest.raises(UserError, match=r"blocks.1.attn of VisionTransformer has no output projection right after"):
        value_weighted(net, inputs.recording)
