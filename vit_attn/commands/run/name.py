"""Names of runs, which become folders."""

from vit_attn.errors import UserError, printable

MAX_BYTES = 200
"""Length of a folder name; file systems allow 255, of which derived names need a part."""
FORBIDDEN = frozenset('<>:"|?*\\')
"""Characters that some file systems refuse, or read as part of another path."""


def check_run_name(name: str, option: str = "name") -> None:
    """Check that a name is a valid folder within that of all runs, perhaps nested as in ``ablation/no_mixup``.

    Args:
        name: Name of a run.
        option: Option of the name, for the message.

    Raises:
        UserError: If it is not.

    >>> check_run_name("ablation/no_mixup")
    >>> check_run_name("../elsewhere")
    Traceback (most recent call last):
    vit_attn.errors.UserError: name must name a folder within that of the runs, got '../elsewhere'
    """
    parts = name.split("/")
    if printable(name) != name or any(FORBIDDEN & set(part) for part in parts):
        raise UserError(
            f"{option} must have no control characters and none of {' '.join(sorted(FORBIDDEN))}, got {name!r}"
        )
    if any(part.strip() in ("", ".", "..") for part in parts):
        raise UserError(f"{option} must name a folder within that of the runs, got {name!r}")
    if any(len(part.encode("utf-8", "surrogateescape")) > MAX_BYTES for part in parts):
        raise UserError(f"{option} must have folders of at most {MAX_BYTES} bytes, got {name!r}")


def check_runs_folder(path: str) -> None:
    """Check that the folder of all runs is a valid path.

    Raises:
        UserError: If it is not.
    """
    if not path.strip() or printable(path) != path:
        raise UserError(f"runs must be the path of a folder, got {path!r}")
