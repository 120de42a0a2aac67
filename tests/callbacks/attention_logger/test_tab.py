import dataclasses
import json
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import timm
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from vit_attn.attention_maps.evaluation.baselines import judge_maps
from vit_attn.attention_maps.methods.registry import drawn_methods, find_method
from vit_attn.attention_maps.methods.rollout import raw_rows
from vit_attn.callbacks import AttentionLogger
from vit_attn.callbacks.attention_logger.budget import Budget
from vit_attn.callbacks.attention_logger.scalars import faithfulness
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, SnapshotOptions
from vit_attn.callbacks.attention_logger.tab import AttentionTab
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier
from vit_attn.tb_plugin.blobs import decode_maps
from vit_attn.tb_plugin.export import _blobs, measure_steps
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag

pytestmark = pytest.mark.slow  # judges networks
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


class Task(nn.Module):
    """A task that is its network alone."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)


def snapshot_of(
    count: int = 3, compared: bool = False, net: nn.Module | None = None, methods: tuple[str, ...] = (), **options
) -> tuple[AttentionSnapshot, list[str]]:
    """A snapshot of probe images, and the names of the classes."""
    data = ImageData("coins")
    data.prepare_data()
    torch.manual_seed(0)
    net = net or VisionTransformer(img_size=32, patch_size=4, num_classes=10, **SMALL, **options).eval()
    chosen = (*drawn_methods(), *map(find_method, methods))
    wanted = SnapshotOptions(count, chosen, token_relevance=True, comparison=compared)
    return AttentionSnapshot.take(Task(net), data, wanted, step=4).on_host(), list(data.class_names)


def written_index(folder: Path) -> dict:
    return json.loads({tag: found for _, tag, found in _blobs(folder)}[INDEX_TAG][0])


@pytest.mark.parametrize(("patch_size", "known"), [(2, True), (8, False)])
def test_ground_truth_is_in_the_networks_own_patches_or_left_out(tmp_path, patch_size: int, known: bool):
    net = VisionTransformer(img_size=32, patch_size=patch_size, num_classes=10, **SMALL).eval()
    snapshot, names = snapshot_of(1, net=net)
    AttentionTab(10).write(tmp_path, snapshot, names)
    index = written_index(tmp_path)
    row, col = divmod(snapshot.probe.ground_truth[0].regions["bought"][0], 8)
    fine = [32 * row + 2 * col + each for each in (0, 1, 16, 17)]
    assert index["grid"] == [32 // patch_size] * 2
    image = index["images"][0]
    assert (image["ground_truth"] or {}).get("bought") == (fine if known else None)
    assert image["answer_region"] == ("bought" if known else None)


def test_what_is_written_is_what_was_recorded(tmp_path):
    snapshot, names = snapshot_of()
    written = AttentionTab(10).write(tmp_path, snapshot, names)
    blobs = {tag: found for _, tag, found in _blobs(tmp_path)}
    assert written == sum(len(blob) for found in blobs.values() for blob in found)
    for i in range(3):
        for layer, blob in zip(snapshot.recording, blobs[image_tag(i)][1:-1], strict=True):
            weights = layer.weights()[i].numpy()
            assert (np.abs(decode_maps(blob) - weights) <= 0.004 * weights.max(axis=-1, keepdims=True)).all()
    index = json.loads(blobs[INDEX_TAG][0])
    truths = snapshot.probe.ground_truth
    assert index["images"][2]["ground_truth"] == {name: list(each) for name, each in truths[2].regions.items()}
    assert index["images"][2]["answer_region"] == truths[2].answer
    chances = snapshot.logits.softmax(dim=-1)
    assert index["images"][1]["top"][0][1] == pytest.approx(chances[1].max().item(), abs=1e-5)
    assert "judged" not in index
    assert "pooled_relevance" not in index["images"][0]


def test_each_map_of_the_pooled_row_is_compared_over_images_and_orders(tmp_path):
    snapshot, names = snapshot_of(compared=True)
    AttentionTab(10).write(tmp_path, snapshot, names)
    index = written_index(tmp_path)
    judged = index["judged"]
    assert (judged["orders"], judged["images"]) == (8, 3)
    assert list(judged["methods"]) == ["relevance", "last layer", "rollout, mean", "rollout, max", "rollout, min"]
    for method, measures in judged["methods"].items():
        for measure, values in measures.items():
            assert len(values) == 5
            by_image = [image["judged"][method][measure] for image in index["images"]]
            assert values[0] == pytest.approx(np.mean([each[0] for each in by_image]), abs=1e-5)
            assert min(values[2], values[4]) > 0
    values = [measures["deletion"][0] for measures in judged["methods"].values()]
    assert len(set(values)) == 5


def test_eight_images_are_compared_and_the_others_are_not(tmp_path):
    snapshot, names = snapshot_of(10, compared=True)
    AttentionTab(10).write(tmp_path, snapshot, names)
    index = written_index(tmp_path)
    assert index["judged"]["images"] == 8
    assert [len(image["judged"]) for image in index["images"]] == [5] * 8 + [0] * 2


def test_the_bought_coin_is_no_sink_though_heads_put_nearly_all_attention_on_it(tmp_path):
    """Three heads of the quickstart's last layer put 86 to 100 % on it; what is bought is elsewhere in each image."""
    net = timm.create_model("vit_attn_coins_patch4_32", pretrained=True).eval()
    snapshot, names = snapshot_of(8, net=net)
    share = [layer.weights().mean(dim=-2).amax(dim=-1) for layer in snapshot.recording]
    assert (share[-1] > 0.5).float().mean() > 0.5  # concentrated
    AttentionTab(10).write(tmp_path, snapshot, names)
    index = written_index(tmp_path)
    assert index["sinks"]["images"] == 8
    bought = {1 + truth.regions["bought"][0] for truth in snapshot.probe.ground_truth}
    for layer in index["sinks"]["layers"]:
        assert bought.isdisjoint([token for head in [*layer["heads"], layer["mean"]] for token in head])


def test_the_relevance_of_a_pool_by_attention_is_written_as_no_mix_of_tokens(tmp_path):
    snapshot, names = snapshot_of(global_pool="map")
    AttentionTab(10).write(tmp_path, snapshot, names)
    index = written_index(tmp_path)
    for about, summary in zip(index["images"], snapshot.summaries, strict=True):
        np.testing.assert_allclose(about["pooled_relevance"], summary.relevance, atol=1e-6)


def test_a_training_logs_every_epoch_and_step_0(tmp_path: Path):
    task = Classifier(arch_options=SMALL, num_classes=10)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=2, limit_val_batches=1, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, logger=TensorBoardLogger(tmp_path, "a", "b"),
        log_every_n_steps=1, callbacks=[AttentionLogger(num_images=2, max_cost=1.0)],
    )  # fmt: skip
    trainer.fit(task, datamodule=ImageData("coins", batch_size=16))
    assert list(measure_steps(tmp_path / "a" / "b")) == [0, 2, 4]


def test_a_small_budget_thins_out_images_and_steps_and_says_so(tmp_path):
    tab = AttentionTab(
        0.8
    )  # in fewer levels, two images and the first one's queries and keys take less than 0.8 MB / 16
    snapshot, names = snapshot_of(compared=True)
    written = 0
    for step in range(100):
        written += tab.write(tmp_path, dataclasses.replace(snapshot, step=step, always=step == 99), names)
    assert written <= 0.8e6
    steps = list(measure_steps(tmp_path))
    assert steps[:9] == list(range(9))
    assert steps[-1] == 99
    assert 16 <= len(steps) < 40
    last = json.loads(next(found for step, tag, found in _blobs(tmp_path) if tag == INDEX_TAG and step == 99)[0])
    assert len(last["images"]) == 2
    assert last["judged"]["images"] == 3
    assert last["note"].startswith(
        "To stay within 0.8 MB: at most 3.4 bits a weight, 2 of 3 images, from here on one of "
    )


def test_a_budget_that_no_step_fits_writes_nothing(tmp_path):
    assert AttentionTab(0.001).write(tmp_path, *snapshot_of()) == 0


@pytest.mark.parametrize(("total", "size"), [(100, 10), (1000, 7), (5, 10), (100, 100), (256, 1)])
def test_a_budget_is_never_exceeded(total, size):
    budget = Budget(total)
    granted = [budget.grants(size, last=step == 9_999) for step in range(10_000)]
    assert size * sum(granted) <= total
    assert granted[-1] == (size <= total)


def test_bytes_that_a_step_did_not_take_are_given_back():
    budget = Budget(100)
    for step in range(10):
        assert budget.grants(10)  # counted as 10, but 4 are taken
        budget.give_back(6)
        assert budget.left == 96 - 4 * step


def test_a_negative_budget_is_refused():
    with pytest.raises(UserError, match="tab_megabytes must be at least 0, got -1"):
        AttentionLogger(tab_megabytes=-1)


def test_of_a_pool_by_attention_last_layer_is_the_pools_row_and_the_tabs_mix_has_a_name_of_its_own():
    torch.manual_seed(1)
    net = VisionTransformer(img_size=32, patch_size=4, num_classes=10, global_pool="map", **SMALL).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    snapshot, _ = snapshot_of(2, compared=True, net=net)
    data = ImageData("coins")
    data.prepare_data()
    images, target = data.normalize(snapshot.probe.images), snapshot.logits.argmax(dim=-1)
    rows = {"last layer": snapshot.recording.query_rows(), "last layer, pooled": raw_rows(snapshot.recording)}
    maps = {name: row[:, 0, snapshot.recording.num_prefix_tokens :].detach().float() for name, row in rows.items()}
    expected = judge_maps(net, images, maps, target).overall
    assert snapshot.comparison is not None
    for measure in ("deletion", "insertion"):
        values = {name: expected[name][measure].value for name in maps}
        assert abs(values["last layer"] - values["last layer, pooled"]) > 0.05
        assert {name: snapshot.comparison.overall[name][measure].value for name in maps} == pytest.approx(
            values, abs=1e-5
        )
        scalars = faithfulness(snapshot.comparison)
        assert scalars[f"vit_attention/{measure}_area/last_layer"] == pytest.approx(values["last layer"], abs=1e-5)
