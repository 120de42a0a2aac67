import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from tests.compiled import compile_by
from vit_attn.errors import UserError
from vit_attn.task import Classifier
from vit_attn.training.freezing import FreezeSchedule, Tuning, set_frozen_eval
from vit_attn.training.optimizers import build_optimizer

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "drop_path_rate": 0.2}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def collate(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def loader(count: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randn(count, 3, 16, 16, generator=generator) + labels[:, None, None, None]
    return DataLoader(TensorDataset(images, labels), batch_size=8, collate_fn=collate)


def classifier(arch: str = "vit_attn_tiny_patch4_32", **options) -> Classifier:
    L.seed_everything(1, verbose=False)
    return Classifier(arch, SMALL, num_classes=4, img_size=(16, 16), **options)


def fit(task: Classifier, epochs: int = 2, callbacks=(), **options) -> L.Trainer:
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), **(QUIET | options))
    trainer.fit(task, loader(), loader())
    return trainer


class Watch(L.Callback):
    """Callback that keeps the trained parameters, the modes of the modules and the rates of each step."""

    def __init__(self) -> None:
        self.training, self.modes, self.rates = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        net = pl_module.net
        self.training.append({name for name, parameter in net.named_parameters() if parameter.grad is not None})
        self.modes.append({name: module.training for name, module in net.named_modules()})
        self.rates.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("arch", ["vit_attn_tiny_patch4_32", "vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("train", ["head", 1, 2, 3])
def test_only_the_chosen_part_trains(arch: str, train: str | int):
    options = {"depth": 3, "num_classes": 4, "img_size": 32} | ({} if "attn" in arch else {"patch_size": 16})
    net = timm.create_model(arch, **options)
    trained = Tuning(train).trainable_names(net)
    blocks = range(3 - (0 if train == "head" else train), 3)
    after = () if train == "head" else (*(f"blocks.{i}." for i in blocks), "norm.", "fc_norm.")
    assert trained == {name for name, _ in net.named_parameters() if name.startswith(("head.", *after))}


def test_what_is_frozen_stays_bit_for_bit_in_evaluation_and_out_of_the_optimizer():
    task, watch = classifier(train=1), Watch()
    before = {name: tensor.clone() for name, tensor in task.net.state_dict().items()}
    trainer = fit(task, callbacks=[watch])
    changed = {name for name, tensor in task.net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith(("blocks.2.", "norm.", "head."))}
    held = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert held == {id(parameter) for name, parameter in task.net.named_parameters() if name in changed}
    modes = watch.modes[-1]
    assert not modes["blocks.1.drop_path1"]
    assert not modes["patch_embed"]
    assert modes["blocks.2.drop_path1"]
    assert modes["head"]


def test_modules_without_parameters_are_in_the_mode_of_the_module_after_them():
    net = timm.create_model(
        "vit_tiny_patch16_224", depth=2, num_classes=4, img_size=32, pos_drop_rate=0.1, drop_rate=0.1
    )
    schedule = FreezeSchedule(net, Tuning(1))
    schedule.start()
    schedule.set_eval()
    assert not net.pos_drop.training
    assert not net.blocks[0].drop_path1.training
    assert net.blocks[1].mlp.drop1.training
    assert net.head_drop.training
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    set_frozen_eval(net)
    assert not any(module.training for module in net.modules())


def test_the_head_trains_first_and_then_all_with_a_warm_up_of_its_own():
    watch = Watch()
    task = classifier(probe=0.5, warmup=0.5, decay="linear", lr=0.01)
    fit(task, callbacks=[watch])  # 8 steps
    names = {name for name, _ in task.net.named_parameters()}
    head = {"head.weight", "head.bias"}
    assert watch.training == [head] * 4 + [names] * 4
    assert [step["blocks.0.drop_path1"] for step in watch.modes if "blocks.0.drop_path1" in step] == [False] * 4 + [
        True
    ] * 4
    half = [0.005, 0.01, 0.01, 0.005]
    assert [rates[0] for rates in watch.rates] == pytest.approx(half * 2)


def test_the_last_blocks_can_follow_a_linear_probe():
    watch = Watch()
    fit(classifier(probe=0.25, train=1), callbacks=[watch])
    assert [len(names) for names in watch.training[:3]] == [2, 2, 18 - 2]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_run_resumed_in_or_after_its_linear_probe_ends_where_an_uninterrupted_one_ends(tmp_path, epoch: int):
    class Keep(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def run(**options) -> Classifier:
        task = classifier(probe=0.5, layer_decay=0.8, optimizer="muon")
        task.net.apply(lambda module: setattr(module, "drop_prob", 0.0))  # lightning does not keep the random state
        trainer = L.Trainer(accelerator="cpu", max_epochs=4, callbacks=[Keep()], **QUIET)
        trainer.fit(task, loader(), loader(), **options)
        return task

    whole = run().net.state_dict()
    resumed = run(ckpt_path=tmp_path / f"{epoch}.ckpt", weights_only=True).net.state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_longer_run_that_is_resumed_does_not_start_its_linear_probe_again(tmp_path):
    trainer = fit(classifier(probe=0.5))  # of 8 steps
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    watch = Watch()
    task = classifier(probe=0.5)
    longer = L.Trainer(accelerator="cpu", max_epochs=16, callbacks=[watch], **QUIET)
    longer.fit(task, loader(), loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    names = {name for name, _ in task.net.named_parameters()}
    assert watch.training
    assert all(training == names for training in watch.training)
    again = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    watch = Watch()
    fit(again, 8, callbacks=[watch])  # a run of its own has a linear probe of its own
    assert [len(training) for training in watch.training] == [2] * 16 + [len(names)] * 16


def test_a_compiled_network_ends_its_linear_probe_too(monkeypatch: pytest.MonkeyPatch):
    def build(compile: bool) -> Classifier:
        L.seed_everything(1, verbose=False)
        options = {"depth": 2, "patch_size": 8, "embed_dim": 48}
        return Classifier("vit_tiny_patch16_224", options, num_classes=4, img_size=(16, 16), probe=0.5, compile=compile)

    plain, task = build(False), build(True)
    compile_by(monkeypatch, "aot_eager")
    fit(plain, 1)
    fit(task, 1)
    for name, tensor in plain.net.state_dict().items():
        assert_close(tensor, task.net.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_fine_tuning_loads_and_is_tested_like_any_other(tmp_path):
    task = classifier(train=1, probe=0.5, layer_decay=0.7, class_weights=[1.0, 2.0, 1.0, 0.5])
    trainer = fit(task, 1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert {name: again.hparams[name] for name in ("train", "probe", "layer_decay")} == {
        "train": 1,
        "probe": 0.5,
        "layer_decay": 0.7,
    }
    assert all(parameter.requires_grad for parameter in again.net.parameters())
    (tested,) = L.Trainer(accelerator="cpu", **QUIET).test(again, loader(), verbose=False)
    assert 0 <= tested["test/accuracy"] <= 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "lamb"])
@pytest.mark.parametrize("arch", ["vit_attn_tiny_patch4_32", "vit_tiny_patch16_224"])
def test_rates_decay_by_layer_through_the_schedule(arch: str, optimizer: str):
    net = timm.create_model(arch, depth=3, num_classes=4, img_size=32)
    made = build_optimizer(net, optimizer, 0.1, 0.05, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in made.param_groups for parameter in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in net.named_parameters()}
    expected = {"head.weight": 1, "norm.weight": 0.5, "blocks.2.mlp.fc1.weight": 0.5, "blocks.0.norm1.bias": 0.125}
    expected |= {"pos_embed": 0.0625, "cls_token": 0.0625, "patch_embed.proj.weight": 0.0625}
    assert {name: by_name[name] for name in expected} == pytest.approx(
        {n: 0.1 * factor for n, factor in expected.items()}
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.5)
    assert min(group["lr"] for group in made.param_groups) == pytest.approx(0.1 * 0.0625 / 2)
    assert schedule.get_last_lr()
    undecayed = {id(p) for group in made.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    named = {"pos_embed", "cls_token"} if "no_weight_decay" in dir(net) else set()
    assert all((id(p) in undecayed) == (p.ndim <= 1 or name in named) for name, p in net.named_parameters())


def test_ddp_wraps_the_module_again_when_more_of_it_trains(monkeypatch: pytest.MonkeyPatch):
    wrapped = []
    monkeypatch.setattr(DDPStrategy, "configure_ddp", lambda self: wrapped.append(self.model))
    strategy, net = DDPStrategy(), classifier().net
    schedule = FreezeSchedule(net, Tuning(probe=0.5))
    schedule.start(strategy)
    strategy._model = torch.nn.Identity()
    schedule.unfreeze(strategy, net)
    assert wrapped == [net]
    assert all(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(UserError, match="probe needs one device or ddp, not str"):
        schedule.start("fsdp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 4}, r"train must be all, head or a number of last blocks in 1..3, got 4"),
        ({"train": 0}, r"train must be all, head or a number of last blocks in 1..3, got 0"),
        ({"probe": 1.0}, r"probe must be in \[0, 1\), got 1.0; for the head alone in the whole run: train=head"),
        ({"probe": -0.1}, r"probe must be in \[0, 1\), got -0.1"),
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0.0"),
        ({"layer_decay": 1.5}, r"layer_decay must be in \(0, 1\], got 1.5"),
        ({"train": "head", "probe": 0.2}, r"leave out probe=0.2"),
    ],
)
def test_impossible_tunings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        classifier(**options)


def test_a_network_without_a_known_head_trains_as_a_whole_or_is_refused():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert Tuning().trainable_names(net) == {"0.weight", "0.bias"}
    with pytest.raises(UserError, match="does not say which of its parameters are its head"):
        Tuning("head").trainable_names(net)
