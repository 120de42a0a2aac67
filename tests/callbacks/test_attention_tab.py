import json
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from vit_attn.attention_maps import record
from vit_attn.callbacks import AttentionLogger
from vit_attn.callbacks.attention_tab import AttentionTab, Budget
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier
from vit_attn.tb_plugin.blobs import decode_maps
from vit_attn.tb_plugin.export import _blobs, find_steps
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture
def looked():
    """A recording of three probe images, their logits and their data."""
    data = ImageData("coins")
    data.prepare_data()
    probe = data.probe(3)
    net = VisionTransformer(img_size=32, patch_size=4, num_classes=10, **SMALL).eval()
    with torch.no_grad(), record(net) as recording:
        logits = net(data.normalize(probe.images))
    return probe, data.class_names, logits, recording


def test_what_is_written_is_what_was_recorded(tmp_path, looked):
    probe, names, logits, recording = looked
    written = AttentionTab(10).write(tmp_path, 4, probe, names, logits, recording)
    blobs = {tag: found for _, tag, found in _blobs(tmp_path)}
    assert written == sum(len(blob) for found in blobs.values() for blob in found)
    for i in range(3):
        for layer, blob in zip(recording, blobs[image_tag(i)][1:], strict=True):
            weights = layer.weights()[i].numpy()
            assert (np.abs(decode_maps(blob) - weights) <= 0.004 * weights.max(axis=-1, keepdims=True)).all()
    index = json.loads(blobs[INDEX_TAG][0])
    assert index["images"][2]["answer"] == {"bought": [probe.answers[2].bought], "buyer": [probe.answers[2].buyer]}
    chances = logits.softmax(dim=-1)
    assert index["images"][1]["top"][0][1] == pytest.approx(chances[1].max().item(), abs=1e-5)


def test_a_training_logs_every_epoch_and_step_0(tmp_path: Path):
    task = Classifier(arch_options=SMALL, num_classes=10)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=2, limit_val_batches=1, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, logger=TensorBoardLogger(tmp_path, "a", "b"),
        log_every_n_steps=1, callbacks=[AttentionLogger(num_images=2, max_cost=1.0)],
    )  # fmt: skip
    trainer.fit(task, datamodule=ImageData("coins", batch_size=16))
    assert find_steps(tmp_path / "a" / "b") == [0, 2, 4]


def test_a_small_budget_thins_out_images_and_steps_and_says_so(tmp_path, looked):
    tab = AttentionTab(0.6)  # one image takes 21 kB, so 16 steps leave room for one image
    written = sum(tab.write(tmp_path, step, *looked, last=step == 99) for step in range(100))
    assert written <= 0.6e6
    steps = find_steps(tmp_path)
    assert steps[:9] == list(range(9))
    assert steps[-1] == 99
    assert 16 <= len(steps) < 40
    last = json.loads(next(found for step, tag, found in _blobs(tmp_path) if tag == INDEX_TAG and step == 99)[0])
    assert len(last["images"]) == 1
    assert last["note"].startswith("To stay within 0.6 MB: 1 of 3 images, from here on one of ")


def test_a_budget_that_no_step_fits_writes_nothing(tmp_path, looked):
    assert AttentionTab(0.001).write(tmp_path, 0, *looked) == 0


@pytest.mark.parametrize(("total", "size"), [(100, 10), (1000, 7), (5, 10), (100, 100), (256, 1)])
def test_a_budget_is_never_exceeded(total, size):
    budget = Budget(total)
    granted = [budget.grants(size, last=step == 9_999) for step in range(10_000)]
    assert size * sum(granted) <= total
    assert granted[-1] == (size <= total)


def test_a_negative_budget_is_refused():
    with pytest.raises(UserError, match="tab_megabytes must be at least 0, got -1"):
        AttentionLogger(tab_megabytes=-1)
