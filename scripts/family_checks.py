"""References of a recording, for ``check_families.py``: unfused weights, gradients, and formulas."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vit_attn.attention_maps import record, relevance, rollout
from vit_attn.attention_maps.recording.inputs import Inputs, takes_keywords
from vit_attn.attention_maps.recording.recording import Layer, Recording
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.recording.token_order import TokenOrder, order_of
from vit_attn.errors import UserError

LARGEST_ERROR = 1e-5
"""Largest error of a recorded weight, in float32, against the reference in float64."""
SOFTMAX = (Tensor.softmax, torch.softmax, F.softmax)
QUERIES_AND_KEYS = re.compile(
    r"qkv\.weight|\bq\.weight|\bk\.weight|\bkv\.weight|q_proj|k_proj|query|key\.|in_proj_weight"
)
NORMS = re.compile(r"[qk]_?norm\w*\.weight|(query|key)_norm\.weight|logit_scale")


class Wrong(Exception):
    """Recording that differs from its reference."""


class Softmaxes(TorchFunctionMode):
    """Mode that keeps the weights of unfused attention, in the graph."""

    def __init__(self, heads_are_apart: bool = True) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.heads_are_apart = heads_are_apart

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:  # which returns them
            attend: Any = func
            output, weights = attend(*args, **(kwargs | {"need_weights": True, "average_attn_weights": False}))
            self.kept.append(weights._base)  # (B H, N, N): what it returns is a view that nothing uses
            return output, weights
        if func is F.scaled_dot_product_attention:  # of a network without an unfused path
            output, weights = explicit_attention(*args, **kwargs)
            self.kept.append(weights)
            return output
        result = func(*args, **kwargs)
        if func in SOFTMAX and result.ndim in ((4,) if self.heads_are_apart else (3, 4, 5)):
            self.kept.append(result)
        return result


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Compute attention by its formula, and return its weights, too."""
    if options.pop("dropout_p", 0.0) or any(options.values()):
        raise Wrong(f"attention with {options} has no explicit formula here")
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = scores.softmax(dim=-1)
    return weights @ v, weights


def run(net: Any, images: Inputs) -> Any:
    """Run a network on images, or on patches with their positions."""
    return net(**images) if takes_keywords(net, images) else net(images)


def sharpen_attention(net: nn.Module, images: Inputs) -> None:
    """Scale queries and keys until attention is far from uniform; set LayerScale to 1 and replace zeros."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if re.search(r"gamma|lambda_?1|lambda_?2|layer_?scale", name):
                parameter.fill_(1.0)
            elif not parameter.any() and parameter.ndim > 0:
                parameter.normal_(std=0.1)
        for _ in range(30):
            with record(net) as recording:
                run(net, images)
            if all(contrasted(layer.weights()) for layer in recording):
                return
            for name, parameter in net.named_parameters():
                if QUERIES_AND_KEYS.search(name) or NORMS.search(name):
                    parameter.mul_(1.3)
    raise AssertionError("attention stays uniform")


def contrasted(weights: Tensor) -> bool:
    """Tell whether the largest weight of most rows is over ten times the median."""
    return bool((weights.amax(dim=-1) > 10 * weights.median(dim=-1).values).float().mean() > 0.5)


def softmaxes(net: Any, images: Inputs, heads_are_apart: bool = True) -> tuple[list[Tensor], Any]:
    """Run a network without fused attention, and return its weights and its output.

    Args:
        net: The network.
        images: Its images.
        heads_are_apart: Whether weights are (images, heads, queries, keys); otherwise windows may be among the axes.
    """
    with Softmaxes(heads_are_apart) as mode:
        output = run(net, images)
    return mode.kept, output


def compare_windows(recording: Recording, maps: list[Tensor], net: nn.Module, images: Tensor) -> float:
    """Compute the largest error of a weight within a window, and check where the tokens of the first layer are."""
    layers: Any = list(recording)
    if len(layers) != len(maps):
        raise Wrong(f"{len(layers)} layers were recorded of {len(maps)}")
    errors = []
    for layer, expected in zip(layers, maps, strict=True):
        weights = layer.weights()
        expected = expected.transpose(1, 2) if expected.ndim == 5 else expected  # heads before windows
        errors.append((weights - expected.reshape(weights.shape)).abs().max().item())
    if not max(errors) <= LARGEST_ERROR:
        raise Wrong(f"a recorded weight is off by {max(errors):.1e}")
    windows, before = layers[0].windows, layers[0].calls[0].v
    rows, cols = windows.grid_size
    height, width = (round(size / count) for size, count in zip(images.shape[-2:], (rows, cols), strict=True))
    for row, col in ((0, 0), (1, cols - 1), (rows - 1, 2)):
        changed = images.clone()
        changed[..., row * height : (row + 1) * height, col * width : (col + 1) * width] += 3.0
        with torch.no_grad(), record(net) as again:
            net(changed)
        moved = (again[0].calls[0].v - before).abs().amax(dim=(1, 3))[: len(windows.keys)].flatten()
        found = divmod(int(windows.keys.flatten()[moved.argmax()]), cols)
        if max(abs(found[0] - row), abs(found[1] - col)) > int((moved > 0).sum() > 1):
            raise Wrong(f"the patch in row {row}, column {col} of the image is at {found} of the grid")
    return max(errors)


def compare_weights(recording: Recording, maps: list[Tensor], order: TokenOrder | None) -> float:
    """Compute the largest error of a recorded weight, the pool included."""
    layers = [*recording, *([] if recording.pool is None else [recording.pool])]
    unread = len(maps) == len(layers) + 1 and recording.pool is None and maps[-1].shape[-2] == 1
    if unread:
        maps.pop()  # a pool that the output does not depend on
    if len(layers) != len(maps):
        raise Wrong(f"{len(layers)} layers were recorded of {len(maps)}")
    errors = []
    for layer, expected in zip(layers, maps, strict=True):
        weights, expected = layer.weights(), in_order(by_head(expected, recording), order)
        if weights.shape != expected.shape:
            raise Wrong(f"{layer.name} has weights {tuple(weights.shape)}, but {tuple(expected.shape)} unfused")
        errors.append((weights - expected).abs().max().item())
    if not max(errors) <= LARGEST_ERROR:
        raise Wrong(f"a recorded weight is off by {max(errors):.1e}")
    return max(errors)


def by_head(weights: Tensor, recording: Recording) -> Tensor:
    """Reshape weights to (images, heads, queries, keys)."""
    return weights if weights.ndim == 4 else weights.unflatten(0, (recording.batch_size, -1))


def in_order(weights: Tensor, order: TokenOrder | None) -> Tensor:
    """Select the tokens of a layout from a map of the network's."""
    return weights if order is None else order.select(order.select(weights, 2), 3)


def default_row(measured: Recording, plain: Recording) -> Tensor | None:
    """Get the default query, if there is one; without a graph it must be the same, or refused."""
    rows: list[Tensor | None] = []
    for recording in (measured, plain):
        try:
            rows.append(recording.query_rows().double())
        except UserError:
            rows.append(None)
    if rows[1] is not None and (rows[0] is None or not torch.allclose(*rows)):  # pyrefly: ignore[bad-argument-type]
        raise Wrong(f"the default query is {pool_name(plain)} without a graph, and measured {pool_name(measured)}")
    return rows[0]


def check_row(net: nn.Module, images: Inputs, row: Tensor, pool: Layer | None) -> None:
    """Check that a random projection of the output has a gradient by the tokens of the default query, and no others."""
    kept: list[Tensor] = []
    order = order_of(token_layout(net, images))
    total = row.shape[-1] if order is None else order.total

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] == total:
            kept.append(output)

    hooks = [
        module.register_forward_hook(keep)
        for name, module in net.named_modules()
        if pool is None or not name.startswith(pool.name)
    ]
    features = image_features(run(net, images))
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(2)
    value = (features * torch.randn(features.shape, generator=generator, dtype=features.dtype)).sum()
    (gradient,) = torch.autograd.grad(value, [kept[-1]])
    if order is not None:
        whole, gradient = gradient, order.select(gradient, 1)
        if not torch.isclose(whole.abs().sum(), gradient.abs().sum()):
            raise Wrong("the output reads padding")
    sizes = gradient.abs().amax(dim=-1)
    read, expected = sizes > 1e-9 * sizes.max(), (row[:, 0] > 0).expand(len(gradient), -1)
    if not torch.equal(read, expected):
        raise Wrong(
            f"the output reads the tokens {read[0].nonzero().flatten().tolist()}, not those of the default query"
        )
    patches = gradient[:, row[0, 0] == row[0, 0, -1]] if pool is None and row[0, 0, -1] > 0 else gradient[:, :1]
    if (patches - patches.mean(dim=1, keepdim=True)).abs().max() > 1e-6 * sizes.max():
        raise Wrong("the output does not read the patches equally, as the default query does")


def image_features(output: Any) -> Tensor:
    """Find the first output of the shape (images, features)."""
    if isinstance(output, Tensor):
        return output
    listed = output.values() if hasattr(output, "values") else output
    return next(value for value in listed if isinstance(value, Tensor) and value.ndim == 2)


def check_order(net: nn.Module, images: Inputs, recording: Recording) -> None:
    """Check that changing one patch of the image changes its token the most before the first layer."""
    rows, cols = recording.grid_size
    before = recording.forwards[0].calls[0][1]
    for patch in (0, cols - 1, cols, rows * cols - 2):
        row, col = divmod(patch, cols)
        with torch.no_grad(), record(net) as again:
            run(net, with_changed_patch(images, recording, row, col))
        after = again.forwards[0].calls[0][1]
        moved = (after.v - before.v).abs().amax(dim=(0, 1, 3))[recording.num_prefix_tokens :]
        found = divmod(int(moved.argmax()), cols)
        reach = int((moved > 0).sum() > 1)  # of convolutions before the patches, which see their neighbours
        if max(abs(found[0] - row), abs(found[1] - col)) > reach:
            raise Wrong(f"patch {patch} of the image is token {int(moved.argmax())} of the patches")


def with_changed_patch(images: Inputs, recording: Recording, row: int, col: int) -> Inputs:
    """Copy images, or patches, and change one patch."""
    rows, cols = recording.grid_size
    if isinstance(images, dict):
        name = next(name for name, each in images.items() if each.is_floating_point() and each.ndim == 3)
        changed = images[name].clone()
        at = row * cols + col
        if "patch_coord" in images:
            at = int((images["patch_coord"][0] == torch.tensor([row, col])).all(dim=-1).nonzero()[0, 0])
        changed[:, at] += 3.0
        return images | {name: changed}
    height, width = recording.patch_size or (images.shape[-2] // rows, images.shape[-1] // cols)
    changed = images.clone()
    changed[..., row * height : (row + 1) * height, col * width : (col + 1) * width] += 3.0
    return changed


def compare_relevance(
    recording: Recording, maps: list[Tensor], output: Any, row: Tensor, order: TokenOrder | None
) -> float:
    """Compare relevance and rollout with their formulas over unfused weights; the largest relative error."""
    value, eye = image_features(output)[:, 0].sum(), torch.eye(recording.num_tokens, dtype=torch.float64)
    gradients = torch.autograd.grad(value, maps)
    maps, gradients = (
        [in_order(by_head(each, recording), order).detach() for each in kind] for kind in (maps, gradients)
    )
    attended = [(a * g).relu().mean(dim=1) for a, g in zip(maps, gradients, strict=True)]
    layers, start, weighed = maps[: len(recording)], row, row
    if recording.pool is not None:
        weighed = recording.pad_pooled(attended[-1])
    for layer, related in zip(reversed(layers), reversed(attended[: len(recording)]), strict=True):
        weighed = weighed @ (eye + related)
        start = start @ (layer.mean(dim=1) + eye) / 2
    found = relevance(recording, lambda output: image_features(output)[:, 0])
    errors = [(f - e).abs().amax() / e.abs().amax() for f, e in ((found, weighed), (rollout(recording), start))]
    if not max(errors) <= 1e-4:
        raise Wrong(f"relevance and rollout are off by {errors[0]:.1e} and {errors[1]:.1e} of their largest value")
    return max(errors).item()


def pool_name(recording: Recording) -> str:
    """Describe the default query."""
    names = {
        "token": "CLS",
        "prefix": "all prefix tokens",
        "token+avg": "CLS, and mean of patches",
        "map": "pool by attention",
    }
    if recording.global_pool == "avg":
        return "mean of all tokens" if recording.pool_include_prefix else "mean of patches"
    return names.get(recording.global_pool, recording.global_pool)
