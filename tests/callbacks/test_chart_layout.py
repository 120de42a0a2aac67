import re
from types import SimpleNamespace

import lightning as L
import pytest
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn

from vit_attn.callbacks import ChartLayout, chart_layout

LOGGED = [
    *("train/loss", "val/loss", "train/accuracy", "val/accuracy", "train/learning_rate"),
    *("vit_throughput/input_fraction", "vit_attention/entropy_nats/layer_1", "vit_attention/distance_pixels/layer_12"),
    *("vit_attention/sink_mass_fraction/layer_2", "vit_attention/prefix_mass_fraction/layer_2"),
    *("vit_attention/pointing_fraction/rollout", "vit_attention/deletion_area/random"),
    *("vit_attention/insertion_area/random", "vit_attention/divergence_nats/layer_3"),
]


def charts(monkeypatch: pytest.MonkeyPatch, prefix: int, start: str | None) -> dict[str, list[str]]:
    written = []
    writer = SimpleNamespace(add_custom_scalars=written.append)
    monkeypatch.setattr(chart_layout, "tensorboard_writers", lambda trainer: [writer])
    task = L.LightningModule()
    task.net, task.start = nn.Identity(), start
    task.net.num_prefix_tokens = prefix
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
    ChartLayout().on_train_start(L.Trainer(accelerator="cpu", logger=False, **quiet), task)
    (layout,) = written
    return {title: tags for category in layout.values() for title, (_, tags) in category.items()}


def test_every_chart_has_a_tag_that_is_logged(monkeypatch: pytest.MonkeyPatch):
    found = charts(monkeypatch, 1, "a.safetensors")
    assert found["loss"] == ["train/loss", "val/loss"]  # which a run has from its first steps
    for title, tags in found.items():
        assert any(re.match(tag, logged) for tag in tags for logged in LOGGED), title
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))


def test_a_network_without_prefix_and_a_run_without_source_have_no_charts_of_them(monkeypatch: pytest.MonkeyPatch):
    gone = set(charts(monkeypatch, 1, "a")) - set(charts(monkeypatch, 0, None))
    assert gone == {chart_layout.NAMES["prefix_mass"], chart_layout.DIVERGENCE}
