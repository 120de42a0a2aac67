from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from vit_attn.callbacks.pixels import pictures_of, pixels_of
from vit_attn.callbacks.training_batch import target_caption
from vit_attn.callbacks.worst_errors import SHOWN, WorstErrors
from vit_attn.data import ImageData
from vit_attn.plotting import gallery


@pytest.fixture(scope="module")
def data() -> ImageData:
    return ImageData("coins", batch_size=8)


def test_the_pixels_of_normalised_images_are_the_images(data):
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(pixels_of(data.normalize(pixels), data), pixels)
    assert pixels_of(torch.full((1, 3, 2, 2), 99.0), data).unique().tolist() == [255]
    (picture,) = pictures_of(pixels[:1, :1])
    assert (picture == pixels[0, 0].numpy()[..., None]).all()


def test_the_most_confident_errors_of_all_batches_are_kept_in_order(data):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (100, 3, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 5, (100,), generator=generator)
    logits = 3 * torch.randn(100, 5, generator=generator) + 2 * F.one_hot(labels, 5)
    worst = WorstErrors(data)
    for start in range(0, 100, 7):
        part = slice(start, start + 7)
        worst.update(data.normalize(pixels[part]), logits[part], labels[part])
    probabilities, predicted = logits.softmax(dim=-1).max(dim=-1)
    expected = [i for i in probabilities.argsort(descending=True).tolist() if predicted[i] != labels[i]][:SHOWN]
    errors = worst.errors
    assert errors is not None
    assert (errors.numbers - 1).tolist() == expected
    assert torch.equal(errors.images, pixels[expected])
    assert torch.equal(errors.labels, labels[expected])
    assert torch.equal(errors.predicted, predicted[expected])
    torch.testing.assert_close(errors.probabilities, probabilities[expected])


def test_the_errors_of_all_devices_are_gathered(data):
    worst = WorstErrors(data)
    worst.update(torch.zeros(2, 3, 4, 4), torch.tensor([[0.0, 4.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    task = SimpleNamespace(trainer=SimpleNamespace(world_size=2))
    task.all_gather = lambda parts: [torch.stack([each, each]) for each in parts]
    worst.gather(task)
    assert worst.errors is not None
    kept = worst.errors.probabilities[worst.errors.probabilities > 0]
    torch.testing.assert_close(kept, torch.tensor([4.0, 4.0, 1.0, 1.0]).sigmoid())
    assert len(worst.errors.labels) == SHOWN


def test_a_figure_of_errors_names_label_prediction_and_probability(data, monkeypatch):
    drawn = []
    monkeypatch.setattr("vit_attn.callbacks.worst_errors.draw_gallery", lambda *args: drawn.append(args))
    worst = WorstErrors(data)
    assert worst.draw(["cat", "dog"], "", True) is None
    worst.update(torch.zeros(2, 3, 4, 4), torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0]))
    worst.draw(["cat", "dog"], "run", True)
    ((_, captions, heading),) = drawn
    assert captions == ["image 2\nlabel: cat\nprediction: dog, 98%"]
    assert heading == "run\nmost confident wrong predictions"


def test_no_error_is_no_figure(data):
    worst = WorstErrors(data)
    worst.update(torch.zeros(1, 3, 4, 4), torch.tensor([[4.0, 0.0]]), torch.tensor([0]))
    assert worst.draw(["cat", "dog"], "", True) is None


def test_a_mixed_target_names_both_classes_with_their_fractions():
    names = ["cat", "dog", "owl"]
    assert target_caption(torch.tensor([0.25, 0.0, 0.75]), names) == "75% owl\n25% cat"
    assert target_caption(torch.tensor([0.0, 1.0, 0.0]), names) == "dog"
    assert target_caption(torch.tensor(2), names) == "owl"


def test_a_gallery_has_three_images_a_row(data):
    images = pictures_of(torch.zeros(7, 3, 8, 8, dtype=torch.uint8))
    one, three, four = (gallery.draw_gallery(images[:n], ["a"] * n, "heading") for n in (1, 3, 4))
    assert one.shape == three.shape
    assert four.shape[0] > three.shape[0] + 200
    assert four.shape[1] == 700
