"""Recordings, knock-outs and ablations of one network at once: the order does not matter, and what was used is said."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.networks import EACH_FAMILY, IMAGES, OURS, built, seen
from vit_attn.attention_maps import ablate, edges, knockout, legrad, record, relevance, rollout
from vit_attn.attention_maps.evaluation.randomization import reinitialised
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

ORDERS = (
    ("record", "cut", "ablate", "cut more"),
    ("cut", "ablate", "record", "cut more"),
    ("cut more", "record", "cut", "ablate"),
    ("ablate", "cut more", "cut", "record"),
)


def interventions(tokens: int) -> dict[str, Callable[[nn.Module], Any]]:
    some = torch.rand(3, tokens, tokens) < 0.3
    some |= edges(tokens, [1], range(tokens))  # a row without a key
    more = torch.rand(tokens, tokens) < 0.2
    return {
        "cut": lambda net: knockout(net, some, layers=[0, 2], heads=[1]),
        "cut more": lambda net: knockout(net, more, layers=[-1]),
        "ablate": lambda net: ablate(net, {1: [0], 2: [3]}),
    }


@EACH_FAMILY
def test_the_order_of_nesting_changes_nothing_and_what_is_recorded_was_used(family: str):
    net = built(family)
    tokens, _ = seen(net)
    each = interventions(tokens)
    found = []
    for order in ORDERS:
        with contextlib.ExitStack() as stack:
            recording: Any = None
            for name in order:
                entered = stack.enter_context(record(net, gradients=True) if name == "record" else each[name](net))
                recording = entered if name == "record" else recording
            logits = logits_of(net(IMAGES)).detach()
        weights = [layer.weights() for layer in recording]
        found.append([logits, torch.stack(weights), relevance(recording), rollout(recording)])
        for layer in recording:
            (call,) = layer.calls
            assert_close(call.weights() @ call.v.float(), call.output.detach(), rtol=1e-4, atol=5e-5)
        assert weights[1][:, 0].abs().amax() == weights[2][:, 3].abs().amax() == weights[0][:, 1, 1].abs().amax() == 0
        assert_close(found[-1][3].sum(dim=-1), torch.ones(3, 1))
    for others in found[1:]:
        for ours, theirs in zip(found[0], others, strict=True):
            assert torch.equal(ours, theirs)


class Explicit(nn.Module):
    """Our network written out in float64, with maps in the graph and heads and edges taken away by hand."""

    def __init__(self, net: VisionTransformer, cut: Tensor, ablated: list[tuple[int, int]]) -> None:
        super().__init__()
        self.net, self.cut, self.ablated = copy.deepcopy(net).double(), cut, ablated
        self.maps: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        net: Any = self.net
        tokens = net.patch_embed.proj(images).flatten(2).mT
        tokens = torch.cat([net.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + net.pos_embed
        for number, block in enumerate(net.blocks):
            attn, x = block.attn, block.norm1(tokens)
            q, k, v = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(self.cut, -torch.inf).softmax(dim=-1)
            self.maps.append(weights)
            output = weights @ v
            for layer, head in self.ablated:
                if layer == number:
                    output = torch.cat([output[:, :head], 0 * output[:, head : head + 1], output[:, head + 1 :]], dim=1)
            tokens = tokens + attn.proj(output.transpose(1, 2).flatten(-2))
            tokens = tokens + block.mlp(block.norm2(tokens))
        return net.head(net.norm(tokens)[:, 0])


@pytest.mark.parametrize("recorded_first", [True, False])
def test_relevance_under_cuts_and_ablations_is_that_of_the_explicit_network(recorded_first: bool):
    torch.manual_seed(1)
    net = VisionTransformer(**OURS).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(4) if "qkv.weight" in name else parameter.add_(0.05 * torch.randn_like(parameter))
    cut = torch.rand(17, 17) < 0.3
    cut.fill_diagonal_(False)
    reference = Explicit(net, cut, [(0, 2), (2, 1)])
    logits = reference(IMAGES.double())
    gradients = torch.autograd.grad(logits[:, 3].sum(), reference.maps)
    expected = torch.eye(17, dtype=torch.float64)[None, :1].expand(3, -1, -1)
    for number in reversed(range(3)):
        product = (reference.maps[number] * gradients[number]).relu()
        expected = expected + expected @ product.mean(dim=1)

    with contextlib.ExitStack() as stack:
        cuts = [knockout(net, cut), ablate(net, {0: [2], -1: [1]})]
        recording: Any = stack.enter_context(record(net, gradients=True)) if recorded_first else None
        for each in cuts:
            stack.enter_context(each)
        if not recorded_first:
            recording = stack.enter_context(record(net, gradients=True))
        assert_close(net(IMAGES).double(), logits, rtol=1e-4, atol=1e-4)
    assert_close(relevance(recording, 3).double(), expected, rtol=1e-4, atol=1e-5)


def test_an_ablated_head_has_no_part_in_legrad():
    net = built("ours")
    with ablate(net, {layer: range(4) for layer in range(3)}):
        assert legrad(net, IMAGES, 3).abs().amax() == 0
    assert legrad(net, IMAGES, 3).abs().amax() > 0


def test_a_forward_is_in_each_of_two_recordings():
    net = built("ours")
    with record(net, gradients=True) as outer:
        net(IMAGES[:1])
        with record(net) as inner, record(net, gradients=True) as innermost:
            net(IMAGES[1:])
    assert (outer.batch_size, inner.batch_size, innermost.batch_size) == (3, 2, 2)
    assert torch.equal(outer[0].weights()[1:], inner[0].weights())
    assert_close(relevance(outer, 1)[1:], relevance(innermost, 1))


def test_a_recording_of_a_part_of_a_network_knows_its_own_names():
    net = built("hugging face vit")
    with torch.no_grad(), record(net) as whole, record(net.vit) as part:
        net(IMAGES)
    assert [layer.name for layer in whole] == [f"vit.{layer.name}" for layer in part]
    assert torch.equal(whole[1].weights(), part[1].weights())


def test_a_copy_that_is_made_while_recording_is_a_network_of_its_own():
    net = built("ours")
    with torch.no_grad(), record(net) as recording, ablate(net, {0: [0]}):
        twin, random_net = copy.deepcopy(net), reinitialised(net)
        twin(IMAGES)
        random_net(IMAGES)
        net(IMAGES[:1])
        with record(random_net) as other:
            random_net(IMAGES[:2])
    assert (recording.batch_size, other.batch_size) == (1, 2)
    assert other[0].weights()[:, 0].sum() > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in random_net.modules())


def test_rows_that_a_networks_own_mask_closes_are_zeros_as_in_the_kernel():
    class Net(nn.Module):
        class Attention(nn.Module):
            def forward(self, x, mask):
                return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

        def __init__(self):
            super().__init__()
            self.attn, self.patch_embed = self.Attention(), nn.Identity()
            self.num_prefix_tokens, self.global_pool, self.patch_embed.grid_size = 1, "token", (2, 3)

        def forward(self, x, mask):
            return self.attn(x, mask)

    net, x = Net(), torch.randn(2, 4, 7, 6)
    closed = torch.ones(7, 7, dtype=torch.bool)
    closed[3] = False
    for mask in (closed, torch.zeros(7, 7).masked_fill(~closed, -torch.inf)):
        with record(net) as recording:
            output = net(x, mask)
        assert_close(recording[0].weights() @ x, output)
        assert_close(rollout(recording, range(7)).sum(dim=-1), torch.ones(2, 7))


def test_a_module_that_attends_twice_has_no_number_to_cut():
    net = built("ours")
    net.blocks[2] = net.blocks[0]
    for watched in (record(net), knockout(net, edges(19, [0], [1])), ablate(net, {0: [1]})):
        with pytest.raises(UserError, match=r"attend more than once a forward .*: blocks\.0\.attn"), watched:
            net(IMAGES)


def test_layers_that_run_in_another_order_than_they_are_listed_have_no_number_to_cut():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.patch_embed = built("ours"), nn.Identity()

        def forward(self, images):
            net = self.net
            x = net.pos_embed + torch.cat([net.cls_token.expand(3, -1, -1), net.patch_embed(images)[:, :16]], dim=1)
            for block in reversed(net.blocks):
                x = x + block.attn(x)
            return x

    net = Backwards()
    net.net.pos_embed = nn.Parameter(torch.randn(1, 17, 48))
    with pytest.raises(UserError, match="attend in another order"), ablate(net, {0: [1], 1: [0]}):
        net(IMAGES)
