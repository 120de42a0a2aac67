import io
from pathlib import Path

import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit_attn.attention_maps.precision import NotFinite
from vit_attn.callbacks import AttentionLogger
from vit_attn.callbacks.attention_logger import snapshot as snapshots
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.task import Classifier
from vit_attn.training.ema import EMA

KINDS = ("", "_heads", "_matrices")
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
    fit(tmp_path, [AttentionLogger(num_images=2, max_cost=1.0)], epochs=2)
    log = events(tmp_path)
    expected = {f"vit_attention/image_{i}{kind}" for kind in KINDS for i in (1, 2)}
    assert set(log.Tags()["images"]) == expected
    assert [event.step for event in log.Images("vit_attention/image_1")] == [0, 3, 6]


def test_epochs_can_be_left_out(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=1, every_n_epochs=2, max_cost=1.0)], epochs=3)
    assert [event.step for event in events(tmp_path).Images("vit_attention/image_1")] == [0, 6, 9]  # the last one too


def test_data_without_ground_truth_is_drawn_too(tmp_path: Path, cifar10_root: Path):
    fit(
        tmp_path,
        [AttentionLogger(num_images=1, max_cost=1.0)],
        "cifar10",
        epochs=1,
        root=str(cifar10_root),
        download=False,
    )
    picture = events(tmp_path).Images("vit_attention/image_1")[0]
    assert picture.width > 400


def test_training_is_bit_identical_with_and_without_it(tmp_path: Path):
    plain = fit(None, []).state_dict()
    watched = fit(tmp_path, [AttentionLogger(num_images=2, max_cost=1.0)]).state_dict()
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
    logger = AttentionLogger(num_images=1, max_cost=1.0)
    logger.log_attention(trainer, task, always=True)
    logger.finish()
    assert events(tmp_path).Tags()["images"]
    assert [module.training for module in task.net.modules()] == modes
    assert all(parameter.grad is None for parameter in task.net.parameters())


def test_no_images_and_no_tensorboard_mean_no_work(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=0)], epochs=1)
    assert events(tmp_path).Tags()["images"] == []
    fit(None, [AttentionLogger(num_images=1, max_cost=1.0)], epochs=1)


def _below_the_heading(png: bytes) -> bytes:
    """The lower half of a figure, without the step in its heading."""
    with Image.open(io.BytesIO(png)) as image:
        return image.crop((0, image.height // 2, image.width, image.height)).tobytes()


@pytest.mark.parametrize("order", [1, -1])
def test_pictures_show_the_averaged_weights_that_are_validated(tmp_path: Path, order: int):
    def pictures_of_two_epochs(name: str, decay: float) -> list[bytes]:
        fit(tmp_path / name, [EMA(decay), AttentionLogger(num_images=1, max_cost=1.0)][::order], epochs=2)
        images = events(tmp_path / name).Images("vit_attention/image_1")[1:]
        return [_below_the_heading(event.encoded_image_string) for event in images]

    first, second = pictures_of_two_epochs("still", decay=1.0)  # stays what the first step made it
    assert first == second
    first, second = pictures_of_two_epochs("moving", decay=0.0)
    assert first != second


def test_a_network_that_cannot_be_drawn_is_refused():
    task = Classifier("cait_xxs24_224", {"depth": 1, "patch_size": 4}, num_classes=10)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[AttentionLogger()], **quiet)
    with pytest.raises(UserError, match=r"changes its weights .* --attention\.num_images=0"):
        trainer.fit(task, datamodule=ImageData("coins"))


def test_curves_and_histograms_of_the_heads_and_pointing_are_logged(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=2, max_cost=1.0)], epochs=1)
    log = events(tmp_path)
    scalars, histograms = set(log.Tags()["scalars"]), set(log.Tags()["histograms"])
    for name in ("entropy_nats", "distance_pixels", "sink_mass_fraction", "prefix_mass_fraction"):
        for layer in (1, 2):
            assert f"vit_attention/{name}/layer_{layer}" in scalars
            assert f"vit_attention/{name}_of_heads/layer_{layer}" in histograms
    assert {
        f"vit_attention/pointing_fraction/{name}" for name in ("last_layer", "rollout", "relevance", "chance")
    } <= scalars
    assert (
        3 < log.Scalars("vit_attention/entropy_nats/layer_1")[0].value < 4.2
    )  # an untrained network looks everywhere: ln 65
    methods = ("relevance", "last_layer", "rollout_mean", "rollout_max", "rollout_min", "random", "centre_first")
    for measure in ("deletion", "insertion"):
        assert {f"vit_attention/{measure}_area/{name}" for name in methods} <= scalars
    assert log.Scalars("vit_attention/pointing_fraction/chance")[0].value == pytest.approx(1 / 64)


def test_layers_methods_and_steps_can_be_chosen(tmp_path: Path):
    chosen = AttentionLogger(num_images=1, layers=[-1], methods=["rollout"], every_n_steps=2, max_cost=1.0)
    fit(tmp_path, [chosen], epochs=2)
    log = events(tmp_path)
    assert [event.step for event in log.Images("vit_attention/image_1")] == [0, 2, 4, 6]
    assert "vit_attention/entropy_nats/layer_2" in log.Tags()["scalars"]
    assert "vit_attention/entropy_nats/layer_1" not in log.Tags()["scalars"]


def test_a_run_that_steps_end_is_logged_at_its_end_and_judged(tmp_path: Path):
    chosen = AttentionLogger(num_images=1, every_n_steps=3, max_cost=1.0)
    fit(tmp_path, [chosen], epochs=2)  # six steps: the last is a step's turn and the last epoch's
    log = events(tmp_path)
    assert [event.step for event in log.Scalars("vit_attention/deletion_area/relevance")] == [0, 6]
    stopped = tmp_path / "stopped"
    task = Classifier(arch_options=SMALL, num_classes=10)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=4,
        limit_train_batches=3,
        limit_val_batches=1,
        log_every_n_steps=1,
        logger=TensorBoardLogger(stopped, "a", "b"),
        callbacks=[AttentionLogger(num_images=1, max_cost=1e-9)],
        **quiet,
    )
    trainer.fit(task, datamodule=ImageData("coins", batch_size=16))
    assert [event.step for event in events(stopped).Images("vit_attention/image_1")] == [0, 4]


def test_a_module_that_says_it_is_elsewhere_is_checked_where_it_is():
    task, data = Classifier(arch_options=SMALL), ImageData("coins")
    task._device = torch.device("meta")  # as lightning has it before the network has moved
    AttentionLogger(num_images=1).check(data, task)


def test_what_costs_too_much_is_left_out_but_the_first_and_the_last(tmp_path: Path):
    fit(tmp_path, [AttentionLogger(num_images=1, max_cost=1e-9)], epochs=4)
    assert [event.step for event in events(tmp_path).Images("vit_attention/image_1")] == [0, 12]


def test_a_drawing_that_fails_is_a_warning_and_not_the_end_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_args):
        raise RuntimeError("no ink")

    monkeypatch.setattr("vit_attn.callbacks.attention_logger.callback.figures", broken)
    with pytest.warns(UserWarning, match="pictures of attention could not be drawn: no ink"):
        fit(tmp_path, [AttentionLogger(num_images=1, max_cost=1.0)], epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be at least 1, got 0"),
        ({"methods": ["rolout"]}, "unknown attribution method 'rolout', did you mean 'rollout'"),
        ({"methods": []}, "methods at least one"),
        ({"faithfulness_every": -1}, "faithfulness_every must be at least 0, got -1"),
        ({"max_cost": 0.0}, r"max_cost must be in \(0, 1\]"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        AttentionLogger(**options)


def test_a_layer_that_is_not_there_is_refused_before_training(tmp_path: Path):
    with pytest.raises(UserError, match=r"attention.layers must be in 1..2, or -2..-1 from the last, got \[0, 3\]"):
        fit(tmp_path, [AttentionLogger(layers=[0, 2, 3])])


@pytest.mark.parametrize("options", [{"num_images": -1}, {"every_n_epochs": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="num_images must be at least 0 and every_n_epochs at least 1"):
        AttentionLogger(**options)


def test_a_network_that_gives_nan_has_no_pictures_and_trains_on(tmp_path: Path, monkeypatch):
    def not_finite(*_):
        raise NotFinite("the attention or its gradients hold NaN or infinity")

    monkeypatch.setattr(snapshots, "summaries_of", not_finite)
    with pytest.warns(UserWarning, match="no pictures of attention at step"):
        fit(tmp_path, [logger := AttentionLogger(num_images=1, max_cost=1.0)], epochs=1)
    assert not events(tmp_path).Tags()["images"]
    assert logger.loggings == 0  # so that the first that succeeds is compared with baselines


class PoolsItsOwnWay(timm.models.VisionTransformer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.forward_features(x)[:, 1:].mean(dim=1))


def test_a_network_whose_pool_is_found_by_gradients_is_taken():
    task = Classifier(arch_options=SMALL)
    task.net = PoolsItsOwnWay(img_size=32, patch_size=8, num_classes=10, **SMALL)
    AttentionLogger(num_images=1).check(ImageData("coins"), task)
    assert all(parameter.grad is None for parameter in task.net.parameters())


@pytest.mark.parametrize(("patch_size", "times"), [(2, 0), (8, 1)])
def test_ground_truth_that_is_not_of_whole_patches_is_reported_once_and_left_out(
    patch_size: int, times: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    task, data = Classifier(arch_options=SMALL | {"patch_size": patch_size}), ImageData("coins")
    data.prepare_data()
    trainer = L.Trainer(accelerator="cpu", logger=TensorBoardLogger(tmp_path, "a", "b"), enable_checkpointing=False)
    trainer.datamodule = data
    logger = AttentionLogger(num_images=1, max_cost=1.0, faithfulness_every=0)
    with caplog.at_level("INFO"):
        for _ in range(2):
            logger.last_logged_step = None
            logger.log_attention(trainer, task, always=True)
    logger.finish()
    assert caplog.text.count("it is neither marked nor judged") == times
    log = events(tmp_path)
    assert log.Tags()["images"]
    assert ("vit_attention/pointing_fraction/chance" in log.Tags()["scalars"]) == (not times)
