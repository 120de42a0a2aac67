"""Checkpoints of another order of the classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vit_attn.data import ImageData
from vit_attn.errors import UserError

OLD = ["0", "1", "10", "11", "2"]
"""The order of names, by which folders were numbered before."""


def card(*class_names: str) -> dict[str, Any]:
    return {"dataset": "folder", "class_names": list(class_names), "img_size": [4, 4], "mean": [0.5], "std": [0.5]}


@pytest.fixture
def data(tmp_path: Path) -> ImageData:
    """Pictures whose grey is ten times the number that their class is called."""
    for name in OLD:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (4, 4), 10 * int(name)).save(tmp_path / "photos" / name / f"{number}.png")
    return ImageData("folder", str(tmp_path / "photos"), img_size=4, channels=1, batch_size=4)


@pytest.mark.parametrize("decoded_before", [False, True])
def test_an_old_checkpoint_keeps_its_numbers(data: ImageData, decoded_before: bool):
    if decoded_before:
        data.setup("test")
    data.load_state_dict(card(*OLD))
    assert data.class_names == tuple(OLD)
    data.setup("test")
    test = data.splits["test"]
    greys = test.decoded().float().mean(dim=(1, 2, 3)).round().long()
    assert greys.tolist() == [10 * int(OLD[label]) for label in test.labels]
    assert data.card.label_names == tuple(OLD)
    data.load_state_dict(card(*OLD))
    assert torch.equal(data.splits["test"].labels, test.labels)


def test_a_run_of_another_order_is_not_resumed(data: ImageData, trainer_at):
    data.trainer = trainer_at(1, 0)
    state = card(*OLD)
    with pytest.raises(
        UserError, match=r"class 2 is '10' there and '2' here; an order that changed since cannot be re"
    ):
        data.load_state_dict(state)


def test_other_classes_are_refused_by_name(data: ImageData):
    with pytest.raises(UserError, match=r"of other classes than folder: class 4 is 'cat' there and '11' here$"):
        data.load_state_dict(card("0", "1", "2", "10", "cat"))


def test_names_that_differ_in_their_unicode_form_are_the_same(tmp_path: Path):
    for name in ("cafe\u0301", "the\u0301"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("L", (4, 4)).save(tmp_path / name / f"{number}.png")
    data = ImageData("folder", str(tmp_path), img_size=4)
    data.load_state_dict(card("cafe\u0301", "the\u0301"))
    assert data.class_names == ("caf\u00e9", "th\u00e9")
