"""What a ``.safetensors`` file that ``export`` wrote says of its network, which is all that is needed to use it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors

from vit_attn.errors import UserError


@dataclass(frozen=True)
class Header:
    """What is known of a network, kept beside its weights; each field is JSON in the file's metadata.

    Args:
        architecture: Its name in timm's registry.
        options: With which ``timm.create_model`` makes it.
        class_names: Names of its classes, where they are known.
        mean: Mean of the training images by channel, of pixels in [0, 1].
        std: Their standard deviation.
        img_size: Height and width of the images that it takes.
        crop_pct: Share of the image that is left by the crop around its centre.
    """

    architecture: str
    options: dict[str, Any]
    class_names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    img_size: tuple[int, int]
    crop_pct: float

    def metadata(self) -> dict[str, str]:
        """As the file keeps it."""
        return {name: json.dumps(value) for name, value in asdict(self).items()} | {"format": "pt"}


def read_header(path: Path) -> Header:
    """What a file of ours says of its network.

    Raises:
        UserError: If there is no such file, or if it says nothing.
    """
    if not path.is_file():
        raise UserError(f"weights not found: {path}")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            said = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
        fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        return Header(**fields)
    except Exception as error:  # a damaged file, or one of another program
        raise UserError(
            f"{path} does not say what network it is of, as a file of `vit-attn export` does: name the network with "
            "--model and the file with --weights"
        ) from error
