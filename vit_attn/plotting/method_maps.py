"""Maps of attribution methods as figures show them: title, unit and note."""

import numpy as np
from jaxtyping import Float

from vit_attn.attention_maps.methods.registry import AttributionMethod
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.plotting.overlay import AttentionMap, patch_fractions


def method_map(
    method: AttributionMethod, row: Float[np.ndarray, " N"], summary: AttentionSummary, target: str
) -> AttentionMap:
    """Return a method's map; one for a class has no unit, so it is shown as fractions of what patches receive.

    Args:
        method: The method.
        row: Its row over all tokens, prefix tokens first.
        summary: Summary of the image.
        target: Name of the class that class-specific maps are for.
    """
    title = method.label.removesuffix(", mean")  # heads are averaged unless a title says otherwise
    if method.class_specific:
        return AttentionMap(title, patch_fractions(summary.patches(row)), note=f"for {target}")
    return weights_map("pool" if method.name == "last_layer" and summary.pool else title, row, summary)


def weights_map(title: str, row: Float[np.ndarray, " N"], layout: AttentionSummary | Recording) -> AttentionMap:
    """Return the map of a row of attention weights, with what prefix tokens receive stated below.

    Args:
        title: Title of the map.
        row: Weights of all tokens, prefix tokens first.
        layout: Tokens of the row.
    """
    prefix = layout.num_prefix_tokens
    return AttentionMap(title, row[prefix:].reshape(layout.grid_size), float(row[:prefix].sum()))
