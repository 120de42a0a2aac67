import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset, default_collate

from tests.compiled import compile_by
from vit_attn.checkpoints.weights import save_weights
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.model.build import build_net
from vit_attn.task import Classifier
from vit_attn.training.optimizers import build_optimizer
from vit_attn.training.patch_schedule import PatchSchedule, replace_parameters, set_patch_size

ARCH, SMALL = "vit_attn_tiny_patch4_32", {"embed_dim": 32, "depth": 2, "num_heads": 2}
COARSE = {"coarse_patch_size": 8, "coarse_until": 0.5}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
REPLACED = {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"}


def loader(count: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randn(count, 3, 32, 32, generator=generator) + labels[:, None, None, None]
    collate = lambda items: tuple(default_collate(items))  # noqa: E731
    return DataLoader(TensorDataset(images, labels), batch_size=8, collate_fn=collate)


def classifier(arch: str = ARCH, **options) -> Classifier:
    L.seed_everything(1, verbose=False)
    return Classifier(arch, SMALL | options.pop("arch_options", {}), num_classes=4, **(COARSE | options))


def fit(task: Classifier, *callbacks: L.Callback, epochs: int = 2, **options) -> L.Trainer:
    """Eight steps, the first four with coarse patches."""
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), **(QUIET | options))
    trainer.fit(task, loader(), loader())
    return trainer


class Steps(L.Callback):
    """Callback that keeps the grid, the rates, and copies of weights and optimiser state around each step."""

    def __init__(self) -> None:
        self.grids, self.rates, self.before, self.after = [], [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.grids.append(pl_module.net.patch_embed.grid_size)
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.before.append(self.copy(pl_module, optimizer))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.after.append(self.copy(pl_module, trainer.optimizers[0]))

    @staticmethod
    def copy(pl_module, optimizer):
        names = {parameter: name for name, parameter in pl_module.net.named_parameters()}
        states = {names[each]: copy.deepcopy(state) for each, state in optimizer.state.items()}
        return copy.deepcopy(pl_module.net.state_dict()), states


def test_the_grid_changes_at_its_step_and_the_schedule_goes_on():
    steps, plain = Steps(), Steps()
    fit(classifier(lr=0.01), steps)
    fit(classifier(lr=0.01, coarse_patch_size=None, coarse_until=0.0), plain)
    assert steps.grids == [(4, 4)] * 4 + [(8, 8)] * 4
    assert plain.grids == [(8, 8)] * 8
    assert steps.rates == plain.rates


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "momentum", "lamb"])
def test_weights_are_resampled_and_all_other_state_stays_bit_for_bit(optimizer: str):
    steps = Steps()
    trainer = fit(classifier(optimizer=optimizer), steps)
    (weights, states), (now, kept) = steps.after[3], steps.before[4]
    expected = build_net(ARCH, 4, (32, 32), 3, SMALL | {"patch_size": 8})
    expected.load_state_dict(weights)
    set_patch_size(expected, 4)
    assert {name for name, tensor in now.items() if tensor.shape != weights[name].shape} == REPLACED - {
        "patch_embed.proj.bias"
    }
    for name, tensor in expected.state_dict().items():
        assert torch.equal(now[name], tensor), name
    for name, state in states.items():
        if name in REPLACED - {"patch_embed.proj.bias"}:
            assert name not in kept
        else:
            for key, value in state.items():
                assert torch.equal(torch.as_tensor(kept[name][key]), torch.as_tensor(value)), (name, key)
    held = [id(each) for group in trainer.optimizers[0].param_groups for each in group["params"]]
    assert sorted(held) == sorted(id(each) for each in trainer.lightning_module.net.parameters())
    assert not torch.equal(steps.after[4][0]["pos_embed"], now["pos_embed"])  # the new ones train


def test_parameters_keep_their_place_among_the_groups():
    net = build_net(ARCH, 4, (32, 32), 3, SMALL)
    optimizer = build_optimizer(net, "adamw", 1e-3, 0.05, 0.9)
    names = {parameter: name for name, parameter in net.named_parameters()}
    before = [[names[each] for each in group["params"]] for group in optimizer.param_groups]
    replace_parameters(optimizer, net, lambda: set_patch_size(net, 8))
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert [[names[each] for each in group["params"]] for group in optimizer.param_groups] == before


def test_averaged_weights_change_alike():
    kept = {}

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            average = next(each for each in trainer.callbacks if hasattr(each, "_average_model"))._average_model
            kept[trainer.global_step] = copy.deepcopy(average.module.net)

    task = classifier(ema=0.5)
    fit(task, Keep())
    assert [kept[step].patch_embed.grid_size for step in (4, 5)] == [(4, 4), (8, 8)]
    resampled = kept[4]
    set_patch_size(resampled, 4)
    weights, average = kept[5].pos_embed, resampled.pos_embed
    assert not torch.equal(weights, average)
    assert_close(weights, average, atol=0.01, rtol=0)  # half a step of AdamW at most
    logits = torch.cat([task.eval()(images) for images, _ in loader()])
    assert logits.isfinite().all()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_bad_step_right_after_the_change_is_undone(optimizer: str):
    steps = Steps()

    class Spoil(L.Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 8:
                pl_module.net.pos_embed.grad.fill_(float("nan"))

    task = classifier(optimizer=optimizer, nonfinite="skip")
    fit(task, Spoil(), steps, epochs=4)  # the gate looks at each step until the 6th
    for name, tensor in steps.before[8][0].items():
        assert torch.equal(steps.after[8][0][name], tensor), name
    assert all(tensor.isfinite().all() for tensor in task.net.state_dict().values())
    assert not torch.equal(steps.after[9][0]["pos_embed"], steps.after[8][0]["pos_embed"])


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        (ARCH, {}),
        (ARCH, {"pos_embed": "rope"}),
        (ARCH, {"pos_embed": "none", "window": 3}),
        (ARCH, {"class_token": False, "global_pool": "avg"}),
        (ARCH, {"reg_tokens": 2, "no_embed_class": True}),
        ("vit_tiny_patch16_224", {"patch_size": 4}),
        ("deit3_small_patch16_224", {"patch_size": 4}),
        ("eva02_tiny_patch14_224", {"patch_size": 4}),
        ("vit_small_patch16_dinov3", {"patch_size": 4}),
    ],
)
def test_after_the_change_it_is_the_network_that_a_checkpoint_is_loaded_into(arch: str, options: dict):
    small = options if arch == ARCH else options | {"depth": 2}
    task = classifier(arch, arch_options=options) if arch == ARCH else Classifier(arch, small, num_classes=4, **COARSE)
    assert task.net.patch_embed.grid_size == (4, 4)
    images = torch.randn(2, 3, 32, 32)
    for size in (8, 4):
        if size == 4:
            set_patch_size(task.net, 4)
        built = build_net(arch, 4, (32, 32), 3, (SMALL if arch == ARCH else {}) | small | {"patch_size": size}).eval()
        built.load_state_dict(task.net.state_dict())
        assert_close(task.net.eval()(images), built(images))


def test_a_run_from_weights_begins_with_these_weights_resampled(tmp_path):
    source = build_net(ARCH, 4, (32, 32), 3, SMALL)
    save_weights(source, tmp_path / "a.safetensors")
    task = classifier(weights=str(tmp_path / "a.safetensors"))
    set_patch_size(source, 8)
    for name, tensor in source.state_dict().items():
        assert torch.equal(task.net.state_dict()[name], tensor), name


def test_random_weights_are_those_of_a_network_of_coarse_patches():
    task = classifier()
    spread = task.net.patch_embed.proj.weight.std().item()
    assert spread == pytest.approx((3 * 3 * 8 * 8) ** -0.5, rel=0.05)  # uniform up to 1 / sqrt(pixels)
    assert task.net.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coarse_until": 0.0}, "need both coarse_patch_size, in pixels, and coarse_until"),
        ({"coarse_patch_size": None}, "need both coarse_patch_size, in pixels, and coarse_until"),
        ({"coarse_until": 1.0}, r"a fraction of the run in \(0, 1\), got 8 and 1.0"),
        ({"coarse_patch_size": 6}, "multiple of the network's patches of 4 pixels, larger than these.*got 6"),
        ({"coarse_patch_size": 4}, "larger than these, and divide the images of 32x32 pixels, got 4"),
        ({"coarse_patch_size": 12}, "divide the images of 32x32 pixels, got 12"),
        ({"arch_options": {"stem": "conv"}}, "a linear map of square patches as its stem"),
        ({"arch_options": {"pos_embed": "sincos"}}, "needs learned or rotary positions: pos_embed=learn or rope"),
        ({"arch_options": {"window": 5}}, "window must be odd and at most the grid of 4x4 patches, got 5"),
    ],
)
def test_patches_that_cannot_change_are_one_line(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        classifier(**options)


def test_a_network_without_patches_that_can_change_is_refused():
    with pytest.raises(UserError, match="the patches of Cait cannot change"):
        Classifier(
            "cait_xxs24_224", {"depth": 1}, num_classes=4, img_size=(64, 64), **(COARSE | {"coarse_patch_size": 32})
        )


def test_a_network_with_a_table_for_each_grid_is_refused():
    class Net(VisionTransformer):
        def set_input_size(self, img_size=None, patch_size=None):
            super().set_input_size(img_size, patch_size)
            self.head.weight = torch.nn.Parameter(torch.zeros(4, self.patch_embed.num_patches))

    schedule = PatchSchedule(Net(32, 4, num_classes=4, embed_dim=32, depth=1, num_heads=2), 8, 0.5)
    with pytest.raises(UserError, match=r"coarse_patch_size=8: head\.weight of Net would change its shape"):
        schedule.begin(None)


def test_a_strategy_that_shards_is_refused():
    task = classifier()
    task._trainer = type("Trainer", (), {"strategy": FSDPStrategy()})()
    with pytest.raises(UserError, match="coarse_patch_size needs one device or ddp, not FSDPStrategy"):
        task.setup("fit")


@pytest.mark.filterwarnings("ignore:You.re using the WeightAveraging")
def test_averages_whose_shapes_would_not_change_are_refused():
    with pytest.raises(UserError, match=r"needs model\.ema for averages, not EMAWeightAveraging"):
        fit(classifier(), EMAWeightAveraging())


def test_ddp_is_wrapped_again_at_the_change():
    wrapped = []

    class Ddp(DDPStrategy):
        def configure_ddp(self):
            super().configure_ddp()
            wrapped.append([tuple(each.shape) for each in self.model.parameters()])

    steps = Steps()
    strategy = Ddp(accelerator=None, parallel_devices=[torch.device("cpu")], process_group_backend="gloo")
    alone = Steps()
    try:
        fit(classifier(), steps, strategy=strategy, use_distributed_sampler=False)
    finally:
        torch.distributed.destroy_process_group()  # Lightning keeps it, and then takes later runs for distributed ones
    fit(classifier(), alone)
    assert [(1, 17, 32) in shapes for shapes in wrapped] == [True, False]
    assert (1, 65, 32) in wrapped[1]
    for name, tensor in alone.after[-1][0].items():
        assert torch.equal(steps.after[-1][0][name], tensor), name


def test_a_compiled_network_is_compiled_again_with_constant_shapes(monkeypatch: pytest.MonkeyPatch):
    shapes, dynamic = [], []

    def backend(module, inputs):
        shapes.extend(tuple(each.shape) for each in inputs if isinstance(each, torch.Tensor))
        dynamic.extend(each for each in inputs if isinstance(each, torch.SymInt))
        return module.forward

    def trained(**options) -> dict[str, torch.Tensor]:
        L.seed_everything(1, verbose=False)
        network = {"depth": 1, "patch_size": 4, "embed_dim": 48}
        task = Classifier("vit_tiny_patch16_224", network, num_classes=4, **COARSE, **options)
        fit(task, limit_val_batches=0)
        return task.state_dict()

    compile_by(monkeypatch, backend)
    torch.compiler.reset()
    ours, plain = trained(compile=True), trained()
    assert {(1, 17, 48), (1, 65, 48)} <= set(shapes)
    assert dynamic == []
    for name, tensor in plain.items():
        assert_close(ours[name], tensor, msg=name)


def test_the_change_is_logged(capsys, caplog):
    with caplog.at_level("INFO"):
        fit(classifier())
    assert "step 4: patches of 4 pixels from here, 8x8 instead of 4x4" in caplog.text + capsys.readouterr().err
