"""Parts of the user's own: modules that register networks, score functions, methods or data sets, imported by name."""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path

from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, did_you_mean, one_line

GROUP = "vit_attn.parts"
"""Group of the entry points by which an installed package names its modules of parts."""
OPTION = "--import"
NAME = re.compile(r"[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,9}", re.ASCII)
"""Name of a module: plain identifiers between dots."""
OURS = "vit_attn"
_IMPORTED: dict[str, str] = {}


class NoSuchModule(UserError):
    """A module of parts that is neither in the current folder nor installed."""


def imported_parts() -> tuple[str, ...]:
    """Names of the modules of parts that this process has imported, but for those of installed packages' own."""
    return tuple(name for name, asker in _IMPORTED.items() if asker != GROUP)


def import_part(name: str, asker: str) -> None:
    """Import a module of parts from the current folder or from what is installed, and say so in a line.

    The current folder is searched last, so that no file in it hides an installed module.

    Args:
        name: Name of the module.
        asker: File or option that asks for it, for messages.

    Raises:
        NoSuchModule: If there is none.
        UserError: If the name is no module's, if a file in the current folder has the name of an installed module, or
            if the import fails; the message has the line of the user's file.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{asker}: a module's name is words with dots between, as my_parts, got {name!r:.120}")
    if name in _IMPORTED or name.partition(".")[0] == OURS:
        return
    _find(name, asker)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _one_line_errors(name, asker):
        module = importlib.import_module(name)
    _IMPORTED[name] = asker
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    where = _short(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "a package"))
    _say(f"{name} imported from {where}, {'an installed package' if asker == GROUP else f'for {asker}'}")
    if lines := printed.getvalue().strip().splitlines():
        more = f" and {len(lines) - 1:,} more lines" if len(lines) > 1 else ""
        _say(f"{name} printed while it was imported: {lines[0]:.200}{more}")


def import_installed() -> None:
    """Import the modules that installed packages name as entry points of the group ``vit_attn.parts``."""
    for point in entry_points(group=GROUP):
        import_part(point.module, GROUP)


def split_imports(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off the values of ``--import`` from a command line.

    Args:
        args: Arguments, in which the option may be anywhere and repeated.

    Returns:
        The other arguments, and the names of the modules.

    Raises:
        UserError: If a value is missing, or if it is the path of a file that cannot be imported by a name from here.

    >>> split_imports(["fit", "--import", "my_parts", "--name=a", "--import=more.parts"])
    (['fit', '--name=a'], ['my_parts', 'more.parts'])
    """
    others, names, waiting = [], [], False
    for arg in args:
        if waiting:
            names.append(arg)
            waiting = False
        elif arg == OPTION:
            waiting = True
        elif arg.startswith(f"{OPTION}="):
            names.append(arg.removeprefix(f"{OPTION}="))
        else:
            others.append(arg)
    if waiting or any(not name or name.startswith("-") for name in names):
        raise UserError(f"{OPTION} needs the name of a module, as in {OPTION} my_parts")
    return others, list(dict.fromkeys(map(_as_name, names)))


def _as_name(text: str) -> str:
    """Turn the path of a Python file or of a package below the current folder into the name of its module."""
    if not (text.endswith(".py") or "/" in text or os.sep in text):
        return text
    path, here = Path(text).resolve(), Path.cwd()
    path = path if path.exists() else path.with_name(f"{path.name}.py")
    if not path.exists():
        raise UserError(f"{OPTION} {text}: there is no such file; it takes the name of a module, as my_parts")
    module = path.parent if path.name == "__init__.py" else path.with_suffix("")
    if here not in path.parents:
        raise UserError(
            f"{OPTION} {text}: a module is imported by its name from the current folder: run this in {module.parent} "
            f"with {OPTION} {module.name}, or install it"
        )
    name = ".".join(module.relative_to(here).parts)
    if not NAME.fullmatch(name):
        raise UserError(f"{OPTION} {text}: its path must be of letters, digits and _ to be imported, as my_parts.py")
    return name


def _find(name: str, asker: str) -> None:
    """Find where a module is, and make the current folder importable if it is there.

    Raises:
        NoSuchModule: If it is nowhere.
        UserError: If it is in two places, or Python's own.
    """
    top, here = name.partition(".")[0], os.getcwd()
    local, elsewhere = PathFinder.find_spec(top, [here]), _installed(top, here)
    found = next((_short(spec.origin) for spec in (local,) if spec and spec.origin), None)
    if top in sys.stdlib_module_names:
        if found:
            raise UserError(f"{asker}: {found} has the name of a module of Python's own, {top}: rename it")
        raise UserError(f"{asker}: {name} is a module of Python's own, in which are no parts of a network")
    if found and elsewhere and elsewhere.origin and not _same(local, elsewhere):
        raise UserError(
            f"{asker}: {found} has the name of an installed module, {top} in {_short(elsewhere.origin)}: rename it"
        )
    if local is None and elsewhere is None:
        names = [path.stem for path in Path(here).glob("*.py")]
        raise NoSuchModule(
            f"{asker}: there is no module {name!r} in the current folder, {here}, nor installed"
            f"{did_you_mean(top, names)}; run this in the folder of {top}.py, or install it"
        )
    if local is not None and not {here, ""} & set(sys.path):
        sys.path.append(here)  # last, and passed on to the processes that are started from here


def _installed(top: str, here: str) -> ModuleSpec | None:
    """Find a module anywhere but in the current folder."""
    path = sys.path
    try:
        sys.path = [each for each in path if each and Path(each).resolve() != Path(here)]
        return importlib.util.find_spec(top)
    except ValueError:  # a module that is being run
        return None
    finally:
        sys.path = path


def _same(one: ModuleSpec | None, other: ModuleSpec) -> bool:
    return one is not None and os.path.realpath(one.origin or "") == os.path.realpath(other.origin or "")


@contextlib.contextmanager
def _one_line_errors(name: str, asker: str) -> Iterator[None]:
    """Turn any error of a user's module into one line with its file and line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise NoSuchModule(f"{asker}: there is no module {error.name!r}, which {name} would be in") from error
        place = _place(error)
        raise UserError(f"{asker}: {place} needs the module {error.name!r}, which is not installed") from error
    except SyntaxError as error:
        where = f"{_short(error.filename or name)}:{error.lineno}"
        raise UserError(f"{asker}: {where}: {error.msg} ({type(error).__name__})") from error
    except SystemExit as error:
        raise UserError(
            f"{asker}: {_place(error)} ends the program while {name} is imported: put what is to run as a script "
            'below `if __name__ == "__main__":`'
        ) from error
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{asker}: {_place(error)}: {kind}{error}") from error


def _place(error: BaseException) -> str:
    """Return file and line of an error, of the last frame in the user's own files."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [each for each in frames if not each.filename.startswith("<frozen") and each.filename != __file__]
    frames = [each for each in frames if not each.filename.startswith(os.path.dirname(importlib.__file__))]
    of_user = [each for each in frames if Path(each.filename).is_relative_to(Path.cwd())]
    of_user = [each for each in of_user if "site-packages" not in each.filename and _is_foreign(each.filename)]
    last = (of_user or frames or [None])[-1]
    return f"{_short(last.filename)}:{last.lineno}" if last else "it"


def _is_foreign(file: str) -> bool:
    return not Path(file).is_relative_to(Path(__file__).parent)


def _short(path: str | None) -> str:
    """Return a path relative to the current folder, if it is below it."""
    given = Path(path or "")
    return str(given.relative_to(Path.cwd())) if given.is_relative_to(Path.cwd()) else str(given)


def _say(text: str) -> None:
    CONSOLE.say(f"vit-attn: {one_line(text)}", sys.stderr)
