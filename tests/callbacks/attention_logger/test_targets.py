import json

import numpy as np
import pytest
import torch

from vit_attn.attention_maps.methods.registry import attribution_methods, find_method
from vit_attn.attention_maps.methods.relevance import grad_rollout
from vit_attn.attention_maps.precision import exact
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.summary import summarize
from vit_attn.callbacks import AttentionLogger
from vit_attn.callbacks.attention_logger.budget import choose_counts
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.callbacks.attention_logger.tab import AttentionTab
from vit_attn.callbacks.attention_logger.targets import choose_targets
from vit_attn.data import ImageData
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier
from vit_attn.tb_plugin.export import _blobs
from vit_attn.tb_plugin.inputs import COMPUTED_BY_PAGE
from vit_attn.tb_plugin.metadata import INDEX_TAG, queries_keys_tag
from vit_attn.tb_plugin.queries_keys import decode_queries_keys

pytestmark = pytest.mark.slow  # records networks


def net_of(**options) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
    net = VisionTransformer(img_size=32, patch_size=4, **sizes | options).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def snapshot_of(net: VisionTransformer, count: int = 3) -> tuple[AttentionSnapshot, ImageData]:
    """A snapshot as the logger takes it."""
    data = ImageData("coins")
    data.prepare_data()
    task = Classifier(arch_options={"embed_dim": 32, "depth": 1, "num_heads": 2}, num_classes=10)
    task.net = net
    logger = AttentionLogger(num_images=count, faithfulness_every=0)
    return AttentionSnapshot.take(task, data, logger.snapshot_options(net, last=False)), data


def written(folder, snapshot: AttentionSnapshot, data: ImageData, megabytes: float = 100) -> dict[str, list[bytes]]:
    AttentionTab(megabytes).write(folder, snapshot.on_host(), list(data.class_names))
    return {tag: list(found) for _, tag, found in _blobs(folder)}


def test_targets_are_the_predicted_class_the_runner_up_and_the_label_or_the_third():
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]]).expand(4, -1)
    labels = torch.tensor([0, 1, 2, 99])  # the last is no class of the network
    assert choose_targets(logits, labels).tolist() == [[1, 2, 0], [1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert choose_targets(logits[:, :2], labels).tolist() == [[1, 0]] * 4


def test_the_tab_has_the_map_of_every_class_specific_method_for_each_target(tmp_path):
    net = net_of()
    snapshot, data = snapshot_of(net)
    index = json.loads(written(tmp_path, snapshot, data)[INDEX_TAG][0])
    images = data.normalize(snapshot.probe.images)
    with record(net, gradients=True) as recording:
        net(images)
    names = [name for name, method in attribution_methods().items() if method.class_specific]
    for i, image in enumerate(index["images"]):
        assert image["targets"] == [data.class_names[target] for target in snapshot.targets[i]]
        assert image["targets"][0] == image["top"][0][0]
        assert sorted(image["target_rows"]) == sorted(names)
        for position, target in enumerate(snapshot.targets[i]):
            expected = {
                "relevance": summarize(net, images, target=target)[i].relevance,
                "gradient_rollout": grad_rollout(recording, target)[i, 0].numpy(),
            }
            for name, row in expected.items():
                np.testing.assert_allclose(image["target_rows"][name][position], row, rtol=2e-3, atol=1e-6)
        first = {name: rows[0] for name, rows in image["target_rows"].items() if name in image["rows"]}
        assert first == {name: rows for name, rows in image["rows"].items() if find_method(name).class_specific}


def test_every_registered_method_is_in_the_tab_and_those_that_refuse_the_network_are_left_out(tmp_path):
    names = set(attribution_methods()) - set(COMPUTED_BY_PAGE)
    assert "legrad" in names
    snapshot, data = snapshot_of(net_of())
    index = json.loads(written(tmp_path / "all", snapshot, data)[INDEX_TAG][0])
    assert {method["name"] for method in index["methods"] if method["rows"]} == names
    net = net_of()
    head, net.forward_head = net.forward_head, lambda tokens: 2 * head(tokens)
    net.forward = lambda images: head(net.forward_features(images))  # LeGrad reads other logits than these
    snapshot, data = snapshot_of(net)
    index = json.loads(written(tmp_path / "few", snapshot, data)[INDEX_TAG][0])
    assert {method["name"] for method in index["methods"] if method["rows"]} == names - {"legrad"}


@pytest.mark.parametrize("affinity", ["scaled_dot_product", "cosine", "gaussian", "additive"])
def test_scores_are_the_scaled_products_of_the_logged_queries_and_keys(affinity, tmp_path):
    snapshot, data = snapshot_of(net_of(affinity=affinity), 1)
    blobs = written(tmp_path, snapshot, data)
    index = json.loads(blobs[INDEX_TAG][0])
    assert index["images"][0]["queries_keys"]
    for layer, scale, blob in zip(snapshot.recording, index["score_scale"], blobs[queries_keys_tag(0)], strict=True):
        if affinity == "additive":
            assert scale is None
            continue
        queries, keys = decode_queries_keys(blob)
        scores = scale * queries @ keys.swapaxes(1, 2)
        if affinity == "gaussian":
            scores -= 0.5 * scale * (keys**2).sum(axis=-1)[:, None]  # the mask
        with exact():
            expected = layer.weights()[0].numpy()
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(weights / weights.sum(axis=-1, keepdims=True), expected, atol=0.02)


def test_queries_and_keys_take_a_bounded_part_of_a_step_and_the_first_image_has_them():
    assert choose_counts(8, of_image=1000, of_vectors=100, most=10_000) == (8, 8)
    assert choose_counts(8, of_image=1000, of_vectors=500, most=10_000) == (8, 2)
    assert choose_counts(8, of_image=1000, of_vectors=5000, most=13_000) == (8, 1)
    assert choose_counts(8, of_image=1000, of_vectors=5000, most=12_999) == (7, 1)
    assert choose_counts(8, of_image=1000, of_vectors=500, most=1400) == (1, 0)


def test_the_measures_of_heads_are_those_of_the_scalars_and_entropy_is_a_fraction(tmp_path):
    snapshot, data = snapshot_of(net_of(), 2)
    values = torch.tensor([[1.0, 2.0], [float("nan"), 0.5]])
    names = ("entropy", "distance", "sink_mass", "prefix_mass")
    AttentionTab(100).write(
        tmp_path, snapshot.on_host(), list(data.class_names), {name: values + i for i, name in enumerate(names)}
    )
    index = json.loads({tag: found for _, tag, found in _blobs(tmp_path)}[INDEX_TAG][0])
    assert index["head_measures"] == {
        "entropy": [
            [pytest.approx(each / np.log(65), rel=1e-3) for each in (1, 2)],
            [None, pytest.approx(0.5 / np.log(65), rel=1e-3)],
        ],
        "distance": [[2, 3], [None, 1.5]],
        "sink": [[3, 4], [None, 2.5]],
        "prefix": [[4, 5], [None, 3.5]],
    }


def test_what_is_written_stays_within_the_bytes_that_the_budget_counts(tmp_path):
    snapshot, data = snapshot_of(net_of())
    for megabytes in (0.5, 0.8, 1.5, 100):
        tab = AttentionTab(megabytes)
        size = tab.write(tmp_path / str(megabytes), snapshot.on_host(), list(data.class_names))
        counted = tab.budget.total - tab.budget.left
        assert 0 < size <= counted < 1.5 * size


def test_it_is_reported_that_a_budget_has_no_room_for_another_step(tmp_path):
    snapshot, data = snapshot_of(net_of(), 1)
    tab = AttentionTab(100)
    tab.budget.left = 1000  # as of a run that is resumed after its last step
    assert tab.write(tmp_path, snapshot.on_host(), list(data.class_names)) == 0
    assert tab.reported == "To stay within 100 MB: no further step is written."
