import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vit_attn.errors import UserError
from vit_attn.task import Classifier

IMAGES, LABELS = torch.zeros(8, 3, 16, 16), torch.arange(8) % 4


def fit(images, labels, dataset=None) -> None:
    data = DataLoader(dataset or TensorDataset(images, labels), batch_size=8)
    options = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, num_sanity_val_steps=0, **quiet)
    trainer.fit(Classifier(arch_options=options, num_classes=4, img_size=16), data, data)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS + 1, r"label 4 is no class of the network, whose 4 classes are 0 to 3: .*num_classes=5"),
        (IMAGES, LABELS - 1, "label -1 is no class: they count from 0, to 3"),
        (IMAGES, LABELS.float(), r"labels are torch.float32 \(8,\): class indices are whole numbers, labels.long"),
        (IMAGES, torch.eye(8), r"labels are fractions of 8 classes, and the network has 4"),
        (IMAGES[..., :12], LABELS, r"images are 16x12 pixels, and the network takes 16x16: .*img_size=\(16, 12\)"),
        (IMAGES[:, :1], LABELS, "have 1 channel, and the network takes 3: convert them"),
        (IMAGES.permute(0, 2, 3, 1), LABELS, r"channels come before height and width, images.permute\(0, 3, 1, 2\)"),
        (IMAGES.byte(), LABELS, "got images torch.uint8: divide pixels by 255"),
        (IMAGES[:, 0], LABELS, r"normalised floats \(B, channels, height, width\).*got images \(8, 16, 16\)"),
    ],
)
def test_a_wrong_batch_is_one_sentence_that_says_what_to_do(images, labels, message):
    with pytest.raises(UserError, match=message):
        fit(images, labels)


def test_a_batch_that_is_no_pair_is_named():
    with pytest.raises(UserError, match="got a dict with image, label: give its loader a collate_fn"):
        fit(None, None, [{"image": image, "label": 0} for image in IMAGES])
    with pytest.raises(UserError, match=r"got a tensor \(8, 3, 16, 16\) without labels"):
        fit(None, None, list(IMAGES))


def test_pixels_that_were_not_normalised_are_warned_of():
    with pytest.warns(UserWarning, match="images have values up to 255: the network takes normalised ones"):
        fit(torch.full_like(IMAGES, 255), LABELS)


def test_an_error_that_is_not_of_the_batch_is_left_as_it_is():
    task = Classifier(arch_options={"embed_dim": 32, "depth": 1, "num_heads": 2}, num_classes=4, img_size=16)
    task.net.head = torch.nn.Linear(7, 4)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        task.validation_step((IMAGES, LABELS), 0)
