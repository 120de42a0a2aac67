"""Lightning's commands ``fit``, ``validate``, ``test`` and ``predict`` on the task and data of this package."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vit_attn.checkpoints.io import read_card
from vit_attn.commands.parsing.yaml_limits import limit_jsonargparse
from vit_attn.commands.run.callbacks import num_failed_predictions, received_signal
from vit_attn.commands.run.checkpoint import run_folder
from vit_attn.commands.run.cli import LightningParser, VitAttnCLI
from vit_attn.commands.run.config import SaveRunConfig
from vit_attn.commands.run.messages import route_messages
from vit_attn.commands.run.own_data import choose_data
from vit_attn.commands.run.resume import RunFinished, expand_resume
from vit_attn.commands.run.stored_config import (
    config_option,
    evaluation_options,
    options_of_checkpoint,
    read_run_config,
)
from vit_attn.commands.run.trainer_errors import one_line_errors
from vit_attn.console import CONSOLE
from vit_attn.task import Classifier
from vit_attn.training import stopping


def run_lightning(
    command: str,
    options: list[str],
    predictions: Mapping[str, Any],
    report: Callable[[int, float], bool] | None = None,
) -> int:
    """Run one of Lightning's commands.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        options: Arguments after the command.
        predictions: For ``predict``, ``path``, ``top_k`` and ``overwrite`` of its table.
        report: For a trial of a sweep, function of each validation's step and accuracy; returns whether it is pruned.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, the configuration files, the data or the checkpoint.
    """
    route_messages()
    limit_jsonargparse()
    original_options = list(options)
    options, folder = expand_resume(options) if command == "fit" else (options, None)
    try:
        with one_line_errors():
            trainer = _run_cli(command, options, predictions, folder, original_options, report).trainer
    except RunFinished as finished:
        CONSOLE.say(str(finished))
        return 0
    except stopping.Stopped as stopped:
        return stopped.exit_code
    except SystemExit as ended:  # Lightning's answer to Ctrl+C
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise ended.__context__ from None
        raise
    if signum := received_signal(trainer):
        CONSOLE.say(f"vit-attn: {stopping.Stopped(signum)}, when all steps were done", sys.stderr)
        return 128 + signum
    return int(num_failed_predictions(trainer) > 0)


def _run_cli(
    command: str,
    options: list[str],
    predictions: Mapping[str, Any],
    folder: Path | None,
    original_options: list[str],
    report: Callable[[int, float], bool] | None,
) -> VitAttnCLI:
    """Parse the options, build data, task and trainer, and run the command."""
    data = choose_data([*_stored_options(command, options), *options])
    return VitAttnCLI(
        model_class=Classifier,
        datamodule_class=data.kind,
        parser_class=LightningParser,
        command=command,
        predictions=predictions,
        folder=folder,
        original_options=original_options,
        report=report,
        save_config_callback=SaveRunConfig if command == "fit" else None,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_kwargs={"allow_abbrev": False},
        trainer_defaults={"max_epochs": 100, "gradient_clip_val": 1.0},
        save_config_kwargs={"data_class": data.class_path},
        args=[command, *data.options],
    )


def _stored_options(command: str, options: list[str]) -> list[str]:
    """Make the options that a checkpoint's run was trained with, unless the user gives a configuration."""
    names = [option.partition("=")[0] for option in options]
    if "--ckpt_path" not in names or {"-c", "--config", "-h", "--help"} & set(names):
        return []
    position = names.index("--ckpt_path")
    _, equals, value = options[position].partition("=")
    path = value if equals else (options[position + 1 : position + 2] or [""])[0]
    folder = run_folder(path)
    if folder is None:
        named = any(name.startswith("--data") for name in names)
        return [] if named or command == "fit" else options_of_checkpoint(Path(path))
    if command == "fit":
        return config_option(folder)
    data = read_run_config(folder / "config.yaml").get("data")
    if isinstance(data, Mapping) and "class_path" in data and Path(path).is_file():
        read_card(path)  # which imports what it needs, the data module among it
    return evaluation_options(folder)
