"""Layouts given by hand serve recordings, cuts, summaries and LeGrad, and are checked."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.testing import assert_close

from vit_attn.attention_maps import TokenLayout, edges, knockout, legrad, record, register_layout, relevance, rollout
from vit_attn.attention_maps.evaluation.faithfulness import deletion
from vit_attn.attention_maps.recording import layout as registry
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.summary import summarize
from vit_attn.errors import UserError


class Own(nn.Module):
    """A network whose CLS token comes last, and which does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 8, 8)
        self.last = nn.Parameter(torch.randn(1, 1, 32))
        self.blocks = nn.ModuleList(Block(32, 2) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)
        for block in self.blocks:
            nn.init.normal_(block.attn.qkv.weight, std=0.5)

    def forward_head(self, x: Tensor) -> Tensor:
        return self.head(x[:, -1])

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).mT
        x = torch.cat([x, self.last.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.forward_head(self.norm(x))


class Inherits(Own):
    """A subclass of it."""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_BY_HAND", {})


def cls_last(net: nn.Module, images: Tensor) -> TokenLayout:
    rows, cols = images.shape[-2] // 8, images.shape[-1] // 8
    return TokenLayout(1, (rows, cols), patch_size=(8, 8), order=[rows * cols, *range(rows * cols)])


def images() -> Tensor:
    return torch.randn(2, 3, 16, 24)


def unfused(net: Own, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weights of each block, and its output computed from them, in the network's order."""
    found = []
    tokens = torch.cat([net.stem(x).flatten(2).mT, net.last.expand(len(x), -1, -1)], dim=1)
    for block in net.blocks:
        q, k, v = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / 4).softmax(dim=-1)
        tokens = tokens + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
        found.append((weights, tokens))
    return found


def test_an_unknown_network_is_refused_with_the_way_out():
    net = Own().eval()
    with pytest.raises(UserError, match=r"Own does not say .* register_layout\(Own, lambda net, images: TokenLayout"):
        with record(net):
            net(images())


@pytest.mark.parametrize("kind", [Own, Inherits])
def test_the_weights_and_the_default_query_are_in_the_order_that_was_given(kind: type[Own]):
    register_layout(Own, cls_last)
    net, x = kind().eval(), images()
    with record(net, gradients=True) as recording:
        net(x)
    order = [6, 0, 1, 2, 3, 4, 5]
    for layer, (expected, _) in zip(recording, unfused(net, x), strict=True):
        assert_close(layer.weights(), expected[:, :, order][..., order])
    assert recording.global_pool == "token"
    assert_close(recording.query_rows(), torch.eye(7)[None, [0]])
    assert relevance(recording, 1).shape == rollout(recording).shape == (2, 1, 7)


def test_without_a_graph_the_pooling_is_the_one_that_was_given():
    net, x = Own().eval(), images()
    for pool in ("", "token"):
        register_layout(Own, lambda net, images, pool=pool: cls_last(net, images)._replace(global_pool=pool))
        with torch.no_grad(), record(net) as recording:
            net(x)
        if pool:
            assert_close(recording.query_rows(), torch.eye(7)[None, [0]])
        else:
            with pytest.raises(UserError, match="no default query"):
                recording.query_rows()


def test_a_wrong_pooling_that_was_given_is_replaced_by_the_measured_one():
    register_layout(Own, lambda net, images: cls_last(net, images)._replace(global_pool="avg"))
    net = Own().eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert recording.global_pool == "token"


def test_cuts_are_in_the_order_that_was_given():
    register_layout(Own, cls_last)
    net, x = Own().eval(), images()
    with torch.no_grad(), knockout(net, edges(7, [0], [3])), record(net) as recording:
        net(x)
    for layer in recording:
        assert (layer.weights() == 0).nonzero()[:, 2:].unique(dim=0).tolist() == [[0, 3]]


def test_summaries_legrad_and_deletion_use_it():
    register_layout(Own, cls_last)
    net, x = Own().eval(), images()
    for summary in summarize(net, x):
        assert summary.grid_size == (2, 3)
        assert summary.rollout.sum() == pytest.approx(1.0, abs=1e-5)
    assert deletion(net, x, torch.arange(6)[None], steps=2).probabilities.shape == (2, 3)
    maps = legrad(net, x, 1)
    expected = torch.zeros(2, 7)
    for weights, output in unfused(net, x):
        value = net.forward_head(net.norm(output))[:, 1].sum()
        (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
        expected += gradient.relu().mean(dim=(1, 2))
    assert_close(maps, expected[:, [6, 0, 1, 2, 3, 4, 5]])


WRONG: dict[str, Any] = {
    "must be a TokenLayout, got tuple": (1, (2, 3)),
    "has numbers of tokens that are none": TokenLayout(1, (2.0, 3.0)),  # pyrefly: ignore[bad-argument-type]
    "has 1 prefix tokens, 0 rows and 3 columns": TokenLayout(1, (0, 3)),
    "must list 7 tokens once, got 6": TokenLayout(1, (2, 3), order=[0, 1, 2, 3, 4, 5]),
    "must list 7 tokens once, got 7": TokenLayout(1, (2, 3), order=[0, 0, 1, 2, 3, 4, 5]),
    r"must be of tokens in 0\.\.6": TokenLayout(1, (2, 3), order=[1, 2, 3, 4, 5, 6, 7]),
    "has padding tokens: say in its order": TokenLayout(0, (2, 3), num_padding_tokens=1),
    "attention of 13 tokens to all 13 tokens was expected of 2 images": TokenLayout(1, (3, 4)),
    "attends to tokens that only pad the images": TokenLayout(0, (2, 3), order=range(6), num_padding_tokens=1),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_layout_that_does_not_fit_is_refused(message: str):
    register_layout(Own, lambda net, images: WRONG[message])
    net = Own().eval()
    with pytest.raises(UserError, match=message), record(net):
        net(images())


@pytest.mark.parametrize("kind", [Own(), nn.Module, int])
def test_what_is_no_class_of_a_network_is_not_registered(kind: Any):
    with pytest.raises(UserError, match="register_layout takes the class of a network"):
        register_layout(kind, cls_last)


def test_one_layout_may_serve_all_images():
    register_layout(Own, TokenLayout(1, (2, 3), order=[6, 0, 1, 2, 3, 4, 5]))
    net = Own().eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert_close(recording.query_rows(), torch.eye(7)[None, [0]])


def test_a_wrapper_around_a_registered_network_is_refused_by_name():
    register_layout(Own, cls_last)
    net = nn.Sequential(Own()).eval()
    with pytest.raises(UserError, match=r"Sequential only wraps the network: use its \.0 instead"), record(net):
        net(images())


def test_the_layout_by_hand_comes_before_what_the_class_declares():
    class Declares(Own):
        num_prefix_tokens, global_pool = 0, "avg"

        def __init__(self) -> None:
            super().__init__()
            self.patch_embed = self.stem

    register_layout(Declares, cls_last)
    assert token_layout(Declares(), images()).num_prefix_tokens == 1
