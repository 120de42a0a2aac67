"""Entry point of ``vit-attn``: overview of the commands, their dispatch, and one-line errors."""

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from vit_attn import __version__, parts
from vit_attn.commands.listing import find_commands
from vit_attn.errors import TrainingFailed, UserError, did_you_mean, is_out_of_memory, one_line, printable

TRACEBACK_VARIABLE = "VIT_ATTN_TRACEBACK"

OTHER_NAMES = {
    "train": "fit",
    "finetune": "fit",
    "fine-tune": "fit",
    "resume": "fit",
    "eval": "test",
    "evaluate": "test",
    "val": "validate",
    "infer": "predict",
    "inference": "predict",
    "classify": "predict",
    "visualize": "attend",
    "visualise": "attend",
    "show": "attend",
    "explain": "attend",
    "demo": "attend",
    "benchmark": "judge",
    "convert": "export",
    "tune": "sweep",
    "search": "sweep",
}
"""Commands by what other programs call them."""

HELP = f"""usage: vit-attn [--help] [--version] COMMAND [options]

Train vision transformers and see what they attend to.

commands:
{{commands}}

`vit-attn COMMAND --help` lists the options of a command. To begin:
  vit-attn fit -c configs/quickstart.yaml   generated images, two minutes on CPU
  vit-attn fit -c configs/cifar10.yaml      CIFAR-10 on a GPU
  vit-attn fit --resume runs/NAME/RUN       resume a run that was stopped
  vit-attn test --model runs/NAME/RUN       metrics of its best checkpoint
  vit-attn attend PHOTO.jpg                 attention maps of a trained network
  vit-attn predict FOLDER --model runs/NAME/RUN
  tensorboard --logdir runs

Every command takes --import MODULE: your own networks, data sets or methods (docs/extend.md).
Tab completes commands and options after `source <(vit-attn completion bash)`, or zsh.
Set {TRACEBACK_VARIABLE}=1 to see the traceback of an error.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        args: Arguments after the program's name; by default those of the process.

    Returns:
        The exit code: 0; 2 after a user's mistake and 1 after a failure of the machine, each a one-line error; 128
        plus the number of the signal after a stop.
    """
    args = [_in_home(arg) for arg in (sys.argv[1:] if args is None else args)]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may be any bytes
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_escape_record)
    try:
        return _dispatch(args)
    except (Exception, KeyboardInterrupt) as error:
        result = _summarize(error)
        if result is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        code, line = result
        sys.stderr.write(f"vit-attn: {line}\n")
        return code


def _in_home(arg: str) -> str:
    """Name the home folder in a value such as ``--data.root=~/photos``, where bash leaves ``~`` as it is."""
    name, equals, value = arg.partition("=")
    return f"{name}={os.path.expanduser(value)}" if equals and value.partition("/")[0] == "~" else arg


def _dispatch(args: list[str]) -> int:
    args, modules = parts.split_imports(args)
    command, *options = args or ["--help"]
    if command == "--version":
        sys.stdout.write(f"vit-attn {__version__}\n")
        return 0
    commands = find_commands()
    if command in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:<13}{summary}" for name, summary in commands.items())
        sys.stdout.write(HELP.format(commands=lines))
        return 0
    if command not in commands:
        hint = (
            f", did you mean {OTHER_NAMES[command]!r}?" if command in OTHER_NAMES else did_you_mean(command, commands)
        )
        raise UserError(f"unknown command {command!r}{hint}; commands are {', '.join(commands)}")
    if not _asks_for_help(options):
        for name in modules:
            parts.import_part(name, parts.OPTION)
        parts.import_installed()
    module = importlib.import_module(f"vit_attn.commands.{command.replace('-', '_')}")
    return module.run(command, options)


def _asks_for_help(options: Sequence[str]) -> bool:
    return any(each in ("-h", "--help") or each.startswith(("--help=", "--help.")) for each in options)


def _summarize(error: BaseException) -> tuple[int, str] | None:
    """Return exit code and line for an error; None for a bug, whose traceback says more."""
    if isinstance(error, UserError):
        return 2, one_line(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped by SIGINT"
    if isinstance(error, (OSError, TrainingFailed)):  # no permission, no space: the message names the file
        return 1, one_line(error)
    if isinstance(error, RecursionError):  # only an input made for it is nested so deep
        return 2, "the input is nested too deep to be read"
    if is_out_of_memory(error):
        reason = (str(error).strip().splitlines() or ["of the machine"])[0]
        return 1, f"out of memory: take fewer images at a time ({reason})"
    return None


def _escape_record(record: logging.LogRecord) -> bool:
    """Escape control characters in a log record, which names of files and classes may contain."""
    record.msg, record.args = printable(record.getMessage(), keep="\n\t"), ()
    return True
