"""All methods on data sets whose ground truth is known, of any regions."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from vit_attn.attention_maps import attribution_methods
from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.faithfulness import deletion, insertion, order_of, pointing, random_maps
from vit_attn.attention_maps.evaluation.ground_truth import GroundTruthPatches
from vit_attn.attention_maps.evaluation.knockouts import knock_out_top
from vit_attn.attention_maps.evaluation.measures import patch_maps, with_baselines
from vit_attn.attention_maps.evaluation.report import (
    FaithfulnessReport,
    judge_network,
    mean_and_error,
)
from vit_attn.commands.judge_images import eval_batch_of
from vit_attn.data_protocol import GroundTruth, ProbeData, ProbeImages
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.reports.faithfulness import best_methods, knockout_table, method_table, write_knockouts, write_methods


class BrightSquare:
    """Noise with one bright patch in a grid of 4 by 4, whose colour is the class."""

    class_names, img_size, in_chans = ("red", "green", "blue"), (32, 32), 3

    def probe(self, count: int) -> ProbeImages:
        generator = torch.Generator().manual_seed(0)
        patches = torch.randint(16, (count,), generator=generator)
        labels = torch.randint(3, (count,), generator=generator)
        images = torch.randint(60, (count, 3, 4, 8, 4, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), labels, patches // 4, :, patches % 4] = 255
        truth = [GroundTruth({"square": (patch,)}, (4, 4), answer="square") for patch in patches.tolist()]
        return SimpleNamespace(images=images.view(count, 3, 32, 32), labels=labels, ground_truth=truth)

    def normalize(self, images: Tensor) -> Tensor:
        return images / 127.5 - 1


def trained_on(data: ProbeData) -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(img_size=32, patch_size=8, num_classes=3, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2)
    probe, optimizer = data.probe(128), torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(net(data.normalize(probe.images)), probe.labels).backward()
        optimizer.step()
    net.zero_grad()
    return net.eval()


@pytest.fixture(scope="module")
def batch() -> EvalBatch:
    data = BrightSquare()
    return eval_batch_of(trained_on(data), data, 32, "cpu")


@pytest.fixture(scope="module")
def report(batch) -> FaithfulnessReport:
    return judge_network(batch, steps=4)


def test_any_data_set_with_ground_truth_has_the_pointing_game(report):
    assert isinstance(BrightSquare(), ProbeData)
    assert report.accuracy == 1.0
    for method in attribution_methods().values():
        assert list(report.methods[method.label].pointing) == ["square"]
        assert report.methods[method.label].pointing["square"].mean() > 0.3
    assert report.methods["rollout, mean"].pointing["square"].mean() > 0.9
    assert report.methods["random"].pointing["square"].mean() < 0.2  # 1/16 by chance
    assert list(report.edges) == ["pooled row → square", "pooled row → as many others"]
    assert report.edges["pooled row → square"].logit.mean() < -1
    assert report.edges["pooled row → as many others"].logit.abs().mean() < 0.5


def test_measures_are_those_of_the_methods_own_maps(batch, report):
    net, images, labels, _ = batch
    target = labels  # all are predicted
    maps = patch_maps(net, images, target)
    row, order = report.methods["last layer"], order_of(maps["last layer"])
    assert_close(row.deletion, deletion(net, images, order, target, 4).area)
    assert_close(row.insertion, insertion(net, images, order, target, 4).area)
    for count, logit, accuracy in ((1, row.logit_1, row.accuracy_1), (8, row.logit_8, row.accuracy_8)):
        effect = knock_out_top(net, images, labels, order, count)
        assert_close(logit, effect.logit)
        assert_close(accuracy, effect.accuracy)
    assert_close(row.pointing["square"], pointing(maps["last layer"], batch.ground_truth.regions["square"]))
    random = report.methods["random"]
    assert_close(random.insertion, random.deletion)  # a random order in reverse
    orders = [order_of(random_maps((32, 16), seed)) for seed in range(8)]
    areas = torch.stack([deletion(net, images, order, target, 4).area for order in orders])
    assert_close(random.deletion, areas.mean(dim=0))


def test_the_seed_chooses_random_orders_that_no_other_seed_has():
    maps = {"one": torch.zeros(2, 16)}
    found = [with_baselines(maps, (4, 4), seed)["random"] for seed in (0, 1)]
    together = torch.stack([*found[0], *found[1]]).flatten(1)
    assert len(together.unique(dim=0)) == len(together) == 16


def test_tables_and_files_have_the_names_of_its_regions(report, tmp_path):
    table = method_table(report)
    assert any(line.startswith("method ") and line.split()[-1] == "square" for line in table.splitlines())
    assert "\nsquare: fraction of images whose top-ranked patch is in this region" in table
    assert "pooled row → square" in knockout_table(report)
    write_methods(tmp_path / "methods.csv", report)
    assert (tmp_path / "methods.csv").read_text().splitlines()[0].endswith("square,square_error,square_low,square_high")


def test_an_image_without_a_region_does_not_count_in_its_mean(tmp_path):
    net = VisionTransformer(img_size=32, patch_size=8, num_classes=4, embed_dim=24, depth=1, num_heads=2).eval()
    torch.nn.init.normal_(net.head.weight)
    everywhere, missing = torch.ones(3, 16, dtype=torch.bool), torch.zeros(3, 16, dtype=torch.bool)
    missing[0] = True
    truth = GroundTruthPatches({"everywhere": everywhere, "in_one": missing})
    found = judge_network(EvalBatch(net, torch.randn(3, 3, 32, 32), torch.arange(3), truth), steps=2)
    for row in found.methods.values():
        assert row.pointing["everywhere"].tolist() == [1, 1, 1]
        assert row.pointing["in_one"][0] == 1
        assert row.pointing["in_one"][1:].isnan().all()
        assert mean_and_error(row.pointing["in_one"])[0] == 1
    assert list(found.edges) == ["pooled row → everywhere", "pooled row → in one"]  # no patch is left for a control
    headings = [line for line in method_table(found).splitlines() if line.startswith("method ")]
    assert headings[-1].split()[-3:] == ["everywhere", "in", "one"]
    write_methods(tmp_path / "methods.csv", found)
    assert all(line.endswith(",1.0000,,,") for line in (tmp_path / "methods.csv").read_text().splitlines()[1:])


def test_a_region_is_not_called_like_a_measure():
    net = VisionTransformer(img_size=32, patch_size=8, num_classes=4, embed_dim=24, depth=1, num_heads=2).eval()
    truth = GroundTruthPatches({"deletion": torch.ones(2, 16, dtype=torch.bool)})
    with pytest.raises(UserError, match="regions must not be called like a measure, got deletion"):
        judge_network(EvalBatch(net, torch.randn(2, 3, 32, 32), torch.arange(2), truth))


@pytest.mark.parametrize("part", [1, 5])
def test_the_images_of_a_part_do_not_change_the_measures(part, batch, report):
    found = judge_network(batch, steps=4, part=part)
    assert found.images == report.images == 32
    assert found.accuracy == report.accuracy
    for label, row in report.methods.items():
        for name, values in row.columns().items():
            assert_close(found.methods[label].columns()[name], values, rtol=0, atol=1e-4, equal_nan=True)
        for ours, theirs in zip(found.curves[label], report.curves[label], strict=True):
            assert_close(ours, theirs, rtol=0, atol=1e-5)
    for of in ("edges", "heads"):
        assert list(getattr(found, of)) == list(getattr(report, of))
        for name, effect in getattr(report, of).items():
            assert_close(getattr(found, of)[name].logit, effect.logit, rtol=0, atol=1e-4)


def test_an_image_has_the_same_random_order_in_any_part():
    assert_close(random_maps((3, 16), 5, first=4), random_maps((7, 16), 5)[4:], rtol=0, atol=0)


def test_images_without_labels_are_judged_by_the_predicted_class_and_have_no_accuracy(batch, report, tmp_path):
    found = judge_network(batch._replace(labels=None), steps=4)
    assert found.accuracy is None
    for label, row in report.methods.items():
        assert_close(found.methods[label].deletion, row.deletion)
        assert_close(found.methods[label].logit_8, row.logit_8)
        assert found.methods[label].accuracy_8.isnan().all()
    write_methods(tmp_path / "methods.csv", found)
    write_knockouts(tmp_path / "knockouts.csv", found)
    for name in ("methods.csv", "knockouts.csv"):
        assert "accuracy" not in (tmp_path / name).read_text()
    assert "acc." not in method_table(found)
    table = knockout_table(found)
    assert "change of logit without" in table
    assert "accuracy" not in table


def test_methods_that_are_alike_are_not_told_apart_and_those_that_differ_are(report):
    for measure, between in report.between.items():
        values = {label: getattr(report.methods[label], measure).mean().item() for label in report.comparisons}
        best = max(values, key=values.get) if between.higher_is_better else min(values, key=values.get)
        assert between.best == best
        assert set(between.ties()) == {
            label
            for label in values
            if label != best
            and abs(between.differences[label, best].mean) <= max(0.01, between.differences[label, best].margin)
        }
    text = best_methods(report)
    assert all(f"{between.best} is best" in " ".join(text.split()) for between in report.between.values())
    assert max(map(len, text.splitlines())) <= 80
