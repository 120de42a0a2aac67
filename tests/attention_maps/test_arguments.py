"""Every public function over inputs that a user gets wrong: a finite result, or one line that says what to do."""

import itertools
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.networks import IMAGES, Direct, built, of_timm
from vit_attn.attention_maps import (
    ablate,
    edges,
    grad_rollout,
    knockout,
    legrad,
    raw_rows,
    record,
    relevance,
    rollout,
    summary,
)
from vit_attn.attention_maps.evaluation import batch, faithfulness, knockouts, randomization
from vit_attn.attention_maps.methods import flow, measures
from vit_attn.attention_maps.methods.rollout import fuse
from vit_attn.errors import UserError
from vit_attn.plotting import comparison, curves, matrices, overlay

NET, POOLS = built("ours"), built("ours, pool by attention")
with record(NET, gradients=True) as SEEN:
    NET(IMAGES)
WEIGHTS = SEEN[0].weights()
ORDER = torch.arange(16).expand(3, -1)
MAPS = torch.rand(3, 16)
LABELS = torch.tensor([1, 2, 3])
REGION = MAPS > 0.5
PICTURE = np.zeros((32, 32, 3), dtype=np.uint8)
MAP = overlay.AttentionMap("a map", np.random.default_rng(0).random((4, 4)))


class Bare(Direct):
    """The same of images, as far as they go."""

    def __init__(self):
        super().__init__((4, 4))

    def forward(self, images):
        tokens = images.flatten(2)[:, :, :17].mT[:, None]
        return self.attn(tokens)[:, 0, 0]


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return of_timm("vit_tiny_patch16_224")().eval()


BAD: dict[str, dict[str, Any]] = {
    "images": {
        "an empty batch": IMAGES[:0],
        "a dictionary": {"pixel_values": IMAGES},
        "the meta device": IMAGES.to("meta"),
        "uint8": (IMAGES * 50).to(torch.uint8),
        "int64": IMAGES.long(),
        "no batch": IMAGES[0],
        "NaN": IMAGES * math.nan,
        "infinity": IMAGES / 0,
        "five channels": torch.zeros(2, 5, 32, 32),
        "another size": torch.zeros(2, 3, 24, 24),
        "float64": IMAGES.double(),
        "an array": IMAGES.numpy(),
        "a list": [IMAGES[0]],
        "nothing": None,
    },
    "target": {
        **{
            f"{each!r}": each for each in (1.5, 10, -1, True, "cat", [0, 1], [], [0, 1, "a"], [[0], [1], [2]], math.nan)
        },
        "floats": torch.tensor([0.0, 1.0, 2.0]),
        "another shape": torch.zeros(3, 2, dtype=torch.int64),
        "the meta device": torch.zeros(3, dtype=torch.int64, device="meta"),
        "32 bits": torch.tensor([0, 1, 2], dtype=torch.int32),
        "an array": np.array([0, 1, 2]),
        "a function of all logits": lambda logits: logits,
        "a function to one number": lambda logits: logits[0, 1],
        "a function to a mean over images": lambda logits: logits[:, 1].mean(),
        "a function to the logits of an image": lambda logits: logits[1],
        "a function of the first image": lambda logits: logits[0, :3],
        "a function of other images": lambda logits: logits.softmax(dim=0)[:, 1],
        "a function without a gradient": lambda logits: torch.ones(3),
        "a function of classes": lambda logits: logits.argmax(dim=-1),
        "a function of no tensor": lambda logits: 3,
        "a dictionary": {0: 1},
    },
    "queries": {
        f"{each!r}": each
        for each in ([0.5], [True], [17], [-18], [], 0, 1.5, "a", ["a"], [[0, 1]], [None], range(0), {0: 1}, [math.nan])
    }
    | {
        "a tensor": torch.tensor([1, 2]),
        "a tensor of truth": torch.ones(17, dtype=torch.bool),
        "a tensor of floats": torch.tensor([1.0]),
        "a tensor without axes": torch.tensor(1),
        "an array": np.array([1, 2]),
        "an array of truth": np.array([True]),
        "the meta device": torch.zeros(2, dtype=torch.int64, device="meta"),
    },
    "fraction": {f"{each!r}": each for each in (-0.1, 1, 1.5, math.nan, math.inf, "a", None, True, [0.5])},
    "layer": {f"{each!r}": each for each in (3, -4, 0.5, True, "a", None, [0], slice(0, 1))},
    "layers": {
        f"{each!r}": each for each in ([3], [-4], [0.5], [True], "a", 0, [[0]], ["a"], [None], torch.tensor([7]), {0})
    },
    "fusion": {f"{each!r}": each for each in ("median", "Mean", None, 3, ["mean"])},
    "count": {f"{each!r}": each for each in (0, -1, 1.5, "a", None, True, 100, [1])},
    "network": {
        "a linear layer": nn.Linear(2, 2),
        "a wrapper": nn.Sequential(nn.Identity(), NET),
        "the meta device": on_meta(),
        "no parameters": Bare(),
        "a dictionary": {},
        "nothing": None,
        "a class": nn.Linear,
    },
    "cut": {
        "floats": torch.ones(17, 17),
        "whole numbers": torch.ones(17, 17, dtype=torch.int64),
        "an array": np.ones((17, 17), dtype=bool),
        "one row": torch.ones(17, dtype=torch.bool),
        "too few": torch.ones(16, 16, dtype=torch.bool),
        "other images": torch.ones(2, 17, 17, dtype=torch.bool),
        "none": torch.ones(0, 17, 17, dtype=torch.bool),
        "a list": [[True]],
    },
    "order": {
        "a map": MAPS,
        "a patch twice": torch.zeros(3, 16, dtype=torch.int64),
        "too few": ORDER[:, :4],
        "other images": ORDER[:2],
        "one row without axis": ORDER[0],
        "none": ORDER[:0],
        "a list": [[0, 1]],
        "the meta device": ORDER.to("meta"),
    },
    "maps": {
        "NaN": MAPS * math.nan,
        "none": MAPS[:0],
        "three axes": MAPS[None],
        "one map": MAPS[0],
        "an array": MAPS.numpy(),
        "the meta device": MAPS.to("meta"),
    },
    "region": {
        "patches": ORDER[:, :2],
        "floats": REGION.float(),
        "too few": REGION[:, :4],
        "other images": REGION[:2],
        "one row without axis": REGION[0],
        "none": REGION[:0],
        "a list": [[0, 1]],
        "the meta device": REGION.to("meta"),
    },
    "weights": {
        "NaN": WEIGHTS * math.nan,
        "none": WEIGHTS[:0],
        "one head": WEIGHTS[0, 0],
        "not square": WEIGHTS[..., :4],
        "whole numbers": torch.ones(1, 1, 17, 17, dtype=torch.int64),
        "an array": WEIGHTS.numpy(),
        "the meta device": WEIGHTS.to("meta"),
    },
    "labels": {
        "too few": LABELS[:2],
        "floats": LABELS.float(),
        "text": "cat",
        "out of range": LABELS + 100,
    },
    "picture": {
        "floats": PICTURE / 255,
        "grey": PICTURE[..., 0],
        "four channels": np.zeros((8, 8, 4), dtype=np.uint8),
        "none": PICTURE[:0],
        "too small": PICTURE[:2, :2],
        "a tensor": torch.from_numpy(PICTURE),
        "nothing": None,
    },
    "pictures of maps": {
        "none": [],
        "NaN": [overlay.AttentionMap("a", MAP.patches * math.nan)],
        "two grids": [MAP, overlay.AttentionMap("b", np.ones((2, 2)))],
        "no grid": [SimpleNamespace(title="a", patches=np.ones(4), prefix=0.0)],
        "empty": [overlay.AttentionMap("a", np.ones((0, 4)))],
    },
    "values": {
        "none": np.ones((0, 0)),
        "NaN": np.full((2, 2), math.nan),
        "one axis": np.ones(3),
        "text": np.array([["a"]]),
        "a tensor": torch.ones(2, 2),
        "nothing": None,
    },
}


def forward(watching: Callable[[], Any], images: Any = IMAGES) -> Any:
    with torch.no_grad(), watching() as seen:
        NET(images)
    return seen.query_rows() if seen is not None else None


def recorded(net: Any) -> Any:
    with torch.no_grad(), record(net) as seen:
        net(IMAGES)
    return seen[0].weights()


def under(net: Any, watching: Callable[[Any], Any]) -> Any:
    with torch.no_grad(), watching(net):
        return net(IMAGES)


CUT = edges(17, [0], [1])
BOOLS = torch.zeros(1, 16, dtype=torch.bool)
FUNCTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "record, images": ("images", lambda x: forward(lambda: record(NET), x)),
    "record, network": ("network", recorded),
    "knockout, images": ("images", lambda x: forward(lambda: knockout(NET, CUT), x)),
    "knockout, network": ("network", lambda x: under(x, lambda net: knockout(net, CUT))),
    "knockout, cut": ("cut", lambda x: forward(lambda: knockout(NET, x))),
    "knockout, pool": ("cut", lambda x: under(POOLS, lambda net: knockout(net, pool=x))),
    "knockout, layers": ("layers", lambda x: forward(lambda: knockout(NET, CUT, layers=x))),
    "knockout, heads": ("layers", lambda x: forward(lambda: knockout(NET, CUT, heads=[7] if x == [3] else x))),
    "ablate, images": ("images", lambda x: forward(lambda: ablate(NET, {0: [1]}), x)),
    "ablate, network": ("network", lambda x: under(x, lambda net: ablate(net, {0: [0]}))),
    "ablate, layers": ("layer", lambda x: forward(lambda: ablate(NET, x if isinstance(x, list | slice) else {x: [0]}))),
    "ablate, heads": ("layers", lambda x: forward(lambda: ablate(NET, {0: x}))),
    "edges, tokens": ("queries", lambda x: edges(17, x, [0])),
    "edges, count": ("count", lambda x: edges(x, [0], [0])),
    "recording, layer": ("layer", lambda x: SEEN[x].weights()),
    "raw_rows, layer": ("layer", lambda x: raw_rows(SEEN, x)),
    "raw_rows, queries": ("queries", lambda x: raw_rows(SEEN, queries=x)),
    "raw_rows, fusion": ("fusion", lambda x: raw_rows(SEEN, fusion=x)),
    "rollout, queries": ("queries", lambda x: rollout(SEEN, x)),
    "rollout, fusion": ("fusion", lambda x: rollout(SEEN, fusion=x)),
    "rollout, discard": ("fraction", lambda x: rollout(SEEN, discard=x)),
    "relevance, target": ("target", lambda x: relevance(SEEN, x)),
    "relevance, queries": ("queries", lambda x: relevance(SEEN, 1, x)),
    "grad_rollout, target": ("target", lambda x: grad_rollout(SEEN, x)),
    "grad_rollout, queries": ("queries", lambda x: grad_rollout(SEEN, 1, x)),
    "legrad, images": ("images", lambda x: legrad(NET, x)),
    "legrad, network": ("network", lambda x: legrad(x, IMAGES)),
    "legrad, target": ("target", lambda x: legrad(NET, IMAGES, x)),
    "attention_flow, queries": ("queries", lambda x: flow.attention_flow(SEEN, x)),
    "query_rows": ("queries", lambda x: SEEN.query_rows(x)),
    "summarize, images": ("images", lambda x: summary.summarize(NET, x)),
    "summarize, network": ("network", lambda x: summary.summarize(x, IMAGES)),
    "summarize, target": ("target", lambda x: summary.summarize(NET, IMAGES, target=x)),
    "summarize, query": ("layer", lambda x: summary.summarize(NET, IMAGES, 17 if x == 3 else x)),
    "head_rows": ("layer", lambda x: summary.head_rows(SEEN, 17 if x == 3 else x)),
    "entropy": ("weights", measures.entropy),
    "normalised entropy": ("weights", lambda x: measures.entropy(x, normalised=True)),
    "attention_distance, weights": ("weights", lambda x: measures.attention_distance(x, (4, 4), 8)),
    "attention_distance, grid": ("count", lambda x: measures.attention_distance(WEIGHTS, (x, 4), 8)),
    "attention_distance, size": ("count", lambda x: measures.attention_distance(WEIGHTS, (4, 4), x)),
    "pixel_distances": ("count", lambda x: measures.pixel_distances((x, 4), 8)),
    "sink_mass": ("weights", measures.sink_mass),
    "prefix_mass, weights": ("weights", lambda x: measures.prefix_mass(x, 1)),
    "prefix_mass, count": ("count", lambda x: measures.prefix_mass(WEIGHTS, x)),
    "measure": ("count", lambda x: measures.measure(SEEN, x)),
    "position_similarity": ("network", measures.position_similarity),
    "order_of": ("maps", faithfulness.order_of),
    "centre_first_map": ("count", lambda x: faithfulness.centre_first_map((x, 4))),
    "random_maps": ("count", lambda x: faithfulness.random_maps((x, 4), 0)),
    "deletion, images": ("images", lambda x: faithfulness.deletion(NET, x, ORDER[:1], steps=2)),
    "deletion, network": ("network", lambda x: faithfulness.deletion(x, IMAGES, ORDER[:1], steps=2)),
    "deletion, order": ("order", lambda x: faithfulness.deletion(NET, IMAGES, x, steps=2)),
    "deletion, target": ("target", lambda x: faithfulness.deletion(NET, IMAGES, ORDER, x, steps=2)),
    "insertion, steps": ("count", lambda x: faithfulness.insertion(NET, IMAGES, ORDER, steps=x)),
    "insertion, batch": ("count", lambda x: faithfulness.insertion(NET, IMAGES, ORDER, steps=2, batch=x)),
    "pointing, maps": ("maps", lambda x: faithfulness.pointing(x, REGION)),
    "pointing, region": ("region", lambda x: faithfulness.pointing(MAPS, x)),
    "knockout_effect, labels": ("labels", lambda x: knockouts.knockout_effect(MAPS, MAPS, x)),
    "knockout_effect, logits": ("maps", lambda x: knockouts.knockout_effect(x, x, LABELS)),
    "knock_out_top, images": ("images", lambda x: knockouts.knock_out_top(NET, x, LABELS, ORDER, 2)),
    "knock_out_top, network": ("network", lambda x: knockouts.knock_out_top(x, IMAGES, LABELS, ORDER, 2)),
    "knock_out_top, labels": ("labels", lambda x: knockouts.knock_out_top(NET, IMAGES, x, ORDER, 2)),
    "knock_out_top, order": ("order", lambda x: knockouts.knock_out_top(NET, IMAGES, LABELS, x, 2)),
    "knock_out_top, count": ("count", lambda x: knockouts.knock_out_top(NET, IMAGES, LABELS, ORDER, x)),
    "predicted_classes, images": ("images", lambda x: batch.predicted_classes(NET, x)),
    "predicted_classes, network": ("network", lambda x: batch.predicted_classes(x, IMAGES)),
    "reinitialised, network": ("network", lambda x: list(randomization.reinitialised(x).parameters())),
    "reinitialised, groups": ("count", lambda x: list(randomization.reinitialised(NET, x).parameters())),
    "rank_correlation": ("maps", lambda x: randomization.rank_correlation(x, MAPS)),
    "randomization_check, maps": ("maps", lambda x: randomization.randomization_check(NET, lambda net: {"a": x})),
    "randomization_check, network": (
        "network",
        lambda x: randomization.randomization_check(x, lambda net: {"a": MAPS}),
    ),
    "randomization_check, stages": (
        "layers",
        lambda x: randomization.randomization_check(NET, lambda net: {"a": MAPS}, x),
    ),
    "fuse, fusion": ("fusion", lambda x: fuse(WEIGHTS, x)),
    "fuse, weights": ("weights", fuse),
    "draw_overlays, picture": ("picture", lambda x: overlay.draw_overlays(x, "a", [MAP])),
    "draw_overlays, maps": ("pictures of maps", lambda x: overlay.draw_overlays(PICTURE, "a", x)),
    "draw_overlays, marks": ("count", lambda x: overlay.draw_overlays(PICTURE, "a", [MAP], [overlay.Mark("b", x)])),
    "draw_matrices": ("values", lambda x: matrices.draw_matrices(None if x is None else x[None], 0, "a")),
    "draw_sheet": ("values", lambda x: overlay.draw_sheet(None if x is None else x[None, None], "a")),
    "stack": ("picture", lambda x: overlay.stack([x])),
    "stack of none": ("count", lambda x: overlay.stack([])),
    "draw_side_by_side, picture": ("picture", lambda x: comparison.draw_side_by_side(x, "a", {"b": [MAP]})),
    "draw_side_by_side, maps": ("pictures of maps", lambda x: comparison.draw_side_by_side(PICTURE, "a", {"b": x})),
    "draw_side_by_side, none": ("count", lambda x: comparison.draw_side_by_side(PICTURE, "a", {})),
    "draw_heads": ("values", lambda x: comparison.draw_heads(x, "a", "b")),
    "draw_curves": ("maps", lambda x: curves.draw_curves({"a": (x, x)} if isinstance(x, Tensor) else {}, "a")),
}


def leaves(value: Any) -> Iterator[Any]:
    """The tensors and arrays in a result."""
    if isinstance(value, dict):
        value = list(value.values())
    elif hasattr(value, "__dataclass_fields__"):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(leaves, value))
    elif isinstance(value, Tensor | np.ndarray):
        yield value


@pytest.fixture
def _unchecked_shapes():
    """Without the tests' own checks of shapes, which users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_unchecked_shapes")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_arguments_give_a_finite_result_or_one_line(function: str):
    kind, call = FUNCTIONS[function]
    wrong = []
    for name, value in BAD[kind].items():
        if name == "another size" and function in ("record, images", "knockout, images", "ablate, images"):
            continue  # a forward of the user's own tells its own error
        try:
            result = call(value)
        except UserError as error:
            if "\n" in str(error) or len(str(error)) > 400:
                wrong.append(f"{name}: {error}")
            continue
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if not all(
            np.isfinite(np.asarray(each.detach() if isinstance(each, Tensor) else each)).all()
            for each in leaves(result)
        ):
            wrong.append(f"{name}: a result that is not finite")
    assert not wrong, "\n".join(wrong)
