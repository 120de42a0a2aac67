"""Networks that were changed after they were made: the default query is what they read now, or refused."""

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from tests.networks import HUGGING_FACE, IMAGES, OURS
from vit_attn.attention_maps import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}


class MeanPooler(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mean(dim=1)


class Rolled(ViTModel):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state.roll(1, 1)
        return output


class LastFirst(TimmViT):
    def forward_features(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward_features(*args, **kwargs).flip(1)


class Mean(TimmViT):
    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        return self.head(self.forward_features(x)[:, 1:].mean(dim=1))


def seen(net: nn.Module, gradients: bool = False) -> Recording:
    with torch.set_grad_enabled(gradients), record(net.eval(), gradients) as recording:
        net(IMAGES)
    return recording


def pool_that_is_no_longer_named() -> nn.Module:
    net = TimmViT(**SIZES, global_pool="map")
    net.global_pool = "avg"
    return net


def pool_of_ours_that_is_no_longer_named() -> nn.Module:
    net = VisionTransformer(**OURS, global_pool="map")
    net.global_pool = "avg"
    return net


@pytest.mark.parametrize("make", [pool_that_is_no_longer_named, pool_of_ours_that_is_no_longer_named])
def test_a_pool_by_attention_is_asked_as_long_as_it_is_there(make: Callable[[], nn.Module]):
    net = make()
    plain, measured = seen(net), seen(net, gradients=True)
    assert len(plain) == len(measured) == len(net.blocks)
    assert plain.global_pool == measured.global_pool == "map"
    assert_close(plain.query_rows(), measured.query_rows())


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("kind", [BeitModel, BeitForImageClassification])
def test_a_beit_reads_what_its_pooler_does_whatever_its_config_says_since(kind: Any, mean: bool):
    net = kind(BeitConfig(**HUGGING_FACE, use_mean_pooling=mean))
    net.config.use_mean_pooling = not mean
    expected = "avg" if mean else "token"
    assert seen(net).global_pool == seen(net, gradients=True).global_pool == expected


def with_pooler_replaced() -> nn.Module:
    net = ViTModel(ViTConfig(**HUGGING_FACE))
    net.pooler = MeanPooler()
    return net


def with_poolers_forward_assigned() -> nn.Module:
    net = BeitForImageClassification(BeitConfig(**HUGGING_FACE))
    net.beit.pooler.forward = lambda tokens: tokens[:, 2]
    return net


def with_inner_network_replaced() -> nn.Module:
    net = ViTForImageClassification(ViTConfig(**HUGGING_FACE))
    net.vit = Rolled(net.config, add_pooling_layer=False)
    return net


def with_forward_assigned() -> nn.Module:
    net = TimmViT(**SIZES)
    net.forward = lambda images: net.head(net.forward_features(images).mean(dim=1))
    return net


def with_method_assigned() -> nn.Module:
    net = TimmViT(**SIZES)
    net.forward = types.MethodType(Mean.forward, net)
    return net


def with_pool_replaced() -> nn.Module:
    net = TimmViT(**SIZES, global_pool="map")
    net.attn_pool = MeanPooler()
    return net


REWRITTEN: dict[str, Callable[[], nn.Module]] = {
    "pooler": with_pooler_replaced,
    "pooler's forward": with_poolers_forward_assigned,
    "inner network": with_inner_network_replaced,
    "forward": with_forward_assigned,
    "method": with_method_assigned,
    "forward_features": lambda: LastFirst(**SIZES),
    "forward with a pool": lambda: Mean(**SIZES, global_pool="token"),
    "pool": with_pool_replaced,
}


@pytest.mark.parametrize("changed", REWRITTEN)
def test_what_was_replaced_after_a_network_was_made_leaves_no_default_query_without_a_graph(changed: str):
    with pytest.raises(UserError, match="in a way that its class does not say: name the queries"):
        seen(REWRITTEN[changed]()).query_rows()


class Beside(TimmViT):
    """A network that has a pool by attention, and reads more."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(self.fc_norm(self.pool(x) + x[:, 0]))


def test_a_rewritten_head_beside_a_pool_by_attention_leaves_no_default_query_without_a_graph():
    recording = seen(Beside(**SIZES, global_pool="map"))
    assert len(recording) == 2
    with pytest.raises(UserError, match="a pool by attention and perhaps more"):
        recording.query_rows()


def test_a_wrapped_forward_is_the_classes_own():
    net = TimmViT(**SIZES)
    forward = net.forward
    net.forward = functools.wraps(forward)(lambda *args, **kwargs: forward(*args, **kwargs))
    assert token_layout(net, IMAGES).global_pool == "token"


def test_a_block_of_ones_own_leaves_what_the_class_reads():
    class Own(type(TimmViT(**SIZES).blocks[0])):
        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return super().forward(x, *args, **kwargs) * 2

    net = TimmViT(**SIZES, block_fn=Own)
    assert seen(net).global_pool == "token"
