"""Bit depth of the grey pictures of a data set whose files have 16 bits."""

import numpy as np

from vit_attn.data.datasets.image_list import ImageList, TensorImageList
from vit_attn.data.datasets.splits import Split
from vit_attn.data.images.bit_depth import NONE_SEEN
from vit_attn.data.images.decoding import in_threads

HEADERS = 64
"""Pictures, evenly spaced, whose headers are read to find out whether any has more than 8 bits."""
DECODED = 1024
"""Pictures that are decoded, if some have, to find the largest value."""


def find_bits(train: Split) -> int:
    """Smallest bit depth that holds the values of the training pictures; ``NONE_SEEN`` if none has more than 8 bits.

    A picture with larger values that was not sampled is refused when it is read.

    Args:
        train: The training images.
    """
    pictures = train.to_read() if train.stream is None else None
    if pictures is None or isinstance(pictures, TensorImageList):
        return NONE_SEEN
    return _largest_depth(pictures, HEADERS) and _largest_depth(pictures, DECODED)


def _largest_depth(pictures: ImageList, count: int) -> int:
    indices = np.unique(np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int)).tolist()
    found = in_threads(lambda number: pictures.depth(indices[number]), len(indices), "")
    return max((bits for bits in found if bits is not None), default=NONE_SEEN)
