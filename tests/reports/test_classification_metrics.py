import pytest
import torch

from vit_attn.reports.classification_metrics import ClassificationMetrics


def test_batches_of_any_size_give_the_metrics_of_all_images_at_once():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (50,), generator=generator)
    logits = torch.randn(50, 6, generator=generator)
    whole, parts = ClassificationMetrics(6), ClassificationMetrics(6)
    whole.update(logits, labels)
    for part in (slice(0, 3), slice(3, 20), slice(20, 50)):
        parts.update(logits[part], labels[part])
    names = [f"class {number}" for number in range(6)]
    one, other = whole.compute(names), parts.compute(names)
    assert one["confusion"] == other["confusion"]
    assert one["classes"] == other["classes"]
    for name in ("images", "loss", "top1", "top5", "class_accuracy", "calibration_error"):
        assert one[name] == pytest.approx(other[name], rel=1e-5)


def test_predictions_of_a_class_are_counted_whatever_the_true_class_is():
    metrics = ClassificationMetrics(3)
    metrics.update(torch.tensor([[5.0, 0, 0], [5.0, 0, 0], [0, 5.0, 0]]), torch.tensor([0, 1, 1]))
    report = metrics.compute(["a", "b", "c"])
    assert report["classes"] == [
        {"name": "a", "images": 1, "accuracy": 1.0, "predicted": 2},
        {"name": "b", "images": 2, "accuracy": 0.5, "predicted": 1},
        {"name": "c", "images": 0, "accuracy": None, "predicted": 0},
    ]
    assert report["class_accuracy"] == 0.75
