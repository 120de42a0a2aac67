"""Targets of gradients: one number per image, computed from a network's output."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vit_attn.attention_maps.checks import class_targets, first_line, in_head
from vit_attn.errors import UserError, is_out_of_memory

Target = int | Sequence[int] | Int64[Tensor, " B"] | Callable[[Any], Tensor] | None
"""Target of gradients: a class, one class per image, a function of the network's output that gives one number per
image, or, by default, the predicted class."""


def logits_of(output: Any) -> Tensor:
    """Get the logits from a network's output; Hugging Face's networks name them.

    Raises:
        UserError: If there are none.
    """
    logits = getattr(output, "logits", output[0] if isinstance(output, tuple) else output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise UserError(f"the network returns no logits (B, classes) but {shape}: give the target as a function")
    return logits


def target_value(output: Any, target: Target, images: slice) -> Float[Tensor, " part"]:
    """Compute the target for each image of one forward.

    Args:
        output: The network's output for these images.
        target: See :data:`Target`; a tensor of classes is of all images that were recorded.
        images: Which of all recorded images this forward was of.

    Raises:
        UserError: If a class is not in the head, or if there is not one class or number for each image.
    """
    if callable(target):
        return _checked_value(target(output), images.stop - images.start, output)
    logits = logits_of(output)
    if target is None:
        classes = logits.argmax(dim=-1)
    else:
        chosen: Any = target[images] if isinstance(target, Tensor) and target.ndim else target
        classes = class_targets(chosen, len(logits), logits.device)
    return logits.gather(-1, in_head(classes, logits.shape[-1])[:, None])[:, 0]


def _checked_value(value: Any, images: int, output: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != (images,) or not value.is_floating_point():
        found = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(
            f"a target function must give one number for each image, a float tensor ({images},), as output[:, 3] is, "
            f"got {found}"
        )
    if any(_depends_on_others(value, image, output) for image in {0, images - 1}):
        raise UserError("a target function must give for each image a number of that image alone, as output[:, 3] is")
    return value


def _depends_on_others(value: Tensor, image: int, output: Any) -> bool:
    """Tell whether an image's number has a gradient by the logits of other images."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.shape[:1] != value.shape:
        return False
    if not value.requires_grad or not logits.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value[image], logits, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient[:image].any() or gradient[image + 1 :].any())


def gradients_of(value: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a scalar with respect to attention outputs; zeros for layers that it does not depend on.

    Raises:
        UserError: If the graph is gone, or if the scalar depends on none of them.
    """
    try:
        found = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            "the target has no gradient by what the attentions gave: compute it from the network's output, before "
            f"backward() or a step of training changes the network ({first_line(error)})"
        ) from error
    if all(each is None for each in found):
        raise UserError("the target has no gradient by what the attentions gave: it does not depend on any of them")
    return [torch.zeros_like(of) if each is None else each for each, of in zip(found, outputs, strict=True)]
