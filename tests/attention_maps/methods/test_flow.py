import itertools

import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps import record, rollout
from vit_attn.attention_maps.methods.flow import attention_flow
from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.recording import Forward, Recording
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer


def smallest_cut(layers: list[torch.Tensor], query: int, token: int) -> float:
    """The maximum flow by its dual: the narrowest cut over all ways to put inner tokens on the query's side."""
    tokens, inner = layers[0].shape[0], len(layers) - 1
    best = float("inf")
    for sides in itertools.product([False, True], repeat=tokens * inner):
        near = [[i == query for i in range(tokens)]]  # the last layer: only the query is the source
        near += [list(sides[tokens * level : tokens * (level + 1)]) for level in range(inner)]
        near.append([i != token for i in range(tokens)])  # inputs other than the token lead nowhere
        width = 0.0
        for level, layer in enumerate(reversed(layers)):
            for i, j in itertools.product(range(tokens), repeat=2):
                if near[level][i] and not near[level + 1][j]:
                    width += layer[i, j].item()
        best = min(best, width)
    return best


def test_flows_are_the_narrowest_cuts():
    torch.manual_seed(3)
    maps = [torch.rand(1, 1, 4, 4).mul(4).softmax(dim=-1) for _ in range(3)]
    zeros = torch.zeros(1, 1, 4, 1)
    calls = tuple((str(i), AttentionCall(zeros, zeros, zeros, each.log(), 1.0)) for i, each in enumerate(maps))
    recording = Recording(1, (1, 3), "token", forwards=[Forward(calls)])
    halves = [0.5 * each[0, 0] + 0.5 * torch.eye(4) for each in maps]
    flows = attention_flow(recording, [0, 2])
    expected = [[smallest_cut(halves, query, token) for token in range(4)] for query in (0, 2)]
    assert_close(flows[0], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_no_less_flows_than_rolls_out():
    net = VisionTransformer(
        img_size=16, patch_size=8, num_classes=3, embed_dim=24, depth=3, num_heads=2, global_pool="avg"
    )
    with torch.no_grad(), record(net.eval()) as recording:
        net(torch.randn(2, 3, 16, 16))
    flows = attention_flow(recording)
    assert flows.shape == (2, 1, 5)
    assert (flows >= rollout(recording) - 1e-6).all()


def test_a_network_that_would_take_for_ever_is_refused():
    with torch.no_grad():
        net = VisionTransformer(img_size=128, patch_size=4, num_classes=3, embed_dim=8, depth=1, num_heads=1).eval()
        with record(net) as recording:
            net(torch.randn(1, 3, 128, 128))
    with pytest.raises(UserError, match="attention flow is for small networks: 1 layers of 1025 tokens"):
        attention_flow(recording)
