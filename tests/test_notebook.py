"""The notebook of the documentation: it runs, and its stored outputs are of the kinds that it gives."""

import copy
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.test_docs import ROOT, script

pytestmark = pytest.mark.slow  # starts a kernel
NOTEBOOK = ROOT / "docs/notebook.ipynb"
MOST_BYTES = 700_000
"""The page is in it once."""


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: Any) -> list[list[list[str]]]:
    """Kinds of each cell's outputs: the stream, or the types of what is shown."""
    return [
        [[each.name] if each.output_type == "stream" else sorted(each.get("data", ["error"])) for each in cell.outputs]
        for cell in code_cells(notebook)
    ]


def test_every_cell_was_run_in_order_and_the_file_is_small(stored):
    nbformat.validate(stored)
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(each for each in kinds(stored))
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    (shown,) = cells[-1].outputs
    assert shown.data["text/html"].startswith("<iframe ")


def test_no_stored_output_is_an_error_or_a_warning_or_names_a_machine(stored):
    known = {"stdout", "text/html", "text/plain", "image/png", "image/jpeg"}  # pictures come in both
    assert {kind for cell in kinds(stored) for output in cell for kind in output} <= known
    text = NOTEBOOK.read_text(encoding="utf-8")
    folders = {
        str(each) for each in (Path.home(), ROOT, ROOT.parent, Path(tempfile.gettempdir())) if each.parent != each
    }
    assert not [folder for folder in folders if folder in text]


def test_running_it_again_gives_outputs_of_the_same_kinds_words_and_numbers(stored):
    again = script("run_notebook").run(copy.deepcopy(stored))
    assert kinds(again) == kinds(stored)
    for new, old in zip(code_cells(again)[:-1], code_cells(stored)[:-1], strict=True):
        for here, there in zip(new.outputs, old.outputs, strict=True):
            words, numbers = split(here.get("text", ""))
            assert words == split(there.get("text", ""))[0], new.source
            assert numbers == pytest.approx(split(there.get("text", ""))[1], abs=0.0021), new.source


def split(text: str) -> tuple[list[str], list[float]]:
    """Words and numbers; the last digit of a number may be another on another processor."""
    return re.split(r"[\d.]*\d", text), [float(each) for each in re.findall(r"[\d.]*\d", text)]
