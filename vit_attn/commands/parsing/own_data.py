"""Options that name a data module of one's own, ``--data=my_parts.MyData``, as opposed to ``ImageData``."""

from collections.abc import Sequence
from pathlib import Path

from vit_attn.parts import NAME

CLASS_PATH = "data.class_path"
INIT_ARGS = "data.init_args."
FILES = (".yaml", ".yml", ".json")


def is_class_path(value: object) -> bool:
    """Tell whether a value of ``--data`` names a class, and not a file of settings.

    >>> is_class_path("my_parts.MyData"), is_class_path("data.yaml"), is_class_path("folder")
    (True, False, False)
    """
    if not isinstance(value, str) or value.endswith(FILES) or Path(value).exists():
        return False
    return "." in value and NAME.fullmatch(value) is not None


def split_option(options: Sequence[str], position: int) -> tuple[str, str | None, int]:
    """Split an option at a position of a command line.

    Args:
        options: The command line.
        position: Place of the option.

    Returns:
        Name without dashes, value, and the number of arguments that it takes.

    >>> split_option(["--data", "a.B"], 0), split_option(["--data=a.B"], 0)
    (('data', 'a.B', 2), ('data', 'a.B', 1))
    """
    name, equals, value = options[position].partition("=")
    name = name[2:] if name.startswith("--") else name
    if equals:
        return name, value, 1
    following = options[position + 1 : position + 2]
    return (name, following[0], 2) if following else (name, None, 1)


def names_own_data(options: Sequence[str]) -> bool:
    """Tell whether a command line names a data module of one's own; files that it names are not read."""
    for position, option in enumerate(options):
        if option.startswith((f"--{CLASS_PATH}", f"--{INIT_ARGS}")):
            return True
        if option.partition("=")[0] == "--data" and is_class_path(split_option(options, position)[1]):
            return True
    return False
