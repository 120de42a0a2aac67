from pathlib import Path

import pytest
import torch

from vit_attn.cli import main
from vit_attn.commands.run.trainer_errors import one_line_errors
from vit_attn.data.datasets import coins
from vit_attn.errors import UserError
from vit_attn.task import Classifier

FIT = [
    *("fit", "--data.dataset=coins", "--data.batch_size=8", "--attention.num_images=0"),
    *("--model.arch=vit_attn_coins_patch4_32", "--model.arch_options={depth: 1, embed_dim: 16, num_heads: 1}"),
    *("--trainer.enable_progress_bar=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"),
]


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for split in coins.SIZES:
        monkeypatch.setitem(coins.SIZES, split, 64)


def line_of(capsys: pytest.CaptureFixture, *options: str) -> str:
    assert main([*FIT, *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vit-attn: ")]
    return line


def test_a_setting_that_lightning_refuses_during_setup_is_a_one_line_error(capsys, monkeypatch: pytest.MonkeyPatch):
    output = line_of(capsys, "--trainer.val_check_interval=1000")
    assert "Lightning cannot do this: `val_check_interval` (1000) must be less than or equal to the number of" in output
    assert output.endswith("(VIT_ATTN_TRACEBACK=1 shows where)")
    monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", False)
    assert "`psutil` is not installed" in line_of(capsys, "--trainer.callbacks=DeviceStatsMonitor")
    monkeypatch.setenv("VIT_ATTN_TRACEBACK", "1")
    with pytest.raises(UserError) as found:
        main([*FIT, "--trainer.val_check_interval=1000"])
    assert isinstance(found.value.__cause__, ValueError)


def test_out_of_memory_is_a_one_line_error_with_the_step(capsys, monkeypatch: pytest.MonkeyPatch):
    step = Classifier.training_step

    def greedy(task, batch, batch_idx):
        if batch_idx == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand advice")
        return step(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", greedy)
    output = line_of(capsys)
    assert "out of memory in step 2: set a smaller --data.batch_size, or a smaller network (CUDA out of m" in output


def test_a_failing_gpu_is_a_one_line_error_that_says_how_to_find_the_cause(capsys, monkeypatch: pytest.MonkeyPatch):
    def failing(*_args):
        raise RuntimeError("CUDA error: device-side assert triggered\nand advice")

    monkeypatch.setattr(Classifier, "training_step", failing)
    assert "the GPU failed in step 1 (CUDA error: device-side assert triggered): to see where, run again" in line_of(
        capsys
    )


def test_out_of_memory_is_a_one_line_error_in_other_commands(capsys, monkeypatch: pytest.MonkeyPatch):
    def greedy(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("vit_attn.inference.images.find_images", greedy)
    assert main(["attend", "a.png"]) == 1
    output = capsys.readouterr().err
    assert output == "vit-attn: out of memory: take fewer images at a time (CUDA out of memory.)\n"


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyError, TypeError])
def test_bugs_of_this_package_keep_their_traceback(error, monkeypatch: pytest.MonkeyPatch):
    def broken(*_args):
        raise error("a mistake of ours")

    monkeypatch.setattr(Classifier, "training_step", broken)
    with pytest.raises(error, match="a mistake of ours"):
        main(FIT)

    def torchs(*_args):
        return torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setattr(Classifier, "training_step", torchs)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        main(FIT)


def test_one_line_errors_pass_unchanged():
    for error in (UserError("one line"), FileNotFoundError("a.ckpt")):
        with pytest.raises(type(error)) as found, one_line_errors():
            raise error
        assert found.value is error
