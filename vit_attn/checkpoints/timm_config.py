"""timm's ``config.json``, by which ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads a folder.

References:
    Wightman, pytorch-image-models, ``timm/models/_hub.py``: ``load_model_config_from_path`` and ``save_config_for_hf``.
"""

from pathlib import Path
from typing import Any

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.checkpoints.paths import FOLDER_WEIGHTS
from vit_attn.errors import UserError

CONFIG = "config.json"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".bin")
"""Endings of files in a folder that timm may prefer to a ``.safetensors`` file of another name."""


def timm_config(card: ModelCard, net: Any) -> dict[str, Any]:
    """Make the content of ``config.json`` for a network.

    Preprocessing is ours at prediction: bicubic, and a centre crop. Provenance of pretrained weights, such as licence
    and paper, is left out, since the weights may be others.

    Args:
        card: Model card of the network.
        net: The network, built by timm.

    Raises:
        UserError: If timm does not load weights into it, since it was not built by ``build_model_with_cfg``.
    """
    architecture, _, tag = card.architecture.partition(".")
    defaults = getattr(net, "pretrained_cfg", None)
    if defaults is None:
        raise UserError(
            f"timm cannot load the weights of {architecture}: have it built by timm.models.build_model_with_cfg, "
            "which loads them, or name an --output of .pt2 or .onnx"
        )
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": net.num_classes,
        "num_features": net.num_features,
        "model_args": card.model_args,
        "pretrained_cfg": {
            "tag": tag or None,
            "input_size": card.input_size,
            "fixed_input_size": bool(defaults.get("fixed_input_size")),
            "interpolation": "bicubic",
            "crop_pct": card.crop_pct,
            "crop_mode": "center",
            "mean": card.mean,
            "std": card.std,
            "num_classes": net.num_classes,
            "pool_size": None,
            "first_conv": defaults.get("first_conv"),
            "classifier": defaults.get("classifier"),
        },
    }
    if card.label_names:
        config["label_names"] = card.label_names
    return config


def loads_other_weights(path: Path) -> list[str]:
    """List other files in the folder of a file, which timm may load instead of it.

    Args:
        path: A file of weights, which need not exist yet.
    """
    if path.name == FOLDER_WEIGHTS or not path.parent.is_dir():
        return []
    return sorted(
        each.name for each in path.parent.iterdir() if each.suffix in WEIGHT_SUFFIXES and each.name != path.name
    )
