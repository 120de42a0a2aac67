"""Names of runs, which become folders."""

from vit_attn.errors import UserError, printable

MOST_BYTES = 200
"""Of a folder's name; file systems take 255, of which what is made of the name needs a part."""
FORBIDDEN = frozenset('<>:"|?*\\')
"""What some file systems do not take, or take for another folder."""


def check_run_name(name: str, what: str = "name") -> None:
    """Refuse a name whose folder would lie outside that of all runs, or cannot be made.

    It may have folders of its own, such as ``ablation/no_mixup``.

    Args:
        name: The name.
        what: The option that it comes from.

    Raises:
        UserError: If so.

    >>> check_run_name("ablation/no_mixup")
    >>> check_run_name("../elsewhere")
    Traceback (most recent call last):
    vit_attn.errors.UserError: name must name a folder within that of the runs, got '../elsewhere'
    """
    parts = name.split("/")
    if printable(name) != name or any(FORBIDDEN & set(part) for part in parts):
        raise UserError(
            f"{what} must have no control characters and none of {' '.join(sorted(FORBIDDEN))}, got {name!r}"
        )
    if any(part.strip() in ("", ".", "..") for part in parts):
        raise UserError(f"{what} must name a folder within that of the runs, got {name!r}")
    if any(len(part.encode("utf-8", "surrogateescape")) > MOST_BYTES for part in parts):
        raise UserError(f"{what} must have folders of at most {MOST_BYTES} bytes, got {name!r}")


def check_runs_folder(path: str) -> None:
    """Refuse a folder of all runs that is no path.

    Raises:
        UserError: If so.
    """
    if not path.strip() or printable(path) != path:
        raise UserError(f"runs must be the path of a folder, got {path!r}")
