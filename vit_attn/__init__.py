"""Vision transformers whose attention can be trained, seen and questioned.

``vit_attn.show(net, image)`` shows the attention of a network in a notebook; see :func:`vit_attn.explore.show.show`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``show`` when it is first used: torch takes seconds, and TensorBoard imports this package without it."""
    if name != "show":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("vit_attn.explore.show").show


def __dir__() -> list[str]:
    return [*globals(), "show"]
