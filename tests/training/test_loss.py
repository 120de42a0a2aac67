import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.training.loss import class_weight_tensor, weighted_cross_entropy

LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0], [0.0, 0.0, 3.0]])
LABELS = torch.tensor([0, 1, 0])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_pure_targets_weigh_the_same_as_indices_and_as_fractions(smoothing: float):
    by_index = weighted_cross_entropy(LOGITS, LABELS, WEIGHTS, smoothing)
    assert_close(by_index, F.cross_entropy(LOGITS, LABELS, WEIGHTS, label_smoothing=smoothing))
    assert_close(weighted_cross_entropy(LOGITS, F.one_hot(LABELS, 3).float(), WEIGHTS, smoothing), by_index)


def test_mixed_targets_agree_with_the_formula():
    fractions = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    expected = -(WEIGHTS * fractions * LOGITS.log_softmax(1)).sum() / (WEIGHTS * fractions).sum()
    assert_close(weighted_cross_entropy(LOGITS, fractions, WEIGHTS), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_under_true_half_precision_the_loss_of_mixed_targets_is_not_rounded(weights: torch.Tensor | None):
    fractions = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    half = [each if each is None else each.bfloat16() for each in (LOGITS, fractions, weights)]
    loss = weighted_cross_entropy(*half, label_smoothing=0.1)
    assert loss.dtype == torch.float32
    assert_close(loss, weighted_cross_entropy(LOGITS, fractions, weights, 0.1), rtol=0.01, atol=0)


def test_without_weights_and_with_equal_ones_it_is_plain():
    plain = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert_close(weighted_cross_entropy(LOGITS, LABELS, None, 0.1), plain)
    assert_close(weighted_cross_entropy(LOGITS, LABELS, torch.full((3,), 7.0), 0.1), plain)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, float("inf"), 1.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]):
    with pytest.raises(UserError, match="class_weights must be a number of at least 0 for each of 3 classes"):
        class_weight_tensor(weights, 3)
