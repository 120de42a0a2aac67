"""User's own modules that checkpoints and exports name, and their import: never from beside the file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.own_parts import forget, module_text
from tests.runs import fit
from vit_attn import parts
from vit_attn.checkpoints.io import read_card
from vit_attn.checkpoints.model_card import card_from_metadata
from vit_attn.checkpoints.own_parts import MOST, PARTS_KEY, import_stored_parts
from vit_attn.cli import main
from vit_attn.errors import UserError
from vit_attn.inference.network import open_network

OPTIONS = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a network without own parts."""
    return fit(tmp_path_factory.mktemp("plain"), *OPTIONS) / "checkpoints/last.ckpt"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Current folder with my_parts.py, which this process does not know."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_parts.py").write_text(module_text(), encoding="utf-8")
    forget()
    yield tmp_path
    forget()


def stored(source: Path, target: Path, arch: str | None, needed: Any) -> Path:
    """Write a checkpoint again that names other modules and, if given, another network."""
    checkpoint = torch.load(source, weights_only=True)
    if arch is not None:
        checkpoint["hyper_parameters"]["arch"] = arch
    checkpoint[PARTS_KEY] = needed
    torch.save(checkpoint, target)
    return target


def test_a_checkpoint_without_own_parts_names_none_and_imports_nothing(plain: Path, folder: Path, capsys):
    assert PARTS_KEY not in torch.load(plain, weights_only=True)
    before = dict(parts._IMPORTED), list(sys.path)
    card = read_card(plain)
    assert (card.parts, (parts._IMPORTED, sys.path)) == ({}, before)
    assert "parts" not in card.metadata()  # so that earlier versions read the export
    assert card_from_metadata(card.metadata(), "x").parts == {}
    assert "imported" not in capsys.readouterr().err


def test_an_export_keeps_the_names(plain: Path, folder: Path):
    path = stored(plain, folder / "one.ckpt", None, {"my_parts": ["network my_vit"]})
    card = read_card(path)
    assert card.parts == {"my_parts": ["network my_vit"]}
    assert card_from_metadata(card.metadata(), "x").parts == card.parts


def test_a_module_beside_the_checkpoint_is_never_imported(plain: Path, folder: Path):
    (folder / "evil_part.py").write_text("raise AssertionError('ran')")
    path = stored(plain, folder / "one.ckpt", "evil_vit", {"evil_part": ["network evil_vit"]})
    with pytest.raises(UserError) as error:
        open_network(str(path))
    assert "there is no module 'evil_part' in the current folder" in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "needed for the network evil_vit; another module that has it can be named with --import" in str(error.value)
    assert "evil_part" not in sys.modules


def test_a_missing_module_whose_parts_are_here_is_a_line_and_no_error(plain: Path, folder: Path, capsys):
    path = stored(plain, folder / "one.ckpt", None, {"gone_part": ["network vit_attn_tiny_patch4_32", "data set x"]})
    assert read_card(path).parts
    assert "there is no module 'gone_part'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "needed",
    [
        ["my_parts"],
        {"os; print": []},
        {"../up": []},
        {"my_parts": "network x"},
        {1: []},
        {f"m{number}": [] for number in range(MOST + 1)},
    ],
    ids=["list", "code", "path", "text", "number", "many"],
)
def test_names_that_are_none_are_refused_before_anything_is_imported(plain: Path, folder: Path, needed: Any):
    with pytest.raises(UserError, match="parts must be names of modules"):
        import_stored_parts(needed, "evil.ckpt")
    assert not parts._IMPORTED


def test_python_own_modules_are_never_imported_for_a_checkpoint(folder: Path, capsys):
    import_stored_parts({"antigravity": []}, "evil.ckpt")
    assert "antigravity" not in sys.modules
    assert "module of Python's own" in capsys.readouterr().err


def test_config_yaml_names_a_class_only_of_a_module_that_the_checkpoint_has_imported(plain: Path, folder: Path, capsys):
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    path = stored(plain, run / "checkpoints/last.ckpt", None, {})
    (run / "config.yaml").write_text("import: [my_parts]\ndata: {class_path: my_parts.StripesData, init_args: {}}\n")
    main(["validate", "--ckpt_path", str(path), "--trainer.limit_val_batches=1", "--data.dataset=coins"])
    assert "my_parts" not in sys.modules


def test_a_module_that_no_longer_has_what_was_used_of_it_is_named(plain: Path, folder: Path):
    path = stored(plain, folder / "one.ckpt", "old_vit", {"my_parts": ["network old_vit", "network my_vit"]})
    with pytest.raises(UserError) as error:
        open_network(str(path))
    message = "needs the network old_vit, and the module my_parts, which had it, no longer has it; another module"
    assert f"{path} {message}" in str(error.value)
