from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vit_attn.checkpoints import io
from vit_attn.checkpoints.io import read_checkpoint, read_safetensors
from vit_attn.errors import UserError


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The options of each call of ``torch.load``."""
    calls, load = [], torch.load

    def counted(*args, **options):
        calls.append(options)
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", counted)
    return calls


def test_a_file_is_read_once_until_it_changes_and_never_run(tmp_path: Path, loads: list[dict]):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}}, path)
    for name in (path, str(path), path.parent / "." / "a.ckpt"):
        assert torch.equal(read_checkpoint(name)["state_dict"]["a"], torch.ones(2))
    assert loads == [{"map_location": "cpu", "weights_only": True, "mmap": True}]
    torch.save({"state_dict": {"b": torch.zeros(3)}}, tmp_path / "next")
    (tmp_path / "next").replace(path)
    assert list(read_checkpoint(path)["state_dict"]) == ["b"]
    assert len(loads) == 2


def test_what_a_caller_does_to_its_dictionaries_is_its_own(tmp_path: Path):
    net = torch.nn.Linear(2, 2)
    torch.save({"state_dict": net.state_dict(), "loops": {"fit": {"steps": [1, 2]}}}, tmp_path / "a.ckpt")
    mine = read_checkpoint(tmp_path / "a.ckpt")
    mine["loops"]["fit"]["steps"].append(3)
    mine.pop("loops")["fit"].clear()
    del mine["state_dict"]["weight"]
    other = read_checkpoint(tmp_path / "a.ckpt")
    assert other["loops"] == {"fit": {"steps": [1, 2]}}
    assert other["state_dict"]._metadata == net.state_dict()._metadata
    net.load_state_dict(other["state_dict"])


def test_no_more_than_two_files_are_kept(tmp_path: Path, loads: list[dict]):
    for number in range(3):
        torch.save({"a": number}, tmp_path / str(number))
    assert [read_checkpoint(tmp_path / str(number))["a"] for number in (0, 1, 0, 1, 2, 0)] == [0, 1, 0, 1, 2, 0]
    assert len(loads) == 4


def test_files_of_old_torch_are_read_without_a_map(tmp_path: Path, loads: list[dict]):
    torch.save({"a": torch.arange(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "a.pth")["a"].tolist() == [0, 1, 2]
    assert [each["mmap"] for each in loads] == [False]


def test_safetensors_are_opened_once_for_header_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened, safe_open = [], io.safetensors.safe_open
    monkeypatch.setattr(io.safetensors, "safe_open", lambda *args: opened.append(args) or safe_open(*args))
    save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors", {"said": "so"})
    for _ in range(2):
        metadata, tensors = read_safetensors(tmp_path / "a.safetensors")
        assert (metadata["said"], tensors.pop("a").tolist()) == ("so", [0, 1, 2])
    assert len(opened) == 1


def test_a_file_that_was_cut_anywhere_is_refused_by_its_name(tmp_path: Path):
    torch.save({"state_dict": {"a": torch.ones(20)}}, tmp_path / "whole.ckpt")
    save_file({"a": torch.ones(20)}, tmp_path / "whole.safetensors")
    for ending, read in (("ckpt", read_checkpoint), ("safetensors", read_safetensors)):
        whole, cut = (tmp_path / f"whole.{ending}").read_bytes(), tmp_path / f"cut.{ending}"
        for length in [0, 1, 3, 4, 5, *range(10, len(whole), 37), len(whole) - 1]:
            cut.write_bytes(whole[:length])
            with pytest.raises(UserError, match=rf"^{cut} (is not a whole|holds no weights|is empty)"):
                read(cut)


def test_what_is_no_file_of_weights_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save(torch.zeros(3), tmp_path / "bare.pt")
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    monkeypatch.chdir(tmp_path)
    for name, message in (
        ("none.ckpt", "file not found: none.ckpt"),
        (".", r"is a folder without a checkpoint; name the folder of a run"),
        ("bare.pt", "bare.pt holds no weights by name, as a checkpoint does, but a Tensor"),
        ("list.pt", "list.pt holds no weights by name, as a checkpoint does, but a list"),
        ("a.zip", "a.zip is not a whole checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            read_checkpoint(name)


def test_a_file_without_permission_is_named_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def forbidden(path, *_args):
        raise PermissionError(13, "Permission denied", str(path))

    torch.save({}, tmp_path / "a.ckpt")
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(PermissionError, match=r"Permission denied: .*a\.ckpt"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_an_export_for_other_programs_is_refused_with_what_to_name_instead(tmp_path: Path, name):
    (tmp_path / name).write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(UserError, match="export for other programs; name the run, or"):
        read_checkpoint(tmp_path / name)
