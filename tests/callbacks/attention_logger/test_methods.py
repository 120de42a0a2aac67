"""Attribution methods reach the figures, the scalars and the tab from the registry alone."""

import importlib.util
import json
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from vit_attn.attention_maps.methods import registry
from vit_attn.attention_maps.methods.registry import drawn_methods, find_method
from vit_attn.callbacks import AttentionLogger
from vit_attn.callbacks.attention_logger import figures
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.task import Classifier
from vit_attn.tb_plugin.export import _blobs
from vit_attn.tb_plugin.metadata import INDEX_TAG

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
OWN_METHOD = """
from vit_attn.attention_maps.methods.registry import attribution_method
from vit_attn.attention_maps.methods.rollout import raw_rows


@attribution_method(
    "first_layer", label="first layer", reference="own idea", needs_gradients=False, class_specific=False,
    has_query=False, supports=lambda net: len(net.blocks) > 1,
)
def first_layer(inputs, queries):
    return raw_rows(inputs.recording, 0, queries)
"""


@pytest.fixture
def own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> registry.AttributionMethod:
    """A method that a module of the user registers."""
    registry.attribution_methods()
    monkeypatch.setattr(registry, "METHODS", registry.METHODS.copy())
    path = tmp_path / "own_method.py"
    path.write_text(OWN_METHOD)
    spec = importlib.util.spec_from_file_location("own_method", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return find_method("first_layer")


def fit(folder: Path, callback: AttentionLogger, depth: int = 2) -> None:
    L.seed_everything(3, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=1,
        logger=TensorBoardLogger(folder, "a", "b"),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    task = Classifier(arch_options=SMALL | {"depth": depth}, num_classes=10)
    trainer.fit(task, datamodule=ImageData("coins", batch_size=16))


def test_a_method_of_ones_own_is_drawn_pointed_compared_and_in_the_tab(own_method, tmp_path, monkeypatch):
    drawn, draw = [], figures.draw_overlays
    monkeypatch.setattr(figures, "draw_overlays", lambda *args: drawn.append([m.title for m in args[2]]) or draw(*args))
    callback = AttentionLogger(num_images=2, methods=["first_layer", "last layer"], max_cost=1.0)
    fit(tmp_path, callback)
    assert drawn == [["first layer", "last layer"]] * 4  # two images, at steps 0 and 2
    scalars = EventAccumulator(str(tmp_path / "a" / "b")).Reload().Tags()["scalars"]
    for name in ("first_layer", "last_layer", "rollout", "relevance"):
        assert f"vit_attention/pointing_fraction/{name}" in scalars
    for measure in ("deletion", "insertion"):
        assert f"vit_attention/{measure}_area/first_layer" in scalars
    index = json.loads(next(found for _, tag, found in _blobs(tmp_path / "a" / "b") if tag == INDEX_TAG)[0])
    labels = {each["label"]: each["rows"] for each in index["methods"]}
    computed = ["relevance", "last layer", "rollout, mean", "rollout, max", "rollout, min"]
    others = [each.label for each in registry.attribution_methods().values() if each.label not in computed]
    assert labels == dict.fromkeys(computed, False) | dict.fromkeys(others, True)
    assert "first layer" in others
    (own,) = [each for each in index["methods"] if each["name"] == "first_layer"]
    assert own == {"name": "first_layer", "reference": "own idea", "class_specific": False, "has_query": False} | {
        "label": "first layer", "rows": True
    }  # fmt: skip
    assert set(index["judged"]["methods"]) == {*computed, "first layer"}  # of the drawn ones
    for image in index["images"]:
        assert set(image["rows"]) == {find_method(label).name for label in others}
        assert np.sum(image["rows"]["first_layer"]) == pytest.approx(1.0, abs=1e-3)


def test_a_method_that_a_network_does_not_support_is_refused_where_it_is_named(own_method, tmp_path):
    with pytest.raises(UserError, match=r"attention\.methods: first layer does not support VisionTransformer") as error:
        fit(tmp_path, AttentionLogger(num_images=1, methods=["first_layer"]), depth=1)
    assert "\n" not in str(error.value)
    fit(tmp_path, AttentionLogger(num_images=1, max_cost=1.0), depth=1)


def test_methods_are_found_by_name_and_by_label_once_each():
    chosen = AttentionLogger(methods=["last layer", "last_layer", "rollout", "LeGrad"]).methods
    assert [method.name for method in chosen] == ["last_layer", "rollout", "legrad"]


def test_the_default_is_what_the_registry_marks_as_drawn():
    assert [method.name for method in drawn_methods()] == ["relevance", "last_layer", "rollout"]
    assert AttentionLogger().methods is None


@pytest.mark.parametrize("name", [name for name, method in registry.attribution_methods().items() if not method.drawn])
def test_every_other_method_of_the_registry_can_be_drawn(name: str, tmp_path: Path):
    fit(tmp_path, AttentionLogger(num_images=1, methods=[name], max_cost=1.0))
    log = EventAccumulator(str(tmp_path / "a" / "b"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in log.Images("vit_attention/image_1")] == [0, 2]
    assert f"vit_attention/pointing_fraction/{name}" in log.Tags()["scalars"]


def test_data_without_sizes_and_loaders_and_a_task_without_its_network_are_refused():
    class Incomplete:
        class_names, img_size = ("cat", "dog"), (32, 32)

    task = Classifier(arch_options=SMALL)
    with pytest.raises(
        UserError, match="Incomplete has neither train_dataloader nor val_dataloader, nor img_size, in_chans"
    ):
        AttentionLogger(num_images=1).check(Incomplete(), task)
    with pytest.raises(UserError, match="Linear has no attention modules to record"):
        AttentionLogger(num_images=1).check(ImageData("coins"), _WithoutNet())


class _WithoutNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)
