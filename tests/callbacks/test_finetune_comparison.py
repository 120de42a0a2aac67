import math
from pathlib import Path

import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vit_attn.attention_maps.methods.measures import divergence
from vit_attn.attention_maps.recording.record import record
from vit_attn.callbacks import FinetuneComparison
from vit_attn.callbacks import finetune_comparison as tuning_comparison
from vit_attn.checkpoints.weights import save_weights
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.model.build import build_net
from vit_attn.task import Classifier

pytestmark = pytest.mark.filterwarnings("ignore:.*does not say how its images were normalised")

ARCH, SMALL = "vit_attn_tiny_patch4_32", {"embed_dim": 32, "depth": 2, "num_heads": 2}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}


@pytest.fixture(scope="module")
def data() -> ImageData:
    data = ImageData("coins", batch_size=16)
    data.prepare_data()
    return data


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights under which attention is far from even, so that it can move."""
    torch.manual_seed(5)
    net = build_net(ARCH, 10, (32, 32), 3, SMALL | {"drop_path_rate": 0.2})
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(10)
    path = tmp_path_factory.mktemp("source") / "a.safetensors"
    save_weights(net, path)
    return str(path)


def fit(folder: Path | None, data: ImageData, callbacks: list[L.Callback], *, ckpt_path=None, epochs=2, **task_options):
    L.seed_everything(3, verbose=False)
    options = {"arch": ARCH, "lr": 1e-2, "arch_options": SMALL | {"drop_path_rate": 0.2}} | task_options
    task = Classifier(num_classes=10, **options)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=3,
        limit_val_batches=1,
        logger=TensorBoardLogger(folder, "a", "b") if folder else False,
        callbacks=callbacks,
        enable_checkpointing=False,
        **QUIET,
    )
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return task, trainer


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "a" / "b"), size_guidance={"images": 0}).Reload()


def divergence_from_source(task: Classifier, data, weights):
    """Divergence of the trained network from the source with the same patches, by layer."""
    source = Classifier(ARCH, SMALL | {"drop_path_rate": 0.2}, num_classes=10, weights=weights)
    recordings = []
    for each in (source, task):
        with torch.no_grad(), record(each.net.eval()) as recording:
            each(data.normalize(data.probe(3).images))
        recordings.append(recording)
    return divergence(*recordings)


def test_divergence_begins_at_0_and_ends_as_that_of_the_two_networks(tmp_path, data, weights):
    task, _ = fit(tmp_path, data, [FinetuneComparison(num_images=3, max_cost=1.0)], weights=weights)
    log = events(tmp_path)
    expected = divergence_from_source(task, data, weights)
    for layer in (1, 2):
        curve = log.Scalars(f"vit_attention/divergence_nats/layer_{layer}")
        assert [event.step for event in curve] == [0, 3, 6]
        assert curve[0].value == 0
        assert curve[-1].value == pytest.approx(expected[layer - 1].mean().item(), rel=1e-4)
        assert 1e-4 < curve[-1].value < math.log(2)
        assert f"vit_attention/divergence_nats_of_heads/layer_{layer}" in log.Tags()["histograms"]
    assert {f"vit_attention/image_{i}_source_and_tuned" for i in (1, 2, 3)} | {
        "vit_attention/divergence_of_heads"
    } == set(log.Tags()["images"])


def test_a_run_with_coarse_patches_is_compared_with_the_source_of_the_same_patches(tmp_path, data, weights):
    coarse = {"coarse_patch_size": 8, "coarse_until": 0.5}
    callback = FinetuneComparison(num_images=3, max_cost=1.0)
    task, _ = fit(tmp_path, data, [callback], weights=weights, **coarse)  # logged at steps 0 and 3, changed, and at 6
    expected = divergence_from_source(task, data, weights)
    for layer in (1, 2):
        curve = events(tmp_path).Scalars(f"vit_attention/divergence_nats/layer_{layer}")
        assert [event.step for event in curve] == [0, 3, 6]
        assert curve[0].value == 0
        assert curve[-1].value == pytest.approx(expected[layer - 1].mean().item(), rel=1e-4)


def test_training_is_bit_identical_with_and_without_it(tmp_path, data, weights):
    plain, _ = fit(None, data, [], weights=weights)
    watched, _ = fit(tmp_path, data, [FinetuneComparison(num_images=2, max_cost=1.0)], weights=weights)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name
    assert events(tmp_path).Tags()["images"]


def test_it_leaves_frozen_parts_in_their_modes(tmp_path, data, weights):
    modes = []

    class Modes(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            modes.append([module.training for module in pl_module.net.blocks])

    fit(tmp_path, data, [FinetuneComparison(num_images=1, max_cost=1.0), Modes()], weights=weights, train=1)
    assert modes == [[False, True]] * 6


def test_it_is_off_without_weights_without_images_and_where_the_head_alone_trains(tmp_path, data, weights):
    for number, (callback, options) in enumerate(
        [
            (FinetuneComparison(), {}),
            (FinetuneComparison(num_images=0), {"weights": weights}),
            (FinetuneComparison(), {"weights": weights, "train": "head"}),
        ]
    ):
        fit(tmp_path / str(number), data, [callback], epochs=1, **options)
        tags = events(tmp_path / str(number)).Tags()
        assert tags["images"] == []
        assert not any("divergence" in tag for tag in tags["scalars"])
    fit(None, data, [FinetuneComparison()], epochs=1, weights=weights)  # nowhere to write


def test_a_resumed_run_is_compared_with_the_source_of_the_first_and_trains_as_without(tmp_path, data, weights):
    first = FinetuneComparison(num_images=2, max_cost=1.0)
    _, trainer = fit(tmp_path / "first", data, [first], epochs=1, weights=weights)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert stored["callbacks"]["FinetuneComparison"] == {"source": weights}
    assert stored["hyper_parameters"]["weights"] is None
    again = FinetuneComparison(num_images=2, max_cost=1.0)
    watched, _ = fit(tmp_path / "second", data, [again], ckpt_path=tmp_path / "a.ckpt")
    plain, _ = fit(None, data, [FinetuneComparison(num_images=0)], ckpt_path=tmp_path / "a.ckpt")
    assert_states_equal(plain.state_dict(), watched.state_dict())
    curve = events(tmp_path / "second").Scalars("vit_attention/divergence_nats/layer_1")
    assert [event.step for event in curve] == [6]
    assert (
        curve[0].value > events(tmp_path / "first").Scalars("vit_attention/divergence_nats/layer_1")[-1].value / 2 > 0
    )


def assert_states_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_what_costs_too_much_is_left_out_but_the_first_and_the_last(tmp_path, data, weights):
    fit(tmp_path, data, [FinetuneComparison(num_images=1, max_cost=1e-9)], epochs=3, weights=weights)
    assert [event.step for event in events(tmp_path).Images("vit_attention/divergence_of_heads")] == [0, 9]


def test_a_network_that_cannot_be_recorded_is_trained_without_and_told(tmp_path, data):
    options = {"arch": "cait_xxs24_224", "arch_options": {"depth": 1, "patch_size": 4, "embed_dim": 48, "num_heads": 2}}
    net = build_net(options["arch"], 10, (32, 32), 3, options["arch_options"])
    save_weights(net, tmp_path / "cait.safetensors")
    with pytest.warns(UserWarning, match=r"comparison with .*cait.safetensors is off: .* changes its weights"):
        fit(tmp_path, data, [FinetuneComparison()], epochs=1, weights=str(tmp_path / "cait.safetensors"), **options)


def test_a_plain_data_module_is_compared_by_images_of_its_loader(tmp_path, data, weights):
    class Plain(L.LightningDataModule):
        def __init__(self):
            super().__init__()
            probe = data.probe(6)
            self.images = TensorDataset(data.normalize(probe.images), probe.labels)

        def train_dataloader(self):
            return DataLoader(self.images, batch_size=2)

        val_dataloader = train_dataloader

    fit(tmp_path, Plain(), [FinetuneComparison(num_images=2, max_cost=1.0)], epochs=1, weights=weights)
    log = events(tmp_path)
    assert [event.step for event in log.Images("vit_attention/divergence_of_heads")] == [0, 3]
    assert {f"vit_attention/image_{i}_source_and_tuned" for i in (1, 2)} < set(log.Tags()["images"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": -1}, "num_images must be at least 0"),
        ({"every_n_epochs": 0}, "every_n_epochs at least 1, got 4 and 0"),
        ({"max_cost": 0.0}, r"max_cost must be in \(0, 1\]"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        FinetuneComparison(**options)


class PoolsItsOwnWay(timm.models.VisionTransformer):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x)[:, 1:].mean(dim=1))


def test_a_network_whose_pool_is_found_by_gradients_is_compared_too(data):
    task = Classifier(num_classes=10, arch=ARCH, arch_options=SMALL)
    task.net = PoolsItsOwnWay(img_size=32, patch_size=8, num_classes=10, **SMALL)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **QUIET)
    trainer.datamodule = data
    recording, logits, _ = FinetuneComparison(num_images=2)._record(trainer, task)
    assert not logits.requires_grad
    assert recording.global_pool == "avg"
    assert tuning_comparison._rows(recording)["rollout"].shape == (2, 17)
    assert all(parameter.grad is None for parameter in task.net.parameters())
