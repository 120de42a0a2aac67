"""Predictions and attention of what a Python session has."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from vit_attn.attention_maps.recording.record import record
from vit_attn.checkpoints.paths import find_checkpoint
from vit_attn.errors import UserError
from vit_attn.inference.network import TrainedNetwork, open_network

NAME = "vit_attn_cifar10_patch4_32"
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> TrainedNetwork:
    return open_network(NAME)


def test_a_picture_a_file_pixels_and_a_normalised_tensor_are_predicted_alike(network: TrainedNetwork, tmp_path: Path):
    picture = Image.fromarray(PIXELS)
    picture.save(tmp_path / "a.png")
    tensor = network.normalize([PIXELS], torch.device("cpu"))[0]
    expected = network.net(tensor[None]).softmax(dim=-1)[0]
    for given in (picture, tmp_path / "a.png", str(tmp_path / "a.png"), PIXELS, tensor):
        prediction = network.predict(given)
        assert prediction.index == int(expected.argmax())
        assert prediction.label == network.class_name(prediction.index)
        assert prediction.probability == pytest.approx(expected.max().item(), abs=1e-5)
        assert prediction.probabilities[network.class_name(3)] == pytest.approx(expected[3].item(), abs=1e-5)
    assert_close(network.batch([picture, tensor]), torch.stack([tensor, tensor]))


def test_a_list_gives_a_list_in_its_order(network: TrainedNetwork):
    others = [np.full((32, 32, 3), grey, dtype=np.uint8) for grey in (0, 255)]
    together = network.predict([PIXELS, *others])
    assert [each.index for each in together] == [network.predict(each).index for each in (PIXELS, *others)]
    assert len(network.predict([PIXELS])) == 1
    assert network.predict([]) == []
    assert len(network.predict(network.batch([PIXELS, *others]))) == 3


def test_attention_is_what_was_recorded(network: TrainedNetwork):
    found = network.attention(PIXELS, query="2,3")
    with torch.no_grad(), record(network.net) as recording:
        network.net(network.batch(PIXELS))
    token = recording.num_prefix_tokens + 8 + 2
    row = recording[1].weights()[0, :, token, recording.num_prefix_tokens :].view(-1, 8, 8)
    assert_close(torch.from_numpy(found.heads[1]), row, atol=1e-5, rtol=1e-4)
    assert found.query == "patch 2,3" or "2" in found.query
    assert all(each.shape == (8, 8) for each in found.maps.values())
    assert len(network.attention([PIXELS, PIXELS])) == 2


def test_the_target_of_relevance_is_a_class_by_name_or_index(network: TrainedNetwork):
    by_name = network.attention(PIXELS, target=network.class_name(5))
    np.testing.assert_array_equal(by_name.maps["relevance"], network.attention(PIXELS, target=5).maps["relevance"])
    assert by_name.summary.target == 5
    with pytest.raises(UserError, match="knows no class 'truk', did you mean 'truck'"):
        network.attention(PIXELS, target="truk")
    with pytest.raises(UserError, match="picture 1 must be a file, a PIL image"):
        network.predict(3)


def test_a_run_of_lightnings_own_is_its_last_written_checkpoint(tmp_path: Path):
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    for seconds, name in ((100, "epoch=1-step=8.ckpt"), (50, "epoch=0-step=4.ckpt")):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (seconds, seconds))
    assert find_checkpoint(tmp_path) == folder / "epoch=1-step=8.ckpt"


def test_a_network_and_its_attention_are_shown_in_a_line(network: TrainedNetwork):
    assert repr(network) == "TrainedNetwork(vit_attn_cifar10_patch4_32, 10 classes, images 3x32x32)"
    shown = repr(network.attention(Image.new("RGB", (32, 32))))
    assert shown.endswith("maps=relevance, last_layer, rollout)")
    assert len(shown) < 300


def test_a_tensor_of_another_size_is_refused_with_the_way_out(network: TrainedNetwork):
    with pytest.raises(UserError, match=r"\(3, 48, 48\) does not fit its images of 32x32 pixels: resize it, or give"):
        network.predict(torch.zeros(3, 48, 48))
