"""PNG files of figures."""

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from vit_attn.plotting.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (9, 1, 3), (50, 71, 3)])
def test_pillow_reads_the_pixels_that_were_encoded(shape: tuple[int, int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for picture in (pixels, pixels[::-1, :, ::-1]):  # of any memory layout
        with Image.open(io.BytesIO(encode_png(picture))) as image:
            image.verify()  # of the checksums
        with Image.open(io.BytesIO(encode_png(picture))) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            assert_array_equal(np.asarray(image), picture)
