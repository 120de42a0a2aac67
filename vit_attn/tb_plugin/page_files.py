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


OF_EXPLORE = ("explore.js", "live/", "asking/", "data/live_source.js", "css/live.css", "css/asking.css")
"""Files of ``vit-attn explore``, which neither the tab nor an exported file has."""


def _list_files(folder: Traversable, ending: str, prefix: str = "") -> list[str]:
    """List the files with an ending in a folder and in those below it."""
    names = []
    for each in folder.iterdir():
        if each.is_dir():
            names += _list_files(each, ending, f"{prefix}{each.name}/")
        elif each.name.endswith(ending):
            names.append(f"{prefix}{each.name}")
    return sorted(names)


EXPLORE_STATIC = (
    dict.fromkeys(_list_files(STATIC_FOLDER, ".js"), "text/javascript")
    | dict.fromkeys(_list_files(STATIC_FOLDER, ".css"), "text/css")
    | {"guide.html": "text/html"}
)
"""Files of the page of ``vit-attn explore`` and their types: listed once, so that no path is ever joined from a
request, and explicit, since Windows guesses other types."""
STATIC = {name: kind for name, kind in EXPLORE_STATIC.items() if not name.startswith(OF_EXPLORE)}
"""Files of the tab."""


def read_static(name: str) -> bytes:
    """Read a file of the page; only names of ``EXPLORE_STATIC``."""
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
