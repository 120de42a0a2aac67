"""Inputs of a step of the Attention tab, as numpy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

COMPUTED_BY_PAGE = ("relevance", "last_layer", "rollout", "rollout_max", "rollout_min")
"""Attribution methods that the page computes from the maps, by name; it calls them Relevance, Raw and Rollout."""
POOLED_LAYER = "last layer, pooled"
"""The last layer's rows, mixed as a pool by attention weighs them: the page's view of the last layer of such a network,
whose "last layer" is the pool's own row."""


@dataclass(frozen=True)
class TabImages:
    """Images of a step.

    Args:
        pixels: Pixels before normalisation; height and width may differ.
        labels: Class of each; -1 where it is unknown.
        class_names: Names of the classes by index.
        ground_truth: Known regions of each image, by name, such as ``{"object": [12, 13], "context": [40]}``; patches
            are numbered row by row from 0.
        answers: Name of the region of each image that tells its class.
        targets: Classes that class-specific maps are for: the same number for each image, the predicted class first.
        names: Name of each, such as that of its file.
    """

    pixels: UInt8[np.ndarray, "B height width 3"]
    labels: Sequence[int]
    class_names: Sequence[str]
    ground_truth: Sequence[Mapping[str, Sequence[int]]] | None = None
    answers: Sequence[str] | None = None
    targets: Sequence[Sequence[int]] | None = None
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Tokens:
    """Tokens of the maps: prefix tokens first, then the patches row by row.

    Args:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Tokens before the patches: CLS and registers.
        pooled_rows: Weight of each token in what the network pools, one row for all images or one an image; sums to 1.
        prefix_names: Names of the prefix tokens; by default CLS, then R1, R2, ….
        layer_names: Names of the layers; by default their numbers, from 1.
        pooled_relevance: Relevance of each token to what is pooled, where that is no mix of tokens' relevance: for a
            pool by attention.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int
    pooled_rows: Float[np.ndarray, "_ N"]
    prefix_names: Sequence[str] | None = None
    layer_names: Sequence[str] | None = None
    pooled_relevance: Float[np.ndarray, "B N"] | None = None

    @property
    def count(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]


@dataclass(frozen=True)
class MethodRows:
    """Attribution method, and its map of each image where the page cannot compute it.

    Args:
        name: By which the page's state names it, such as ``legrad``.
        label: By which the page shows it, and by which ``Faithfulness`` names it.
        reference: The paper, with its arXiv number.
        class_specific: Whether the map is for the predicted class.
        has_query: Whether the method has a map for any query token, not only for the pooled row.
        rows: Map of the pooled row of each image; none for the methods that the page computes.
        target_rows: Map of the pooled row of each image for each of its ``targets``, of a class-specific method.
    """

    name: str
    label: str
    reference: str = ""
    class_specific: bool = False
    has_query: bool = True
    rows: Float[np.ndarray, "B N"] | None = None
    target_rows: Float[np.ndarray, "B T N"] | None = None


Vectors = Float[np.ndarray, "_ _ _ _"]
"""Queries or keys of a layer, (B, H, N, D); layers may differ in heads and channels."""


@dataclass(frozen=True)
class QueriesKeys:
    """Queries and keys of the first images of a step.

    Args:
        layers: Queries and keys of each layer; of fewer images than the step has, or of all.
        scales: Factor of each layer by which the product of a query and a key becomes a score, before a mask is added;
            none where the score is no such product.
    """

    layers: Sequence[tuple[Vectors, Vectors]]
    scales: Sequence[float | None]

    @property
    def images(self) -> int:
        """Number of images, the first of the step."""
        return len(self.layers[0][0]) if self.layers else 0


HeadMeasures = Mapping[str, Sequence[Sequence[float]]]
"""Measures of each layer and head, mean over images, by the names of ``HEAD_MEASURES``."""
HEAD_MEASURES = ("entropy", "distance", "sink", "prefix")
"""Entropy as a fraction of ln N, distance in pixels, sink and prefix mass as fractions of attention."""

Measures = Mapping[str, Mapping[str, Sequence[float]]]
"""By label of the method and by ``deletion`` and ``insertion``: value, mean of the random orders, margin above which a
difference to it counts, value of centre first, and margin of that."""


@dataclass(frozen=True)
class Faithfulness:
    """Deletion and insertion of the maps of several methods, and of baselines; a method may be missing.

    Args:
        orders: Random orders that each image's maps were compared with.
        images: Images that ``overall`` is of.
        overall: Measures over all images.
        by_image: Measures of each image that is written.
    """

    orders: int
    images: int
    overall: Measures
    by_image: Sequence[Measures]
