"""What only a GPU shows; skipped without one. ``scripts/gpu_suite OUT tests`` runs them."""

import copy
import json
import warnings
from pathlib import Path

import pytest
import timm.optim
import torch
from torch.testing import assert_close

from tests.runs import BRIEF, CONFIGS, main, read
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.batch import augment_batch, draw_parameters
from vit_attn.data.transforms.rng import BatchRNG
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier
from vit_attn.training.optimizers import build_optimizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIZES = {"img_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 64, "depth": 3, "num_heads": 2}
RUN = [
    *("-c", str(CONFIGS / "cifar10.yaml"), *BRIEF, "--data.dataset=coins", "--attention.num_images=0"),
    *("--trainer.accelerator=gpu", "--data.batch_size=16", "--trainer.limit_train_batches=12"),
    *("--trainer.log_every_n_steps=10", "--trainer.num_sanity_val_steps=0"),
    *("--model.arch_options.embed_dim=64", "--model.arch_options.depth=2", "--model.arch_options.num_heads=2"),
]


def images(count: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    batch = images().cuda() / 255
    for _ in range(steps):
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_no_step_between_two_logging_points_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str):
    original = Classifier.on_train_batch_start

    def switch(task: Classifier, batch: object, batch_idx: int) -> None:
        torch.cuda.set_sync_debug_mode("warn" if 2 <= batch_idx < 8 else "default")
        original(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "on_train_batch_start", switch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            assert main(["fit", *RUN, f"--model.optimizer={optimizer}", f"--runs={tmp_path}"]) == 0
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [f"{each.filename}:{each.lineno}" for each in caught if "called a synchronizing" in str(each.message)]
    assert waits == []


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_muon_updates_as_that_of_timm(layer_decay: float):
    net = VisionTransformer(**SIZES).cuda()
    other = copy.deepcopy(net)
    ours = build_optimizer(net, "muon", 0.01, 0.05, layer_decay)
    like_ours = build_optimizer(other, "muon", 0.01, 0.05, layer_decay)
    theirs = timm.optim.Muon([dict(group) for group in like_ours.param_groups], **like_ours.defaults)
    before = copy.deepcopy(net)
    train(net, ours)
    train(other, theirs)
    changes = [one - start for one, start in zip(net.parameters(), before.parameters(), strict=True)]
    expected = [two - start for two, start in zip(other.parameters(), before.parameters(), strict=True)]
    for change, same in zip(changes, expected, strict=True):  # Newton–Schulz iterates in bfloat16
        assert (change - same).norm() <= 0.02 * same.norm()


def test_a_compiled_network_has_the_losses_and_gradients_of_the_eager_one():
    net = VisionTransformer(**SIZES).cuda()
    batch, gradients, losses = images().cuda() / 255, [], []
    for forward in (net, torch.compile(net, dynamic=False)):
        net.zero_grad()
        loss = forward(batch).square().mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([each.grad for each in net.parameters()])
    assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-5)
    for compiled, eager in zip(gradients[1], gradients[0], strict=True):
        assert (compiled - eager).norm() <= 0.01 * eager.norm() + 1e-6


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        Augment(crop_padding=4, flip=0.5, rand_augment=9, erase=0.25, mixup=0.8, cutmix=1.0),
        Augment(random_resized_crop=0.3, trivial_augment=1.0, colour_jitter=0.4, cutout=8),
    ],
)
def test_augmentation_makes_the_pixels_that_the_cpu_makes(settings: Augment, grouped: bool):
    made = []
    labels = torch.arange(64) % 10
    for device in ("cpu", "cuda"):
        drawn = draw_parameters((64, 3, 32, 32), settings, BatchRNG((0, 0), 64), None, bool(settings.mixup), grouped)
        parameters = drawn.to(device)
        made.append(
            augment_batch(images().to(device), labels.to(device), parameters, torch.Tensor.float, 10,
                          settings.crop_padding or 0)
        )  # fmt: skip
    (pixels, targets), (same, other) = made
    assert_close(other.cpu(), targets)
    off = (same.cpu() - pixels).abs() > 1.01  # a rounded value may fall to the other side
    assert off.float().mean() < 0.005


@pytest.mark.parametrize("options", [
    [],
    ["--model.compile=true"],
    ["--model.compile=true", "--model.compile_mode=reduce-overhead"],
    ["--data.compile_augment=true"],
], ids=["eager", "compiled", "CUDA graphs", "compiled augmentation"])  # fmt: skip
def test_a_run_ends_with_finite_weights_whose_average_is_another(tmp_path: Path, options: list[str]):
    assert main(["fit", *RUN, "--model.ema=0.9", *options, f"--runs={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("*/*")
    checkpoint = read(folder)
    averaged = checkpoint["state_dict"]
    assert all(each.isfinite().all() for each in averaged.values() if each.is_floating_point())
    last = checkpoint["current_model_state"]
    assert any(not torch.equal(averaged[name].cpu(), last[name].cpu()) for name in last if name in averaged)
    assert main(["test", f"--model={folder / 'checkpoints/last.ckpt'}"]) == 0
    assert 0 <= json.loads((folder / "test.json").read_text())["top1"] <= 1
