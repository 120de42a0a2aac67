import io

import numpy as np
import pytest
from PIL import Image

from vit_attn.plotting.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (5, 1, 3), (40, 31, 3)])
def test_a_picture_is_read_back_as_it_was(shape: tuple[int, int, int]):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(picture))) as image:
        image.load()
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), picture)
