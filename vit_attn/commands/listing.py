"""List of the commands, found without importing any."""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent


def find_commands(folder: Path = FOLDER) -> dict[str, str]:
    """Find the commands and their summaries: modules with a function ``run``, and the first line of their docstring.

    The files are parsed but not imported, since importing torch takes seconds.

    Args:
        folder: Folder of the modules.
    """
    commands = {}
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_bytes())
        if any(isinstance(each, ast.FunctionDef) and each.name == "run" for each in module.body):
            summary = (ast.get_docstring(module) or "").partition("\n")[0]
            commands[path.stem.replace("_", "-")] = summary.removesuffix(".")
    return commands
