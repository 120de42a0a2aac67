"""Fonts of figures: DejaVu Sans, and for characters that it lacks the fonts of the system that have them."""

import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont, features

from vit_attn.console import CONSOLE

DEFAULT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
PREFERRED = (
    *("notosanscjk", "sourcehansans", "wqy-microhei", "wqy-zenhei", "droidsansfallback", "pingfang", "hiragino"),
    *("msyh", "yugoth", "meiryo", "malgun", "applesdgothic", "notosans", "nirmala", "arialuni", "arial unicode"),
    *("symbola", "notoemoji"),
)
"""Beginnings of the file names of fonts without serifs, the ones to look into first."""
STYLED = re.compile(r"bold|black|heavy|medium|light|thin|italic|oblique|serif|mono|condensed|color", re.IGNORECASE)
"""Parts of the names of files to look into last."""
SHAPED = re.compile("[\u0590-\u08ff\u0900-\u109f\u1780-\u17ff\u200d]")
"""Characters that are drawn by their neighbours or from the right: Hebrew, Arabic, Indic scripts, Thai, Khmer."""
INVISIBLE = re.compile("[\u200b-\u200f\ufe00-\ufe0f\ud800-\udfff]")
"""Joiners and selectors, which need no glyph, and bytes of a file's name that are no text, which have none."""
Coverage = Callable[[Path], frozenset[int]]


@functools.lru_cache(maxsize=64)
def coverage(path: Path) -> frozenset[int]:
    """Return the characters of a font; none for a file that is not read, such as one of coloured bitmaps."""
    try:
        font = FT2Font(str(path))
        characters = frozenset(font.get_charmap())
        ImageFont.truetype(str(path), 20)
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return characters


def choose_fonts(characters: Iterable[str], paths: Iterable[Path], covers: Coverage = coverage) -> list[Path]:
    """Choose fonts that have characters, as few as their order allows.

    Args:
        characters: Characters that must be drawn.
        paths: Files of fonts.
        covers: Returns the characters of a font.
    """
    missing, chosen = set(map(ord, characters)), []
    for path in sorted(paths, key=_rank):
        if not missing:
            break
        if found := missing & covers(path):
            chosen.append(path)
            missing -= found
    return chosen


def fonts_for(text: str) -> tuple[Path, ...]:
    """Return the fonts for a text: DejaVu Sans, then those for what it lacks; the system is searched once for each.

    The first characters that no font has are reported, once in a process.

    Args:
        text: The text.
    """
    missing = frozenset(INVISIBLE.sub("", text)) - _default_characters() - frozenset("\n\t")
    return (DEFAULT, *_fallbacks(missing)) if missing else (DEFAULT,)


def font_families(texts: Iterable[str]) -> list[str]:
    """Return the families for ``font.family`` of matplotlib with which texts can be drawn.

    Args:
        texts: All texts of a figure.
    """
    families = []
    for path in fonts_for("".join(texts)):
        if path != DEFAULT and not any(entry.fname == str(path) for entry in fontManager.ttflist):
            fontManager.addfont(str(path))
        families.append(FT2Font(str(path)).family_name)
    return families


def runs(text: str, size: float) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """Divide a line of text into parts that a single font can draw.

    Args:
        text: The line.
        size: Size of the font in pixels.
    """
    paths = fonts_for(text)
    if len(paths) == 1:
        return [(text, load_font(DEFAULT, size, _needs_shaping(text)))]
    parts = ((path, "".join(part)) for path, part in itertools.groupby(text, _font_of(paths)))
    return [(part, load_font(path, size, _needs_shaping(part))) for path, part in parts]


def text_length(line: str, size: float) -> float:
    """Return the width of a line of text in pixels.

    Args:
        line: The line.
        size: Size of the font in pixels.
    """
    return sum(font.getlength(part) for part, font in runs(line, size))


@functools.lru_cache(maxsize=64)
def load_font(path: Path, size: float, shaping: bool = False) -> ImageFont.FreeTypeFont:
    """Load a font.

    Args:
        path: Its file.
        size: Size in pixels.
        shaping: Whether characters are shaped by their neighbours, and run from the right where their script does.
    """
    engine = ImageFont.Layout.RAQM if shaping else ImageFont.Layout.BASIC
    return ImageFont.truetype(str(path), size, layout_engine=engine)


def _needs_shaping(text: str) -> bool:
    return bool(SHAPED.search(text) and features.check("raqm"))


def _font_of(paths: Sequence[Path]) -> Callable[[str], Path]:
    """Return a function that finds the first font with a character; what needs none stays in the font before it."""
    current = paths[0]

    def find(character: str) -> Path:
        nonlocal current
        if not INVISIBLE.match(character):
            current = next((path for path in paths if ord(character) in coverage(path)), DEFAULT)
        return current

    return find


@functools.lru_cache(maxsize=1)
def _default_characters() -> frozenset[str]:
    return frozenset(map(chr, coverage(DEFAULT)))


@functools.lru_cache(maxsize=1024)
def _fallbacks(missing: frozenset[str]) -> tuple[Path, ...]:
    """Choose fonts for characters, from those that are in use first, and report the characters that no font has."""
    chosen = choose_fonts(missing, _known_fonts())
    known = frozenset().union(*map(coverage, chosen)) if chosen else frozenset()
    lost = sorted(each for each in missing if ord(each) not in known)
    if lost and not _REPORTED:
        _REPORTED.extend(lost)
        CONSOLE.say(
            f"figures: no font of this system has {' '.join(lost[:10])}; such characters are drawn as boxes: install "
            "a font, such as the package fonts-noto-cjk (Chinese, Japanese, Korean) or fonts-noto-core (others)",
            sys.stderr,
        )
    return tuple(chosen)


_REPORTED: list[str] = []
"""Characters that were reported; the names of other classes lack the next ones, so one report is enough."""


@functools.lru_cache(maxsize=1)
def _known_fonts() -> tuple[Path, ...]:
    """List the fonts of the system, as they are now and not as matplotlib's cache has them."""
    return tuple(sorted({*map(Path, findSystemFonts()), *_bundled()}))


def _bundled() -> Iterator[Path]:
    """List other fonts that matplotlib was told of."""
    return (Path(entry.fname) for entry in fontManager.ttflist if Path(entry.fname).parent != DEFAULT.parent)


def _rank(path: Path) -> tuple[bool, int, str]:
    """Rank a font: without a style, then by the preferred names, then by name."""
    name = path.name.lower().replace("-", "") if path.name.lower().startswith("noto") else path.name.lower()
    place = next((at for at, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
    return bool(STYLED.search(path.stem)), place, str(path)
