"""Our PNG encoder against Pillow's decoder."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdgen import rng
from mmdgen.png import encode_png


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return np.array(image)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 30), st.integers(1, 30), st.sampled_from([3, 4]), st.integers(0, 2**32), st.sampled_from([1, 7, 256])
)
def test_round_trip(height: int, width: int, channels: int, seed: int, values: int):
    noise = rng.generator(seed, "png").integers(0, values, (height, width, channels))
    row, column, channel = np.indices(noise.shape)
    image = (noise + row * (seed % 5) + column * (seed % 7) + channel * 50).astype(np.uint8)
    assert np.array_equal(decoded(encode_png(image)), image)


def filters(content: bytes) -> set[int]:
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")
    rows = zlib.decompress(content[start + 4 : start + 4 + length])
    return set(rows[:: 1 + 64 * 3])


def test_every_filter_is_used_and_right():
    """Pictures that each filter suits: none, left, up, average, Paeth."""
    row, column = np.indices((64, 64))
    noise = rng.generator(1, "filters").integers(0, 256, (64, 64))
    smooth = rng.generator(2, "filters").integers(0, 256, (64, 64))
    for y, x in np.argwhere(smooth >= 0):
        if y and x:  # what the average predicts, and a little noise
            smooth[y, x] = min(255, (smooth[y, x - 1] + smooth[y - 1, x]) // 2 + smooth[y, x] % 5)
    surfaces = [
        noise * (column % 9 == 0) % 4,
        (column * 3 + row * 97),
        (row * 3 + noise[0]),
        smooth,
        np.cumsum(rng.generator(4, "filters").integers(-9, 10, 64))[:, None]
        + np.cumsum(rng.generator(5, "filters").integers(-9, 10, 64))[None, :],
    ]
    used = set()
    for surface in surfaces:
        image = np.repeat(surface[..., None], 3, 2).astype(np.uint8)
        content = encode_png(image)
        assert np.array_equal(decoded(content), image)
        used |= filters(content)
    assert used == {0, 1, 2, 3, 4}


def test_tall_pictures():
    """More rows than are filtered at a time."""
    image = np.cumsum(rng.generator(7, "tall").integers(-3, 4, (300, 5, 4)), 0).astype(np.uint8)
    assert np.array_equal(decoded(encode_png(image)), image)


def test_views_and_determinism():
    image = rng.generator(6, "view").integers(0, 256, (20, 30, 4), dtype=np.uint8)[::-2, ::3]
    assert encode_png(image) == encode_png(image.copy())
    assert np.array_equal(decoded(encode_png(image)), image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
    ],
)
def test_refuses_what_is_no_picture(image):
    with pytest.raises(ValueError, match="picture"):
        encode_png(image)
