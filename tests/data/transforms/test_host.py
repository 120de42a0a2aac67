import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.images.image_file import fit_picture, read_picture
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.host import CentreCrop, HostAugment, device_part


def test_validation_pictures_are_what_attend_sees(picture_folder):
    path = next(picture_folder().rglob("*.png"))
    expected = torch.from_numpy(fit_picture(read_picture(path), (16, 16))).permute(2, 0, 1)
    assert torch.equal(CentreCrop((16, 16))(read_picture(path)), expected)


def test_training_pictures_are_changed_by_torchvisions_own_transforms():
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    torch.manual_seed(3)
    ours = HostAugment((16, 16), Augment(random_resized_crop=0.3, flip=0.5, rand_augment=9))(picture)
    torch.manual_seed(3)
    theirs = v2.Compose([v2.RandomResizedCrop((16, 16), (0.3, 1.0)), v2.PILToTensor(), v2.RandomHorizontalFlip()])
    assert torch.equal(ours, v2.RandAugment(2, 9)(theirs(picture)))
    torch.manual_seed(3)
    ours = HostAugment((16, 16), Augment(crop_padding=2, trivial_augment=1.0, colour_jitter=0.4))(picture)
    torch.manual_seed(3)
    theirs = v2.Compose(
        [v2.RandomCrop(16, 2), v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomApply([v2.TrivialAugmentWide()], 1.0)]
    )
    assert torch.equal(ours, theirs(CentreCrop((16, 16))(picture)))
    assert torch.equal(HostAugment((16, 16), Augment())(picture), CentreCrop((16, 16))(picture))


def test_pictures_keep_their_place_on_the_way_through_torchvision(picture_folder):
    picture = read_picture(next(picture_folder().rglob("*.png")))
    plain = HostAugment(picture.size[::-1], Augment())(picture)
    assert torch.equal(plain, tv.pil_to_tensor(picture))


def test_what_torchvision_does_in_a_worker_is_not_done_again_on_the_device():
    every = Augment(4, 0.5, 9, 0.25, 0.8, 1.0, 0.6, None, 0.0, 0.4, 8)
    left = device_part(every)
    assert (left.erase, left.mixup, left.cutmix, left.mix_until, left.cutout) == (0.25, 0.8, 1.0, 0.6, 8)
    assert not any((left.crop_padding, left.flip, left.rand_augment, left.trivial_augment, left.colour_jitter))


def test_a_picture_is_decoded_large_enough_for_its_smallest_crop():
    assert CentreCrop((32, 32)).min_side == HostAugment((32, 32), Augment()).min_side == 64
    least = HostAugment((32, 32), Augment(random_resized_crop=0.08)).min_side
    assert 64 <= least * (0.75 * 0.08) ** 0.5 < 65
