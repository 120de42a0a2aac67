"""What a checkpoint says of itself, and the run beside it."""

from pathlib import Path
from typing import Any

import torch

from vit_attn.errors import UserError


def run_folder(ckpt_path: str | None) -> Path | None:
    """The folder of the run that wrote a checkpoint, if it still lies in one."""
    folder = Path(ckpt_path).parent.parent if ckpt_path else Path()
    return folder if ckpt_path and (folder / "config.yaml").is_file() else None


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """The settings of the network that a checkpoint was made with.

    Raises:
        UserError: If there is no such file, or if it is no whole checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        return dict(checkpoint["hyper_parameters"])
    except Exception as error:  # a damaged file can fail in any way that unpickling can
        raise UserError(f"{path} is not a whole checkpoint of vit-attn ({type(error).__name__})") from error
