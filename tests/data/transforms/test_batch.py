"""The pixels, operations, transfers and graphs of an augmented batch; what each operation does is tested beside it."""

import functools
import hashlib

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from tests.op_counter import OpCounter
from vit_attn.data.loading.batch_sources import RawBatch
from vit_attn.data.loading.device import TrainingTransform
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.batch import augment_batch, draw_parameters
from vit_attn.data.transforms.rng import BatchRNG

_draws = np.random.default_rng(0)
IMAGES = torch.from_numpy(
    (_draws.integers(0, 128, (16, 3, 32, 32)) + _draws.integers(0, 128, (16, 3, 1, 1))).astype(np.uint8)
)
LABELS = torch.arange(16) % 10
PLACES = torch.arange(1, 3 * 32 * 32 + 1).double().view(3, 32, 32) / (3 * 32 * 32)
BATCH, PROGRESS = RawBatch(IMAGES, LABELS, None), RunProgress(None)
RECIPE = Augment(crop_padding=4, flip=0.5, rand_augment=9, erase=0.25)
MIXED = Augment(mixup=0.8, cutmix=1.0, mix_until=0.6).over(RECIPE)
"""That of configs/cifar10.yaml."""


def as_values(pixels: Tensor) -> Tensor:
    return pixels.float()


def on_two_ranks(settings: Augment, grouped: bool) -> tuple[Tensor, Tensor]:
    """All images and targets at seed 0, step 3."""
    parts = []
    for rank in (0, 1):
        images, labels = (each[8 * rank : 8 * rank + 8] for each in (IMAGES, LABELS))
        mixing = bool(settings.mixup or settings.cutmix)
        rng = BatchRNG((0, 3), 8, rank, 2)
        parameters = draw_parameters(images.shape, settings, rng, mixing=mixing, grouped=grouped).to("cpu")
        parts.append(augment_batch(images, labels, parameters, as_values, 10, settings.crop_padding or 0))
    images, targets = (torch.cat(each) for each in zip(*parts, strict=True))
    return images, targets


def digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:12]


def weighted_mean(images: Tensor) -> float:
    """Mean of all pixels, each weighted by its place."""
    return float((images.double() * PLACES).mean())


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (RECIPE, "4282fec72f3e"),
        (Augment(crop_padding=4, flip=0.5), "1430ed146881"),
        (Augment(trivial_augment=1.0), "a162fc48502e"),
        (Augment(cutout=8), "d9abdbea8f6c"),
        (Augment(cutmix=1.0), "16b42e49dbaf"),
    ],
    ids=["recipe", "crop", "trivial", "cutout", "cutmix"],
)
def test_a_seed_and_step_give_the_pixels_that_they_always_gave(settings, expected, grouped):
    images, _ = on_two_ranks(settings, grouped)
    assert digest(IMAGES) == "eba92f4e2835"
    assert torch.equal(images, images.round())
    assert digest(images.to(torch.uint8)) == expected


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Augment(colour_jitter=0.4), 59.179496281676826),
        (Augment(random_resized_crop=0.3), 61.21464673015807),
        (Augment(mixup=0.8), 61.378024971914435),
        (MIXED, 50.937018415611334),
    ],
    ids=["jitter", "resized", "mixup", "recipe"],
)
def test_a_seed_and_step_give_the_mean_that_they_always_gave(settings, expected, grouped):
    """Where the last bit of a product, the processor's, may choose between two grey levels."""
    images, _ = on_two_ranks(settings, grouped)
    assert weighted_mean(images) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Augment(mixup=0.8), "a39cba36ba5b"),
        (Augment(cutmix=1.0), "64d342294f34"),
        (MIXED, "64a593a6bc97"),
    ],
    ids=["mixup", "cutmix", "recipe"],
)
def test_a_seed_and_step_give_the_targets_that_they_always_gave(settings, expected):
    _, targets = on_two_ranks(settings, grouped=True)
    assert digest((targets * 1000).round().to(torch.int16)) == expected


class Normalize:
    """Moves mean and deviation to the device of the first batch, as a data module does."""

    def __init__(self) -> None:
        self.mean, self.std = torch.full((1, 3, 1, 1), 120.0), torch.full((1, 3, 1, 1), 60.0)

    def __call__(self, pixels: Tensor) -> Tensor:
        if self.mean.device != pixels.device:
            self.mean, self.std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return (pixels - self.mean) / self.std


def transform_of(settings: Augment, **options) -> TrainingTransform:
    return TrainingTransform(settings, Normalize(), (32, 32), 64, 10, 0, **options)


def test_a_step_of_the_recipe_is_one_transfer_and_few_launches_for_which_the_host_never_waits():
    transform = transform_of(MIXED)
    batch = RawBatch(IMAGES.to("meta"), LABELS.to("meta"), None)
    transform(batch, PROGRESS, 0, 0.0)  # moves mean and deviation
    with OpCounter() as counter:
        images, targets = transform(batch, PROGRESS, 1, 0.0)
    assert (images.shape, targets.shape, images.device.type) == ((16, 3, 32, 32), (16, 10), "meta")
    assert counter.launches <= 150, counter.ops
    assert counter.waits == 0, counter.places
    assert counter.transfers == 1, counter.places


@pytest.fixture
def graphs(monkeypatch):
    """Count the graphs that torch.compile makes; a second graph for one batch is an error."""
    torch.compiler.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks of shapes are no part of a graph
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter, fullgraph=True))
    yield counter
    torch.compiler.reset()


SETTINGS = {
    "recipe": MIXED,
    "jitter": Augment(colour_jitter=0.4, cutout=8),
    "photos": Augment(random_resized_crop=0.3, flip=0.5, trivial_augment=1.0),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_augmentation_compiles_to_one_graph_only_once(settings, graphs):
    compiled, plain = transform_of(settings, compile=True), transform_of(settings)
    for step in range(5):
        images, targets = compiled(BATCH, PROGRESS, step, 0.0)
        expected = plain(BATCH, PROGRESS, step, 0.0)
        assert graphs.frame_count == 1
        torch.testing.assert_close(targets, expected[1], rtol=0, atol=1e-6)
        differences = (images - expected[0]).abs()
        assert differences.max() < 0.03  # a grey level: jitter's sums may be rounded otherwise
        assert (differences > 1e-6).float().mean() < 1e-3


def test_the_end_of_mixing_is_one_more_graph(graphs):
    transform = transform_of(MIXED, compile=True)
    for step, fraction in enumerate([0.0, 0.5, 0.7, 0.9, 1.0]):
        transform(BATCH, PROGRESS, step, fraction)
    assert graphs.frame_count == 2


def test_every_loader_of_a_process_is_compiled_however_many_there_are(graphs):
    for number in range(12):
        transform_of(Augment(crop_padding=number + 1), compile=True)(BATCH, PROGRESS, 0, 0.0)
        assert graphs.frame_count == number + 1
