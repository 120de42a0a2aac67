import pytest
import torch

from vit_attn.data.datasets.coverage import check_classes
from vit_attn.data.datasets.splits import Split
from vit_attn.errors import UserError


def splits(**labels: list[int]) -> dict[str, Split]:
    return {name: Split(None, torch.tensor(each, dtype=torch.long)) for name, each in labels.items()}


def test_classes_that_a_split_lacks_are_told():
    given = splits(train=[0, 1, 2], val=[0, 0], test=[2, 1, 0])
    assert check_classes(given, ("cat", "dog", "owl")) == ["validation has no dog, owl"]
    assert check_classes(splits(train=[0, 2], val=[2, 0]), ("cat", "dog", "owl")) == ["training has no dog"]
    assert check_classes(splits(train=[0, 1, 2], val=[]), ("cat", "dog", "owl")) == []


def test_a_class_that_training_has_none_of_is_refused():
    with pytest.raises(
        UserError, match=r"the test images have classes that training has none of, owl: the network can"
    ):
        check_classes(splits(train=[0, 1], test=[2, 0]), ("cat", "dog", "owl"))
