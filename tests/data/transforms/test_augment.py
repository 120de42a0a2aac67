import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from vit_attn.data import ImageData
from vit_attn.data.transforms import batch, crops, erasing, mixup
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.crops import alternating_flips, draw_crops
from vit_attn.data.transforms.geometry import resized_crop
from vit_attn.data.transforms.rng import BatchRNG
from vit_attn.errors import UserError

IMAGES = torch.randint(0, 256, (64, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws(count: int = 64, *address: int) -> BatchRNG:
    return BatchRNG(address or (0, 0), count)


def crop_and_flip(images, padding, probability, rng, flips=None):
    return crops.crop_and_flip(
        images, torch.from_numpy(crops.draw_crops_and_flips(images.shape, padding, probability, rng, flips)), padding
    )


def random_crops(images, min_area, rng):
    return torch.from_numpy(draw_crops(np.tile(images.shape[2:], (len(images), 1)), min_area, rng))


def masks(boxes, size):
    return erasing.box_masks(torch.from_numpy(boxes)[:, None], size)


def random_boxes(areas, size, rng):
    return masks(erasing.draw_boxes(areas.numpy(), size, rng), size)


def erase(images, probability, rng):
    return images.masked_fill(masks(erasing.draw_erasing(probability, images.shape[2:], rng), images.shape[2:]), 0)


def cutout(images, side, rng):
    return images.masked_fill(masks(erasing.draw_cutout(side, images.shape[2:], rng), images.shape[2:]), 0)


def mix(images, labels, num_classes, mixup_alpha, cutmix_alpha, rng):
    mixing, boxes = mixup.draw_mixing(mixup_alpha, cutmix_alpha, images.shape[2:], rng)
    mixing = mixup.Mixing(*map(torch.from_numpy, mixing))
    return mixup.mix(images, labels, num_classes, mixing, masks(boxes, images.shape[2:]))


def augment_batch(images, settings, normalize, rng, flips=None, **options):
    parameters = batch.draw_parameters(images.shape, settings, rng, flips, **options).to("cpu")
    labels = torch.arange(len(images)) % 10
    return batch.augment_batch(images, labels, parameters, normalize, 10, settings.crop_padding or 0)[0]


def test_crop_and_flip_agree_with_torchvision_image_by_image():
    result = crop_and_flip(IMAGES, 4, 0.5, draws())
    same = draws()
    tops, flips, lefts = same.integers(0, 8), same.uniform() < 0.5, same.integers(0, 8)
    assert 10 < flips.sum() < 54
    for i in range(64):
        # the crop of a mirrored image at `left` is the mirror of the image's crop
        source = tv.horizontal_flip(IMAGES[i]) if flips[i] else IMAGES[i]
        left = 8 - lefts[i] if flips[i] else lefts[i]
        padded = F.pad(IMAGES[i], (4, 4, 4, 4))
        crop = padded[:, tops[i] : tops[i] + 12]
        cols = torch.arange(16).flip(0) if flips[i] else torch.arange(16)
        assert torch.equal(result[i], crop[:, :, cols + lefts[i]])
        assert torch.equal(result[i], tv.crop(F.pad(source, (4, 4, 4, 4)), int(tops[i]), int(left), 12, 16))


def test_each_image_has_parameters_of_its_own():
    one = IMAGES[:1].expand(64, -1, -1, -1)
    results = crop_and_flip(one, 4, 0.5, draws())
    assert len({image.numpy().tobytes() for image in results}) > 40


def test_without_padding_and_flip_nothing_changes():
    assert torch.equal(crop_and_flip(IMAGES, 0, 0.0, draws()), IMAGES)


def test_named_images_are_mirrored_whatever_the_share():
    mirrored = np.arange(64) % 3 == 0
    result = crop_and_flip(IMAGES, 0, 0.5, draws(), mirrored)
    assert torch.equal(result, torch.where(torch.from_numpy(mirrored)[:, None, None, None], IMAGES.flip(-1), IMAGES))


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    epochs = [alternating_flips(torch.arange(500) + 500 * epoch, 500, seed=1) for epoch in range(4)]
    assert (epochs[1] == ~epochs[0]).all()
    assert (epochs[2] == epochs[0]).all()
    assert 200 < epochs[0].sum() < 300
    assert (alternating_flips(torch.arange(500), 500, seed=2) != epochs[0]).any()
    some = torch.tensor([700, 3, 499])
    assert alternating_flips(some, 500, seed=1).tolist() == [epochs[1][200], epochs[0][3], epochs[0][499]]


def test_cutout_blanks_a_square_around_a_pixel_of_every_image():
    result = cutout(torch.ones(2000, 2, 16, 20), 6, draws(2000)) == 0
    assert torch.equal(result[:, 0], result[:, 1])
    heights, widths = result[:, 0].any(dim=2).sum(dim=1), result[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(heights * widths, result[:, 0].sum(dim=(1, 2)))
    assert (int(heights.max()), int(heights.min()), int(widths.max()), int(widths.min())) == (6, 3, 6, 3)
    assert result.float().mean(dim=0).min() > 0.015  # the corners too
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(cutout(images, 0, draws(4)), images)


ALL = Augment(2, 0.5, 9, 0.5, flip_alternating=True, colour_jitter=0.4, cutout=4)


@pytest.mark.parametrize("on", [ALL, Augment(trivial_augment=1.0), Augment(colour_jitter=0.4, erase=1.0)])
def test_ranks_augment_their_slice_of_the_global_batch(on):
    whole = augment_batch(IMAGES, on, torch.Tensor.float, BatchRNG((1, 2), 64))
    parts = [
        augment_batch(IMAGES[i : i + 32], on, torch.Tensor.float, BatchRNG((1, 2), 32, i // 32, 2)) for i in (0, 32)
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(augment_batch(IMAGES, on, torch.Tensor.float, BatchRNG((1, 3), 64)), whole)


@pytest.mark.parametrize("on", [Augment(), Augment(0, 0.0, 0, 0.0, 0.0, 0.0, 1.0, False, 0.0, 0.0, 0)])
def test_what_is_off_changes_nothing(on):
    assert torch.equal(augment_batch(IMAGES, on, torch.Tensor.float, draws()), IMAGES.float())


def test_draws_depend_on_their_address_and_ranks_slice_the_global_batch():
    whole = BatchRNG((3, 5), 8).uniform()
    parts = [BatchRNG((3, 5), 4, rank, 2).uniform() for rank in (0, 1)]
    assert (np.concatenate(parts) == whole).all()
    assert (parts[0] != parts[1]).all()
    assert (BatchRNG((3, 6), 8).uniform() != whole).all()


def test_boxes_have_the_area_that_was_asked_for():
    areas = torch.linspace(0.05, 0.3, 4000)
    boxes = random_boxes(areas, (64, 64), draws(4000))
    inside = boxes.float().mean(dim=(1, 2, 3))
    assert (inside <= areas + 0.04).all()
    assert (inside > 0).float().mean() > 0.99
    border = boxes[:, 0, 0].any(-1) | boxes[:, 0, -1].any(-1) | boxes[:, 0, :, 0].any(-1) | boxes[:, 0, :, -1].any(-1)
    assert (~border).sum() > 500
    assert_close(inside[~border], areas[~border], rtol=0.15, atol=0)


def test_erasing_blanks_a_box_in_its_share_of_the_images():
    images = torch.ones(2000, 1, 16, 16)
    result = erase(images, 0.25, draws(2000))
    touched = (result == 0).flatten(1).any(dim=1).float().mean()
    assert touched == pytest.approx(0.25, abs=0.04)
    assert torch.equal(erase(images, 0.0, draws(2000)), images)
    assert (images == 1).all()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_are_mixed_by_the_share_of_the_pixels(mixup, cutmix):
    labels = torch.randint(0, 8, (64,))
    images = F.one_hot(labels, 8).float()[:, :, None, None].expand(-1, -1, 20, 20)  # channel c is lit in class c
    mixed, targets = mix(images, labels, 8, mixup, cutmix, draws())
    assert_close(mixed.mean(dim=(2, 3)), targets, rtol=0, atol=1e-5)
    assert_close(targets.sum(dim=1), torch.ones(64))
    assert (targets.max(dim=1).values < 0.999).float().mean() > 0.5


def test_mixup_blends_and_cutmix_pastes():
    labels = torch.arange(64)
    images = torch.rand(64, 1, 16, 16)
    pasted, _ = mix(images, labels, 64, 0.0, 1.0, draws())
    known = torch.isin(pasted, images)
    assert known.all()
    blended, _ = mix(images, labels, 64, 1.0, 0.0, draws())
    assert not torch.isin(blended, images).all(dim=-1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"augment.flip must be in 0..1, got 1.5"),
        ({"crop_padding": -1}, r"augment.crop_padding must be in 0..1024, got -1"),
        ({"rand_augment": 31}, r"augment.rand_augment must be in 0..30, got 31"),
        ({"trivial_augment": 1.1}, r"augment.trivial_augment must be in 0..1, got 1.1"),
        ({"colour_jitter": -0.1}, r"augment.colour_jitter must be in 0..1, got -0.1"),
        ({"cutout": -8}, r"augment.cutout must be in 0..1024, got -8"),
        ({"rand_augment": 9, "trivial_augment": 0.5}, r"rand_augment=9 and augment.trivial_augment=0.5 do the same"),
    ],
)
def test_impossible_settings_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        Augment(**options)


@pytest.mark.parametrize("shape", [(3, 12, 16), (1, 28, 28), (3, 33, 20)])
def test_resized_crops_are_torchvisions_within_one_grey_level(shape):
    images = torch.randint(0, 256, (40, *shape), dtype=torch.uint8)
    crops = random_crops(images, 0.05, draws(40))
    ours = resized_crop(images, crops)
    for image, result, crop in zip(images, ours, crops.int().tolist(), strict=True):
        theirs = tv.resized_crop(image, *crop, size=list(shape[1:]), antialias=True)
        assert_close(result.int(), theirs.int(), rtol=0, atol=1)
    assert_close(resized_crop(images, torch.tensor([[0.0, 0, *shape[1:]]]).expand(40, -1)), images)


def test_crops_lie_in_the_image_and_have_the_area_and_shape_that_was_asked_for():
    images = torch.zeros(4000, 1, 60, 80, dtype=torch.uint8)
    top, left, height, width = random_crops(images, 0.2, draws(4000)).unbind(dim=1)
    assert bool(((top >= 0) & (left >= 0) & (top + height <= 60) & (left + width <= 80)).all())
    areas, ratios = height * width / 4800, width / height
    assert 0.18 < areas.min() < 0.22
    assert areas.max() > 0.9
    theirs = [RandomResizedCrop.get_params(images[0], [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    assert areas.mean() == pytest.approx(sum(each[2] * each[3] for each in theirs) / 4000 / 4800, abs=0.02)
    spread = torch.tensor([math.log(each[3] / each[2]) for each in theirs]).std()
    assert float(ratios.log().std()) == pytest.approx(float(spread), abs=0.01)
    assert (float(ratios.min()), float(ratios.max())) == pytest.approx((3 / 4, 4 / 3), abs=0.06)
    assert (float(top.min()), float(left.min())) == (0, 0)
    narrow = random_crops(torch.zeros(50, 1, 10, 100, dtype=torch.uint8), 0.9, draws(50))
    assert narrow.tolist() == [[0.0, 43.0, 10.0, 13.0]] * 50  # none fits: the centre, as torchvision has it


def test_random_resized_crops_are_drawn_for_all_ranks():
    on = Augment(random_resized_crop=0.3, flip=0.5)
    whole = augment_batch(IMAGES, on, torch.Tensor.float, BatchRNG((1, 2), 64))
    parts = [
        augment_batch(IMAGES[i : i + 32], on, torch.Tensor.float, BatchRNG((1, 2), 32, i // 32, 2)) for i in (0, 32)
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert (
        len(
            {
                image.numpy().tobytes()
                for image in augment_batch(IMAGES[:1].expand(64, -1, -1, -1), on, torch.Tensor.float, draws())
            }
        )
        > 50
    )


def test_one_crop_takes_the_place_of_the_other():
    photos, padded = Augment(random_resized_crop=0.35), Augment(crop_padding=4)
    assert photos.over(padded).crop_padding == 0
    assert padded.over(photos).random_resized_crop == 0
    with pytest.raises(UserError, match="both crop: set one of them to 0"):
        Augment(crop_padding=4, random_resized_crop=0.35)
    with pytest.raises(UserError, match=r"augment.random_resized_crop must be in 0..1, got 2"):
        Augment(random_resized_crop=2)


def test_a_dictionary_is_taken_as_in_yaml_and_a_wrong_key_is_refused_with_a_hint():
    assert ImageData("coins", augment={"mixup": 0.8}).augment == ImageData("coins", augment=Augment(mixup=0.8)).augment
    with pytest.raises(UserError, match="augment has no 'mixupp', did you mean 'mixup'"):
        ImageData("coins", augment={"mixupp": 0.8})
