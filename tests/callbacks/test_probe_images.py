"""Images whose attention is logged, of any data, and the network of any task."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from vit_attn.callbacks.attention_callback import forward_of, net_of
from vit_attn.callbacks.probe_images import LoaderProbe, Scale, probe_data
from vit_attn.errors import UserError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PIXELS = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)


def loader(images: torch.Tensor) -> DataLoader:
    return DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=2)


def test_pixels_of_a_known_normalisation_come_back_exactly():
    scale = Scale.of(torch.zeros(1, 3, 4, 4), (MEAN, STD))
    assert torch.equal(scale.pixels(scale.normalize(PIXELS)), PIXELS)
    with pytest.raises(UserError, match="mean and std must be one a channel, of 1"):
        Scale.of(torch.zeros(1, 1, 4, 4), (MEAN, STD))


def test_images_of_an_unknown_normalisation_are_shown_from_darkest_to_brightest():
    images = torch.linspace(-2, 3, 48).view(1, 3, 4, 4)
    pixels = Scale.of(images, None).pixels(images)
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    assert_close(Scale.of(images, None).normalize(pixels), images, atol=5 / 255, rtol=0)
    unit = torch.full((1, 3, 2, 2), 0.2)
    assert Scale.of(unit, None).pixels(unit).unique().tolist() == [51]  # as they are, if they lie in [0, 1]


def test_a_loaders_probe_images_are_the_networks_inputs_again():
    scale = Scale.of(torch.zeros(1, 3, 4, 4), (MEAN, STD))
    data = type("Data", (), {"mean": MEAN, "std": STD, "class_names": ("a", "b")})()
    probe = LoaderProbe(data, loader(scale.normalize(PIXELS)), "Test")
    assert (probe.in_chans, probe.img_size, probe.class_names) == (3, (4, 4), ("a", "b"))
    assert torch.equal(probe.probe(2).images, PIXELS)
    assert probe.probe(2).labels.tolist() == [0, 1]
    assert probe.probe(2) is probe.probe(2)


def test_images_of_other_channels_cannot_be_drawn():
    with pytest.raises(UserError, match="draws images of 1 or 3 channels, and the data has 5"):
        LoaderProbe(None, loader(torch.rand(2, 5, 4, 4)), "AttentionLogger")


def test_without_loaders_what_is_needed_is_said():
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(L.LightningModule())
    trainer.fit_loop._data_source.instance = trainer.lightning_module
    trainer.fit_loop.epoch_loop.val_loop._data_source.instance = trainer.lightning_module
    with pytest.raises(UserError, match=r"AttentionLogger needs images to draw: give trainer\.fit loaders"):
        probe_data(trainer, "AttentionLogger")


class Task(L.LightningModule):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def test_the_network_of_a_task_is_net_or_model_or_its_only_part_with_parameters():
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    assert net_of(Task(net=one, head=other)) is one
    assert net_of(Task(backbone=other, model=one)) is one
    assert net_of(Task(backbone=one, loss=nn.CrossEntropyLoss())) is one
    assert forward_of(Task(backbone=one)) is one  # which has no forward of its own
    with pytest.raises(UserError, match=r"which part of Task is .* its parts are encoder, head: name .* `self.net`"):
        net_of(Task(encoder=one, head=other))
    with pytest.raises(UserError, match="it has none"):
        net_of(Task())
