"""Help of Lightning's commands on one or two screens, from the table of options and without torch."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from vit_attn.commands.parsing.option_table import LIGHTNINGS_GROUPS, Option, options_of
from vit_attn.errors import UserError, did_you_mean

SHOWN: Mapping[str, tuple[str, ...]] = {
    "model": (
        "arch",
        "arch_options",
        "weights",
        "optimizer",
        "lr",
        "weight_decay",
        "warmup",
        "train",
        "ema",
        "compile",
    ),
    "data": ("dataset", "root", "batch_size", "num_workers", "img_size", "normalize"),
    "attention": ("num_images", "every_n_epochs", "every_n_steps", "methods", "max_cost"),
    "run": ("name", "runs", "resume", "seed_everything"),
    "trainer": ("max_epochs", "max_steps", "accelerator", "devices", "precision", "callbacks"),
    "checkpoint": ("minutes", "monitor", "save_top_k"),
}
"""Options of ``fit`` with a line of their own, by group. Others are named, or counted if they are Lightning's."""
NAMED_BELOW = {"attention": "comparison"}
"""Groups whose options are only named, below another group."""
SHOWN_OF_EVALUATION = {
    "run": ("seed_everything",),
    "data": ("dataset", "root", "batch_size", "num_workers"),
    "trainer": ("accelerator", "devices", "precision", "limit_{}_batches", "enable_progress_bar"),
}
"""The same of other commands, with a place for the name of the split."""
EVALUATED = {
    "data.dataset": "As for fit; by default the run's",
    "data.root": "Folder of the data set's files; by default the run's",
    **{f"trainer.limit_{split}_batches": "Number of batches, or a fraction" for split in ("val", "test", "predict")},
}
"""Descriptions that differ from those of ``fit``."""
EXAMPLES = {
    "fit": (
        ("-c configs/quickstart.yaml", "generated images, a minute or two"),
        ("-c configs/finetune.yaml --data.dataset=folder --data.root=DIR", "your images"),
        ("-c configs/cifar10.yaml --model.lr=1e-3 --trainer.max_epochs=20", "a change"),
        ("--resume runs/NAME/RUN", "go on after a stop"),
    ),
    "validate": (("--model runs/NAME/RUN", "a run's validation images"),),
    "test": (
        ("--model runs/NAME/RUN", "a run's test images"),
        ("--model runs/NAME/RUN --data.root=DIR", "images of another folder"),
    ),
    "predict": (("--model runs/NAME/RUN", "a run's test images"),),
}
"""Examples of commands, and their comments."""
OF_TRAINING = re.compile(r"data\.augment\.|model\.|(name|runs|resume|ckpt_path)$")
"""Options that other commands have, too, but that do nothing there, or are called otherwise."""
SPLITS = {"validate": "val", "test": "test", "predict": "predict"}
TITLES = {
    "run": "run",
    "model": "network and its training",
    "data": "images",
    "trainer": "Lightning's trainer",
    "attention": "logged attention",
    "comparison": "logged attention before and after fine-tuning",
    "checkpoint": "checkpoints",
}
REWORDED = {
    "ckpt_path": "Checkpoint; fit continues with its state in a new run",
    "data.dataset": "coins, cifar10 and others, folder or csv",
    "data.img_size": "Side of the images in pixels",
    "data.normalize": "Mean and standard deviation: a data set's or network's",
    "model.arch_options": "Its arguments, as in --model.arch_options.depth=3",
    "model.ema": "Decay of an average of the weights, such as 0.999",
    "model.optimizer": "adamw, muon or another of timm's",
    "model.train": "all, head, or a number of last blocks",
    "model.warmup": "Fraction of the steps over which the rate rises",
    "model.weights": "Initial weights: a run, a file or a name of timm's",
    "resume": "Run to resume in its folder: the folder, last, or auto",
    "seed_everything": "Seed of all random numbers",
    "trainer.accelerator": "cpu, gpu, mps or auto",
    "trainer.callbacks": "As in --trainer.callbacks+=EarlyStopping",
    "trainer.devices": "Number of devices, or auto",
    "trainer.enable_progress_bar": "Whether it is shown",
    "trainer.max_epochs": "Number of epochs",
    "trainer.max_steps": "Number of steps, unless the epochs are fewer",
    "trainer.precision": "32-true, bf16-mixed, 16-mixed and others",
    "attention.methods": "Attribution methods, such as relevance, rollout",
    "attention.every_n_steps": "Steps between loggings, instead of epochs",
    "attention.layers": "Layers that are drawn, from 1",
    "attention.max_cost": "Fraction of the run's time it may take",
    "model.compile": "Whether network and loss are compiled, as one graph",
    "data.root": "Folder of its files; by default $VIT_ATTN_DATA, else data",
    "checkpoint.minutes": "Minutes between writings of the last state",
    "checkpoint.monitor": "Metric that chooses the best",
    "checkpoint.save_top_k": "Number of best ones that are kept",
}
"""Descriptions that fit on a line, where an option's own is longer, or is Lightning's and tells less."""
EVALUATED_MODEL = ("--model", "Run, as in runs/NAME/RUN: its best checkpoint; or a checkpoint")
FILES = ("-c, --config", "YAML file of options; the last file or option wins")
PRINTED = ("--print_config", "Print all options with their values as YAML, and exit")
LONGEST = 118
"""Characters of a line at most, however wide the terminal is."""


def asks_for_help(args: Sequence[str]) -> str | None:
    """Return which help the arguments of a command ask for.

    Args:
        args: Arguments of the command.

    Returns:
        ``short`` for ``--help``, ``all`` for ``--help=all`` or ``--help all``, a group for ``--help.trainer``.
    """
    for position, arg in enumerate(args):
        name, _, value = arg.partition("=")
        if name.startswith("--help."):
            return name.removeprefix("--help.")
        if name in ("-h", "--help"):
            return "all" if "all" in (value, *args[position + 1 : position + 2]) else "short"
    return None


def short_help(command: str, summary: str, own: Sequence[tuple[str, str]] = (), width: int | None = None) -> str:
    """Format the help of a command.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        summary: Sentence about the command.
        own: Options that are not Lightning's, and their descriptions.
        width: Characters of a line; by default those of the terminal.
    """
    width = min((width or shutil.get_terminal_size().columns) - 1, LONGEST)
    is_fit = command == "fit"
    options = {option.name: option for option in options_of(command) if not option.linked}
    texts = REWORDED if is_fit else REWORDED | EVALUATED
    blocks = [f"usage: vit-attn {command} [-c FILE] [--OPTION=VALUE] ...\n", f"{summary}\n"]
    if examples := EXAMPLES.get(command):
        blocks.append(_examples(command, examples, width))
    for group, names in ({**SHOWN, **_other_groups(options)} if is_fit else SHOWN_OF_EVALUATION).items():
        prefix = "" if group == "run" else f"{group}."
        shown = [prefix + name.format(SPLITS.get(command)) for name in names]
        rows = [_row(options[name], texts) for name in shown]
        title = TITLES.get(group, group)
        blocks.append(
            _block(
                title, rows if prefix else [*([] if is_fit else [EVALUATED_MODEL]), FILES, *rows, PRINTED, *own], width
            )
            if rows
            else f"{title}:\n"
        )
        others = [name for name in options if _is_in(name, prefix) and name not in shown]
        blocks[-1] += _rest(prefix, [name for name in others if is_fit or not OF_TRAINING.match(name)], width)
        if is_fit and (below := NAMED_BELOW.get(group)):
            blocks[-1] += _rest(f"{below}.", [name for name in options if name.startswith(f"{below}.")], width)
    last = f"Defaults are in parentheses. A group: --help.trainer. All {len(options)}: vit-attn {command} --help=all\n"
    return "\n".join([*blocks, last])


def group_help(command: str, group: str, width: int | None = None) -> str:
    """Format the help of all options of a group, such as ``trainer``.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        group: Name before the first dot.
        width: Characters of a line; by default those of the terminal.

    Raises:
        UserError: If the command has no such group.
    """
    width = min((width or shutil.get_terminal_size().columns) - 1, LONGEST)
    options = [option for option in options_of(command) if not option.linked]
    groups = dict.fromkeys(option.name.partition(".")[0] for option in options if "." in option.name)
    if group not in groups:
        raise UserError(f"no group of options {group!r}{did_you_mean(group, groups)}; groups are {', '.join(groups)}")
    rows = [_row(option, {}) for option in options if option.name.startswith(f"{group}.")]
    return _block(TITLES.get(group, group), rows, width)


def _examples(command: str, examples: Sequence[tuple[str, str]], width: int) -> str:
    """Format examples of a command, a line each, without the comments that do not fit."""
    lines = [f"  vit-attn {command} {options}" for options, _ in examples]
    column = min(max(map(len, lines)), width) + 2
    commented = [f"{line:<{column}}# {comment}" for line, (_, comment) in zip(lines, examples, strict=True)]
    shown = [long if len(long) <= width else line for line, long in zip(lines, commented, strict=True)]
    return "\n".join(["examples:", *shown]) + "\n"


def _other_groups(options: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """List the options of groups that are not in :data:`SHOWN`."""
    groups: dict[str, list[str]] = {}
    for name in options:
        group, dot, setting = name.partition(".")
        if dot and group not in SHOWN and group not in NAMED_BELOW.values():
            groups.setdefault(group, []).append(setting)
    return groups


def _is_in(name: str, prefix: str) -> bool:
    return name.startswith(prefix) if prefix else "." not in name


def _row(option: Option, texts: Mapping[str, str]) -> tuple[str, str]:
    """Return an option, and its description with its default."""
    text = texts.get(option.name, option.help.partition(";")[0].rstrip("."))
    default = "" if option.default is None or "by default" in text else f" ({format_default(option.default)})"
    return f"--{option.name}", text + default


def format_default(value: bool | int | float | str) -> str:
    """Format a default as YAML has it.

    >>> format_default(True), format_default(1), format_default(5.0)
    ('true', '1', '5.0')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def _block(title: str, rows: Sequence[tuple[str, str]], width: int) -> str:
    column = max(len(name) for name, _ in rows) + 4
    lines = [f"{title}:"]
    for name, text in rows:
        first, *others = textwrap.wrap(text, width - column)
        lines += [f"  {name:<{column - 2}}{first}", *(" " * column + other for other in others)]
    return "\n".join(lines) + "\n"


def _rest(prefix: str, names: Sequence[str], width: int) -> str:
    """List options of a group by their names only, or count them."""
    if not names:
        return ""
    if prefix.removesuffix(".") in LIGHTNINGS_GROUPS:
        return f"  and {len(names)} more --{prefix}… of Lightning\n"
    shortest = dict.fromkeys(re.sub(r"^(\w+\.\w+)\..*", r"\1.…", name) for name in names)
    listed = ", ".join(name.removeprefix(prefix) if prefix else f"--{name}" for name in shortest)
    text = f"and --{prefix}… with {listed}" if prefix else f"and {listed}"
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False) + "\n"
