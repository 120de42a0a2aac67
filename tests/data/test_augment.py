import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.augment import Augment, Draws, crop_and_flip, erase, mix, random_boxes
from vit_attn.errors import UserError

IMAGES = torch.randint(0, 256, (64, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws(count: int = 64, *address: int) -> Draws:
    return Draws(address or (0, 0), count)


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


def test_draws_depend_on_their_address_and_ranks_slice_the_global_batch():
    whole = Draws((3, 5), 8).uniform()
    parts = [Draws((3, 5), 4, rank, 2).uniform() for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(parts[0], parts[1])
    assert not torch.equal(Draws((3, 6), 8).uniform(), whole)


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
    ],
)
def test_impossible_settings_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        Augment(**options)
