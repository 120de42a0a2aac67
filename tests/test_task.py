import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from tests.compiled import compile_by
from vit_attn.checkpoints.weights import save_weights
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier
from vit_attn.training.loss import weighted_cross_entropy

TINY, SMALL = "vit_attn_tiny_patch4_32", {"embed_dim": 32, "depth": 2, "num_heads": 2}


def collate(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def loader(count: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randn(count, 3, 16, 16, generator=generator) + labels[:, None, None, None]
    return DataLoader(TensorDataset(images, labels), batch_size=8, collate_fn=collate)


def trainer(**options) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(accelerator="cpu", enable_model_summary=False, **(quiet | options))


def classifier(**options) -> Classifier:
    return Classifier(arch_options=SMALL, num_classes=4, img_size=(16, 16), **options)


def test_it_learns_an_easy_task_and_measures_it():
    task = classifier(lr=3e-3, label_smoothing=0.0)
    fit = trainer(max_epochs=40)
    fit.fit(task, loader(), loader())
    assert fit.callback_metrics["val/accuracy"] > 0.9
    (tested,) = trainer().test(task, loader(), verbose=False)
    logits = torch.cat([task.eval()(images) for images, _ in loader()])
    labels = torch.arange(32) % 4
    assert tested["test/accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert tested["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_the_learning_rate_follows_its_schedule_by_step_to_the_end():
    rates = []

    class Rates(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(max_epochs=5, callbacks=[Rates()]).fit(classifier(lr=0.01, warmup=0.2, decay="linear"), loader(), loader())
    assert rates == pytest.approx([0.01 * i / 4 for i in (1, 2, 3, 4)] + [0.01 * (16 - i) / 16 for i in range(16)])


def test_smoothing_and_mixed_targets_agree_with_the_formula():
    task = classifier(label_smoothing=0.2)
    images, labels = next(iter(loader()))
    task.log = lambda *_args, **_options: None
    log_probabilities = task(images).log_softmax(dim=1)
    smooth = 0.8 * F.one_hot(labels, 4) + 0.05
    assert_close(task.training_step((images, labels), 0), -(smooth * log_probabilities).sum(1).mean())
    mixed = torch.softmax(torch.randn(8, 4), dim=1)
    smooth = 0.8 * mixed + 0.05
    assert_close(task.training_step((images, mixed), 0), -(smooth * log_probabilities).sum(1).mean())


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.4},
        {"label_smoothing": 0.0, "class_weights": [5.0, 1.0, 0.1, 0.0]},
        {"label_smoothing": 0.4, "class_weights": [5.0, 1.0, 0.1, 0.0]},
    ],
    ids=["smoothing", "class weights", "both"],
)
@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_loss_of_validation_and_test_has_neither_smoothing_nor_class_weights(stage, options):
    task = classifier(**options).eval()
    with torch.no_grad():
        task.net.head.weight.normal_(std=2.0, generator=torch.Generator().manual_seed(0))  # confident and often wrong
    measure = {"val": trainer().validate, "test": trainer().test}[stage]
    (logged,) = measure(task, loader(), verbose=False)
    with torch.no_grad():
        logits, labels = torch.cat([task(images) for images, _ in loader()]), torch.arange(32) % 4
    plain = F.cross_entropy(logits, labels).item()
    weights = torch.tensor(options["class_weights"]) if "class_weights" in options else None
    trained = weighted_cross_entropy(logits, labels, weights, options["label_smoothing"]).item()
    assert logged[f"{stage}/loss"] == pytest.approx(plain, rel=1e-4)
    assert abs(trained - plain) > 0.1 * plain


def test_predictions_are_probabilities():
    probabilities = torch.cat(trainer().predict(classifier(), loader()))
    assert probabilities.shape == (32, 4)
    assert_close(probabilities.sum(dim=1), torch.ones(32))


def test_a_checkpoint_alone_brings_the_task_back(tmp_path):
    task = classifier(lr=0.5)
    fit = trainer(max_epochs=1, limit_train_batches=1)
    fit.fit(task, loader(), loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.hparams["lr"] == 0.5
    images, _ = next(iter(loader()))
    assert torch.equal(again.eval()(images), task.eval()(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 64}, r"net.cls_token has shape \(1, 1, 32\) in the checkpoint and \(1, 1, 64\) here"),
        ({"depth": 3}, r"net.blocks.2.norm1.weight has shape none in the checkpoint and \(32,\) here"),
        ({"depth": 1}, r"net.blocks.1.norm1.weight has shape \(32,\) in the checkpoint and none here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_its_first_misfit(options, message):
    checkpoint = {"state_dict": classifier().state_dict()}
    other = Classifier(arch_options=SMALL | options, num_classes=4, img_size=(16, 16))
    with pytest.raises(UserError, match=message):
        other.on_load_checkpoint(checkpoint)


def test_network_and_loss_are_compiled_as_one_graph_that_keeps_names_and_results(monkeypatch: pytest.MonkeyPatch):
    task = classifier(compile=True).eval()
    task.log = lambda *_args, **_options: None
    batch = torch.randn(2, 3, 16, 16), torch.tensor([1, 3])
    names, plain, compiled = list(task.state_dict()), task.training_step(batch, 0), []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph

    compile_by(monkeypatch, backend)
    task.setup("test")
    assert_close(task.training_step(batch, 0), plain)
    assert compiled == []
    task.setup("fit")
    assert_close(task.training_step(batch, 0), plain)
    task(batch[0])  # validation has the network as it is
    assert len(compiled) == 1
    assert list(task.state_dict()) == names


def test_pretrained_is_not_asked_for_again_when_a_checkpoint_brings_the_weights(monkeypatch: pytest.MonkeyPatch):
    used = []
    monkeypatch.setattr(
        "vit_attn.checkpoints.finetune.build_net", lambda *args: used.append(args[-1]) or torch.nn.Linear(1, 1)
    )
    task = Classifier(arch_options={"pretrained": True, "depth": 2})
    assert used == [{"pretrained": True, "depth": 2}]
    assert task.hparams["arch_options"] == {"depth": 2}


def test_a_run_can_start_from_the_weights_of_another_with_another_head(tmp_path, caplog):
    first, file = classifier(), str(tmp_path / "a.safetensors")
    save_weights(first.net, file)
    with caplog.at_level("INFO"):
        second = Classifier(TINY, SMALL, num_classes=3, img_size=(32, 32), weights=file)
    assert torch.equal(second.net.blocks[0].attn.qkv.weight, first.net.blocks[0].attn.qkv.weight)
    assert second.net.head.weight.shape == (3, 32)
    told = [each.removeprefix(f"{file}: ") for each in caplog.messages if each.startswith(file)]
    assert [each.split()[0] for each in told] == ["pos_embed", "the"]
    assert "the head of 4 classes was left out" in told[1]
    assert second.hparams["weights"] is None  # its checkpoints need the file no more


def test_weights_bring_their_network_or_it_is_to_be_named(tmp_path):
    first = Classifier("vit_attn_tiny_patch4_32", SMALL | {"num_heads": 4, "qk_norm": True}, num_classes=4)
    checkpoint, bare = str(tmp_path / "a.ckpt"), str(tmp_path / "a.safetensors")
    torch.save({"hyper_parameters": dict(first.hparams), "state_dict": first.state_dict()}, checkpoint)
    save_weights(first.net, bare)
    second = Classifier(weights=checkpoint, num_classes=4)
    images = torch.randn(2, 3, 32, 32)
    assert_close(second.eval()(images), first.eval()(images), rtol=0, atol=0)
    assert (second.hparams["arch"], second.hparams["arch_options"]["num_heads"]) == (TINY, 4)
    other = Classifier(weights=checkpoint, arch_options={"drop_path_rate": 0.1}, num_classes=4)
    assert other.hparams["arch_options"] == second.hparams["arch_options"] | {"drop_path_rate": 0.1}
    with pytest.raises(UserError, match=r"is of the network vit_attn_tiny_patch4_32, not of vit_tiny_patch16_224"):
        Classifier("vit_tiny_patch16_224", weights=checkpoint)
    with pytest.raises(UserError, match=r"a.safetensors does not say which network it is of: name that"):
        Classifier(arch_options=SMALL, weights=bare)
    assert Classifier().hparams["arch"] == TINY


def test_images_take_the_precision_of_the_network():
    task = classifier().bfloat16()
    assert task(torch.randn(2, 3, 16, 16)).dtype == torch.bfloat16


def test_any_vit_of_timm_can_be_named():
    task = Classifier("deit3_small_patch16_224", {"depth": 1, "patch_size": 8}, num_classes=5, img_size=(16, 16))
    assert not isinstance(task.net, VisionTransformer)
    assert task(torch.randn(1, 3, 16, 16)).shape == (1, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "vit_attn_tini_patch4_32"}, "unknown network .*, did you mean 'vit_attn_tiny_patch4_32'"),
        ({"arch": "resnet1x"}, "unknown network 'resnet1x'"),
        ({"arch": "resnet18"}, "resnet18 is not a vision transformer whose image size can be chosen"),
        ({"arch_options": {"depth": 0}}, "depth must be at least 1, got 0"),
        ({"arch_options": {"drop_path_rate": 2.0}}, r"drop_path_rate must be in \[0, 1\), got 2.0"),
        ({"optimizer": "adahessian"}, "adahessian needs second-order gradients"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"arch_options": {"depth": "three"}}, "arch_options.depth must be a number, got 'three'"),
        ({"arch_options": {"depht": 3}}, "has no option 'depht', did you mean 'depth'"),
        ({"arch_options": {"num_heads": 7}}, "got dim=192, num_heads=7"),
        ({"optimizer": "muom"}, "unknown optimizer 'muom', did you mean 'muon'"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_does_not_exist_is_refused_when_the_task_is_made(options, message):
    with pytest.raises(UserError, match=message):
        Classifier(**options)


def test_a_run_without_an_end_is_refused():
    with pytest.raises(UserError, match=r"set trainer\.max_epochs"):
        trainer(max_epochs=-1).fit(classifier(), loader(), loader())
