"""Layouts that classes declare: classifiers around an encoder, and open_clip's vision transformer."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vit_attn.attention_maps import edges, knockout, record, relevance, rollout
from vit_attn.attention_maps.recording.library_layouts import projected_patch
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError

SIZES: dict[str, Any] = {"img_size": (96, 144), "depth": 2, "embed_dim": 64, "num_heads": 4, "num_classes": 5}
GEMMA: dict[str, Any] = {"head_dim": 16, "intermediate_size": 96, "position_embedding_size": 64}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "qwen3_vit_88m": {},
    "deepseek_vit_412m": {"img_size": (84, 126)},
    "gemma4_vit_167m": GEMMA,
}
MERGED: dict[str, dict[str, Any]] = {
    "qwen3_vit_88m_merge": {"img_size": (96, 128)},
    "deepseek_vit_412m_align": {"img_size": (84, 126)},
}


def classifier(name: str, **options: Any) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    sizes = SIZES | options
    return timm.create_model(name, **sizes).eval(), torch.randn(2, 3, *sizes["img_size"])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_around_an_encoder_reads_the_mean_of_the_patches(name: str):
    net, images = classifier(name, **CLASSIFIERS[name])
    with record(net, gradients=True) as measured:
        net(images)
    with torch.no_grad(), record(net) as declared:
        net(images)
    assert measured.grid_size == declared.grid_size == (6, 9)
    assert measured.patch_size == ((14, 14) if "deepseek" in name else (16, 16))
    for recording in (measured, declared):
        assert_close(recording.query_rows(), torch.full((1, 1, 54), 1 / 54))
    assert relevance(measured, 2).shape == (2, 1, 54)


@pytest.mark.parametrize("name", MERGED)
def test_a_classifier_of_merged_tokens_has_maps_and_no_default_query(name: str):
    net, images = classifier(name, **MERGED[name])
    for gradients, why in ((True, "unequal parts of its tokens"), (False, "in a way that its class does not say")):
        with torch.set_grad_enabled(gradients), record(net, gradients=gradients) as recording:
            net(images)
        assert rollout(recording, [0]).shape == (2, 1, 48 if "qwen3" in name else 54)
        with pytest.raises(UserError, match=why):
            recording.query_rows()


def test_an_embedding_of_overlapping_patches_has_no_patch():
    class Overlapping(nn.Module):
        patch_size = 7

        def __init__(self, stride: int) -> None:
            super().__init__()
            self.proj = nn.Conv2d(3, 8, 7, stride)

    assert projected_patch(Overlapping(7)) == (7, 7)
    with pytest.raises(AttributeError, match="Overlapping does not project one patch after the other"):
        projected_patch(Overlapping(4))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU())
        nn.init.normal_(self.attn.in_proj_weight, std=0.4)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class AttentionalPooler(nn.Module):
    """Pool from several queries to all tokens, of another width."""

    def __init__(self, width: int, output: int, queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, output))
        self.attn = nn.MultiheadAttention(output, 2, kdim=width, vdim=width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0]


class OpenClip(nn.Module):
    """The parts of open_clip's VisionTransformer, by their names there."""

    def __init__(self, pool_type: str = "tok", queries: int = 0, reads: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 8, 8, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(32))
        self.positional_embedding = nn.Parameter(torch.randn(7, 32))
        self.transformer = Transformer(32)
        self.pool_type, self.reads = pool_type, reads
        self.attn_pool = AttentionalPooler(32, 16, queries) if queries else None
        self.ln_post = nn.LayerNorm(16 if queries else 32)
        self.proj = nn.Parameter(torch.randn(16 if queries else 32, 8))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).mT
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.transformer(x)
        x = self.ln_post(x if self.attn_pool is None else self.attn_pool(x))
        return (x[:, 1:].mean(dim=1) if self.pool_type == "avg" else x[:, self.reads]) @ self.proj


def images() -> Tensor:
    return torch.randn(2, 3, 16, 24)


def weights_of(module: nn.MultiheadAttention, x: Tensor, query: Tensor | None = None) -> Tensor:
    """Weights that the module itself returns."""
    return module(x if query is None else query, x, x, need_weights=True, average_attn_weights=False)[1]


@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_open_clips_transformer_is_recorded(pool_type: str):
    net, x = OpenClip(pool_type).eval(), images()
    inputs: list[Tensor] = []
    blocks = net.transformer.resblocks
    hooks = [block.ln_1.register_forward_hook(lambda *args: inputs.append(args[2])) for block in blocks]
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), record(net, gradients=gradients) as recording:
            net(x)
        assert recording.grid_size == (2, 3)
        assert recording.global_pool == {"tok": "token", "avg": "avg"}[pool_type]
    for hook in hooks:
        hook.remove()
    for layer, block, normed in zip(recording, blocks, inputs[2:], strict=True):
        assert_close(layer.weights(), weights_of(block.attn, normed))
    changed = x.clone()
    changed[..., :8, 16:] += 3.0
    with torch.no_grad(), record(net) as after:
        net(changed)
    moved = (after[0].calls[0].v != recording[0].calls[0].v).any(dim=-1).any(dim=1).any(dim=0)
    assert moved.nonzero().tolist() == [[3]]  # CLS, and the third patch of the first row


@pytest.mark.parametrize("queries", [1, 5])
def test_open_clips_attentional_pool_is_read_at_its_first_query(queries: int):
    net, x = OpenClip(queries=queries).eval(), images()
    kept: list[Tensor] = []
    net.transformer.register_forward_hook(lambda *args: kept.append(args[2]))
    with record(net, gradients=True) as recording:
        output = net(x)
    with torch.no_grad(), record(net) as declared:
        net(x)
    weights = weights_of(net.attn_pool.attn, kept[0], net.attn_pool.query.expand(2, -1, -1))
    assert len(recording) == 2
    assert recording.pool is not None
    assert_close(recording.pool.weights(), weights)
    assert_close(recording.query_rows(), weights[:, :, :1].mean(dim=1))
    assert_close(declared.query_rows(), recording.query_rows())
    assert output.shape == (2, 8)
    pool = torch.zeros(1, 7, dtype=torch.bool)
    pool[0, 3] = True
    with torch.no_grad(), knockout(net, edges(7, [0], [2])), knockout(net, pool=pool), record(net) as cut:
        net(x)
    assert cut.query_rows()[..., 3].max() == 0
    assert cut[0].weights()[:, :, 0, 2].max() == 0


def test_a_pool_that_is_read_at_another_query_has_no_default_query():
    net = OpenClip(queries=5, reads=2).eval()
    with record(net, gradients=True) as recording:
        net(images())
    assert len(recording) == 2
    with pytest.raises(UserError, match="a pool by attention and perhaps more"):
        recording.query_rows()


def test_a_network_with_stages_is_no_wrapper_around_one_of_them():
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = OpenClip(), Transformer(32)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)[:, None].repeat(1, 5, 4))

    net = Stages().eval()
    with pytest.raises(UserError, match=r"Stages does not say how its tokens are laid out \(.* 'patch_embed'\)"):
        with record(net):
            net(images())


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual, self.transformer = OpenClip(), Transformer(32)

    def encode_text(self, text: Tensor) -> Tensor:
        return self.transformer(text)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.visual(images)


def test_a_network_of_images_and_text_names_the_part_to_record():
    net = TwoTowers().eval()
    with pytest.raises(UserError, match=r"network of images and of text: record its vision model alone, its \.visual"):
        with record(net):
            net.encode_image(images())
    with record(net.visual, gradients=True) as recording:
        net.encode_image(images())
    assert_close(recording.query_rows(), torch.eye(7)[None, [0]])
    assert token_layout(net.visual, images()).patch_size == (8, 8)
