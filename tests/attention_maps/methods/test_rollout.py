import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps import raw_rows, record, rollout
from vit_attn.attention_maps.methods.rollout import discard_least, fuse
from vit_attn.attention_maps.recording.recording import AttentionCall, Forward, Recording
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": (16, 24), "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 4, "num_heads": 4}
FUSIONS = pytest.mark.parametrize("fusion", ["mean", "max", "min"])


def recorded(batch: int = 3, **options) -> Recording:
    """A network whose attention is far from uniform, recorded in double precision where it matters."""
    net = VisionTransformer(**SIZES, **options).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(20)
        with record(net) as recording:
            net(torch.randn(batch, 3, 16, 24))
    assert recording[0].weights().max() > 100 * recording[0].weights().min()
    return recording


def recording_of(maps: list[torch.Tensor], prefix: int = 1) -> Recording:
    """A recording whose layers have exactly these weights (B, H, N, N)."""
    calls = []
    for number, weights in enumerate(maps):
        n = weights.shape[-1]
        zeros = torch.zeros(*weights.shape[:2], n, 1)
        calls.append((f"layer{number}", AttentionCall(zeros, zeros, zeros, weights.log(), 1.0)))
    return Recording(prefix, (1, maps[0].shape[-1] - prefix), "token", forwards=[Forward(tuple(calls))])


@FUSIONS
def test_rows_agree_with_the_full_matrix_product_in_float64(fusion):
    recording = recorded()
    product = torch.eye(recording.num_tokens, dtype=torch.float64).expand(3, -1, -1)
    for layer in recording:
        fused = fuse(layer.weights().double(), fusion)
        mixed = 0.5 * fused + 0.5 * torch.eye(recording.num_tokens, dtype=torch.float64)
        product = mixed / mixed.sum(dim=-1, keepdim=True) @ product
    queries = [0, 1, 4, -1]
    assert_close(rollout(recording, queries, fusion).double(), product[:, queries], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, -1000.0, 1000.0], ids=["safe", "exponentials vanish", "exponentials overflow"])
def test_rows_are_mixed_by_the_weights_whatever_the_size_of_the_scores(shift: float, monkeypatch):
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    call = AttentionCall(q, k, v, torch.randn(2, 3, 5, 5) + shift, 0.5)
    rows, divided = torch.rand(2, 4, 5), []
    weights = AttentionCall.weights
    monkeypatch.setattr(AttentionCall, "weights", lambda self: divided.append(self) or weights(self))
    expected = (rows.double().unsqueeze(1) @ (0.5 * q.double() @ k.double().mT + call.mask).softmax(-1)).mean(dim=1)
    assert_close(call.mix(rows).double(), expected, rtol=0, atol=1e-4 if shift else 1e-6)
    assert bool(divided) == bool(shift)


@FUSIONS
def test_rows_of_rollout_sum_to_one(fusion):
    rows = rollout(recorded(), range(7), fusion)
    assert_close(rows.sum(dim=-1), torch.ones(3, 7))
    assert rows.min() >= 0


def test_identity_maps_roll_out_to_identity():
    identity = torch.eye(4).expand(2, 3, 4, 4)
    assert_close(rollout(recording_of([identity] * 3), range(4)), torch.eye(4).expand(2, 4, 4))


def test_uniform_attention_leaves_half_of_each_token_to_itself_a_layer():
    uniform = torch.full((1, 2, 4, 4), 0.25)
    row = rollout(recording_of([uniform] * 2), [0])[0, 0]
    assert_close(row, torch.tensor([0.25 + 0.75 / 4] + [0.75 / 4] * 3))


@pytest.mark.parametrize(("fraction", "discarded"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.49, 1), (0.5, 2), (0.99, 3)])
def test_the_discarded_fraction_is_rounded_down_to_whole_patches(fraction: float, discarded: int):
    weights = torch.tensor([0.01, 0.4, 0.1, 0.2, 0.29]).expand(1, 5, 5)  # a prefix token and four patches
    kept = discard_least(weights, fraction, prefix=1)
    by_weight = [2, 3, 4, 1]
    assert (kept[0, 0] == 0).nonzero()[:, 0].tolist() == sorted(by_weight[:discarded])
    others = [patch for patch in by_weight if patch != 4]  # a patch keeps its attention to itself
    assert (kept[0, 4] == 0).nonzero()[:, 0].tolist() == sorted(others[:discarded])


def test_layers_multiply_from_the_last_to_the_first():
    """Token 0 reads 1 in the last layer, 1 has read 2 in the first: so 0 sees 2, and not the other way round."""
    first, last = torch.eye(3), torch.eye(3)
    first[1], last[0] = torch.eye(3)[2], torch.eye(3)[1]
    recording = recording_of([first.expand(1, 1, 3, 3), last.expand(1, 1, 3, 3)])
    assert_close(rollout(recording, [0])[0, 0], torch.tensor([0.5, 0.25, 0.25]))
    swapped = recording_of([last.expand(1, 1, 3, 3), first.expand(1, 1, 3, 3)])
    assert_close(rollout(swapped, [0])[0, 0], torch.tensor([0.5, 0.5, 0.0]))


def test_every_image_of_a_batch_is_treated_alike():
    net = VisionTransformer(**SIZES).eval()
    images = torch.randn(3, 3, 16, 24)
    with record(net) as together:
        net(images)
    with record(net) as last:
        net(images[2:])
    assert_close(rollout(together, [0, 3])[2:], rollout(last, [0, 3]))


def test_the_default_row_is_the_one_that_the_network_pools():
    by_cls = recorded(reg_tokens=2)
    assert_close(rollout(by_cls), rollout(by_cls, [0]))
    assert_close(raw_rows(by_cls), by_cls[-1].weights().mean(dim=1)[:, :1])
    by_mean = recorded(global_pool="avg", reg_tokens=2)
    assert_close(rollout(by_mean), rollout(by_mean, range(3, 9)).mean(dim=1, keepdim=True))
    without_prefix = recorded(global_pool="avg", class_token=False)
    assert_close(raw_rows(without_prefix, 0), without_prefix[0].weights().mean(dim=(1, 2)).unsqueeze(1))


@pytest.mark.parametrize("queries", [[7], [-8], []])
def test_a_query_outside_the_grid_is_refused(queries):
    with pytest.raises(UserError, match=r"queries must be tokens in 0\.\.6, got"):
        rollout(recorded(1), queries)


def test_an_unknown_fusion_is_refused():
    with pytest.raises(UserError, match="fusion must be one of mean, max, min, got 'median'"):
        fuse(torch.rand(1, 2, 3, 3), "median")
