from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from vit_attn.cli import main
from vit_attn.commands.run.trainer_checks import check_callbacks
from vit_attn.data import ImageData
from vit_attn.data.datasets import coins
from vit_attn.errors import UserError
from vit_attn.task import LOGGED, Classifier

FIT = [
    "fit",
    "--data.dataset=coins",
    "--data.batch_size=8",
    "--attention.num_images=0",
    "--model.arch=vit_attn_coins_patch4_32",
    "--model.arch_options={depth: 1, embed_dim: 16, num_heads: 1}",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
]
STOP = "--trainer.callbacks=EarlyStopping"


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for split in coins.SIZES:
        monkeypatch.setitem(coins.SIZES, split, 64)


def line_of(capsys: pytest.CaptureFixture, *options: str) -> str:
    assert main([*FIT, *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vit-attn: ")]
    return line


MISTAKES = {
    "unknown metric": (
        [STOP, "--trainer.callbacks.monitor=val_loss"],
        "EarlyStopping: there is no metric 'val_loss', did you mean 'val/loss'?; logged are train/loss, train/",
    ),
    "the default mode": (
        [STOP, "--trainer.callbacks.monitor=val/accuracy"],
        "EarlyStopping: a higher val/accuracy is better, but mode=min keeps the worst: add "
        "--trainer.callbacks.mode=max",
    ),
    "checkpoint of no metric": (["--checkpoint.monitor=val/acc"], "no metric 'val/acc', did you mean 'val/accuracy'"),
    "checkpoint of the worst": (["--checkpoint.monitor=val/loss"], "keeps the worst: add --checkpoint.mode=min"),
    "no validations": (
        [STOP, "--trainer.callbacks.monitor=val/loss", "--trainer.limit_val_batches=0"],
        "trainer.limit_val_batches=0 has none",
    ),
    "no such callback": (["--trainer.callbacks=EarlyStoping"], "has no EarlyStoping, did you mean 'EarlyStopping'?"),
    "a size that is not used": (
        ["--trainer.callbacks=BatchSizeFinder"],
        "BatchSizeFinder: the batches are made before",
    ),
    "a rate that is not used": (
        ["--trainer.callbacks=LearningRateFinder"],
        "LearningRateFinder: the schedule is made before it runs, so the run would not use what it finds: try rates",
    ),
    "an average that is not used": (
        ["--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=1e-3"],
        "--model.ema=0.999 averages weights and validates the average",
    ),
    "two averages": (
        ["--model.ema=0.9", "--trainer.callbacks=EMAWeightAveraging"],
        "weights are averaged once: leave out one of model.ema and EMAWeightAveraging",
    ),
    "no steps": (["--trainer.max_steps=0"], "trainer.max_steps=0 trains nothing"),
    "no epochs": (["--trainer.max_epochs=0"], "trainer.max_epochs=0 trains nothing"),
    "no batches": (["--trainer.limit_train_batches=0"], "trainer.limit_train_batches=0 trains nothing"),
    "fewer than no epochs": (["--trainer.max_epochs=-5"], "max_epochs must be at least 1, or -1 for no limit, got -5"),
    "fewer than no steps": (["--trainer.max_steps=-3"], "max_steps must be at least 1, or -1 for no limit, got -3"),
    "fewer than no batches": (["--trainer.limit_train_batches=-1"], "limit_train_batches must be at least 1, got -1"),
    "no end": (["--trainer.max_epochs=-1"], "the run needs an end: set trainer.max_epochs or trainer.max_steps"),
    "no time": (["--trainer.max_time=00:00:00:00"], "trainer.max_time=00:00:00:00 trains nothing: set days:hours"),
    "no time in days": (["--trainer.max_time={days: 0}"], "trains nothing: set days:hours"),
    "no interval": (["--trainer.val_check_interval=0"], "val_check_interval=0 has no meaning: for no validation set"),
    "accumulation": (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches must be at least 1, got 0"),
    "epochs between": (["--trainer.check_val_every_n_epoch=0"], "check_val_every_n_epoch must be at least 1, got 0"),
    "clipping": (["--trainer.gradient_clip_val=-1"], "gradient_clip_val must be at least 0, got -1"),
    "devices": (["--trainer.devices=abc", "--trainer.accelerator=cpu"], "`devices` selected with `CPUAccelerator`"),
    "accelerator": (["--trainer.accelerator=tpu"], "torch_xla"),
    "strategy": (["--trainer.strategy=ddpp"], "invalid strategy name: `strategy='ddpp'`"),
    "strategy of GPUs": (["--trainer.strategy=fsdp", "--trainer.accelerator=cpu"], "requires a GPU accelerator"),
    "profiler": (["--trainer.profiler=simpel"], "it can only be one of ['simple', "),
    "limits": (["--trainer.limit_val_batches=1.5"], "invalid value 1.5 for limit_val_batches"),
    "both": (["--checkpoint.every_n_epochs=1", "--checkpoint.every_n_train_steps=1"], "mutually exclusive"),
    "plugins": (["--trainer.plugins=NoSuch"], "Lightning has no NoSuch; one of your own needs its module"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_settings_is_a_one_line_error_before_anything_is_written(name: str, capsys):
    options, message = MISTAKES[name]
    assert message in line_of(capsys, *options)
    assert not list(Path().iterdir())


class OfAUser(L.Callback):
    """Callback of a user, which may log any metric."""


def test_metrics_that_others_may_log_are_left_to_lightning():
    check_callbacks([ModelCheckpoint(monitor="step", mode="max")], LOGGED)
    check_callbacks([ModelCheckpoint(monitor="lr-AdamW"), LearningRateMonitor()], LOGGED)
    check_callbacks([EarlyStopping("my/metric"), OfAUser()], LOGGED)
    check_callbacks([EarlyStopping("val/loss", strict=False), object()], LOGGED, validates=False)
    with pytest.raises(UserError, match="no metric 'step'"):
        check_callbacks([EarlyStopping("step")], LOGGED)


def test_the_task_logs_exactly_the_metrics_that_it_lists():
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=1, enable_model_summary=False, **quiet)
    small = {"depth": 1, "embed_dim": 16, "num_heads": 1}
    trainer.fit(Classifier(arch_options=small), datamodule=ImageData("coins", batch_size=8))
    assert set(trainer.callback_metrics) == set(LOGGED)
