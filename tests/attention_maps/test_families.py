"""Every method on every family of networks, against a reference that forms all maps in float64."""

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2ForImageClassification, ViTConfig, ViTForImageClassification

from tests.networks import HUGGING_FACE, OURS, torchvision_vit
from vit_attn.attention_maps import grad_rollout, legrad, raw_rows, record, relevance, rollout
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer


def of_timm(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **({"depth": 3, "img_size": 64, "num_classes": 5} | options))


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "ours": lambda: VisionTransformer(**OURS, reg_tokens=2),
    "ours, mean, not square": lambda: VisionTransformer(
        **(OURS | {"img_size": (16, 40)}), global_pool="avg", class_token=False, init_values=0.5
    ),
    "ours, pool by attention": lambda: VisionTransformer(**OURS, global_pool="map"),
    "ours, gaussian in a window": lambda: VisionTransformer(**OURS, affinity="gaussian", window=3),
    "ours, additive, top 5": lambda: VisionTransformer(**OURS, affinity="additive", normaliser="top_k", top_k=5),
    "ours, rope": lambda: VisionTransformer(**OURS, pos_embed="rope", qk_norm=True),
    "timm vit": of_timm("vit_tiny_patch16_224"),
    "timm deit3": of_timm("deit3_small_patch16_224"),
    "timm eva02": of_timm("eva02_tiny_patch14_224", img_size=56),
    "timm dinov3": of_timm("vit_small_patch16_dinov3"),
    "timm beit": of_timm("beit_base_patch16_224", embed_dim=192, num_heads=3),
    "timm siglip": of_timm("vit_base_patch16_siglip_224", embed_dim=192, num_heads=3),
    "torchvision vit": torchvision_vit,
    "hugging face vit": lambda: ViTForImageClassification(ViTConfig(**HUGGING_FACE)),
    "hugging face dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**HUGGING_FACE)),
}
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)


QUERIES_AND_KEYS = ("qkv.weight", "q_proj", "k_proj", "query.weight", "key.weight", "in_proj_w", "attn_pool.q.weight")


def built(family: str) -> nn.Module:
    """A network in evaluation whose attention is far from uniform and whose blocks are not shut by LayerScale."""
    torch.manual_seed(0)
    net = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "gamma" in name or "lambda1" in name:
                parameter.fill_(1.0)
            elif name.startswith(("head", "classifier")):
                parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(20):
            for name, parameter in net.named_parameters():
                if any(part in name for part in QUERIES_AND_KEYS) or "attn.q_norm.weight" in name:
                    parameter.mul_(1.5)
            with record(net) as recording:
                net(images_for(net))
            if all(contrasted(layer.weights()) for layer in recording):
                return net
    raise AssertionError(f"the attention of {family} stays uniform")


def contrasted(weights: Tensor) -> bool:
    """Whether the largest weight is over 100 times the smallest in nearly every row."""
    return bool((weights.amax(dim=-1) > 100 * weights.amin(dim=-1)).float().mean() > 0.9)


def images_for(net: nn.Module) -> Tensor:
    size = {"config": 32, "conv_proj": 32}
    side = next((side for name, side in size.items() if hasattr(net, name)), None)
    return torch.randn(3, 3, *((side, side) if side else net.patch_embed.img_size))


@contextlib.contextmanager
def explicit_attention() -> Iterator[list[Tensor]]:
    """Fused attention written out, in the graph, with its weights kept: everything is there at once."""
    fused, kept = F.scaled_dot_product_attention, []

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            bias = attn_mask
            if attn_mask.dtype == torch.bool:
                bias = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(~attn_mask, -torch.inf)
            scores = scores + bias
        weights = scores.softmax(dim=-1)
        kept.append(weights)
        return weights @ value

    F.scaled_dot_product_attention = attention
    try:
        yield kept
    finally:
        F.scaled_dot_product_attention = fused


class Reference:
    """Maps, their gradients and every method by its formula, over all tokens, in float64."""

    def __init__(self, net: nn.Module, images: Tensor, recording: Recording):
        with explicit_attention() as maps:
            output = net(images.double())
        logits = getattr(output, "logits", output)
        self.target = logits.argmax(dim=-1)
        value = logits.gather(1, self.target[:, None]).sum()
        gradients = torch.autograd.grad(value, maps)
        pooled = recording.pool is not None
        self.maps = [each.detach() for each in maps[: len(maps) - pooled]]
        self.gradients = list(gradients[: len(self.maps)])
        self.eye = torch.eye(recording.num_tokens, dtype=torch.float64)
        self.start = recording.query_rows().double()
        self.weighed_start = self.start
        if pooled:
            self.start = F.pad(maps[-1].detach().mean(dim=1), (recording.num_prefix_tokens, 0))
            weighed = (maps[-1].detach() * gradients[-1]).relu().mean(dim=1)
            self.weighed_start = F.pad(weighed, (recording.num_prefix_tokens, 0))

    def weighed(self) -> list[Tensor]:
        return [(a * g).relu().mean(dim=1) for a, g in zip(self.maps, self.gradients, strict=True)]

    def product(self, layers: list[Tensor]) -> Tensor:
        result = self.eye
        for layer in layers:
            result = layer @ result
        return result

    def rolled(self, fused: list[Tensor]) -> Tensor:
        halves = [0.5 * each + 0.5 * self.eye for each in fused]
        return self.product([each / each.sum(dim=-1, keepdim=True) for each in halves])

    def discarded(self, fused: Tensor, share: float, prefix: int) -> Tensor:
        """Row by row: the least attended patches to 0, but never a prefix token or the row's own."""
        result, tokens = fused.clone(), fused.shape[-1]
        for image in range(len(fused)):
            for row in range(tokens):
                order = sorted((j for j in range(prefix, tokens) if j != row), key=lambda j: fused[image, row, j])
                result[image, row, order[: int(share * (tokens - prefix))]] = 0.0
        return result


def compare(found: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of a row's largest value but one; the largest, often the token itself, within 1e-5 of itself."""
    assert found.shape == expected.shape
    largest, top = expected.max(dim=-1, keepdim=True)
    error = (found.double() - expected).abs()
    assert (error.gather(-1, top) <= 1e-5 * largest).all(), "the largest value of a row is off"
    others = expected.scatter(-1, top, 0.0).amax(dim=-1)
    error = error.scatter(-1, top, 0.0).amax(dim=-1)
    assert (error <= 1e-4 * others).all(), f"{(error / others).max():.2e} of the largest value of a row but one"


def methods(net: nn.Module, recording: Recording, reference: Reference) -> dict[str, tuple[Tensor, Tensor]]:
    """What we compute, and what it should be."""
    every, mean = range(recording.num_tokens), [each.mean(dim=1) for each in reference.maps]
    chefer = reference.product([reference.eye + each for each in reference.weighed()])
    rolled = reference.rolled(mean)
    graded = reference.rolled(reference.weighed())
    weighed_start = reference.weighed_start @ graded
    prefix = recording.num_prefix_tokens
    thinned = reference.rolled([reference.discarded(each, 0.3, prefix) for each in mean])
    return {
        "raw": (raw_rows(recording, 1, every), mean[1]),
        "raw, pooled": (raw_rows(recording), reference.start @ mean[-1]),
        "raw, maximum": (raw_rows(recording, 0, [2, 0], "max"), reference.maps[0].amax(dim=1)[:, [2, 0]]),
        "rollout": (rollout(recording, every), rolled),
        "rollout, pooled": (rollout(recording), reference.start @ rolled),
        "rollout of two": (rollout(recording, [3, -1]), rolled[:, [3, -1]]),
        "rollout, maximum": (rollout(recording, every, "max"), reference.rolled([a.amax(1) for a in reference.maps])),
        "rollout, minimum": (rollout(recording, every, "min"), reference.rolled([a.amin(1) for a in reference.maps])),
        "rollout, discard": (rollout(recording, every, discard=0.3), thinned),
        "relevance": (relevance(recording, queries=every), chefer),
        "relevance, pooled": (relevance(recording), reference.weighed_start @ chefer),
        "gradient rollout": (grad_rollout(recording, reference.target, every), graded),
        "gradient rollout, pooled": (grad_rollout(recording), weighed_start / weighed_start.sum(-1, keepdim=True)),
    }


@EACH_FAMILY
def test_every_method_agrees_with_the_reference(family: str):
    net = built(family)
    images = images_for(net)
    with record(net, gradients=True) as recording:
        net(images[:2])
        net(images[2:])
    reference = Reference(copy.deepcopy(net).double(), images, recording)
    for layer, expected in zip(recording, reference.maps, strict=True):
        torch.testing.assert_close(layer.weights().double(), expected, rtol=1e-3, atol=1e-5)
    for name, (found, expected) in methods(net, recording, reference).items():
        try:
            compare(found, expected)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_a_mutated_method_fails_the_comparison(monkeypatch: pytest.MonkeyPatch):
    net = built("ours")
    images = images_for(net)
    with record(net, gradients=True) as recording:
        net(images)
    reference = Reference(copy.deepcopy(net).double(), images, recording)
    every = range(recording.num_tokens)
    _, rolled = methods(net, recording, reference)["rollout"]
    _, chefer = methods(net, recording, reference)["relevance"]
    forward = recording.forwards[0]
    backwards = Recording(3, (4, 4), "token", gradients=True, forwards=[type(forward)(forward.calls[::-1])])
    with pytest.raises(AssertionError, match="largest value of a row"):  # layers in the wrong order
        compare(rollout(backwards, every), rolled)
    module = sys.modules["vit_attn.attention_maps.methods.relevance"]
    plain = module.weight_gradient
    monkeypatch.setattr(module, "weight_gradient", lambda call, gradient: -plain(call, gradient))
    with pytest.raises(AssertionError, match="largest value of a row"):  # the other sign
        compare(relevance(recording, queries=every), chefer)


@pytest.mark.parametrize(
    "family", ["ours", "ours, mean, not square", "ours, pool by attention", "timm vit", "timm eva02"]
)
def test_legrad_agrees_with_the_reference(family: str):
    net = built(family)
    images = images_for(net)
    found = legrad(net, images)
    net = copy.deepcopy(net).double()
    with explicit_attention() as maps:
        tokens, intermediates = net.forward_intermediates(images.double(), output_fmt="NLC", return_prefix_tokens=True)
        target = net.forward_head(tokens).argmax(dim=-1)
    layers = maps[: len(net.blocks)]
    expected = torch.zeros(found.shape, dtype=torch.float64)
    for weights, taken in zip(layers, intermediates, strict=True):
        patches, prefix = taken if isinstance(taken, tuple) else (taken, taken[:, :0])
        logits = net.forward_head(net.norm(torch.cat([prefix, patches], dim=1)))
        value = logits.gather(1, target[:, None]).sum()
        (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
        expected += gradient.relu().mean(dim=(1, 2))
    assert (found - expected).abs().amax() <= 1e-4 * expected.amax()


class MeanInForward(TimmViT):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyrefly: ignore[bad-override]
        return self.head(self.forward_features(x)[:, 1:].mean(dim=1))


class Scaled(TimmViT):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyrefly: ignore[bad-override]
        return self.head(2 * self.forward_features(x)[:, 0])


class MeanInHead(TimmViT):
    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return self.head(x[:, 1:].mean(dim=1))


@pytest.mark.parametrize("kind", [MeanInForward, Scaled])
def test_legrad_of_a_network_that_reads_its_last_block_otherwise_is_refused(kind: type[TimmViT]):
    net = kind(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5).eval()
    with pytest.raises(UserError, match=f"{kind.__name__} gives other logits than that of its last block"):
        legrad(net, torch.randn(2, 3, 32, 32))


def test_legrad_follows_a_rewritten_head():
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    net, twin = MeanInHead(**sizes).eval(), TimmViT(**sizes, global_pool="avg").eval()
    twin.load_state_dict(net.state_dict(), strict=False)
    twin.norm, twin.fc_norm = net.norm, torch.nn.Identity()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(legrad(net, images, 1), legrad(twin, images, 1))
