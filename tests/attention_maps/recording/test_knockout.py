"""Cutting edges and heads of running networks, against networks whose attention is written out and masked by hand."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as module_globals
from torch.testing import assert_close
from transformers import (
    Aimv2VisionConfig,
    Aimv2VisionModel,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipVisionConfig,
    SiglipVisionModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from tests.networks import EACH_FAMILY, HUGGING_FACE, IMAGES, built, of_timm, seen
from vit_attn.attention_maps import ablate, edges, knockout, record
from vit_attn.attention_maps.recording.knockout import Knockout, knockouts
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.errors import UserError


def logits(net: nn.Module) -> Tensor:
    return logits_of(net(IMAGES)).detach()  # without gradients, torchvision's attention is one call of its own


@contextlib.contextmanager
def written_out(change: Callable[[int, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Fused attention written out; ``change`` gets the number of the call, weights and values, and gives the output."""
    fused, calls = F.scaled_dot_product_attention, iter(range(100))

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return change(next(calls), scores.softmax(dim=-1), value)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def cut_by_hand(cut: Tensor, layers: list[int], heads: list[int]) -> Callable[[int, Tensor, Tensor], Tensor]:
    """The weights without the edges, the rest of each row divided by its sum."""

    def change(number: int, weights: Tensor, values: Tensor) -> Tensor:
        if number in layers:
            weights = weights.clone()
            for head in heads:
                weights[:, head] *= ~cut
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-30)
        return weights @ values

    return change


@EACH_FAMILY
def test_a_cut_equals_the_network_masked_by_hand(family: str):
    if family == "ours, hard":
        pytest.skip("hard attention does not go through fused attention; it is tested below")
    net = built(family)
    tokens, _ = seen(net)
    cut = torch.rand(3, tokens, tokens) < 0.5
    cut |= edges(tokens, [1], range(tokens))  # a row without a key
    plain = logits(net)
    with knockout(net, cut, layers=[0, -1], heads=[1, -1]):
        found = logits(net)
    with written_out(cut_by_hand(cut, [0, 2], [1, 3])):
        expected = logits(net)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().amax() > 100 * (found - expected).abs().amax()
    assert not found.isnan().any()


@EACH_FAMILY
def test_no_cut_changes_nothing_and_nothing_is_left_behind(family: str):
    net = built(family)
    tokens, _ = seen(net)
    plain, state = logits(net), torch.random.get_rng_state()
    hooks = [len(getattr(module_globals, name)) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")]
    with knockout(net, torch.zeros(tokens, tokens, dtype=torch.bool)):
        assert_close(logits(net), plain, rtol=1e-4, atol=1e-5)
    with knockout(net, torch.ones(tokens, tokens, dtype=torch.bool)):
        assert not torch.allclose(logits(net), plain, atol=1e-3)
    assert torch.equal(logits(net), plain)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert hooks == [
        len(getattr(module_globals, name)) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
    ]
    assert all(parameter.grad is None for parameter in net.parameters())


@EACH_FAMILY
def test_what_is_recorded_inside_a_cut_is_the_cut_network(family: str):
    net = built(family)
    tokens, _ = seen(net)
    cut = edges(tokens, range(tokens), [2, 5, 9])  # no window and no top 5 is emptied
    with torch.no_grad(), record(net) as recording, knockout(net, cut, layers=[1]):
        net(IMAGES)
    assert recording[1].weights()[..., cut].amax() == 0
    assert recording[0].weights()[..., cut].amax() > 0


@EACH_FAMILY
def test_an_ablated_head_gives_nothing(family: str):
    net = built(family)
    with ablate(net, {-2: [0, -1], 0: [2]}):
        found = logits(net)
    if family == "ours, hard":
        assert not torch.allclose(found, logits(net), atol=1e-3)
        return

    def change(number: int, weights: Tensor, values: Tensor) -> Tensor:
        output = weights @ values
        for head in {0: [2], 1: [0, 3]}.get(number, []):
            output[:, head] = 0
        return output

    with written_out(change):
        assert_close(found, logits(net), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, logits(net), atol=1e-3)


def test_hard_attention_turns_to_its_second_best_key():
    net = built("ours, hard")
    with torch.no_grad(), record(net) as recording:
        net(IMAGES)
    best = recording[0].weights()[:, 0, 3].argmax(dim=-1)
    call = recording[0].calls[0]
    scores = (call.q @ call.k.mT)[:, 0, 3].scatter(-1, best[:, None], -torch.inf)
    cut = edges(17, torch.full((3, 1), 3), best[:, None])
    with torch.no_grad(), record(net) as recording, knockout(net, cut, layers=[0], heads=[0]):
        net(IMAGES)
    assert torch.equal(recording[0].weights()[:, 0, 3].argmax(dim=-1), scores.argmax(dim=-1))
    with knockout(net, edges(17, range(17), range(17))):
        assert not logits(net).isnan().any()


def test_an_image_has_edges_of_its_own():
    net = built("ours")
    cut = edges(19, torch.tensor([[0], [1], [2]]), torch.tensor([[3, 4], [5, 6], [-1, -2]]))
    assert cut.shape == (3, 19, 19)
    assert cut.sum() == 6
    with knockout(net, cut):
        together = logits(net)
    for image in range(3):
        with torch.no_grad(), knockout(net, cut[image]):
            assert_close(net(IMAGES[image : image + 1])[0], together[image], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["ours, pool by attention", "timm siglip"])
def test_a_pool_by_attention_is_cut_by_its_own_argument_only(family: str):
    net = built(family)
    tokens, prefix = seen(net)
    pooled = tokens - prefix
    every = torch.ones(tokens, tokens, dtype=torch.bool)
    with torch.no_grad(), record(net) as recording, knockout(net, every):
        net(IMAGES)
    assert recording.pool.weights().amin() > 0
    pool = torch.zeros(1, pooled, dtype=torch.bool)
    pool[0, :4] = True
    with torch.no_grad(), record(net) as recording, knockout(net, pool=pool):
        net(IMAGES)
    assert recording.pool.weights()[..., :4].amax() == 0
    assert recording[-1].weights().amin() > 0


@pytest.mark.parametrize("family", ["ours", "ours, gaussian in a window", "ours, hard", "torchvision vit"])
def test_knock_outs_made_together_equal_nested_ones(family: str):
    net = built(family)
    tokens, _ = seen(net)
    half = tokens // 2
    parts = [  # query 1 has no key left, by two cuts together
        Knockout(edges(tokens, [1], range(half))),
        Knockout(edges(tokens, [1], range(half, tokens)), layers=[1]),
        Knockout(edges(tokens, [3, 4], [2]), layers=[0, -1], heads=[1, -1]),
    ]
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.enter_context(knockout(net, *part))
        nested = logits(net)
    with knockouts(net, parts):
        together = logits(net)
    assert torch.equal(together, nested)
    assert not together.isnan().any()
    assert not torch.equal(together, logits(net))
    with torch.no_grad(), record(net) as recording, knockouts(net, parts):
        net(IMAGES)
    assert recording[1].weights()[:, :, 1].amax() == 0
    assert recording[1].weights()[:, :, 5].amax() > 0


def test_gradients_go_through_a_cut():
    net = built("ours")
    images = IMAGES.clone().requires_grad_()
    with knockout(net, edges(19, range(19), [7])):
        net(images).sum().backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a cut"),
        ({"cut": torch.zeros(19, 19, dtype=torch.bool), "layers": [3]}, r"layers must be in 0\.\.2, got \[3\]"),
        ({"cut": torch.zeros(19, 19, dtype=torch.bool), "heads": [4]}, r"heads must be in 0\.\.3, got \[4\]"),
        ({"cut": torch.zeros(18, 18, dtype=torch.bool)}, r"\(1, 18, 18\), but blocks.0.attn has \(3, 19, 19\)"),
        ({"cut": torch.zeros(2, 19, 19, dtype=torch.bool)}, r"\(2, 19, 19\), but"),
        ({"pool": torch.zeros(1, 16, dtype=torch.bool)}, "does not pool by attention"),
    ],
)
def test_what_does_not_exist_cannot_be_cut(arguments, message):
    net = built("ours")
    with pytest.raises(UserError, match=message), knockout(net, **arguments):
        logits(net)


def test_tokens_layers_and_heads_that_do_not_exist_are_named():
    with pytest.raises(UserError, match=r"tokens must be in 0\.\.18, got \[19\]"):
        edges(19, [0], [19])
    net = built("ours")
    with pytest.raises(UserError, match=r"layers must be in 0\.\.2, got \[-4\]"), ablate(net, {-4: [0]}):
        pass
    with pytest.raises(UserError, match=r"heads must be in 0\.\.3, got \[7\]"), ablate(net, {0: [7]}):
        logits(net)


def test_attention_that_cannot_be_seen_is_an_error_not_a_cut_without_effect():
    net = built("timm vit")
    net.blocks[1].attn.forward = lambda x, **_: x.exp()
    with pytest.raises(UserError, match=r"blocks\.1\.attn"), knockout(net, edges(17, [0], [1])):
        logits(net)


def _wrapped_siglip() -> nn.Module:
    sizes = {"depth": 3, "img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 4}
    config = TimmWrapperConfig(architecture="vit_base_patch16_siglip_224", num_labels=5, model_args=sizes)
    return TimmWrapperForImageClassification(config)


def _pooled_otherwise() -> nn.Module:
    net = of_timm("vit_base_patch16_siglip_224")()
    net.global_pool = "avg"  # which timm does not read while there is a pool by attention
    return net


POOLS_BY_ATTENTION: dict[str, Callable[[], nn.Module]] = {
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**HUGGING_FACE)),
    "siglip, a pool that is not read": lambda: SiglipForImageClassification(
        SiglipConfig(vision_config=HUGGING_FACE, num_labels=5)
    ),
    "aimv2": lambda: Aimv2VisionModel(Aimv2VisionConfig(**HUGGING_FACE)),
    "wrapped timm": _wrapped_siglip,
    "timm, changed": _pooled_otherwise,
}


@pytest.mark.parametrize("family", POOLS_BY_ATTENTION)
def test_the_last_layer_is_the_recordings_wherever_there_is_a_pool(family: str):
    net = POOLS_BY_ATTENTION[family]().eval()
    with torch.no_grad(), record(net) as recording, ablate(net, {-1: [0]}):
        net(IMAGES)
    assert len(recording) == 3
    assert recording[-1].weights()[:, 0].amax() == 0
    assert recording.pool is None or recording.pool.weights()[:, 0].amax() > 0
    cut = edges(recording.num_tokens, range(recording.num_tokens), [1])
    with torch.no_grad(), record(net) as recording, knockout(net, cut):
        net(IMAGES)
    assert [layer.weights()[..., 1].amax().item() for layer in recording] == [0, 0, 0]


def test_the_pool_of_a_hugging_face_network_is_knocked_out():
    net = POOLS_BY_ATTENTION["siglip"]().eval()
    cut = torch.zeros(1, 16, dtype=torch.bool)
    cut[0, 3] = True
    with torch.no_grad(), record(net) as recording, knockout(net, pool=cut):
        net(IMAGES)
    assert recording.pool.weights()[..., 3].amax() == 0
    assert recording[-1].weights()[..., 3].amax() > 0


def test_without_a_pool_a_siglips_last_layer_is_its_last_attention():
    net = SiglipVisionModel(SiglipVisionConfig(**HUGGING_FACE, vision_use_head=False)).eval()
    with torch.no_grad(), record(net) as recording, ablate(net, {-1: [0]}):
        net(IMAGES)
    assert recording[2].weights()[:, 0].amax() == 0


def test_a_pool_that_no_class_names_is_refused_where_it_would_be_taken_for_a_layer():
    net = built("timm siglip")
    net.global_pool, net.attn_pool.__class__ = "", type("LatentAttention", (type(net.attn_pool),), {})
    for layers in ({-1: [0]}, {3: [0]}, {-2: [0]}):
        with (
            torch.no_grad(),
            pytest.raises(UserError, match=r"attn_pool of .* attends from one query"),
            ablate(net, layers),
        ):
            net(IMAGES)
    with torch.no_grad(), ablate(net, {2: [0]}):
        net(IMAGES)
