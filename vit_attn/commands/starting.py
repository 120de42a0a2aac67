"""What a run takes from the weights that it starts from, so that a user names them and nothing else."""

from pathlib import Path
from typing import Any

from vit_attn.commands.checkpoints import read_hyperparameters
from vit_attn.errors import UserError
from vit_attn.model.weights import names_network
from vit_attn.task import without_pretrained


def take_start(settings: Any, asked: Any) -> None:
    """Fill in what ``model.weights`` says of its network: a checkpoint of ours, or a name of timm's registry.

    Options that the user gave are put over the checkpoint's.

    Args:
        settings: Of the run, with defaults; they are changed.
        asked: Those of them that the user gave.

    Raises:
        UserError: If the weights are a checkpoint of another network than the user asks for, or no whole checkpoint.
    """
    model, asked = settings.model, asked.get("model") or {}
    weights, arch = str(model.weights), asked.get("arch")
    if names_network(weights):
        model.arch = arch or weights.partition(".")[0]
        return
    if not (weights.endswith(".ckpt") and Path(weights).is_file()):
        return  # a file of weights alone does not say of what network
    stored = read_hyperparameters(Path(weights))
    if arch not in (None, stored.get("arch")):
        raise UserError(f"{weights} is a checkpoint of {stored.get('arch')}, not of {arch}: leave out model.arch")
    model.arch = stored["arch"]
    model.arch_options = without_pretrained(stored.get("arch_options")) | (asked.get("arch_options") or {})


def refuse_untrained(model: Any) -> None:
    """Refuse to train a part of a network whose rest has random weights.

    Raises:
        UserError: If so.
    """
    if model.weights is None and not (model.arch_options or {}).get("pretrained"):
        part = f"train={model.train}" if model.train != "all" else f"probe={model.probe}" if model.probe else None
        if part:
            raise UserError(
                f"{part} leaves the rest of the network as it starts, which is random: name --model.weights"
            )
