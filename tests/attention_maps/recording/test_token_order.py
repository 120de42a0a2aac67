"""Detection tokens, which follow the patches in YOLOS, are recorded as prefix tokens: D1, D2, … after CLS."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.testing import assert_close

from vit_attn.attention_maps import ablate, edges, knockout, record, relevance, rollout
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.recording.tokens import find_token, prefix_names, token_name
from vit_attn.errors import UserError

CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": [16, 24],
    "patch_size": 8,
    "num_detection_tokens": 4,
    "num_labels": 3,
}
ORDER = [0, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6]
"""CLS, four detection tokens, and the patches in two rows, as the network has them."""


def yolos(name: str = "YolosForObjectDetection", **options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.YolosConfig(**CONFIG | options, attn_implementation="sdpa")
    net = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if "query" in key or "key" in key or "token" in key or "position" in key:
                parameter.normal_(std=0.5)
    return net


def images() -> Tensor:
    return torch.randn(2, 3, 16, 24)


def eager(net: Any, x: Tensor) -> tuple[Any, tuple[Tensor, ...]]:
    """Output and attention weights, in the graph, of the same network without fused attention."""
    twin = type(net)(transformers.YolosConfig(**CONFIG, attn_implementation="eager")).eval()
    twin.load_state_dict(net.state_dict())
    output = twin(x, output_attentions=True)
    return output, output.attentions


def in_order(weights: Tensor) -> Tensor:
    return weights[:, :, ORDER][..., ORDER]


@pytest.mark.parametrize("gradients", [True, False])
def test_the_weights_are_the_networks_own_in_the_order_of_the_layout(gradients: bool):
    net, x = yolos(), images()
    with torch.set_grad_enabled(gradients), record(net, gradients=gradients) as recording:
        logits = net(x).logits
    output, maps = eager(net, x)
    assert_close(logits, output.logits)
    assert (recording.num_prefix_tokens, recording.grid_size, len(recording)) == (5, (2, 3), 2)
    for layer, expected in zip(recording, maps, strict=True):
        assert_close(layer.weights(), in_order(expected))
        assert expected.max() > 5 * expected.median()
    rolled = torch.eye(11)
    for weights in maps:
        rolled = (in_order(weights).mean(dim=1) + torch.eye(11)) / 2 @ rolled
    assert_close(rollout(recording, queries=range(11)), rolled)


def test_written_out_attention_is_recorded_and_cut_in_the_same_order():
    net, x = yolos(), images()
    twin = type(net)(transformers.YolosConfig(**CONFIG, attn_implementation="eager")).eval()
    twin.load_state_dict(net.state_dict())
    cut, results = edges(11, [1], [8]), []
    for each in (net, twin):
        with record(each, gradients=True) as recording:
            each(x)
        with torch.no_grad(), knockout(each, cut):
            logits = each(x).logits
        related = relevance(recording, lambda output: output.logits[:, 0, 0], queries=[1])
        results.append((recording[1].weights(), related, logits))
    for fused, written_out in zip(*results, strict=True):
        assert_close(written_out, fused)


def test_detection_tokens_alone_are_named_without_a_cls():
    net = torch.nn.Module()
    net.detection_tokens = torch.nn.Parameter(torch.zeros(1, 2, 8))
    assert prefix_names(net, 2) == ["D1", "D2"]


def test_a_changed_patch_changes_its_own_token():
    net, x = yolos(), images()
    layout, names = token_layout(net, x), prefix_names(net, 5)
    assert names == ["CLS", "D1", "D2", "D3", "D4"]
    with torch.no_grad(), record(net) as before:
        net(x)
    changed = x.clone()
    changed[..., 8:16, 0:8] += 1.0  # second row, first column
    with torch.no_grad(), record(net) as after:
        net(changed)
    moved = (after[0].calls[0].v - before[0].calls[0].v).abs().amax(dim=(0, 1, 3))
    (token,) = moved.nonzero().flatten().tolist()
    assert token_name(token, layout, names) == "row 2, column 1"
    assert token == find_token("2,1", layout, names)


def test_relevance_of_a_detection_is_that_of_its_formula():
    net, x = yolos(), images()
    with record(net, gradients=True) as recording:
        net(x)
    query = find_token("D2", token_layout(net, x), prefix_names(net, 5))
    found = relevance(recording, lambda output: output.logits[:, 1, 2], queries=[query])
    output, maps = eager(net, x)
    gradients = torch.autograd.grad(output.logits[:, 1, 2].sum(), maps)
    row = torch.eye(11)[None, [query]].expand(2, -1, -1)
    for weights, gradient in reversed(list(zip(maps, gradients, strict=True))):
        row = row + row @ in_order((weights * gradient).relu()).mean(dim=1)
    assert_close(found, row)
    assert row[..., 1:].max() > 1e-6


def test_a_cut_of_one_detection_changes_that_detection_alone():
    net, x = yolos(num_hidden_layers=1), images()
    cut = edges(11, [2], range(5, 11))  # D2 loses all patches
    with torch.no_grad():
        before = net(x).logits
        with knockout(net, cut), record(net) as recording:
            after = net(x).logits
    assert recording[0].weights()[:, :, 2, 5:].max() == 0
    assert_close(recording[0].weights().sum(dim=-1), torch.ones(2, 2, 11))
    assert ((after - before).abs().amax(dim=(0, 2)) > 1e-6).tolist() == [False, True, False, False]


def test_cuts_differ_by_image_layer_and_head():
    net, x = yolos(), images()
    cut = torch.stack([edges(11, [1], [5]), edges(11, [0], [10])])
    with torch.no_grad(), record(net) as recording, knockout(net, cut, layers=[1], heads=[0]), ablate(net, {0: [1]}):
        net(x)
    weights = recording[1].weights()
    zeros = [tuple(each) for each in (weights == 0).nonzero().tolist()]
    assert zeros == [(0, 0, 1, 5), (1, 0, 0, 10)]
    assert recording[0].weights()[:, 1].abs().max() == 0


def test_the_default_query_is_cls_where_a_pooler_reads_it():
    net, x = yolos("YolosModel"), images()
    row = torch.eye(11)[None, [0]]
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), record(net, gradients=gradients) as recording:
            net(x)
        assert_close(recording.query_rows(), row)


def test_a_detector_has_no_default_query():
    net = yolos()
    with record(net, gradients=True) as recording:
        net(images())
    with pytest.raises(UserError, match="reads each of its detection tokens alone: name the queries"):
        recording.query_rows()


def test_gradients_and_outputs_of_the_network_stay_as_they_are():
    net, x = yolos(), images()
    net(x).logits.sum().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    net.zero_grad()
    with record(net, gradients=True):
        net(x).logits.sum().backward()
    found = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
