"""Maps are the same whatever the caller has set for precision, defaults and gradients; references are in float64."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.networks import EACH_FAMILY, IMAGES, Direct, built
from vit_attn.attention_maps import grad_rollout, legrad, raw_rows, record, relevance, rollout
from vit_attn.attention_maps.evaluation.randomization import reinitialised
from vit_attn.attention_maps.methods.flow import attention_flow
from vit_attn.attention_maps.methods.measures import divergence, measure, pixel_distances
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.summary import head_rows, summarize

pytestmark = pytest.mark.slow  # each test takes long for what it computes


def recorded(net, gradients: bool = True) -> Recording:
    with torch.enable_grad(), record(net, gradients) as recording:
        net(IMAGES)
    return recording


METHODS: dict[str, Callable[[Any, Recording], Any]] = {
    "weights": lambda net, seen: torch.stack([layer.weights() for layer in seen]),
    "raw rows": lambda net, seen: raw_rows(seen, queries=[0, 5]),
    "rollout": lambda net, seen: rollout(seen),
    "rollout of a few tokens": lambda net, seen: rollout(seen, [1, 2], discard=0.5),
    "rollout, maximum": lambda net, seen: rollout(seen, fusion="max"),
    "relevance": lambda net, seen: relevance(seen, 1),
    "relevance of a function": lambda net, seen: relevance(
        seen, lambda logits: (logits @ torch.ones(10, 1, dtype=torch.float32))[:, 0]
    ),
    "gradient rollout": lambda net, seen: grad_rollout(seen),
    "LeGrad": lambda net, seen: legrad(net, IMAGES, 1),
    "attention flow": lambda net, seen: attention_flow(seen),
    "measures": lambda net, seen: torch.stack(list(measure(seen).values())),
    "divergence": lambda net, seen: divergence(seen, seen),
    "rows of heads": lambda net, seen: head_rows(seen, 3),
    "distances": lambda net, seen: pixel_distances((3, 4), 8),
}


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def short_products():
    torch.set_float32_matmul_precision("medium")
    try:
        yield
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def short_products_of_a_backend():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        yield
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16 autocast": lambda: torch.autocast("cpu", dtype=torch.float16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "short products": short_products,
    "short products of a backend": short_products_of_a_backend,
    "deterministic": deterministic,
    "another device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_set_around_a_method_changes_nothing(setting: str):
    net = built("ours")
    seen = recorded(net)
    for name, method in METHODS.items():
        if setting == "another device" and name == "relevance of a function":
            continue  # what that creates is there
        expected = method(net, seen)
        with SETTINGS[setting]():
            found = method(net, seen)
        assert found.dtype == torch.float32, name
        assert not found.requires_grad, name
        assert not found.is_inference() or name in ("weights", "measures", "distances"), name
        assert_close(found, expected, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("products", [short_products, short_products_of_a_backend])
def test_short_products_are_not_used_for_maps_and_the_setting_is_left_alone(products, monkeypatch):
    net = built("ours")
    seen, used, plain = recorded(net), [], torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: used.append(a.dtype) or plain(a, b))
    with products():
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        found = rollout(seen, fusion="max")
        assert set(used) == {torch.float64}
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        torch.backends.mkldnn.matmul.fp32_precision = "ieee"
        used.clear()
        assert_close(rollout(seen, fusion="max"), found, rtol=0, atol=1e-6)
        assert set(used) == {torch.float32}


def test_products_are_in_float32_where_nothing_is_set(monkeypatch):
    """Torch names the precision of a new process ``none``, which is that of ``highest``."""
    seen, used, plain = recorded(built("ours")), [], torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: used.append(a.dtype) or plain(a, b))
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    try:
        rollout(seen)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert set(used) == {torch.float32}


def test_autocast_is_off_where_a_target_is_computed():
    seen, inside = recorded(built("ours")), []

    def target(logits):
        inside.append(torch.is_autocast_enabled("cpu"))
        return logits[:, 0]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        relevance(seen, target)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert inside == [False]


@EACH_FAMILY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recorded_queries_and_keys_are_those_that_the_kernel_was_given(family: str, dtype: torch.dtype):
    net = built(family)
    for cast in (torch.autocast("cpu", dtype=dtype), contextlib.nullcontext()):
        if isinstance(cast, contextlib.nullcontext):
            net = net.to(dtype)
        with torch.no_grad(), cast, record(net) as seen:
            net(IMAGES.to(next(net.parameters()).dtype))
        for layer in [*seen, *([seen.pool] if seen.pool else [])]:
            (call,) = layer.calls
            assert call.q.dtype == call.k.dtype or call.hard
            scores = call.q.double() @ call.k.double().mT * call.scale
            if call.mask is not None:
                closed = call.mask.dtype == torch.bool
                scores = scores.masked_fill(~call.mask, -torch.inf) if closed else scores + call.mask
            if not call.hard:
                assert call.q.dtype == dtype
                assert_close(call.weights().double(), scores.softmax(-1), rtol=1e-4, atol=1e-6)


def test_autocast_rounds_queries_and_keys_in_the_kernel_and_so_in_the_recording():
    net, x = Direct(), 4 * torch.randn(2, 4, 7, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16), record(net) as seen:
        assert net(x).dtype == torch.bfloat16
    rounded = x.bfloat16().double()
    expected = (rounded @ rounded.mT * 6**-0.5).softmax(dim=-1)
    assert_close(seen[0].weights().double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("setting", ["no_grad", "inference_mode", "default float64", "deterministic"])
def test_what_is_set_around_a_forward_changes_nothing_in_its_recording(setting: str):
    net = built("ours")
    expected = recorded(net, gradients=False)
    with SETTINGS[setting](), record(net) as seen:
        net(IMAGES)
    for name in ("weights", "raw rows", "rollout", "rollout of a few tokens", "measures"):
        assert_close(METHODS[name](net, seen), METHODS[name](net, expected), msg=name)


def test_images_and_copies_that_are_made_in_inference_mode_serve():
    net = built("ours")
    expected = legrad(net, IMAGES, 1), summarize(net, IMAGES)[0].relevance
    with torch.inference_mode():
        images, other_net = IMAGES.clone(), reinitialised(net)
        assert_close(legrad(net, images, 1), expected[0])
        assert_close(summarize(net, images)[0].relevance, expected[1])
    assert legrad(other_net, images, 1).isfinite().all()
