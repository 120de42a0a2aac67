"""Logging attention from a loop of one's own."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from vit_attn.callbacks import log_attention
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.tb_plugin.metadata import INDEX_TAG

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> VisionTransformer:
    return VisionTransformer(img_size=16, patch_size=4, num_classes=4, embed_dim=32, depth=2, num_heads=2)


def events(folder) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def test_steps_are_written_by_a_writer_with_curves_and_the_network_is_left_as_it_was(tmp_path):
    net = network().train()
    net.blocks[0].eval()
    state = torch.get_rng_state()
    with SummaryWriter(tmp_path) as writer:
        written = [log_attention(writer, net, IMAGES, step, [0, 1, 2], ("a", "b")) for step in (0, 5)]
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.blocks[0].training
    assert all(parameter.grad is None for parameter in net.parameters())
    found = events(tmp_path)
    assert [each.step for each in found.Tensors(INDEX_TAG)] == [0, 5]
    assert min(written) > 1000
    assert "vit_attention/entropy_nats/layer_2" in found.Tags()["scalars"]


def test_a_folder_is_enough_and_labels_are_optional(tmp_path):
    log_attention(str(tmp_path / "run"), network(), IMAGES, 3)
    assert [each.step for each in events(tmp_path / "run").Tensors(INDEX_TAG)] == [3]


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES, {"labels": [1]}, "labels must be one an image, got 1 labels for 3 images"),
        (IMAGES, {"mean": (0.5,) * 3}, "mean and std belong together"),
        (IMAGES[:, :2], {}, "1 or 3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, images, options: dict, message: str):
    with pytest.raises(UserError, match=message):
        log_attention(tmp_path, network(), images, 0, **options)
    assert not list(tmp_path.iterdir())


def test_a_label_that_is_no_class_is_named(tmp_path):
    net = VisionTransformer(img_size=16, patch_size=4, num_classes=5, embed_dim=32, depth=1, num_heads=2)
    images = torch.zeros(2, 3, 16, 16)
    with pytest.raises(UserError, match="label 9 is no class of the network, whose 5 classes are 0 to 4"):
        log_attention(tmp_path, net, images, step=0, labels=[0, 9])
