"""Every registered attribution method has the properties that it declares."""

import itertools
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps import attribution_method, attribution_methods, raw_rows, record
from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.report import judge_network
from vit_attn.attention_maps.methods import registry
from vit_attn.attention_maps.methods.registry import AttributionInput, AttributionMethod, find_method
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.plotting.curves import line_styles

SIZES = {"img_size": (16, 24), "patch_size": 8, "num_classes": 5, "embed_dim": 48, "depth": 3, "num_heads": 4}
IMAGES = torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(2))
TARGET = torch.tensor([0, 1, 2, 3])
EACH_METHOD = pytest.mark.parametrize("method", attribution_methods().values(), ids=attribution_methods())


def net_of(pool: str = "token") -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(**SIZES, global_pool=pool).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(15)
        net.head.weight.normal_()
    return net


def inputs_of(net, images=IMAGES, target=TARGET, gradients: bool = True) -> AttributionInput:
    with torch.enable_grad(), record(net, gradients=gradients) as recording:
        net(images)
    return AttributionInput(net, images, recording, target)


@EACH_METHOD
@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_there_is_a_finite_non_negative_row_for_every_image(method: AttributionMethod, pool: str):
    net = net_of(pool)
    rows = method.rows(inputs_of(net))
    assert rows.shape == (4, 1, 7)
    assert rows.isfinite().all()
    assert rows.min() >= 0
    assert (rows.sum(dim=-1) > 0).all()
    assert not rows.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


@EACH_METHOD
def test_every_image_of_a_batch_is_treated_alike(method: AttributionMethod):
    net = net_of()
    together = method.rows(inputs_of(net))
    for image in range(4):
        alone = method.rows(inputs_of(net, IMAGES[image : image + 1], TARGET[image : image + 1]))
        assert_close(alone[0], together[image], rtol=1e-4, atol=1e-6)


@EACH_METHOD
def test_only_a_class_specific_map_depends_on_the_target(method: AttributionMethod):
    net = net_of()
    one, other = method.rows(inputs_of(net)), method.rows(inputs_of(net, target=(TARGET + 1) % 5))
    if method.class_specific:
        assert ((one - other).abs().amax(dim=(1, 2)) > 1e-4 * one.amax(dim=(1, 2))).all()
    else:
        assert torch.equal(one, other)


@EACH_METHOD
def test_only_a_method_that_needs_gradients_needs_them_in_the_recording(method: AttributionMethod):
    net = net_of()
    without = inputs_of(net, gradients=False)
    if method.needs_gradients:
        with pytest.raises(UserError, match="gradients were not recorded"):
            method.rows(without)
    else:
        with torch.no_grad():
            assert_close(method.rows(without), method.rows(inputs_of(net)))


@EACH_METHOD
def test_a_method_has_a_row_for_each_query_or_refuses_queries(method: AttributionMethod):
    inputs = inputs_of(net_of())
    if not method.has_query:
        with pytest.raises(UserError, match=r"one map for the whole image and none for queries, got \[0, 3\]"):
            method.rows(inputs, [0, 3])
        return
    rows = method.rows(inputs, [0, 3, -1])
    assert rows.shape == (4, 3, 7)
    assert_close(rows[:, :1], method.rows(inputs))  # the network pools token 0
    assert_close(rows[:, 2:], method.rows(inputs, [6]))
    assert not torch.allclose(rows[:, 0], rows[:, 1])


@EACH_METHOD
def test_a_method_says_which_networks_it_supports(method: AttributionMethod):
    class Other(torch.nn.Module):
        pass

    if method.supports(Other()):
        return
    with pytest.raises(UserError, match=f"{method.label} does not support Other"):
        method.rows(inputs_of(net_of())._replace(net=Other()))


@EACH_METHOD
def test_a_method_is_found_by_its_name_and_by_its_label(method: AttributionMethod):
    assert find_method(method.name) is find_method(method.label) is method
    assert method.reference


def test_the_order_does_not_depend_on_imports(monkeypatch: pytest.MonkeyPatch):
    expected = list(attribution_methods())
    ours = [
        *("last_layer", "rollout", "rollout_max", "rollout_min", "rollout_discard"),
        "gradient_rollout",
        "relevance",
    ]
    assert [name for name in expected if name in (*ours, "legrad")] == [*ours, "legrad"]
    by_module = {}
    for method in registry.METHODS.values():
        by_module.setdefault(method.compute.__module__, []).append(method)
    for modules in itertools.permutations(by_module.values()):
        shuffled = {method.name: method for methods in modules for method in methods}
        monkeypatch.setattr(registry, "METHODS", shuffled)
        assert list(attribution_methods()) == expected


def test_an_unknown_method_and_a_name_or_label_that_is_taken_are_refused():
    with pytest.raises(UserError, match="unknown attribution method 'rolout', did you mean 'rollout'"):
        find_method("rolout")
    for name, label in (("rollout", "another"), ("another", "LeGrad")):
        with pytest.raises(UserError, match="there is an attribution method"):
            attribution_method(name, label=label, reference="", needs_gradients=False, class_specific=False)(raw_rows)


NEW = """
from vit_attn.attention_maps import attribution_method, raw_rows


@attribution_method(
    "squared", label="last layer, squared", reference="own idea", needs_gradients=False, class_specific=False
)
def last_layer_squared(inputs, queries):
    return raw_rows(inputs.recording, queries=queries).square()
"""


def test_a_method_in_a_file_of_its_own_is_evaluated_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "squared_attention.py").write_text(NEW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    styles = line_styles()
    __import__("squared_attention")
    net = net_of()
    report = judge_network(EvalBatch(net, IMAGES, TARGET), steps=2)
    labels = [method.label for method in attribution_methods().values()]
    assert list(report.methods) == [*labels, "random", "centre first"]
    class_specific = [method.label for method in attribution_methods().values() if method.class_specific]
    before = labels.index("last layer, squared") + 1
    assert labels[before:] == class_specific  # it comes after the other class-agnostic ones
    assert report.methods["last layer, squared"].deletion.tolist() == report.methods["last layer"].deletion.tolist()
    assert set(report.comparisons["last layer, squared"]) == {"deletion", "insertion"}
    new = line_styles()
    assert {label: new[label] for label in styles} == styles
    assert new["last layer, squared"] not in styles.values()


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("my method", "mine", "name must be of lower-case letters, digits and _, got 'my method'"),
        ("attention/mine", "mine", "name must be of lower-case"),
        ("rollout", "mine", r"there is an attribution method 'rollout' \(rollout, mean\) already"),
        ("mine", "rollout, mean", r"already, got 'mine' \(rollout, mean\)"),
        ("mine", "last_layer", r"an attribution method 'last_layer' \(last layer\) already"),
        ("chance", "mine", "a baseline or row 'chance'"),
        ("mine", "centre first", "a baseline or row 'centre_first'"),
    ],
)
def test_a_name_or_label_that_is_ambiguous_is_refused_in_one_line(
    name: str, label: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    attribution_methods()
    monkeypatch.setattr(registry, "METHODS", registry.METHODS.copy())
    with pytest.raises(UserError, match=message) as error:
        attribution_method(name, label=label, reference="own", needs_gradients=False, class_specific=False)(
            lambda inputs, queries: inputs.recording.query_rows(queries)
        )
    assert "\n" not in str(error.value)
