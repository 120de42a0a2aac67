"""The default query is what the network pools: declared by its class, or measured where a forward has a graph."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import transformers
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torch.testing import assert_close

from vit_attn.attention_maps import knockout, record, relevance, rollout
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError

SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


class Own(TimmViT):
    """A user's network that pools in its own way."""

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        return x[:, self.num_prefix_tokens :].mean(dim=1)


class Halves(TimmViT):
    """A network that reads the first patches more than the others."""

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        return x[:, 1:5].mean(dim=1) + x[:, 1:].mean(dim=1)


class BesidePool(nn.Module):
    """A network that has a pool by attention, and does not read it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TimmViT(**SIZES, num_classes=5, global_pool="map")
        self.head = nn.Linear(32, 5)
        self.patch_embed, self.num_prefix_tokens, self.global_pool = self.body.patch_embed, 1, "map"

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.body.forward_features(images)
        self.body.attn_pool(tokens)
        return self.head(tokens[:, 1:].mean(dim=1))


def images(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width)


def mean_of(first: int, tokens: int) -> Tensor:
    row = torch.zeros(1, 1, tokens)
    row[..., first:] = 1 / (tokens - first)
    return row


def test_a_subclass_that_pools_in_its_own_way_is_measured_or_has_no_default_query():
    net = Own(**SIZES, num_classes=5).eval()
    with record(net, gradients=True) as measured:
        net(images())
    assert_close(measured.query_rows(), mean_of(1, 17))
    with torch.no_grad(), record(net) as plain:
        net(images())
    with pytest.raises(UserError, match="in a way that its class does not say: name the queries, or record"):
        plain.query_rows()
    assert rollout(plain, [0]).shape == (2, 1, 17)


def test_a_method_that_was_assigned_counts_as_overridden():
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1).eval()
    assert token_layout(net, images()).global_pool == "token"
    net.pool = lambda x: x.mean(dim=1)
    assert token_layout(net, images()).global_pool == ""


def test_unequal_parts_of_the_patches_are_no_default_query():
    net = Halves(**SIZES, num_classes=5).eval()
    with record(net, gradients=True) as recording:
        net(images())
    with pytest.raises(UserError, match=r"reads unequal parts of its tokens: name the queries$"):  # gradients are there
        relevance(recording)
    assert relevance(recording, queries=[3]).shape == (2, 1, 17)


@pytest.mark.parametrize("pool", ["max", "avgmax"])
def test_a_maximum_over_the_tokens_has_no_default_query(pool: str):
    net = TimmViT(**SIZES, num_classes=5, global_pool=pool).eval()
    for gradients in (True, False):
        with record(net, gradients=gradients) as recording, torch.set_grad_enabled(gradients):
            net(images())
        with pytest.raises(UserError, match="no default query"):
            recording.query_rows()


def test_a_pool_that_nothing_is_read_from_is_no_pool_and_no_layer():
    net = BesidePool().eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert recording.pool is None
    assert len(recording) == 2
    assert_close(recording.query_rows(), mean_of(1, 17))


class ReadTwice(TimmViT):
    """A network that reads CLS of its last module, and all tokens before it."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(self.fc_norm(x)[:, 0] + x.mean(dim=1))


def test_tokens_that_are_read_before_the_last_module_are_not_overlooked():
    net = ReadTwice(**SIZES, num_classes=5).eval()
    net.fc_norm = nn.LayerNorm(32)
    with record(net, gradients=True) as recording:
        net(images())
    with pytest.raises(UserError, match="reads tokens of several modules"):
        recording.query_rows()


class Reads(TimmViT):
    """A network whose head reads what a function makes of its tokens."""

    def __init__(self, reads: Callable[[Tensor], Tensor], features: int = 32, **options: Any) -> None:
        super().__init__(**SIZES, num_classes=5, reg_tokens=1, **options)
        self.reads, self.head = reads, nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        return self.head(self.reads(self.forward_features(x)))


def row_of(cls: float, register: float, each_patch: float) -> Tensor:
    return torch.tensor([[[cls, register] + [each_patch] * 16]])


MIXED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "CLS and a fifth of the mean": (
        lambda x: x[:, 0] + 0.2 * x[:, 2:].mean(dim=1),
        row_of(1 / 1.2, 0, 0.2 / 1.2 / 16),
    ),
    "CLS and four fifths of the mean": (
        lambda x: x[:, 0] + 0.8 * x[:, 2:].mean(dim=1),
        row_of(1 / 1.8, 0, 0.8 / 1.8 / 16),
    ),
    "CLS and as much of the mean": (lambda x: x[:, 0] + x[:, 2:].mean(dim=1), row_of(1 / 2, 0, 1 / 32)),
    "CLS and a ninth of a register": (lambda x: 0.9 * x[:, 0] + 0.1 * x[:, 1], row_of(0.9, 0.1, 0)),
    "all in their parts": (
        lambda x: 0.5 * x[:, 0] + 0.3 * x[:, 1] + 0.2 * x[:, 2:].mean(dim=1),
        row_of(0.5, 0.3, 0.2 / 16),
    ),
    "less of a token": (lambda x: -x[:, 1], row_of(0.0, 1.0, 0.0)),
}


@pytest.mark.parametrize("mixed", MIXED)
def test_a_weighted_sum_of_tokens_gives_a_row_of_its_weights(mixed: str):
    reads, expected = MIXED[mixed]
    net = Reads(reads).eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert_close(recording.query_rows(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("patches", [False, True])
def test_concatenated_tokens_count_equally(patches: bool):
    net = Reads(lambda x: torch.cat([x[:, 0], x[:, 2:].mean(dim=1) if patches else x[:, 1]], dim=-1), 64).eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert_close(recording.query_rows(), row_of(1 / 2, 0, 1 / 32) if patches else row_of(1 / 2, 1 / 2, 0))


@pytest.mark.parametrize("reads", [lambda x: x[:, 0] - x[:, 1], lambda x: x[:, 0] - 0.5 * x[:, 2:].mean(dim=1)])
def test_a_difference_of_tokens_has_no_default_query(reads: Callable[[Tensor], Tensor]):
    net = Reads(reads).eval()
    with record(net, gradients=True) as recording:
        net(images())
    with pytest.raises(UserError, match="reads a difference of its tokens: name the queries"):
        recording.query_rows()


class SeveralLayers(TimmViT):
    """A network whose head reads CLS of its first block, and the mean over the patches of its last."""

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        kept: list[Tensor] = []
        handle = self.blocks[0].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        tokens = self.forward_features(x)
        handle.remove()
        return self.head(kept[0][:, 0] + tokens[:, 1:].mean(dim=1))


class BesideThePool(TimmViT):
    """A network whose head reads CLS beside its pool by attention."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(self.fc_norm(self.pool(x) + x[:, 0]))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_that_reads_several_layers_has_no_default_query(frozen: bool):
    net = SeveralLayers(**SIZES, num_classes=5).eval()
    net.patch_embed.requires_grad_(not frozen)
    with record(net, gradients=True) as recording:
        net(images())
    with pytest.raises(UserError, match="reads tokens of several modules, not of the last alone: name the queries"):
        recording.query_rows()
    assert relevance(recording, queries=[0]).shape == (2, 1, 17)


def test_a_head_that_reads_more_than_a_pool_by_attention_has_no_default_query():
    net = BesideThePool(**SIZES, num_classes=5, global_pool="map").eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert len(recording) == 2
    with pytest.raises(UserError, match="a pool by attention and perhaps more"):
        recording.query_rows()


def test_siglips_classifier_reads_the_mean_beside_its_pool():
    config = transformers.SiglipConfig(vision_config=CONFIG | {"hidden_act": "gelu"}, num_labels=5)
    net = transformers.SiglipForImageClassification(config).eval()
    nn.init.normal_(net.classifier.weight)
    for gradients in (True, False):
        with record(net, gradients=gradients) as recording, torch.set_grad_enabled(gradients):
            net(images())
        assert recording.pool is None
        assert_close(recording.query_rows(), mean_of(0, 16))


@pytest.mark.parametrize("class_token", [True, False])
def test_prr_is_a_pool_and_no_layer(class_token: bool):
    net = TimmViT(**SIZES, num_classes=5, global_pool="prr", class_token=class_token).eval()
    kept: list[Tensor] = []
    net.attn_pool.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad(), record(net) as recording:
        net(images())
    x = kept[0].unflatten(-1, (2, 16)).transpose(1, 2)
    weights = (x @ x.mT / 4).softmax(dim=-1).mean(dim=1)
    assert len(recording) == 2
    assert recording.pool.name == "attn_pool"
    assert_close(recording.query_rows(), weights[:, :1] if class_token else weights.mean(dim=1, keepdim=True))


def test_the_pool_of_a_perception_encoder_takes_cls_too():
    net = timm.create_model("vit_pe_core_tiny_patch16_384", img_size=64, depth=2).eval()
    with torch.no_grad(), record(net) as recording:
        net(images(64, 64))
    assert recording.pool_include_prefix
    assert token_layout(net, images(64, 64)).pool_include_prefix
    assert_close(recording.query_rows(), recording.pool.weights().mean(dim=1))


def test_a_head_of_zeros_leaves_the_declared_pooling():
    net = TimmViT(**SIZES, num_classes=5, global_pool="avg").eval()
    nn.init.zeros_(net.head.weight)
    with record(net, gradients=True) as recording:
        net(images())
    assert_close(recording.query_rows(), mean_of(1, 17))


def test_measuring_leaves_the_random_state_and_the_gradients():
    net = TimmViT(**SIZES, num_classes=5).eval()
    x, state = images(), torch.get_rng_state()
    with record(net, gradients=True):
        net(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())


def _refused(name: str, **options: Any) -> nn.Module:
    kind = getattr(transformers, name)
    return kind(kind.config_class(**(CONFIG | options))).eval()


DECODER = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
REFUSED = {
    "ViTMAEModel": ({"mask_ratio": 0.0}, (2, 3, 32, 32), "shuffles its patches, so none has a position"),
    "ViTMAEForPreTraining": (DECODER | {"mask_ratio": 0.0}, (2, 3, 32, 32), "shuffles its patches"),
    "VideoMAEModel": ({"num_frames": 2}, (2, 2, 3, 32, 32), "takes videos: its tokens are no grid of patches"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tokens_that_are_no_grid_of_patches_are_refused_by_name(name: str):
    options, shape, message = REFUSED[name]
    net = _refused(name, **options)
    with pytest.raises(UserError, match=f"{name} {message}"), record(net):
        net(torch.randn(shape))


def test_a_network_of_images_and_text_is_refused_by_name():
    text = {"vocab_size": 10, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = transformers.CLIPConfig(vision_config=CONFIG, text_config=CONFIG | text, projection_dim=16)
    net = transformers.CLIPModel(config).eval()
    message = r"CLIPModel is a network of images and of text: record its vision model alone, its \.vision_model"
    with pytest.raises(UserError, match=message):
        with record(net):
            net(input_ids=torch.tensor([[3, 1], [4, 1]]), pixel_values=images())


def test_the_grid_is_that_of_the_images():
    net = TimmViT(**SIZES, num_classes=5).eval()
    net.patch_embed.strict_img_size = False  # 16 patches of any form, though its positions are for 4 rows and 4 columns
    with torch.no_grad(), record(net) as recording:
        net(images(16, 64))
    assert recording.grid_size == (2, 8)
    assert recording.patch_size == (8, 8)


def test_the_grid_of_a_hugging_face_network_is_that_of_the_images():
    net = transformers.ViTForImageClassification(transformers.ViTConfig(**CONFIG)).eval()
    with torch.no_grad(), record(net) as recording:
        net(images(16, 48), interpolate_pos_encoding=True)
    assert recording.grid_size == (2, 6)


def test_a_pool_of_all_tokens_is_knocked_out():
    net = TimmViT(**SIZES, num_classes=5, global_pool="prr").eval()
    kept: list[Tensor] = []
    net.attn_pool.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    cut = torch.ones(1, 17, dtype=torch.bool)
    cut[0, 0] = False  # each token is left with CLS alone
    x = images()
    with torch.no_grad(), knockout(net, pool=cut):
        logits = net(x)
    with torch.no_grad():
        assert_close(logits, net.head(net.fc_norm(net.attn_pool.post_norm(kept[0])[:, 0])))
