"""Messages of Lightning during a command: those that help, in the words of the command line, on its console."""

import logging
import re
import sys
import warnings
from typing import Any

from vit_attn.console import CONSOLE
from vit_attn.errors import printable

IGNORED_WARNINGS = (
    ".*does not have many workers",  # the data is in memory already
    "LightningCLI's args parameter",  # it is given the arguments of the process
    ".*isinstance.treespec, LeafSpec.",  # lightning 2.6 with newer torch
    "The dirpath has changed",  # every run has its own folder; the report at its end says where the best is
    "Be aware that when using `ckpt_path`",  # evaluation needs no callback of the training
    "The number of training batches .* is smaller than the logging interval",  # LoggingInterval looks at the whole run
    "Checkpoint directory .* exists and is not empty",  # that of the resumed run
)
"""Beginnings of warnings that do not help a user of the command line, as regular expressions."""
IGNORED_MESSAGES = (
    ".*Tip:",  # advertisements
    "Seed set to",  # a setting of the run
    "(GPU|TPU|HPU|IPU) available",  # the summary names the device
    "LOCAL_RANK",
    "Using .* Automatic Mixed Precision",
    "Loading `train_dataloader` to estimate",
    "Trainer already configured with model summary",
    "`Trainer.fit` stopped",  # the report follows
    "Restor(ing|ed) .* the checkpoint",
    "Loaded model weights from the checkpoint",
)
"""The same of messages."""
TRAINER_OPTION = re.compile(r"`?\bTrainer\((\w+)=([^()\s]*)\)`?")


def route_messages() -> None:
    """Send Lightning's messages and all warnings, one line each, to the console, but for those that do not help."""
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = _say_warning
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_helps)
    logging.getLogger("lightning.fabric.utilities.rank_zero").addFilter(_helps)
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(_helps)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        for handler in [each for each in logger.handlers if _writes_to_stderr(each)]:
            logger.removeHandler(handler)
            logger.addHandler(ConsoleHandler(handler.level))


class ConsoleHandler(logging.Handler):
    """Handler that writes records to the console, above a progress bar; Lightning's own writes through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            CONSOLE.say(self.format(record), sys.stderr)
        except Exception:  # as in logging's own handlers, a message must not end a run
            self.handleError(record)


def as_option(text: str) -> str:
    """Spell settings of Lightning's ``Trainer`` as options of the command line.

    >>> as_option("You can set it by doing `Trainer(accelerator='gpu')`.")
    'You can set it by doing --trainer.accelerator=gpu.'
    """
    return TRAINER_OPTION.sub(lambda found: f"--trainer.{found[1]}={found[2].strip(chr(39))}", text)


def _writes_to_stderr(handler: logging.Handler) -> bool:
    """Return true for a handler that writes to this process's standard error, as Lightning's do by default."""
    return type(handler) is logging.StreamHandler and handler.stream is sys.__stderr__


def _helps(record: logging.LogRecord) -> bool:
    """Return false for a record that does not help, and spell the options of the others."""
    text = record.getMessage()
    record.msg, record.args = as_option(text), ()
    return not any(re.match(pattern, text) for pattern in IGNORED_MESSAGES)


def _say_warning(message: Warning | str, *_source: Any, **_line: Any) -> str:
    """Write a warning to the console, and return nothing that Python could write past the progress bar.

    Python calls its formatter where it shows a warning, and not where a program records or raises it.
    """
    CONSOLE.say(f"warning: {as_option(printable(str(message), keep=chr(10)))}", sys.stderr)
    return ""
