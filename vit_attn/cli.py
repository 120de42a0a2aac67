"""``vit-attn``: the program's own help, the way to each verb, and errors in one line."""

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from vit_attn import __version__
from vit_attn.errors import TrainingFailed, UserError, did_you_mean, is_out_of_memory, one_line, printable
from vit_attn.training import stopping

VERBS = {
    "fit": ("vit_attn.commands.lightning", "train a network, and log its attention to TensorBoard"),
    "validate": ("vit_attn.commands.lightning", "measure a checkpoint on the validation split"),
    "test": ("vit_attn.commands.lightning", "measure a checkpoint on the test split"),
    "predict": (
        "vit_attn.commands.predict",
        "name the classes of your pictures, or of a run's test images, as a table",
    ),
    "attend": ("vit_attn.commands.attend", "draw where a trained network looks in pictures of your own"),
    "judge": ("vit_attn.commands.judge", "ask a network whether its attention maps are true, as a table and a figure"),
    "export": ("vit_attn.commands.export", "write a network for timm (.safetensors), ONNX (.onnx) or torch (.pt2)"),
    "export-html": ("vit_attn.commands.export_html", "write a run's Attention tab as one HTML file"),
}
LIGHTNING = {"fit", "validate", "test"}
"""Verbs whose signals are answered between steps, or end them at once."""
TRACEBACK_VARIABLE = "VIT_ATTN_TRACEBACK"

HELP = f"""usage: vit-attn [--help] [--version] VERB [options]

Train vision transformers and see where they look.

verbs:
{{verbs}}

`vit-attn VERB --help` lists a verb's options. To begin:
  vit-attn fit -c configs/quickstart.yaml     generated images, two minutes on a CPU
  vit-attn fit -c configs/cifar10.yaml        CIFAR-10 on a GPU
  vit-attn fit --resume runs/NAME/RUN         go on with a run that was stopped
  vit-attn test --ckpt_path runs/NAME/RUN/checkpoints/best.ckpt
  vit-attn attend PICTURE.jpg                 where a trained network looks
  vit-attn predict PICTURES/ --model runs/NAME/RUN/checkpoints/best.ckpt
  tensorboard --logdir runs

Set {TRACEBACK_VARIABLE}=1 to see where an error came from.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        args: Arguments after the program's name; by default those of the process.

    Returns:
        The exit code: 0; 2 after a mistake of the user and 1 after one of the machine, told in one line; 128 and
        the number of the signal after a stop.
    """
    args = list(sys.argv[1:] if args is None else args)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be any bytes
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_printable_record)
    try:
        return _dispatch(args)
    except (Exception, KeyboardInterrupt) as error:
        explained = _explain(error)
        if explained is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        code, line = explained
        sys.stderr.write(f"vit-attn: {line}\n")
        return code


def _explain(error: BaseException) -> tuple[int, str] | None:
    """Exit code and line for an error; nothing for one of ours, whose traceback says more."""
    if isinstance(error, UserError):
        return 2, one_line(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped by SIGINT"
    if isinstance(error, (OSError, TrainingFailed)):  # no permission, no space: the message names the file
        return 1, one_line(error)
    if isinstance(error, RecursionError):  # what is nested so deep was made for it
        return 2, "the input is nested too deep to be read"
    if is_out_of_memory(error):
        reason = (str(error).strip().splitlines() or ["of the machine"])[0]
        return 1, f"out of memory: take fewer images at a time ({reason})"
    return None


def _printable_record(record: logging.LogRecord) -> bool:
    """Escape what names of files and classes could do to the terminal in a line of the log."""
    record.msg, record.args = printable(record.getMessage(), keep="\n\t"), ()
    return True


def _dispatch(args: list[str]) -> int:
    verb, *options = args or ["--help"]
    if verb in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {name:<12}{what}" for name, (_, what) in VERBS.items())
        sys.stdout.write(HELP.format(verbs=verbs))
        return 0
    if verb == "--version":
        sys.stdout.write(f"vit-attn {__version__}\n")
        return 0
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}{did_you_mean(verb, VERBS)}; verbs are {', '.join(VERBS)}")
    module, _ = VERBS[verb]
    if verb in LIGHTNING:
        with stopping.listening():
            return importlib.import_module(module).run(verb, options)
    return importlib.import_module(module).run(verb, options)
