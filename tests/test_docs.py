import doctest
import importlib.util
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vit_attn.data.images.image_file import FORMATS
from vit_attn.model import VisionTransformer
from vit_attn.model.scores import AFFINITIES

ROOT = Path(__file__).parent.parent
ATTENTION = ROOT / "docs/attention.md"


@pytest.fixture
def registry() -> Iterator[dict]:
    """The affinities, put back as they were after the test, whatever it names in them."""
    known = dict(AFFINITIES)
    yield AFFINITIES
    AFFINITIES.clear()
    AFFINITIES.update(known)


@pytest.fixture
def forms_on_coins(registry: dict) -> ModuleType:
    return script("forms_on_coins")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_number_of_the_story_is_what_its_code_computes(registry: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    known = dict(registry)
    without_fences = re.sub(r"^```.*$", "", ATTENTION.read_text(), flags=re.MULTILINE)  # lines keep their numbers
    story = doctest.DocTestParser().get_doctest(without_fences, {}, ATTENTION.name, str(ATTENTION), 0)
    assert len(story.examples) > 50
    assert doctest.DocTestRunner(verbose=False).run(story).failed == 0
    assert registry == known


def test_the_table_of_forms_is_what_was_measured(forms_on_coins: ModuleType):
    rows = forms_on_coins.read(ROOT / "docs/measured/forms_on_coins.csv")
    assert {row["form"] for row in rows} == set(forms_on_coins.FORMS)
    assert forms_on_coins.table(rows) in ATTENTION.read_text()


def test_the_first_figure_computes_the_three_totals():
    texts = [text.get_text() for axes in script("draw_attention").borrowing().axes for text in axes.texts]
    assert {"416 + 100 = 516", "416 + 110 = 526", "416 + 109.1 = 525.1"} <= set(texts)


@pytest.mark.parametrize("path", sorted({*re.findall(r"\]\((images/[^)]+)\)", ATTENTION.read_text())}))
def test_the_figures_exist_and_are_small(path: str):
    assert (ATTENTION.parent / path).stat().st_size < 150_000


def test_the_options_of_the_story_are_the_networks():
    named = set(re.findall(r"`(\w+)=[\w.]+`", ATTENTION.read_text()))
    assert {"affinity", "normaliser", "top_k", "window", "global_pool", "num_heads", "pos_embed"} <= named
    assert named <= set(inspect.signature(VisionTransformer).parameters)


def test_the_paths_of_the_story_exist():
    paths = set(re.findall(r"(?:configs|scripts|docs|vit_attn)/[\w/]+\.\w+", ATTENTION.read_text()))
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_to_files_and_headings(page: str):
    text = (ROOT / "docs" / page).read_text()
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        target = ROOT / "docs" / (path or page)
        assert target.exists(), path
        assert not anchor or anchor in headings(target.read_text()), f"{path}#{anchor}"


def headings(text: str) -> set[str]:
    """Anchors that GitHub gives the headings."""
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)", text, re.M)}


def test_the_layers_of_the_architecture_are_the_linters():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["type"] == "layers"]
    rows = re.findall(r"^\| \d+ \| ([^|]+) \|", (ROOT / "docs/architecture.md").read_text(), re.M)
    assert [set(re.findall(r"\w+", row)) for row in rows] == [
        set(re.findall(r"\w+", each)) for each in contract["layers"]
    ]


def test_the_rooms_of_the_architecture_exist():
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = {path for path in re.findall(r"`([\w/]+(?:/|\.py))`", text) if not path.startswith("static")}
    assert len(rooms) > 15
    names = {path.relative_to(ROOT / "vit_attn").as_posix() for path in (ROOT / "vit_attn").rglob("*")}
    for room in rooms:
        if room.startswith(("tests/", "scripts/")):
            assert (ROOT / room).exists(), room
            continue
        path = room.removeprefix("vit_attn/").rstrip("/")
        assert path in names or any(name.endswith(f"/{path}") for name in names), room


def test_the_rooms_of_the_figure_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    figure = script("draw_architecture")
    rooms = {room for steps in figure.WALKS.values() for room, _ in steps} - {"files"}
    assert all((ROOT / "vit_attn" / room).is_dir() or (ROOT / f"vit_attn/{room}.py").is_file() for room in rooms)


@pytest.mark.parametrize("page", ["security", "reliability"])
def test_every_threat_and_fault_names_tests_that_exist(page: str):
    text = (ROOT / f"docs/{page}.md").read_text()
    rows = [line for line in text.partition("## Measured")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        paths = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert paths, row
        assert all((ROOT / path).is_file() for path in paths), row


def test_the_formats_that_are_read_are_those_of_the_page():
    text = (ROOT / "docs/security.md").read_text().replace(" ", "").upper()
    assert all(name in text for name in FORMATS)
