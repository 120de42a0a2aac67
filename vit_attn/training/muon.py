"""Muon with one Newton–Schulz iteration for all matrices of a shape, and one operation for all tensors elsewhere."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import timm.optim
import torch
from timm.optim.muon import (
    _COEFFICIENTS,
    _is_suitable_for_muon,
    get_lr_scale,
    resolve_ns_coefficients,
    zeropower_via_newtonschulz,
)
from torch import Tensor

MATRIX_SETTINGS = (
    *("momentum", "nesterov", "ns_steps", "ns_coefficients", "eps", "safety_factor", "scale_eps", "adjust_lr_fn"),
)
"""Settings of a parameter group that matrices of one iteration share."""
FALLBACK_SETTINGS = ("betas", "eps", "nesterov")
"""Settings of a parameter group that tensors of one AdamW update share."""


class _Trained(NamedTuple):
    """Parameter with a gradient, its state, and its group."""

    param: Tensor
    grad: Tensor
    state: dict[str, Any]
    group: dict[str, Any]


class Muon(timm.optim.Muon):
    """timm's Muon with the same results, state and checkpoints, in a tenth of the launches.

    timm updates matrix by matrix. Here those of a shape are stacked, whichever their group, and orthogonalised at once;
    momenta, decay and AdamW for the other tensors are ``foreach`` operations over all groups. AdaMuon, sharded
    parameters and convolutions that are orthogonalised per position are left to timm.

    References:
        Jordan 2024, "Muon: an optimizer for hidden layers in neural networks".
        Liu 2025, "Muon is scalable for LLM training", arXiv 2502.16982, for the rate's factor ``match_rms_adamw``.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: Computes the loss and the gradients anew.
        """
        if not all(map(_is_covered, self.param_groups)):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices: list[_Trained] = []
        others: list[_Trained] = []
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    each = _Trained(param, param.grad, self.state[param], group)
                    (matrices if _init_state(each) else others).append(each)
        for same in _split(matrices, MATRIX_SETTINGS):
            _update_matrices(same)
        for same in _split(others, FALLBACK_SETTINGS):
            _update_by_adamw(same)
        return loss


def _is_covered(group: dict[str, Any]) -> bool:
    """Return true for a group that is updated here; timm updates the others."""
    if group["algo"] != "muon" or group["conv_mode"] != "flatten" or group["capturable"] or group["verbose"]:
        return False
    return not any(
        hasattr(param, "to_local") or (param.grad is not None and param.grad.is_sparse) for param in group["params"]
    )


def _init_state(trained: _Trained) -> bool:
    """Create a parameter's state where it has none, and return true if it is updated as a matrix."""
    param, _, state, group = trained
    if "use_muon" not in state:
        suitable = group["use_muon"] if "use_muon" in group else _is_suitable_for_muon(param)
        state["use_muon"] = suitable and not group.get("use_fallback", False)
    if state["use_muon"]:
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
    elif "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.get_default_dtype())  # on the host, which needs its value
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(param), torch.zeros_like(param)
    return bool(state["use_muon"])


def _split(trained: Iterable[_Trained], settings: Iterable[str]) -> Iterable[list[_Trained]]:
    """Split parameters by the settings of their groups."""
    names, parts = tuple(settings), dict[tuple[str, ...], list[_Trained]]()
    keys: dict[int, tuple[str, ...]] = {}
    for each in trained:
        key = keys.setdefault(id(each.group), tuple(str(each.group[name]) for name in names))
        parts.setdefault(key, []).append(each)
    return parts.values()


def _update_matrices(trained: list[_Trained]) -> None:
    """Decay the weights, update the momenta, and orthogonalise these one shape at a time."""
    group = trained[0].group
    grads, momenta = [each.grad for each in trained], [each.state["momentum_buffer"] for each in trained]
    _decay(trained)
    torch._foreach_lerp_(momenta, grads, 1.0 - group["momentum"])
    updates = torch._foreach_lerp(grads, momenta, group["momentum"]) if group["nesterov"] else momenta
    by_shape: dict[Any, list[int]] = {}
    for index, each in enumerate(trained):
        by_shape.setdefault((each.param.shape, each.param.dtype, each.param.device), []).append(index)
    for (shape, dtype, _), indices in by_shape.items():
        ortho = _orthogonalize([updates[i] for i in indices], group)
        scale = get_lr_scale(ortho.shape, group["adjust_lr_fn"]) if group["adjust_lr_fn"] else 1.0
        # the weights' own dtype and strides: a foreach operation on others is one launch a tensor
        changes = ortho.to(dtype).contiguous().view(-1, *shape).unbind()
        by_rate: dict[float, list[int]] = {}
        for place, i in enumerate(indices):
            by_rate.setdefault(trained[i].group["lr"], []).append(place)
        for lr, places in by_rate.items():
            chosen = [trained[indices[place]].param for place in places]
            torch._foreach_add_(chosen, [changes[place] for place in places], alpha=-lr * scale)


def _orthogonalize(updates: list[Tensor], group: dict[str, Any]) -> Tensor:
    """Approximate UVᵀ of each matrix' singular value decomposition USVᵀ; convolutions are flattened, (n, out, in)."""
    stack = torch.empty((len(updates), *updates[0].shape), dtype=torch.bfloat16, device=updates[0].device)
    torch._foreach_copy_(list(stack.unbind()), updates)
    return zeropower_via_newtonschulz(
        stack.flatten(2),
        group["ns_steps"],
        resolve_ns_coefficients(group["ns_coefficients"], _COEFFICIENTS),
        eps=group["eps"],
        safety_factor=group["safety_factor"],
        scale_eps=group["scale_eps"],
    )


def _update_by_adamw(trained: list[_Trained]) -> None:
    """Update by AdamW, or by NAdamW under ``nesterov``, as timm's Muon does where a tensor is not a matrix."""
    group = trained[0].group
    beta1, beta2 = group["betas"]
    params, grads = [each.param for each in trained], [each.grad for each in trained]
    means, squares = [each.state["exp_avg"] for each in trained], [each.state["exp_avg_sq"] for each in trained]
    steps = _count_step([each.state["step"] for each in trained])
    _decay(trained, "fallback_lr_scale")
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_div_(divisors, [(1 - beta2**step) ** 0.5 for step in steps])
    torch._foreach_add_(divisors, group["eps"])
    if group["nesterov"]:
        means = torch._foreach_lerp(means, grads, 1 - beta1)
    rates = [each.group["lr"] * each.group["fallback_lr_scale"] for each in trained]
    factors = [-(rate / (1 - beta1**step)) for rate, step in zip(rates, steps, strict=True)]
    torch._foreach_addcdiv_(params, means, divisors, factors)


def _count_step(counters: list[Tensor]) -> list[float]:
    """Add a step to the counters, which are on the host, and return them."""
    torch._foreach_add_(counters, 1.0)
    return torch.stack(counters).tolist()


def _decay(trained: list[_Trained], rate_factor: str | None = None) -> None:
    """Decay the weights, each by its group's rate."""
    factors = [
        1 - each.group["lr"] * (each.group[rate_factor] if rate_factor else 1.0) * each.group["weight_decay"]
        for each in trained
    ]
    torch._foreach_mul_([each.param for each in trained], factors)
