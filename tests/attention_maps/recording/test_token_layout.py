"""Patches lie on the pixels that they cover."""

import numpy as np
import timm
import torch
from torch.testing import assert_close

from vit_attn.attention_maps.evaluation.faithfulness import deletion
from vit_attn.attention_maps.methods.registry import find_method
from vit_attn.attention_maps.recording.token_layout import TokenLayout, crop_to_patches, patches_to_pixels, token_layout
from vit_attn.attention_maps.summary import summarize
from vit_attn.data.images.fits import seen_as_is
from vit_attn.inference.attend import ImageAttention, draw_attention


def test_an_image_that_is_no_multiple_of_the_patch_is_shown_as_far_as_patches_reach():
    image = np.random.default_rng(0).integers(0, 255, (150, 170, 3), dtype=np.uint8)
    part = crop_to_patches(image, TokenLayout(1, (9, 10), "token", patch_size=(16, 16)))
    assert np.array_equal(part, image[:144, :160])
    several = crop_to_patches(np.stack([image, image]), TokenLayout(1, (9, 10), "token", patch_size=(16, 16)))
    assert np.array_equal(several[1], part)


def test_where_padding_is_part_of_a_patch_it_is_black():
    image = np.full((30, 32, 3), 7, dtype=np.uint8)
    whole = crop_to_patches(image, TokenLayout(1, (2, 2), "token", patch_size=(16, 16)))
    assert whole.shape == (32, 32, 3)
    assert (whole[:30] == 7).all()
    assert (whole[30:] == 0).all()


def test_values_of_patches_lie_on_their_pixels():
    layout = TokenLayout(0, (2, 3), "avg", patch_size=(2, 2))
    pixels = patches_to_pixels(torch.arange(6.0)[None], layout, (5, 6), outside=9.0)[0, 0]
    assert_close(pixels[:, 0], torch.tensor([0.0, 0, 3, 3, 9]))
    assert_close(pixels[0], torch.tensor([0.0, 0, 1, 1, 2, 2]))
    assert_close(pixels[-1], torch.full((6,), 9.0))


def small(**options):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3, **options).eval()


def test_deletion_hides_the_pixels_of_patches_alone():
    net, seen = small(img_size=40), []
    images = 1 + torch.rand(1, 3, 40, 40)
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    deletion(net, images, torch.tensor([[3, 0, 1, 2]]), steps=4)
    one_off = seen[2]
    assert (one_off[..., 16:32, 16:32] == 0).all()
    assert (one_off != 0).sum() == 3 * (40 * 40 - 16 * 16)


def test_the_picture_of_attend_is_that_of_the_pixels_that_were_seen():
    net = small(img_size=40)
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    (view,) = summarize(net, torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    assert view.patch_size == (16, 16)
    changed = picture.copy()
    changed[32:], changed[:, 32:] = 0, 0
    rows = {find_method("rollout"): view.rollout}
    drawn = [draw_attention(seen_as_is(each), ImageAttention(view, rows, ""), "", "") for each in (picture, changed)]
    assert np.array_equal(*drawn)
    changed[31, 31] = 255 - changed[31, 31]
    assert not np.array_equal(drawn[0], draw_attention(seen_as_is(changed), ImageAttention(view, rows, ""), "", ""))


def test_padding_beyond_the_image_belongs_to_the_last_patches():
    net = small(img_size=32, dynamic_img_size=True, dynamic_img_pad=True)
    layout = token_layout(net, torch.zeros(1, 3, 40, 32))
    assert layout.grid_size == (3, 2)
    assert layout.patch_size == (16, 16)
