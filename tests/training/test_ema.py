import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.testing import assert_close

from tests.runs import fit, main, read
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.task import Classifier
from vit_attn.training.ema import EMA


class Weights(L.Callback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Copy them."""
        self.after.append({name: tensor.detach().clone() for name, tensor in pl_module.named_parameters()})


def trained(callbacks: list[L.Callback], **settings) -> Classifier:
    L.seed_everything(0)
    task = Classifier(arch_options={"depth": 1, "embed_dim": 16, "num_heads": 2}, **settings)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=ImageData("coins", batch_size=16))
    return task


def test_the_average_that_is_left_is_the_recursion_over_the_steps():
    steps = Weights()
    task = trained([steps], ema=0.9)
    average = steps.after[0]
    for after in steps.after[1:]:
        average = {name: 0.9 * tensor + 0.1 * after[name] for name, tensor in average.items()}
    assert len(steps.after) == 4
    for name, parameter in task.named_parameters():
        assert_close(parameter.detach(), average[name], rtol=0, atol=1e-6)
    assert not torch.equal(task.get_parameter("net.head.weight"), steps.after[-1]["net.head.weight"])


def test_a_setting_averages_as_the_callback_does():
    ours, theirs = trained([], ema=0.5), trained([EMA(0.5)])
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


STOP = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]


def test_a_list_of_callbacks_does_not_take_the_average_away(tmp_path: Path):
    run = fit(tmp_path, "--model.ema=0.5", *STOP, "--trainer.max_epochs=1")
    checkpoint = read(run)
    assert checkpoint["hyper_parameters"]["ema"] == 0.5
    assert any(name.startswith("EarlyStopping") for name in checkpoint["callbacks"])
    raw = checkpoint["current_model_state"]
    assert any(not torch.equal(tensor, raw[name]) for name, tensor in checkpoint["state_dict"].items())


def test_an_average_is_tested_as_it_was_saved(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = fit(tmp_path, "--model.ema=0.5", "--trainer.max_epochs=1")
    assert main(["test", f"--model={run / 'checkpoints' / 'last.ckpt'}"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_an_error_in_validation_leaves_the_weights_and_not_their_average():
    class Fails(L.Callback):
        def on_validation_batch_end(self, trainer, *_) -> None:
            if not trainer.sanity_checking:
                raise ValueError("in validation")

        def on_exception(self, trainer, pl_module, exception) -> None:
            self.left = {name: each.detach().clone() for name, each in pl_module.named_parameters()}

    steps, fails = Weights(), Fails()
    with pytest.raises(ValueError, match="in validation"):
        trained([steps, fails], ema=0.5)
    assert_close(fails.left, steps.after[-1], rtol=0, atol=0)


def test_the_average_goes_on_as_lightnings_does_and_resumes_from_its_checkpoints(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # no trainer is needed
    net, theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)), EMAWeightAveraging(decay=0.8)
    ours, checkpoints = EMA(0.8), []
    module: Any = net
    for callback in (ours, theirs):
        callback._average_model = AveragedModel(net, use_buffers=True, avg_fn=get_ema_avg_fn(0.8))
    for step in range(1, 5):
        net(torch.randn(4, 3))
        with torch.no_grad():
            net[0].weight.add_(step)
        if step == 3:  # a checkpoint of theirs, and a new callback of ours
            ours = EMA(0.8)
            ours._average_model = AveragedModel(net, use_buffers=True)
            checkpoint = {"state_dict": net.state_dict()}
            theirs.on_save_checkpoint(None, module, checkpoint)
            ours.on_load_checkpoint(None, module, copy.deepcopy(checkpoint))
        for callback in (ours, theirs):
            callback.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    for callback in (ours, theirs):
        checkpoints.append({"state_dict": net.state_dict()})
        callback.on_save_checkpoint(None, module, checkpoints[-1])
    averages = [
        {name: each for name, each in saved["state_dict"].items() if each.is_floating_point()} for saved in checkpoints
    ]
    assert_close(*averages)
    assert [saved["averaging_state"]["n_averaged"].item() for saved in checkpoints] == [4, 4]


def test_a_change_of_the_network_is_made_to_its_average():
    task = Classifier(arch_options={"depth": 1, "embed_dim": 16, "num_heads": 2}, ema=0.5)
    ema = EMA(0.5)
    ema.change(lambda module: pytest.fail("there is no average yet"))
    ema._average_model = AveragedModel(task)
    ema._average(task)
    for each in (task, ema):
        change = ema.change if each is ema else lambda function: function(task)
        change(lambda module: module.net.set_input_size(patch_size=8))
    with torch.no_grad():
        task.net.patch_embed.proj.weight.fill_(1.0)
    before = ema.network.net.patch_embed.proj.weight.clone()
    ema._average(task)
    assert_close(ema.network.net.patch_embed.proj.weight, before.lerp(torch.ones_like(before), 0.5))


def test_a_test_after_training_measures_the_average_of_the_checkpoint(tmp_path: Path):
    task = Classifier(arch_options={"depth": 1, "embed_dim": 16, "num_heads": 2}, ema=0.9)
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"default_root_dir": tmp_path, "limit_val_batches": 0, "limit_test_batches": 1}
    trainer = L.Trainer(accelerator="cpu", max_steps=4, **options)
    data = ImageData("coins", batch_size=16)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(tmp_path / "raw.ckpt")
    average = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    raw = {name: torch.zeros_like(tensor) for name, tensor in average.items()}
    saved = torch.load(tmp_path / "raw.ckpt", weights_only=True)
    torch.save(
        saved | {"current_model_state": raw, "averaging_state": {"n_averaged": torch.tensor(4)}}, tmp_path / "both.ckpt"
    )
    trainer.test(task, datamodule=data, ckpt_path=str(tmp_path / "both.ckpt"), weights_only=True, verbose=False)
    for name, tensor in average.items():
        if name.startswith("net."):
            assert torch.equal(task.state_dict()[name], tensor), name


def test_weights_in_half_precision_are_averaged_in_float32(tmp_path: Path):
    run = fit(tmp_path, "--model.ema=0.9", "--trainer.precision=bf16-true")
    saved = read(run)
    for name, average in saved["state_dict"].items():
        if name.startswith("net."):
            assert average.dtype == torch.float32
            assert average.isfinite().all()
    assert not torch.equal(saved["state_dict"]["net.head.weight"], saved["current_model_state"]["net.head.weight"])


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay: float):
    with pytest.raises(UserError, match=r"decay of averaged weights must be in \[0, 1\]"):
        Classifier(ema=decay)
    with pytest.raises(UserError, match=r"decay of averaged weights must be in \[0, 1\]"):
        EMA(decay)
