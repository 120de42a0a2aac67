"""How many bits the grey pictures of a data set use, where their files have 16."""

import numpy as np

from vit_attn.data.datasets.splits import ImageList, Split, TensorImageList
from vit_attn.data.images.bit_depth import NONE_SEEN
from vit_attn.data.images.decoding import in_threads

FIRST_LOOK = 64
"""Pictures whose headers are read, evenly spaced, to find whether any is of more than 8 bits."""
SECOND_LOOK = 1024
"""Pictures that are decoded where some are, to find the largest value."""


def find_bits(train: Split) -> int:
    """The depth that holds the values of the training pictures; ``NONE_SEEN`` where none is of more than 8 bits.

    A picture that was not looked at and is deeper is refused when it is read.

    Args:
        train: The training images.
    """
    pictures = train.to_read() if train.stream is None else None
    if pictures is None or isinstance(pictures, TensorImageList):
        return NONE_SEEN
    return _deepest(pictures, FIRST_LOOK) and _deepest(pictures, SECOND_LOOK)


def _deepest(pictures: ImageList, count: int) -> int:
    indices = np.unique(np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int)).tolist()
    found = in_threads(lambda number: pictures.depth(indices[number]), len(indices), "")
    return max((bits for bits in found if bits is not None), default=NONE_SEEN)
