import pytest

from vit_attn.callbacks.learning_rates import find_parts, part_rates
from vit_attn.model import VisionTransformer
from vit_attn.training.optimizers import build_optimizer

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 3, "num_heads": 4}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_equal_rates_are_one_curve(optimizer: str):
    net = VisionTransformer(**SIZES, reg_tokens=1)
    built = build_optimizer(net, optimizer, 0.25, 0.05)
    assert part_rates(find_parts(net, built), built) == {"train/learning_rate": 0.25}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rates_that_differ_are_a_curve_for_each_part_by_name(optimizer: str):
    net = VisionTransformer(**SIZES, reg_tokens=1)
    built = build_optimizer(net, optimizer, 0.25, 0.05, layer_decay=0.5)
    rates = part_rates(find_parts(net, built), built)
    assert list(rates) == [
        "train/learning_rate",
        *(f"vit_learning_rate/{part}" for part in ("stem", "block_1", "block_2", "block_3", "head")),
    ]
    assert rates == {
        "train/learning_rate": pytest.approx(0.25),
        "vit_learning_rate/head": pytest.approx(0.25),
        **{f"vit_learning_rate/block_{i}": pytest.approx(0.25 * 0.5 ** (4 - i)) for i in (1, 2, 3)},
        "vit_learning_rate/stem": pytest.approx(0.25 * 0.5**4),
    }
