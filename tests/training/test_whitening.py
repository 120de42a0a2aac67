import copy

import lightning as L
import pytest
import torch
from torch.testing import assert_close

from tests.training.test_patch_schedule import COARSE, SMALL
from vit_attn.data import ImageData
from vit_attn.data_protocol import TrainingImages
from vit_attn.errors import UserError
from vit_attn.task import Classifier
from vit_attn.training.whitening import LEAST_VARIANCE, whitening_rows

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Start(L.Callback):
    """Callback that keeps the network, and its average, as the run begins."""

    def on_train_start(self, trainer, pl_module):
        averages = [each._average_model for each in trainer.callbacks if hasattr(each, "_average_model")]
        self.net, self.averages = copy.deepcopy(pl_module.net), [copy.deepcopy(each.module.net) for each in averages]


@pytest.fixture(scope="module")
def data() -> ImageData:
    data = ImageData("coins", batch_size=16)
    data.prepare_data()
    return data


def started(data: ImageData, *, arch_options: dict | None = None, **options) -> Start:
    L.seed_everything(3, verbose=False)
    start, task = Start(), Classifier(None, SMALL | (arch_options or {}), **options)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=2, limit_val_batches=1, num_sanity_val_steps=0, callbacks=[start], **QUIET
    )
    trainer.fit(task, datamodule=data)
    start.task = task
    return start


def tokens(net: torch.nn.Module, data: ImageData) -> torch.Tensor:
    return net.patch_embed(data.normalize(data.training_images(4096))).flatten(0, 1).detach().double()


@pytest.mark.parametrize("coarse", [{}, COARSE])
def test_channels_of_tokens_are_uncorrelated_and_have_the_standard_deviation(data: ImageData, coarse: dict):
    assert isinstance(data, TrainingImages)
    covariance = tokens(started(data, whiten=0.5, **coarse).net, data).T.cov()
    assert_close(covariance, 0.25 * torch.eye(32).double(), atol=0.02, rtol=0)


def test_a_small_data_set_is_whitened_to_the_same_standard_deviation(data: ImageData, monkeypatch: pytest.MonkeyPatch):
    few = data.training_images(100)
    monkeypatch.setattr(ImageData, "training_images", lambda _self, _count: few)
    covariance = tokens(started(data, whiten=0.5).net, data).T.cov()
    assert_close(covariance.diagonal().mean().item(), 0.25, atol=0.02, rtol=0)


def test_trained_weights_are_not_whitened(data: ImageData):
    task = Classifier(None, SMALL, whiten=0.5)
    task.on_load_checkpoint({"state_dict": task.state_dict()})
    loaded, start = task.net.patch_embed.proj.weight.detach().clone(), Start()
    trainer = L.Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, callbacks=[start], **QUIET)
    trainer.fit(task, datamodule=data)
    assert torch.equal(start.net.patch_embed.proj.weight, loaded)


def test_every_machine_computes_the_same_rows_and_negatives_follow():
    samples = torch.randn(500, 6, dtype=torch.double) @ torch.randn(6, 6, dtype=torch.double)
    covariance = samples.T @ samples / 500
    rows = whitening_rows(covariance, 9)
    assert rows.shape == (9, 6)
    assert torch.equal(rows[6:], -rows[:3])
    assert (rows[:6].gather(1, rows[:6].abs().argmax(dim=1, keepdim=True)) > 0).all()
    variances = torch.linalg.eigvalsh(covariance).flip(0)
    assert_close(rows[:6] @ covariance @ rows[:6].T, (variances / (variances + LEAST_VARIANCE)).diag())


def test_more_channels_than_twice_the_pixels_leave_random_rows(data: ImageData):
    options = {"arch_options": {"embed_dim": 128}}
    random, start = started(data, **options).net, started(data, whiten=0.5, **options).net
    ours, theirs = start.patch_embed.proj.weight, random.patch_embed.proj.weight
    assert torch.equal(ours[96:], theirs[96:])
    assert torch.equal(ours[48:96], -ours[:48])
    assert not start.patch_embed.proj.bias.any()


def test_the_average_begins_with_the_same_rows_and_nothing_else_changes(data: ImageData):
    plain, start = started(data).net, started(data, whiten=0.3, ema=0.9)
    for name, tensor in start.net.state_dict().items():
        assert torch.equal(tensor, start.averages[0].state_dict()[name]), name
        assert torch.equal(tensor, plain.state_dict()[name]) == (not name.startswith("patch_embed")), name


def test_a_second_fit_does_not_whiten_trained_weights(data: ImageData):
    start = started(data, whiten=0.5)
    trained = copy.deepcopy(start.task.net.state_dict())
    again = Start()
    trainer = L.Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, callbacks=[again], **QUIET)
    trainer.fit(start.task, datamodule=data)
    assert torch.equal(again.net.patch_embed.proj.weight, trained["patch_embed.proj.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whiten": -1.0}, "whiten must be at least 0, got -1.0"),
        ({"arch_options": {"stem": "conv"}}, "whiten=0.5 needs a linear map of patches as the stem"),
        (
            {"arch": "vit_tiny_patch16_224", "weights": "a"},
            "whiten=0.5 would replace the patch embedding of a: leave one of them out",
        ),
    ],
)
def test_what_cannot_be_whitened_is_one_line(options: dict, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vit_attn.task.build_start", _without_file)
    with pytest.raises(UserError, match=message):
        Classifier(**({"whiten": 0.5} | options))


def _without_file(start, num_classes, img_size, in_chans):
    from vit_attn.model.build import build_net

    return build_net(start.arch, num_classes, img_size, in_chans, start.arch_options), []


def test_data_without_training_images_are_one_line():
    task = Classifier(None, SMALL, whiten=0.5)
    with pytest.raises(UserError, match=r"whiten=0\.5 needs a data module with training_images and normalize"):
        task.setup("fit")
