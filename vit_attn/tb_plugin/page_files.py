"""Files of the page: their names, their types, and its modules in one."""

import posixpath
import re
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

STATIC_FOLDER = files("vit_attn.tb_plugin") / "static"
STYLES = tuple(f"css/{name}.css" for name in ("base", "words", "parts", "pictures", "sheet", "narrow", "views"))
"""Style sheets in their order, as in index.js."""
IMPORT = re.compile(r'^import \{[^}]*\} from "(\.{1,2}/[\w/.]+\.js)";\n', re.MULTILINE)


def _files(ending: str, folder: Traversable = STATIC_FOLDER, prefix: str = "") -> list[str]:
    """List the files of a kind in a folder and in those below it."""
    names = []
    for each in folder.iterdir():
        if each.is_dir():
            names += _files(ending, each, f"{prefix}{each.name}/")
        elif each.name.endswith(ending):
            names.append(f"{prefix}{each.name}")
    return sorted(names)


SCRIPTS = _files(".js")
OF_EXPLORE = ("explore.js", "asking/", "live/", "data/live_source.js")
"""Modules of ``vit-attn explore``, which neither the tab nor an exported file has."""
STATIC = (
    dict.fromkeys([name for name in SCRIPTS if not name.startswith(OF_EXPLORE)], "text/javascript")
    | dict.fromkeys(STYLES, "text/css")
    | {"guide.html": "text/html"}
)
"""Files of the page and their types: listed once, so that no path is ever joined from a request, and explicit, since
Windows guesses other types."""
EXPLORE_STATIC = STATIC | dict.fromkeys(SCRIPTS, "text/javascript") | dict.fromkeys(_files(".css"), "text/css")
"""Files that the server of ``vit-attn explore`` has."""


def read_static(name: str) -> bytes:
    """Read a file of the page; only names of ``STATIC`` and ``EXPLORE_STATIC``."""
    return STATIC_FOLDER.joinpath(name).read_bytes()


def bundle(read: Callable[[str], bytes] = read_static) -> str:
    """Bundle the page's modules, each after those it imports, without imports, so that a file needs no server."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        source = read(name).decode()
        for imported in IMPORT.findall(source):
            add(posixpath.normpath(posixpath.join(posixpath.dirname(name), imported)))
        done[name] = re.sub(r"^export ", "", IMPORT.sub("", source), flags=re.MULTILINE)

    add("index.js")
    return "".join(done.values())
