"""Option ``--model`` of Lightning's commands: the trained network that is evaluated, found before torch is imported."""

from collections.abc import Sequence
from pathlib import Path

from vit_attn.checkpoints.paths import describe_missing, find_checkpoint, looks_like_path, weights_file
from vit_attn.commands.parsing.old_spellings import note_old_spelling
from vit_attn.errors import UserError

EXAMPLE = "--model runs/NAME/RUN"
OLD = "--ckpt_path"
SETTINGS = (".yaml", ".yml", ".json")
"""Endings of files of settings, which jsonargparse takes for a group of options."""
LAST_FIRST = ("last.ckpt", "best.ckpt")
"""Checkpoints of a run for a command that goes on with its state."""


def check_evaluated(command: str, path: str | Path | None) -> None:
    """Check that a command has the checkpoint that it evaluates.

    Args:
        command: The command.
        path: The checkpoint, from ``--model`` or a file of settings.

    Raises:
        UserError: If there is none.
    """
    if path is not None and weights_file(path) is None:
        raise UserError(describe_missing(path))
    if path is None:
        raise UserError(f"{command} needs a trained network: {EXAMPLE}, or a checkpoint")


def expand_model(command: str, options: Sequence[str]) -> list[str]:
    """Replace ``--model`` of ``validate``, ``test`` or ``predict`` by the checkpoint that it names.

    Args:
        command: The command.
        options: Arguments after it; ``--ckpt_path``, as ``--model`` was called before, is taken as well.

    Returns:
        The options, with ``--ckpt_path=FILE`` in its place.

    Raises:
        UserError: If there is no such checkpoint.
    """
    expanded, position = [], 0
    while position < len(options):
        name, equals, value = options[position].partition("=")
        position += 1
        if name == "--checkpoint":  # a group of options, which would be a file of settings
            raise UserError(f"unknown option {name}, did you mean '--model'?")
        if name not in ("--model", OLD):
            expanded.append(options[position - 1])
            continue
        if not equals:
            value = options[position] if position < len(options) else ""
            position += 1
        if not value or value.startswith("-"):
            raise UserError(f"{name} needs a value: the folder of a run, as in {EXAMPLE}, or a checkpoint")
        if name == OLD:
            note_old_spelling(OLD, "--model")
        expanded.append(f"{OLD}={_checkpoint_of(command, value)}")
    return expanded


def expand_state(options: Sequence[str]) -> list[str]:
    """Replace a folder in ``--ckpt_path`` of ``fit`` by the last checkpoint in it."""
    expanded, is_value = [], False
    for option in options:
        name, equals, value = option.partition("=")
        given = option if is_value else value if name == OLD and equals else ""
        found = find_checkpoint(Path(given), LAST_FIRST) if given and Path(given).is_dir() else None
        expanded.append(option.removesuffix(given) + str(found) if found else option)
        is_value = name == OLD and not equals
    return expanded


def refuse_model_of_fit(options: Sequence[str]) -> None:
    """Refuse ``--model X`` of ``fit``, which trains a network: the options that X may be meant for are named.

    A file of settings is left to the parser.

    Raises:
        UserError: If ``--model`` is given.
    """
    for option, following in zip(options, [*options[1:], ""], strict=True):
        name, equals, value = option.partition("=")
        if name == "--model" and not (value or following).endswith(SETTINGS):
            raise UserError(
                f"fit trains the network that other options name: {_step_of_fit(value if equals else following)}"
            )


def _step_of_fit(value: str) -> str:
    """Name the option of ``fit`` that a network is given by, from what it is."""
    if not value or value.startswith("-"):
        return "--model.arch=NAME chooses it, --model.weights=FILE|RUN|NAME what it starts from"
    found = weights_file(value)
    if found and found.suffix == ".ckpt":
        return f"to start from its weights, --model.weights={value}; to go on with that run, --resume {value}"
    if found or looks_like_path(value):
        return f"to start from a file of weights, --model.weights={value}" + (
            "" if found else f"; {describe_missing(value)}"
        )
    return f"the network is --model.arch={value}, with its pretrained weights --model.weights={value}"


def _checkpoint_of(command: str, value: str) -> Path:
    found = weights_file(value)
    if found is None:
        by_name = "" if looks_like_path(value) or Path(value).exists() else f"; {_for_images(value)}"
        raise UserError(f"{describe_missing(value)}{by_name}")
    if found.suffix == ".safetensors":
        raise UserError(
            f"{command} evaluates a checkpoint, which knows its data, and {found} is an export: {_for_images(value)}"
        )
    return found


def _for_images(value: str) -> str:
    """Name the commands that take any network, with images."""
    return (
        f"any network predicts images by vit-attn predict FOLDER --model {value}, and its maps are judged by vit-attn "
        f"judge --model {value} --images FOLDER"
    )
