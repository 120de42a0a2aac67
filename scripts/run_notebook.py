"""Run docs/notebook.ipynb and store its outputs: `.venv/bin/python scripts/run_notebook.py`.

Its last output is the page, with the scripts of this version: run it again when these change.
"""

import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs/notebook.ipynb"
SETTINGS = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore:IProgress not found"}
"""Environment of the kernel: this checkout, and no word about the bars of notebooks, which tqdm misses."""
SECONDS = 300
"""Longest time that a cell may take; a machine that does other work imports torch in a minute."""


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run all cells in a new kernel; the notebook has their outputs then.

    Raises:
        CellExecutionError: If a cell fails.
    """
    options = {"timeout": SECONDS, "kernel_name": "python3", "record_timing": False, "coalesce_streams": True}
    client = NotebookClient(notebook, **options)
    client.execute(cwd=NOTEBOOK.parent, env=os.environ | SETTINGS)
    return notebook


def main() -> None:
    """Run the notebook and write it, without what differs from machine to machine."""
    stored: Any = nbformat.read(NOTEBOOK, as_version=4)
    notebook = run(stored)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
