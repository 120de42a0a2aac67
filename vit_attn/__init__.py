"""Vision transformers whose attention can be trained, seen and questioned.

The names below are the public ones, together with what a configuration names by ``class_path``; docs/python.md explains
each. All else may change from one version to the next.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_attn.attention_maps.methods.legrad import legrad
    from vit_attn.attention_maps.methods.registry import attribution_method
    from vit_attn.attention_maps.methods.relevance import relevance
    from vit_attn.attention_maps.methods.rollout import raw_rows, rollout
    from vit_attn.attention_maps.recording.knockout import edges, knockout
    from vit_attn.attention_maps.recording.layout import TokenLayout, register_layout
    from vit_attn.attention_maps.recording.record import record
    from vit_attn.attention_maps.summary import summarize
    from vit_attn.callbacks.attention_logger.by_hand import log_attention
    from vit_attn.callbacks.attention_logger.callback import AttentionLogger
    from vit_attn.callbacks.run_checkpoint import RunCheckpoint
    from vit_attn.data.datasets.own import register_dataset
    from vit_attn.data.module import ImageData
    from vit_attn.data.transforms.augment import Augment
    from vit_attn.errors import UserError
    from vit_attn.explore.show import show
    from vit_attn.inference.network import TrainedNetwork, open_network
    from vit_attn.model.scores import Scores, register_affinity
    from vit_attn.model.vit import VisionTransformer
    from vit_attn.task import Classifier

__version__ = "0.1.0"

__all__ = [
    "AttentionLogger",
    "Augment",
    "Classifier",
    "ImageData",
    "RunCheckpoint",
    "Scores",
    "TokenLayout",
    "TrainedNetwork",
    "UserError",
    "VisionTransformer",
    "__version__",
    "attribution_method",
    "edges",
    "knockout",
    "legrad",
    "log_attention",
    "open_network",
    "raw_rows",
    "record",
    "register_affinity",
    "register_dataset",
    "register_layout",
    "relevance",
    "rollout",
    "show",
    "summarize",
]

_MODULES = {
    **dict.fromkeys(("attribution_method",), "attention_maps.methods.registry"),
    **dict.fromkeys(("edges", "knockout"), "attention_maps.recording.knockout"),
    **dict.fromkeys(("TokenLayout", "register_layout"), "attention_maps.recording.layout"),
    **dict.fromkeys(("TrainedNetwork", "open_network"), "inference.network"),
    "legrad": "attention_maps.methods.legrad",
    "relevance": "attention_maps.methods.relevance",
    **dict.fromkeys(("raw_rows", "rollout"), "attention_maps.methods.rollout"),
    "record": "attention_maps.recording.record",
    "summarize": "attention_maps.summary",
    "log_attention": "callbacks.attention_logger.by_hand",
    "AttentionLogger": "callbacks.attention_logger.callback",
    "RunCheckpoint": "callbacks.run_checkpoint",
    "ImageData": "data.module",
    "register_dataset": "data.datasets.own",
    "Augment": "data.transforms.augment",
    "UserError": "errors",
    "show": "explore.show",
    "VisionTransformer": "model",
    **dict.fromkeys(("Scores", "register_affinity"), "model.scores"),
    "Classifier": "task",
}
"""Module of each public name, imported when the name is first used: TensorBoard imports this package without torch."""


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
