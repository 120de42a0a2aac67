"""Attention that is written out, a softmax of scores and a product with the values, is recorded and cut exactly."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2ForImageClassification, ViTConfig, ViTForImageClassification

from tests.networks import HUGGING_FACE, IMAGES, built
from vit_attn.attention_maps import ablate, edges, knockout, record, relevance, rollout
from vit_attn.attention_maps.recording.sdpa_mode import SDPAMode
from vit_attn.errors import UserError

TOKENS, HEADS = 7, 4  # of the networks below, on pictures of 2 by 3 patches


class Attention(nn.Module):
    """Attention as vit-pytorch writes it, with its product and softmax replaceable."""

    def __init__(self, multiply: Callable[[Tensor, Tensor], Tensor], attend: Callable[[Tensor], Tensor], drop: float):
        super().__init__()
        self.multiply, self.attending = multiply, [attend]
        self.norm, self.to_qkv, self.to_out = nn.LayerNorm(32), nn.Linear(32, 96, bias=False), nn.Linear(32, 32)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (HEADS, 8)).transpose(1, 2) for x in self.to_qkv(self.norm(x)).chunk(3, dim=-1))
        dots = torch.matmul(q, k.transpose(-1, -2)) * 8**-0.5
        return self.to_out(self.multiply(self.dropout(self.attending[0](dots)), v).transpose(1, 2).flatten(2))


class Network(nn.Module):
    """Vision transformer that says how its tokens are laid out, with attention of a given form."""

    def __init__(self, multiply=torch.matmul, attend: Callable[[Tensor], Tensor] | None = None, drop: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = nn.Conv2d(3, 32, 8, stride=8)
        self.patch_embed.grid_size = (2, 3)  # pyrefly: ignore[bad-assignment]
        self.num_prefix_tokens, self.global_pool = 1, "token"
        self.cls_token = nn.Parameter(torch.randn(1, 1, 32))
        attend = nn.Softmax(dim=-1) if attend is None else attend
        self.layers = nn.ModuleList([Attention(multiply, attend, drop) for _ in range(3)])
        self.norm, self.head = nn.Identity(), nn.Linear(32, 5)
        for layer in self.layers:
            layer.to_qkv.weight.data.mul_(6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(self.norm(x)[:, 0])


def merged(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The product with images and heads in one axis."""

    def multiply(weights: Tensor, v: Tensor) -> Tensor:
        images, heads = v.shape[:2]
        return product(weights.reshape(-1, TOKENS, TOKENS), v.flatten(0, 1)).view(images, heads, TOKENS, 8)

    return multiply


def softmax_of_merged(scores: Tensor) -> Tensor:
    return scores.flatten(0, 1).softmax(dim=-1)


def split_after(weights: Tensor, v: Tensor) -> Tensor:
    images, heads = v.shape[:2]
    return torch.bmm(weights, v.flatten(0, 1)).reshape(images, heads, TOKENS, 8).transpose(1, 2).transpose(1, 2)


FORMS: dict[str, Callable[[], Network]] = {
    "matmul": Network,
    "@": lambda: Network(lambda weights, v: weights @ v),
    "einsum": lambda: Network(lambda weights, v: torch.einsum("b h i j, b h j d -> b h i d", weights, v)),
    "einsum, values first": lambda: Network(
        lambda weights, v: torch.einsum("bhjd,bhij->bihd", v, weights).transpose(1, 2)
    ),
    "transposed": lambda: Network(lambda weights, v: (v.mT @ weights.transpose(-2, -1)).mT),
    "bmm": lambda: Network(merged(torch.bmm)),
    "one axis of images and heads": lambda: Network(split_after, softmax_of_merged),
    "cast, copied": lambda: Network(attend=lambda x: F.softmax(x, -1, dtype=torch.float32).to(x.dtype).clone()),
    "dropout in evaluation": lambda: Network(drop=0.5),
    "with its mean beside it": lambda: Network(lambda weights, v: weights @ v + 0 * weights.mean()),
}
EACH_FORM = pytest.mark.parametrize("form", FORMS)
PICTURES = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def explicit(net: Network, images: Tensor, closed: Tensor | None = None, zeroed: Tensor | None = None):
    """Output and weights by the formula, with edges closed and heads zeroed in the second layer."""
    kept = []
    x = torch.cat([net.cls_token.expand(len(images), -1, -1), net.patch_embed(images).flatten(2).mT], dim=1)
    for number, layer in enumerate(net.layers):
        q, k, v = layer.to_qkv(layer.norm(x)).unflatten(-1, (3, HEADS, 8)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT * 8**-0.5
        if closed is not None and number == 1:
            scores = scores.masked_fill(closed, -torch.inf)
        weights = torch.nan_to_num(scores.softmax(dim=-1))
        if zeroed is not None and number == 1:
            weights = weights.masked_fill(zeroed[:, None, None], 0.0)
        kept.append(weights)
        x = x + layer.to_out((weights @ v).transpose(1, 2).flatten(2))
    return net.head(x[:, 0]), kept


@EACH_FORM
def test_recorded_weights_and_relevance_are_those_of_the_formula(form: str):
    net = FORMS[form]().eval()
    with record(net, gradients=True) as recording:
        output = net(PICTURES)
    expected, maps = explicit(net, PICTURES)
    assert_close(output, expected)
    for layer, weights in zip(recording, maps, strict=True):
        assert_close(layer.weights(), weights.detach(), rtol=1e-6, atol=1e-6)
        assert weights.max() > 10 * weights.min()
    gradients = torch.autograd.grad(expected.amax(dim=-1).sum(), maps)
    rows = torch.eye(TOKENS)[None]
    for weights, gradient in zip(maps, gradients, strict=True):
        rows = rows + (weights * gradient).relu().mean(dim=1) @ rows
    assert_close(relevance(recording), rows[:, :1].detach(), rtol=1e-4, atol=1e-6)


@EACH_FORM
def test_cuts_are_exact(form: str):
    net = FORMS[form]().eval()
    closed = edges(TOKENS, [0, 2], [1, 4]) | edges(TOKENS, [3], range(TOKENS))  # token 3 is left without a key
    zeroed = torch.tensor([False, True, False, True])
    with torch.no_grad(), knockout(net, closed, layers=[1]), record(net) as recording:
        assert_close(net(PICTURES), explicit(net, PICTURES, closed)[0])
    assert_close(recording[1].weights(), explicit(net, PICTURES, closed)[1][1].detach(), rtol=1e-6, atol=1e-6)
    with torch.no_grad(), record(net) as recording, ablate(net, {1: [1, 3]}):
        assert_close(net(PICTURES), explicit(net, PICTURES, zeroed=zeroed)[0])
    assert not recording[1].weights()[:, zeroed].any()
    assert_close(net(PICTURES), explicit(net, PICTURES)[0])


@pytest.mark.parametrize("name", ["hugging face vit", "hugging face dinov2", "timm vit", "timm siglip", "timm dinov3"])
def test_libraries_without_fused_attention_are_recorded_as_with_it(name: str):
    net = built(name)
    eager = net
    if name.startswith("hugging"):
        kind, config = {
            "hugging face vit": (ViTForImageClassification, ViTConfig),
            "hugging face dinov2": (Dinov2ForImageClassification, Dinov2Config),
        }[name]
        eager = kind._from_config(config(**HUGGING_FACE), attn_implementation="eager").eval()
        eager.load_state_dict(net.state_dict())
    tokens = _recorded(net)[0].num_tokens
    cut = edges(tokens, [0, 3], [1, 5])
    fused, fused_relevance, fused_output = _recorded(net, cut)
    for module in eager.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    found, found_relevance, found_output = _recorded(eager, cut)
    for mine, theirs in zip(found, fused, strict=True):
        assert (mine.calls[0].given is None, theirs.calls[0].given is None) == (False, True)
        assert_close(mine.weights(), theirs.weights(), rtol=1e-4, atol=1e-6)
    assert_close(found_output, fused_output, rtol=1e-4, atol=1e-6)
    assert_close(found_relevance, fused_relevance, rtol=1e-3, atol=1e-6)
    queries = range(tokens)
    assert_close(rollout(found, queries), rollout(fused, queries), rtol=1e-4, atol=1e-6)
    assert_close(rollout(found.on_host(), queries, "max"), rollout(fused, queries, "max"), rtol=1e-4, atol=1e-6)


def _recorded(net: nn.Module, cut: Tensor | None = None):
    with record(net, gradients=True) as recording:
        if cut is None:
            output = net(IMAGES)
        else:
            with knockout(net, cut, layers=[1], heads=[0, 2]), ablate(net, {2: [1]}):
                output = net(IMAGES)
    return recording, relevance(recording, 1), getattr(output, "logits", output)


def in_place(x: Tensor) -> Tensor:
    return x.softmax(dim=-1).mul_(0.5)


def written_through_a_view(x: Tensor) -> Tensor:
    weights = x.softmax(dim=-1).clone()
    weights[..., 0].zero_()
    return weights


CHANGED: dict[str, tuple[Callable[[], Network], str]] = {
    "talking heads": (
        lambda: Network(attend=lambda x: F.conv2d(x.softmax(-1), torch.eye(HEADS)[..., None, None])),
        r"in layers\.0 changes its weights between the softmax .* \(by conv2d\)",
    ),
    "divided again": (lambda: Network(attend=lambda x: x.softmax(-1) / 2), r"in layers\.0 changes its weights"),
    "in place": (lambda: Network(attend=in_place), r"in layers\.0 changes its weights .* \(by mul_\)"),
    "in place, through a view of a copy": (lambda: Network(attend=written_through_a_view), r"\(by writing into them\)"),
    "beside the product": (
        lambda: Network(lambda weights, v: weights @ v + (weights * 0.5) @ v),
        "changes its weights",
    ),
    "divided by another sum": (
        lambda: Network(lambda weights, v: (weights @ v) / (weights * 2).sum(dim=-1, keepdim=True)),
        "changes its weights",
    ),
    "exchanged axes": (lambda: Network(lambda weights, v: weights.transpose(1, 2).transpose(1, 2) @ v), "transpose"),
    "the other product": (lambda: Network(lambda weights, v: weights.mT @ v), r"\(by matmul\)"),
    "twice": (lambda: Network(lambda weights, v: weights @ v + weights @ v), "multiplies its weights twice"),
    "heads before images": (
        lambda: Network(
            lambda weights, v: (weights @ v.transpose(0, 1).flatten(0, 1)).unflatten(0, (HEADS, -1)).transpose(0, 1),
            lambda x: x.transpose(0, 1).flatten(0, 1).softmax(-1),
        ),
        "one axis for images and heads, or windows, in an order that is not seen",
    ),
}


@pytest.mark.parametrize("form", CHANGED)
@pytest.mark.parametrize("watch", [record, lambda net: knockout(net, edges(TOKENS, [0], [1]), layers=[0])])
@pytest.mark.parametrize("images", [3, HEADS])
def test_weights_that_are_changed_before_the_product_are_refused(form: str, watch, images: int):
    build, message = CHANGED[form]
    net = build().eval()
    pictures = torch.randn(images, 3, 16, 24)
    with torch.no_grad(), pytest.raises(UserError, match=message), watch(net):
        net(pictures)


@pytest.mark.parametrize("images", [3, HEADS])
def test_heads_before_images_in_axes_of_their_own_are_refused(images: int):
    net = Network(
        lambda weights, v: (weights @ v.transpose(0, 1)).transpose(0, 1),
        lambda x: x.transpose(0, 1).softmax(dim=-1),
    ).eval()
    pictures = torch.randn(images, 3, 16, 24)
    for watch in (record, lambda net: knockout(net, edges(TOKENS, [0], [1])), lambda net: ablate(net, {0: [0]})):
        with torch.no_grad(), pytest.raises(UserError), watch(net):
            net(pictures)


def test_a_query_whose_other_keys_are_closed_by_the_least_number_gives_zeros():
    least = torch.zeros(TOKENS)
    least[-1] = torch.finfo(torch.float32).min  # as Hugging Face closes padding
    net, cut = Network(attend=lambda x: (x + least).softmax(dim=-1)).eval(), edges(TOKENS, [2], range(TOKENS - 1))
    padding = edges(TOKENS, range(TOKENS), [TOKENS - 1])
    with torch.no_grad(), knockout(net, cut, layers=[1]):
        found = net(PICTURES)
    with torch.no_grad():
        expected = _with_padding(net, padding, cut)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


def _with_padding(net: Network, padding: Tensor, cut: Tensor) -> Tensor:
    """Output by the formula, with padding closed in every layer and more edges in the second."""
    x = torch.cat([net.cls_token.expand(len(PICTURES), -1, -1), net.patch_embed(PICTURES).flatten(2).mT], dim=1)
    for number, layer in enumerate(net.layers):
        q, k, v = layer.to_qkv(layer.norm(x)).unflatten(-1, (3, HEADS, 8)).permute(2, 0, 3, 1, 4)
        closed = padding | cut if number == 1 else padding
        weights = torch.nan_to_num((q @ k.mT * 8**-0.5).masked_fill(closed, -torch.inf).softmax(dim=-1))
        x = x + layer.to_out((weights @ v).transpose(1, 2).flatten(2))
    return net.head(x[:, 0])


def test_a_layer_that_is_not_cut_may_change_its_weights():
    net, plain = Network(attend=lambda x: x.softmax(-1) * 1.0).eval(), Network().eval()
    net.layers[0].attending = [nn.Softmax(dim=-1)]
    with torch.no_grad(), ablate(net, {0: [1]}), ablate(plain, {0: [1]}):
        assert_close(net(PICTURES), plain(PICTURES))


def test_dropout_in_training_is_refused():
    net = Network(drop=0.5).train()
    with pytest.raises(UserError, match=r"attention dropout is on \(p=0.5\) in layers\.0, .* call net\.eval"):
        with record(net):
            net(PICTURES)


def test_images_and_heads_of_equal_number_are_told_apart_by_what_follows():
    net = FORMS["one axis of images and heads"]().eval()
    pictures = torch.randn(HEADS, 3, 16, 24)
    with torch.no_grad(), record(net) as recording:
        net(pictures)
    assert_close(recording[2].weights(), explicit(net, pictures)[1][2].detach())


def test_rows_in_16_bits_sum_to_1():
    net = Network().eval().bfloat16()
    with torch.no_grad(), record(net) as recording:
        net(PICTURES.bfloat16())
    for layer in recording:
        assert layer.weights().dtype == torch.float32
        assert_close(layer.weights().sum(dim=-1), torch.ones(3, HEADS, TOKENS))


def test_other_functions_are_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    """Of a network with fused attention only its attention calls, and no softmax outside of its modules is followed."""
    net, looked_at, followed = built("timm vit"), [], []
    call, softmax = SDPAMode._call, SDPAMode._softmax
    monkeypatch.setattr(SDPAMode, "_call", lambda *args: looked_at.append(args[1]) or call(*args))
    monkeypatch.setattr(SDPAMode, "_softmax", lambda *args: followed.append(args[2]) or softmax(*args))
    net.register_forward_hook(lambda _net, _inputs, output: output[:, None].softmax(dim=-1)[:, 0])
    with torch.no_grad(), record(net):
        net(IMAGES)
    assert looked_at == [F.scaled_dot_product_attention] * 3 + [Tensor.softmax]
    assert not followed


def test_a_hook_that_computes_the_weights_itself_does_not_disturb():
    net, computed = Network().eval(), []

    def weights(_module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> None:
        computed.append((inputs[0] @ inputs[0].mT).softmax(dim=-1))

    for layer in net.layers:
        layer.register_forward_hook(weights)
    with torch.no_grad(), record(net) as recording:
        net(PICTURES)
    assert len(computed) == 3
    assert_close(recording[1].weights(), explicit(net, PICTURES)[1][1].detach())
    net.layers[0].register_forward_hook(lambda _module, _inputs, output: (output @ output.mT).softmax(-1) @ output)
    with torch.no_grad(), pytest.raises(UserError, match="attend more than once"), record(net):
        net(PICTURES)
