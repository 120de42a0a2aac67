"""Print the script by which bash or zsh completes commands and options."""

import sys

from vit_attn.commands.listing import find_commands
from vit_attn.commands.parsing.completion_scripts import bash_script, zsh_script
from vit_attn.commands.parsing.completions import completions_of, takes_files
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter

SHELLS = ("bash", "zsh")
DESCRIPTION = """\
Print a script by which Tab completes commands, options by their groups, values and files:

  vit-attn completion bash > ~/.vit-attn.bash
  echo "source ~/.vit-attn.bash" >> ~/.bashrc
  source ~/.vit-attn.bash

With zsh, name zsh and ~/.zshrc. The script holds all options, so Tab starts no Python; print it again after an upgrade.
"""


def make_parser() -> CommandParser:
    """Parser of the options of ``completion``."""
    parser = CommandParser(
        prog="vit-attn completion", description=DESCRIPTION, formatter_class=ParagraphHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("shell", choices=SHELLS, help="shell that reads the script")
    return parser


def run(command: str, options: list[str]) -> int:
    """Print the script.

    Args:
        command: ``completion``.
        options: Arguments after the command.

    Returns:
        The exit code.
    """
    shell = make_parser().parse_args(options).shell
    summaries = find_commands()
    known = {name: completions_of(name) for name in summaries}
    files = [name for name in summaries if name != command and takes_files(name)]
    script = bash_script(known, files) if shell == "bash" else zsh_script(known, files, summaries)
    sys.stdout.write(script)
    return 0
