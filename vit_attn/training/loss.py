"""What training makes small."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from vit_attn.errors import UserError


def weighted_cross_entropy(
    logits: Float[Tensor, "B classes"],
    targets: Int64[Tensor, " B"] | Float[Tensor, "B classes"],
    class_weights: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy, in which each class counts by its weight; for mixed targets as for pure ones.

    It is divided by what the targets weigh together, on all devices. ``F.cross_entropy`` does so for class indices
    alone, so that with it the same weights would mean another learning rate where images are mixed; and on one device,
    so that images would count more on a device that has few of the weighty classes.

    Args:
        logits: What the network says.
        targets: Class indices, or shares of the classes that sum to 1.
        class_weights: Weight of each class; all alike by default.
        label_smoothing: Share of each target that is spread over all classes.
    """
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, targets, class_weights, label_smoothing=label_smoothing, reduction="sum")
    weighed = (class_weights[targets] if targets.ndim == 1 else targets @ class_weights).sum()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(weighed)  # gradients are averaged over the devices, so this is too
        weighed = weighed / torch.distributed.get_world_size()
    return total / weighed


def weights_of_classes(weights: list[float] | None, num_classes: int) -> Tensor | None:
    """Weights of the classes as a tensor, or nothing where all count alike.

    Raises:
        UserError: If there is not one of at least 0 for each class, or if all are 0.
    """
    if weights is None:
        return None
    if len(weights) != num_classes or not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise UserError(
            f"class_weights must be a number of at least 0 for each of {num_classes} classes, got {weights}"
        )
    return torch.tensor(weights)
