from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit_attn.callbacks import AttentionLogger
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.task import Classifier
from vit_attn.training.ema import EMA

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def fit(
    folder: Path | None, callbacks: list[L.Callback], dataset: str = "coins", epochs: int = 2, **data
) -> Classifier:
    L.seed_everything(3)
    task = Classifier(arch_options=SMALL | {"drop_path_rate": 0.2}, num_classes=10)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=3,
        limit_val_batches=1,
        logger=TensorBoardLogger(folder, "a", "b") if folder else False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(task, datamodule=ImageData(dataset, batch_size=16, **data))
    return task


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "a" / "b"), size_guidance={"images": 0}).Reload()


def test_every_probe_image_has_its_pictures_at_every_step_from_0(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=2)], epochs=2)
    log = events(tmp_path)
    expected = {f"{kind}/image_{i}" for kind in ("attention", "attention_matrices") for i in (0, 1)}
    assert set(log.Tags()["images"]) == expected
    assert [event.step for event in log.Images("attention/image_0")] == [0, 3, 6]


def test_epochs_can_be_left_out(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=1, every_n_epochs=2)], epochs=3)
    assert [event.step for event in events(tmp_path).Images("attention/image_0")] == [0, 6, 9]  # the last one too


def test_data_without_known_answers_is_drawn_too(tmp_path: Path, cifar10_root: Path):
    fit(tmp_path, [AttentionLogger(num_images=1)], "cifar10", epochs=1, root=str(cifar10_root), download=False)
    picture = events(tmp_path).Images("attention/image_0")[0]
    assert picture.width > 400


def test_training_is_bit_identical_with_and_without_it(tmp_path: Path):
    plain = fit(None, []).state_dict()
    watched = fit(tmp_path, [AttentionLogger(num_images=2)]).state_dict()
    for name, tensor in plain.items():
        assert torch.equal(tensor, watched[name]), name


def test_the_network_keeps_modes_and_gradients(tmp_path: Path):
    task = Classifier(arch_options=SMALL)
    task.net.blocks[0].eval()
    modes = [module.training for module in task.net.modules()]
    data = ImageData("coins")
    data.prepare_data()

    trainer = L.Trainer(accelerator="cpu", logger=TensorBoardLogger(tmp_path, "a", "b"), enable_checkpointing=False)
    trainer.datamodule = data
    AttentionLogger(num_images=1)._log(trainer, task)
    assert events(tmp_path).Tags()["images"]
    assert [module.training for module in task.net.modules()] == modes
    assert all(parameter.grad is None for parameter in task.net.parameters())


def test_no_images_and_no_tensorboard_mean_no_work(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=0)], epochs=1)
    assert events(tmp_path).Tags()["images"] == []
    fit(None, [AttentionLogger(num_images=1)], epochs=1)


def test_pictures_show_the_averaged_weights_that_are_validated(tmp_path: Path):
    def pictures_of_two_epochs(name: str, decay: float) -> list[bytes]:
        fit(tmp_path / name, [EMA(decay), AttentionLogger(num_images=1)], epochs=2)
        return [event.encoded_image_string for event in events(tmp_path / name).Images("attention/image_0")[1:]]

    first, second = pictures_of_two_epochs("still", decay=1.0)  # stays what the first step made it
    assert first == second
    first, second = pictures_of_two_epochs("moving", decay=0.0)
    assert first != second


def test_a_network_that_cannot_be_drawn_is_refused():
    task = Classifier("cait_xxs24_224", {"depth": 1, "patch_size": 4}, num_classes=10)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[AttentionLogger()], **quiet)
    with pytest.raises(UserError, match=r"not seen calling .* --attention\.num_images=0"):
        trainer.fit(task, datamodule=ImageData("coins"))


@pytest.mark.parametrize("options", [{"num_images": -1}, {"every_n_epochs": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="num_images must be at least 0 and every_n_epochs at least 1"):
        AttentionLogger(**options)
