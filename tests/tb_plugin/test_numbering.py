"""Layers, heads and images count from 1 wherever a person reads them: every place names the same head."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.faithfulness import logits_by_batch
from vit_attn.attention_maps.evaluation.knockouts import ablate_heads
from vit_attn.attention_maps.evaluation.report import FaithfulnessReport
from vit_attn.attention_maps.methods.registry import drawn_methods
from vit_attn.callbacks.attention_logger.callback import AttentionLogger
from vit_attn.callbacks.attention_logger.figures import figures
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, SnapshotOptions
from vit_attn.model import VisionTransformer
from vit_attn.plotting.canvas import Canvas
from vit_attn.plotting.overlay import draw_sheet
from vit_attn.reports.faithfulness import knockout_table, knockouts

DEPTH, HEADS, WIDTH, HEAD_WIDTH = 2, 3, 24, 8
LAYER, HEAD = 2, 3  # as a person counts


@pytest.fixture(scope="module")
def net():
    """A network in which only head 3 of layer 2 looks anywhere, and only its output goes on."""
    torch.manual_seed(1)
    net = VisionTransformer(
        img_size=16, patch_size=4, num_classes=3, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_ratio=2
    )
    mine = slice((HEAD - 1) * HEAD_WIDTH, HEAD * HEAD_WIDTH)
    with torch.no_grad():
        for number, block in enumerate(net.blocks, start=1):
            q, k = block.attn.query_weights, block.attn.key_weights
            kept = q[mine].clone(), k[mine].clone(), torch.randn(WIDTH, HEAD_WIDTH)
            for each in (q, k, block.attn.proj.weight):
                each.zero_()
            if number == LAYER:
                q[mine], k[mine], block.attn.proj.weight[:, mine] = 40 * kept[0], 40 * kept[1], kept[2]
    return net.eval()


class Data:
    """A data module of some images, with what a snapshot needs."""

    class_names, img_size, in_chans = ["cat", "dog", "owl"], (16, 16), 3

    def __init__(self, images: torch.Tensor, labels: list[int]):
        self.images, self.labels = images, torch.tensor(labels)

    def probe(self, count: int) -> SimpleNamespace:
        return SimpleNamespace(images=self.images[:count], labels=self.labels[:count], ground_truth=None)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        return images / 255


class Task(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


def snapshot_of(net: nn.Module, images: torch.Tensor, labels: list[int]) -> AttentionSnapshot:
    options = SnapshotOptions(len(images), drawn_methods())
    return AttentionSnapshot.take(Task(net), Data(images, labels), options, always=True).on_host()


@pytest.fixture(scope="module")
def log(tmp_path_factory, net, pixels):
    """A folder with all that the logger writes of two images."""
    folder = tmp_path_factory.mktemp("numbering")
    writer = SummaryWriter(str(folder / "one_head_of_all"))
    AttentionLogger(num_images=2)._write([writer], snapshot_of(net, pixels, [0, 1]), Data.class_names)
    writer.close()
    return folder


def test_judge_names_the_head_that_counts(net, pixels):
    with torch.no_grad():
        case = EvalBatch(net, pixels / 255, net(pixels / 255).argmax(dim=-1))
    found = ablate_heads(case, logits_by_batch(net, case.images))
    changes = {
        name: float(change.logit.abs().max())
        for name, change in knockouts(FaithfulnessReport(2, 1.0, heads=found)).items()
    }
    assert set(changes) == {f"layer {i} head {j}" for i in range(1, 1 + DEPTH) for j in range(1, 1 + HEADS)}
    assert [name for name, change in changes.items() if change > 1e-4] == [f"layer {LAYER} head {HEAD}"]
    first, *rows = knockout_table(FaithfulnessReport(2, 1.0, heads=found)).splitlines()
    assert re.findall(r"head (\d+)", first) == ["1", "2", "3"]
    assert [row.split()[:2] for row in rows[:2]] == [["layer", "1"], ["layer", "2"]]


def test_the_curves_and_pictures_of_tensorboard_name_it(log, net, pixels):
    events = EventAccumulator(str(log / "one_head_of_all"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    entropies = {int(tag[-1]): events.Scalars(tag)[0].value for tag in tags["scalars"] if "entropy_nats/layer_" in tag}
    assert set(entropies) == {1, 2}
    assert entropies[1] == pytest.approx(np.log(17), abs=1e-4)  # which looks everywhere alike
    assert entropies[LAYER] < entropies[1] - 0.1
    assert {f"vit_attention/image_{i}" for i in (1, 2)} == {tag for tag in tags["images"] if tag[-1].isdecimal()}
    drawn = dict(figures(snapshot_of(net, pixels, [0, 1]), Data.class_names))
    alone = dict(figures(snapshot_of(net, pixels[1:], [1]), Data.class_names))
    only = alone["vit_attention/image_1"]
    assert (drawn["vit_attention/image_2"] == only).all()


@pytest.mark.parametrize("numbers", [None, [1]])
def test_the_figures_write_its_number_beside_its_map(net, pixels, monkeypatch, numbers):
    placed, words = [], []
    monkeypatch.setattr(Canvas, "place", lambda self, picture, box: placed.append((picture, box)))
    monkeypatch.setattr(Canvas, "write", lambda self, text, x, y, *_, **__: words.append((text, x, y)))
    summary = snapshot_of(net, pixels, [0, 1]).summaries[0]
    heads = summary.patches(summary.heads)
    draw_sheet(heads if numbers is None else heads[numbers], "", numbers=numbers)
    boxes = [box for picture, box in placed if len(np.unique(picture.reshape(-1, 3), axis=0)) > 3]
    (box,) = boxes[:1]
    (head,) = [text for text, x, _ in words if abs(x - box.centre) < 0.05 and text.isdecimal()]
    (layer,) = [text for text, _, y in words if abs(y - box.top - box.height / 2) < 0.05 and text.isdecimal()]
    assert (layer, head) == (str(LAYER), str(HEAD))


def test_the_tab_names_it(log, serve, open_plugin):
    frame = open_plugin(serve(log, run="one_head_of_all"))
    frame.locator(".small").nth(DEPTH * HEADS - 1).wait_for()
    cells = {
        re.match(r"layer \d+, head \d+", cell.get_attribute("aria-label"))[0]: cell
        for cell in frame.locator(".small").all()
    }
    assert list(cells) == [f"layer {i}, head {j}" for i in range(1, 1 + DEPTH) for j in range(1, 1 + HEADS)]
    entropy = {
        name: float(re.search(r"entropy ([\d.]+)", cell.get_attribute("aria-label"))[1]) for name, cell in cells.items()
    }
    assert min(entropy, key=entropy.__getitem__) == f"layer {LAYER}, head {HEAD}"
    assert [name for name, each in entropy.items() if each < 2.8] == [f"layer {LAYER}, head {HEAD}"]
    cells[f"layer {LAYER}, head {HEAD}"].click()
    for label, text in (("Layer", str(LAYER)), ("Head or fusion of heads", f"head {HEAD}")):
        choice = frame.get_by_label(label, exact=True)
        assert choice.locator("option:checked").inner_text() == text
    frame.get_by_text(f"layer {LAYER}, head {HEAD}", exact=True).wait_for()
    names = [each.get_attribute("aria-label") for each in frame.get_by_role("radio", name=re.compile("^image")).all()]
    assert [name.partition(",")[0] for name in names] == ["image 1", "image 2"]


def test_the_measured_heads_count_from_1():
    for path in (Path(__file__).parents[2] / "docs/measured").glob("judge_*_knockouts.csv"):
        found = re.findall(r"^layer (\d+) head (\d+),", path.read_text(), re.MULTILINE)
        assert min(int(layer) for layer, _ in found) == min(int(head) for _, head in found) == 1
