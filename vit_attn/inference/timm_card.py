"""Model card of a network of timm."""

from typing import Any

from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from torch import nn

from vit_attn.checkpoints.model_card import ModelCard


def card_of_timm(net: nn.Module, name: str, model_args: dict[str, Any]) -> ModelCard:
    """Make the model card of a network of timm.

    Args:
        net: The network, with timm's ``pretrained_cfg``.
        name: Its name.
        model_args: Arguments with which timm has built it.
    """
    config: dict[str, Any] = resolve_data_config({}, model=net)
    asked = model_args.get("img_size")  # NaFlexViT has no img_size of its own
    own = getattr(getattr(net, "patch_embed", None), "img_size", None) or (asked and (asked, asked))
    height, width = own or config["input_size"][1:]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return ModelCard(
        architecture=name,
        model_args=model_args,
        label_names=_label_names(net),
        input_size=(len(mean), height, width),
        mean=mean,
        std=std,
        crop_pct=config["crop_pct"],
    )


def _label_names(net: Any) -> tuple[str, ...] | None:
    """Find the class names of pretrained weights; ImageNet's if the number of classes is that of one of its subsets."""
    if names := net.pretrained_cfg.get("label_names"):
        return tuple(names) if len(names) == net.num_classes else None
    subset = infer_imagenet_subset(net)
    if not subset:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index).split(",")[0] for index in range(net.num_classes))
