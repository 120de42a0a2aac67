"""Module of docs/extend.md in a folder of its own, and a way to forget it, as another process would not know it."""

import re
import sys
from pathlib import Path

from timm.models import _registry as timm_registry

from vit_attn import parts
from vit_attn.attention_maps.methods.registry import METHODS
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.model.scores import AFFINITIES

PAGE = Path(__file__).parent.parent / "docs/extend.md"


def module_text() -> str:
    """The complete module of the page."""
    (text,) = re.findall(r'```python\n("""My parts.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return text


def forget() -> None:
    """Forget all that the module has registered, and that it was imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]
    parts._IMPORTED.clear()
    for registry, name in ((AFFINITIES, "half_dot_product"), (METHODS, "squared"), (DATASETS, "stripes")):
        registry.pop(name, None)
    if "my_vit" in timm_registry._model_entrypoints:
        timm_registry._clear_model_entries("my_vit")
        del timm_registry._model_entrypoints["my_vit"]
