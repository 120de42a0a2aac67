import functools
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.transforms import policies
from vit_attn.data.transforms.policies import (
    BINS,
    DRAWN,
    NAMES,
    draw_colour_jitter,
    draw_rand_augment,
    draw_trivial_augment,
    magnitudes,
)
from vit_attn.data.transforms.rng import BatchRNG

IMAGES = torch.randint(0, 256, (64, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DRAWN_BY = {
    "rand": lambda draws: draw_rand_augment(9, (12, 16), draws),
    "trivial": lambda draws: [draw_trivial_augment(1.0, (12, 16), draws)],
    "jitter": lambda draws: draw_colour_jitter(0.4, draws),
}


def apply(rule: str, images: torch.Tensor, draws: BatchRNG) -> torch.Tensor:
    return functools.reduce(policies.apply_operations, DRAWN_BY[rule](draws), images)


RULES = {rule: functools.partial(apply, rule) for rule in DRAWN_BY}


@pytest.mark.parametrize(("theirs", "wide"), [(RandAugment(), False), (TrivialAugmentWide(), True)])
@pytest.mark.parametrize("size", [(32, 32), (224, 161)])
def test_operations_and_strengths_are_torchvisions(theirs, wide, size):
    space = theirs._AUGMENTATION_SPACE
    assert tuple(space) == NAMES[:DRAWN]
    ours = magnitudes(wide, *size)
    for code, (name, (strengths, signed)) in enumerate(space.items()):
        expected = strengths(BINS, *size)
        expected = torch.zeros(BINS) if expected is None else expected
        if name.startswith("Translate"):
            expected = expected.int()
        assert (ours[code] == expected.double().numpy() * (255 if name == "Solarize" else 1)).all(), name
        assert signed == policies._SIGNED[code]


def as_torchvision(image: torch.Tensor, code: int, value: float) -> torch.Tensor:
    """What torchvision's policies do with an operation; factors are 1 plus their magnitude."""
    name = NAMES[code]
    magnitude = {"Solarize": value / 255}.get(name, value - 1 if 6 <= code <= 9 else value)
    return RandAugment()._apply_image_or_video_transform(
        image, name, magnitude, InterpolationMode.NEAREST, RandAugment()._fill
    )


@pytest.mark.parametrize("rule", ["rand", "trivial"])
def test_images_change_as_torchvision_changes_them(rule):
    images, choices = IMAGES, DRAWN_BY[rule](BatchRNG((0, 0), 64))
    for choice in choices:
        result = policies.apply_operations(images, choice)
        codes, values = (each.tolist() for each in choice)
        theirs = [as_torchvision(*each) for each in zip(images, codes, values, strict=True)]
        assert (torch.stack(theirs).int() - result.int()).abs().max() <= 1
        images = result
    assert len(choices) == {"rand": 2, "trivial": 1}[rule]


def test_every_operation_is_drawn_as_often_and_half_of_them_the_other_way():
    count = 28_000
    choices = draw_rand_augment(9, (32, 32), BatchRNG((0,), count))
    for codes, values in choices:
        shares = np.bincount(codes, minlength=DRAWN) / count
        assert np.abs(shares - 1 / 14).max() < 0.006
        turned = values[codes == NAMES.index("Rotate")]
        assert set(np.abs(turned)) == {9.0}
        assert abs((turned < 0).mean() - 0.5) < 0.05
        assert set(values[codes == NAMES.index("Color")].round(6)) == {0.73, 1.27}
    assert not (choices[0].codes == choices[1].codes).all()


def test_trivial_augment_draws_every_strength_for_its_share_of_the_images():
    codes, values = draw_trivial_augment(0.5, (32, 32), BatchRNG((0,), 28_000))
    assert abs((codes == 0).mean() - (0.5 + 0.5 / 14)) < 0.01
    assert len(Counter(np.abs(values[codes == NAMES.index("ShearX")]).tolist())) == BINS


def test_colour_jitter_changes_all_four_in_an_order_of_each_image_own():
    choices = draw_colour_jitter(0.4, BatchRNG((0,), 5000))
    codes, values = (np.stack(parts, axis=1) for parts in zip(*choices, strict=True))
    assert len(set(map(tuple, codes))) == 24
    assert (np.sort(codes, axis=1) == np.sort(policies._JITTERED)).all()
    hue = codes == NAMES.index("Hue")
    assert values[~hue].min() == pytest.approx(0.6, abs=0.01)
    assert values[~hue].max() == pytest.approx(1.4, abs=0.01)
    assert np.abs(values[hue]).max() == pytest.approx(0.1, abs=0.002)


def test_colour_jitter_is_torchvisions_one_after_the_other():
    choices, result = draw_colour_jitter(0.4, BatchRNG((0, 0), 64)), RULES["jitter"](IMAGES, BatchRNG((0, 0), 64))
    functions = {"Brightness": "brightness", "Contrast": "contrast", "Color": "saturation", "Hue": "hue"}
    for i, image in enumerate(IMAGES):
        for codes, values in choices:
            image = getattr(tv, f"adjust_{functions[NAMES[codes[i]]]}")(image, float(values[i]))
        difference = (image.int() - result[i].int()).abs()
        assert difference.float().mean() < 0.1  # one grey level may grow in the operations that follow
        assert difference.max() <= 6


@pytest.mark.parametrize("rule", RULES)
def test_ranks_slice_the_global_batch(rule):
    whole = RULES[rule](IMAGES, BatchRNG((3, 5), 64))
    parts = [RULES[rule](IMAGES[32 * rank : 32 * rank + 32], BatchRNG((3, 5), 32, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("rule", RULES)
def test_each_image_has_parameters_of_its_own(rule):
    results = RULES[rule](IMAGES[:1].expand(64, -1, -1, -1), BatchRNG((0, 0), 64))
    assert len({image.numpy().tobytes() for image in results}) > 35


@pytest.mark.parametrize("rule", RULES)
def test_one_channel_will_do(rule):
    assert RULES[rule](IMAGES[:, :1], BatchRNG((0, 0), 64)).shape == (64, 1, 12, 16)
