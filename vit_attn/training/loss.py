"""Training loss."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.errors import UserError


def weighted_cross_entropy(
    logits: Float[Tensor, "B classes"],
    targets: Int64[Tensor, " B"] | Float[Tensor, "B classes"],
    class_weights: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy with class weights, for class indices and for mixed targets.

    The sum is divided by the total weight of the targets on all devices. ``F.cross_entropy`` does so for class indices
    only, so that the same weights would mean another learning rate for mixed images; and per device, so that images
    would count more on a device with few images of the classes of large weight.

    Args:
        logits: Output of the network.
        targets: Class indices, or fractions of the classes that sum to 1.
        class_weights: Weight of each class; equal by default.
        label_smoothing: Fraction of each target that is spread over all classes.
    """
    if targets.is_floating_point():
        targets = targets.float()  # Lightning converts them under true half precision, which would round the loss
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    loss = F.cross_entropy(logits, targets, class_weights, label_smoothing=label_smoothing, reduction="sum")
    total_weight = (class_weights[targets] if targets.ndim == 1 else targets @ class_weights.float()).sum()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total_weight)  # as gradients are averaged over the devices
        total_weight = total_weight / torch.distributed.get_world_size()
    return loss / total_weight


def logits_and_loss(
    net: nn.Module,
    images: Float[Tensor, "B C height width"],
    targets: Int64[Tensor, " B"] | Float[Tensor, "B classes"],
    class_weights: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, "B classes"], Float[Tensor, ""]]:
    """Forward pass of a training step, to be compiled as one graph; arguments as of :func:`weighted_cross_entropy`.

    Args:
        net: The network.
        images: Normalised images, which take the precision of the network.
        targets: Class indices, or fractions of the classes.
        class_weights: Weight of each class.
        label_smoothing: Fraction of each target that is spread over all classes.
    """
    logits = net(images.to(next(net.parameters()).dtype))
    return logits, weighted_cross_entropy(logits, targets, class_weights, label_smoothing)


def class_weight_tensor(weights: list[float] | None, num_classes: int) -> Tensor | None:
    """Convert class weights to a tensor; None for equal ones.

    Raises:
        UserError: If there is not one finite weight of at least 0 for each class, or if all are 0.
    """
    if weights is None:
        return None
    if len(weights) != num_classes or not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise UserError(
            f"class_weights must be a number of at least 0 for each of {num_classes} classes, got {weights}"
        )
    return torch.tensor(weights)
