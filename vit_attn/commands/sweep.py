"""Search for settings with Optuna; trials that fall behind are pruned.

This module has the options; ``vit_attn.commands.sweeping`` has the trials.
"""

import importlib.util

from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter
from vit_attn.commands.parsing.shipped_configs import resolve_shipped
from vit_attn.errors import UserError

DESCRIPTION = """\
Train with different settings, and find those with the best validation accuracy. Each trial is a run of `fit` with all
options that are given here and are not those below:

  vit-attn sweep -c configs/quickstart.yaml --param model.lr=log:1e-3..1e-1 --trials 20

After each validation a trial is compared with the earlier ones at the same validation. If it is below their median, it
ends there (pruned). The trial's runs are in RUNS/NAME/NUMBER, and TensorBoard's HParams tab compares them. If the sweep
is stopped or killed, the same command goes on, within the trial that was under way. Started several times at once, such
as once per GPU with its own --trainer.devices=[0], the same command shares the trials. It needs `pip install
'vit_attn[sweep]'`.
"""
REFUSED = {
    "--resume": "a sweep resumes its own trials: repeat the command",
    "--ckpt_path": "a trial starts anew: to start from weights, --model.weights",
    "--print_config": "see `vit-attn fit --print_config`",
}
"""Options of ``fit`` that a sweep cannot have."""


def make_parser() -> CommandParser:
    """Parser of the options of ``sweep`` that are not those of ``fit``."""
    options = CommandParser(
        prog="vit-attn sweep",
        usage="vit-attn sweep --param NAME=VALUES [--param …] [--trials N] [options of fit]",
        description=DESCRIPTION,
        formatter_class=ParagraphHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="setting to search: LOW..HIGH, whole numbers if both are; log:LOW..HIGH, drawn evenly by orders of "
        "magnitude; or VALUE,VALUE. Can be repeated",
    )
    add("--trials", type=int, default=20, metavar="N", help="trials in all, with earlier ones (default: 20)")
    add("--prune", choices=("median", "none"), default="median", help="which trials end early (default: median)")
    add("--name", default="sweep", help="name of the sweep, and folder of its runs (default: sweep)")
    add("--runs", default="runs", metavar="FOLDER", help="folder of all runs (default: runs)")
    return options


def run(command: str, options: list[str]) -> int:
    """Run the command.

    Args:
        command: ``sweep``.
        options: Command line after the command's name.

    Returns:
        The exit code.

    Raises:
        UserError: If the options are wrong, or Optuna is not installed.
    """
    args, fit_options = make_parser().parse_known_args(options)
    for option in fit_options:
        if reason := REFUSED.get(option.partition("=")[0]):
            raise UserError(f"sweep has no {option.partition('=')[0]}: {reason}")
    if not args.param:
        raise UserError("sweep needs a setting to search: --param NAME=VALUES, as in --param model.lr=log:1e-4..1e-2")
    if args.trials < 1:
        raise UserError(f"--trials must be at least 1, got {args.trials}")
    from vit_attn.commands.sweeping.search_space import parse_parameter  # jsonargparse takes 0.1 s

    parameters = [parse_parameter(text) for text in args.param]
    names = [each.name for each in parameters]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UserError(f"--param: {', '.join(sorted(repeated))} is given twice")
    if importlib.util.find_spec("optuna") is None:
        raise UserError("sweep needs Optuna: pip install 'vit_attn[sweep]'")
    fit_options = resolve_shipped(fit_options)
    from vit_attn.commands.sweeping.study import Sweep  # torch and Optuna take seconds
    from vit_attn.commands.sweeping.trials import run_sweep

    return run_sweep(Sweep(tuple(parameters), tuple(fit_options), args.name, args.runs, args.trials, args.prune))
