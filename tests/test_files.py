import os
import resource
import threading
from pathlib import Path

import pytest
import torch

from vit_attn import files
from vit_attn.files import WriteError, check_folder, whole_file
from vit_attn.training.checkpoint_io import WholeCheckpointIO


@pytest.fixture
def full_disk():
    """Lets this process write files of 50 kB and no larger ones, as a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_has_its_old_content_until_the_new_one_is_complete(tmp_path: Path):
    path = tmp_path / "new" / "a.bin"
    for content in (b"first", b"second"):
        with whole_file(path) as file:
            file.write(content)
            assert path.exists() == (content == b"second")
            assert content == b"first" or path.read_bytes() == b"first"
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.bin"]


def test_what_is_renamed_is_on_the_disk_and_so_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names)))
    with whole_file(tmp_path / "a.bin") as file:
        file.write(b"content")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_breaks_off_leaves_the_old_content_and_no_litter(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_is_named_and_leaves_the_checkpoint_of_before(tmp_path: Path, full_disk):
    path, small, large = tmp_path / "last.ckpt", {"a": torch.zeros(10)}, {"a": torch.zeros(100_000)}
    WholeCheckpointIO().save_checkpoint(small, path)
    with pytest.raises(WriteError, match=rf"checkpoint {path} could not be written: the file is larger .* \(disk /"):
        WholeCheckpointIO().save_checkpoint(large, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], small["a"])
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_lost_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"a": torch.zeros(1)}, path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WriteError, match="could not be written: no permission"):
        WholeCheckpointIO().save_checkpoint({"a": torch.ones(1)}, path)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert torch.load(path, weights_only=True)["a"].item() == 0


def test_nothing_is_staged_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir(mode=0o500)
    monkeypatch.setenv("TMPDIR", str(elsewhere / "missing"))
    WholeCheckpointIO().save_checkpoint({"a": torch.zeros(1)}, tmp_path / "run" / "last.ckpt")
    assert os.listdir(tmp_path / "run") == ["last.ckpt"]
    assert os.listdir(elsewhere) == []


def test_a_process_that_ends_at_once_removes_what_it_was_writing(tmp_path: Path):
    path, written, removed = tmp_path / "a.bin", threading.Event(), threading.Event()

    def write() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            written.set()
            removed.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert written.wait(10)
    assert os.listdir(tmp_path) == ["a.bin.unfinished"]
    files.remove_pending()
    assert os.listdir(tmp_path) == []
    path.with_name("a.bin.unfinished").touch()  # what is renamed, so that the thread ends well
    removed.set()
    thread.join()


def test_a_folder_without_room_is_refused(tmp_path: Path):
    check_folder(tmp_path / "new", 1000)
    with pytest.raises(WriteError, match=r"has too little room: checkpoints need 1000000.00 GB \(disk /"):
        check_folder(tmp_path, 10**15)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written to"):
        check_folder(tmp_path / "file", 0)
    assert sorted(os.listdir(tmp_path)) == ["file", "new"]
