"""The fast decoder of PNGs gives what Pillow gives, byte for byte, or leaves the file to Pillow."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import pytest
from conftest import real_files
from fuzz_images import image_seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen.errors import ModelError
from mmdgen.model import png_decode, textures
from mmdgen.model.pixels import MAX_SIDE
from mmdgen.model.textures import decode_image

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, color: int, rows: bytes, *, extra: bytes = b"", parts: int = 1, level: int = 6):
    """A PNG of 8 bits whose filtered `rows` are as given, in `parts` chunks."""
    packed = zlib.compress(rows, level)
    cuts = [len(packed) * k // parts for k in range(parts + 1)]
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(cuts))
    header = struct.pack(">2I5B", width, height, 8, color, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def pillow(data: bytes) -> np.ndarray | str:
    """What becomes of `data` without the fast decoder: a picture or an error's code."""
    try:
        return textures._png_by_pillow(data)
    except Exception:
        return "damaged"


@st.composite
def files(draw) -> bytes:
    color = draw(st.sampled_from(sorted(CHANNELS)))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    random = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32 - 1))))
    # Few values make Paeth's ties frequent; numbers of a palette have to be in it.
    values = draw(st.sampled_from([(0, 255), (0, 1, 2, 254, 255), (0, 127, 128, 129), tuple(range(256))]))
    entries = draw(st.integers(1, 256))
    if color == 3:
        index = random.integers(0, entries, (height, width)).astype(np.uint8)
        kinds = np.zeros(height, np.uint8)
        raw = index
    else:
        kinds = random.choice(draw(st.sampled_from([(0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4)])), height)
        raw = random.choice(values, (height, width * CHANNELS[color])).astype(np.uint8)
    rows = np.concatenate([kinds[:, None].astype(np.uint8), raw], axis=1).tobytes()
    extra = b""
    if color == 3:
        extra = chunk(b"PLTE", random.integers(0, 256, 3 * entries, dtype=np.uint8).tobytes())
        opaque = draw(st.integers(0, entries))
        extra += chunk(b"tRNS", random.integers(0, 256, opaque, dtype=np.uint8).tobytes()) if opaque else b""
    return png(width, height, color, rows, extra=extra, parts=draw(st.integers(1, 3)), level=draw(st.integers(0, 9)))


@settings(max_examples=60)
@given(files())
def test_every_filter_and_colour_type(data):
    found = png_decode.decode(data)
    assert found is not None
    assert found.flags.writeable
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, pillow(data))


def test_bands_are_joined(monkeypatch):
    random = np.random.Generator(np.random.PCG64(3))
    rows = random.integers(0, 256, (50, 1 + 3 * 20), dtype=np.uint8)
    rows[:, 0] = random.integers(0, 5, 50)
    data = png(20, 50, 2, rows.tobytes())
    for band in (1, 61, 62, 200, 50 * 61):
        monkeypatch.setattr(png_decode, "_BAND", band)
        np.testing.assert_array_equal(png_decode.decode(data), pillow(data))


def test_prediction_is_that_of_the_standard():
    """Section 9.4: p = a + b - c; the nearest of a, b, c, in this order where they tie."""
    steps = (0, 1, 2, 3, 85, 126, 127, 128, 129, 170, 253, 254, 255)
    for a in steps:
        for b in steps:
            for c in steps:
                p = a + b - c
                expected = min((a, b, c), key=lambda value: abs(p - value))
                assert png_decode._predicted.py_func(np.int32(a), np.int32(b), np.int32(c)) == expected


def test_every_damaged_byte_ends_as_with_pillow():
    """One byte changed, anywhere in the file: either the same picture or left to Pillow, error and all."""
    rows = np.random.Generator(np.random.PCG64(5)).integers(0, 5, (4, 1 + 3 * 5), dtype=np.uint8)
    chunks = chunk(b"PLTE", bytes(range(30))) + chunk(b"tRNS", b"\x07\x80")
    whole = png(5, 4, 3, rows[:, :6].copy().tobytes(), extra=chunks)
    for source in (png(5, 4, 2, rows.tobytes(), parts=2), whole):
        assert png_decode.decode(source) is not None or source is whole
        for place in range(8, len(source)):
            for change in (0x01, 0x20, 0x80):
                data = bytearray(source)
                data[place] ^= change
                found = png_decode.decode(bytes(data))
                if found is not None:
                    np.testing.assert_array_equal(found, pillow(bytes(data)))
        for length in range(8, len(source)):
            assert png_decode.decode(source[:length]) is None


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (b"\0" + bytes(6) + b"\0" + bytes(5), "a byte is missing"),
        (b"\0" + bytes(6) + b"\0" + bytes(7), "a byte too many"),
        (b"\0" + bytes(6) + b"\5" + bytes(6), "no such filter"),
        (bytes(8 << 20), "a bomb"),
    ],
)
def test_what_does_not_fit_is_declined(rows, why):
    data = png(2, 2, 2, rows)
    assert png_decode.decode(data) is None, why


def test_odd_files_are_declined():
    row = b"\0" + bytes(3)
    header = chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(row))
    end = chunk(b"IEND", b"")
    assert png_decode.decode(SIGNATURE + header + data + end) is not None
    palette = chunk(b"PLTE", bytes(3))
    wrong = bytearray(palette)
    wrong[-1] ^= 1
    for odd in (
        header + header + data + end,
        header + data,
        data + header + end,
        header + data + chunk(b"IDAT", b"x") + end,
        header + chunk(b"tRNS", bytes(6)) + data + end,
        header + palette + palette + data + end,
        header + bytes(wrong) + data + end,
        header + data + palette + end,
        header + end,
        header[:-12] + b"\1" + header[-11:] + data + end,
    ):
        assert png_decode.decode(SIGNATURE + odd) is None
    for fields in ((MAX_SIDE + 1, 1, 8, 2, 0, 0, 0), (0, 1, 8, 2, 0, 0, 0), (1, 1, 16, 2, 0, 0, 0),
                   (1, 1, 8, 5, 0, 0, 0),
                   (1, 1, 8, 2, 1, 0, 0), (1, 1, 8, 2, 0, 1, 0), (1, 1, 8, 2, 0, 0, 1)):  # fmt: skip
        assert png_decode.decode(SIGNATURE + chunk(b"IHDR", struct.pack(">2I5B", *fields)) + data + end) is None
    number_outside = png(1, 1, 3, b"\0\1", extra=palette)
    assert png_decode.decode(number_outside) is None


def test_seeds_of_the_fuzzer():
    seen = 0
    for seed in image_seeds("png"):
        found = png_decode.decode(seed.data)
        if found is not None:
            seen += 1
            np.testing.assert_array_equal(found, pillow(seed.data))
    assert seen


@pytest.mark.slow
@pytest.mark.corpus
def test_real_textures():
    """All real PNGs, up to 60 megapixels: nearly all are plain."""
    plain, others, pixels = 0, 0, 0
    for path in real_files(".png"):
        data = path.read_bytes()
        if data[:8] != SIGNATURE or pixels > 60e6:
            continue
        found = png_decode.decode(data)
        if found is None:
            others += 1
            continue
        plain, pixels = plain + 1, pixels + found.size // 4
        np.testing.assert_array_equal(found, pillow(data), err_msg=str(path))
    assert plain > 9 * others


def test_the_decoder_is_used(monkeypatch):
    data = png(1, 1, 6, b"\0\1\2\3\4")
    monkeypatch.setattr(png_decode, "decode", lambda _: np.full((1, 1, 4), 9, np.uint8))
    assert decode_image(data).tolist() == [[[9, 9, 9, 9]]]
    monkeypatch.setattr(png_decode, "decode", lambda _: None)
    assert decode_image(data).tolist() == [[[1, 2, 3, 4]]]
    with pytest.raises(ModelError) as raised:
        decode_image(data[:40])
    assert raised.value.code == "texture_damaged"
