"""Start of Lightning's commands: their help and the check of their options, before torch is imported."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from vit_attn.commands.parsing.model_option import expand_model, expand_state, refuse_model_of_fit
from vit_attn.commands.parsing.own_data import names_own_data
from vit_attn.commands.parsing.shipped_configs import check_configs, resolve_shipped
from vit_attn.commands.parsing.short_help import asks_for_help, group_help, short_help
from vit_attn.errors import UserError

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def start_lightning(
    command: str,
    options: list[str],
    predictions: Mapping[str, Any] = NO_OPTIONS,
    own_help: Sequence[tuple[str, str]] = (),
) -> int:
    """Run one of Lightning's commands.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        options: Arguments after the command.
        predictions: For ``predict``, ``path``, ``top_k`` and ``overwrite`` of its table.
        own_help: Options that are not Lightning's, and their descriptions.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, the configuration files, the data or the checkpoint.
    """
    wanted_help = asks_for_help(options)
    if wanted_help == "short":
        summary = (importlib.import_module(f"vit_attn.commands.{command}").__doc__ or "").partition("\n")[0]
        sys.stdout.write(short_help(command, summary, own_help))
        raise SystemExit
    if wanted_help not in (None, "all"):
        sys.stdout.write(group_help(command, wanted_help))
        raise SystemExit
    if wanted_help == "all":
        options = ["--help"]
    else:
        options = resolve_shipped(options)
        options = expand_state(options) if command == "fit" else _expand_model(command, options)
        _check(command, options)
    from vit_attn.commands.lightning import run_lightning

    return run_lightning(command, options, predictions)


def _expand_model(command: str, options: Sequence[str]) -> list[str]:
    """Replace ``--model`` by a checkpoint, and refuse options of a network that is evaluated as it is."""
    if of_network := [option for option in options if option.startswith("--model.")]:
        raise UserError(f"{command} evaluates the network of --model as it was trained: leave out {of_network[0]}")
    return expand_model(command, options)


def _check(command: str, options: Sequence[str]) -> None:
    """Check the options as far as that is possible without torch."""
    check_configs(options)
    if command == "fit":
        refuse_model_of_fit(options)
    if names_own_data(options):
        return  # whose arguments only its class knows
    from vit_attn.commands.parsing.light_parser import check_options  # jsonargparse takes 0.1 s

    check_options(command, options)
