"""PNGs of every colour type and depth, made bit by bit, and files that claim more than they hold."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from mmdgen.errors import ModelError
from mmdgen.model import png_chunks
from mmdgen.model.pixels import DamagedError
from mmdgen.model.records import Texture
from mmdgen.model.textures import check_texture, decode_image

H, W = 9, 13
_random = np.random.Generator(np.random.PCG64(11))
# Adam7: first column, first row, step right, step down.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(values: np.ndarray, depth: int, kind: int) -> bytes:
    """Rows of numbers [h, n] of `depth` bits, the high bits first, each under the filter `kind` (0 none, 1 left)."""
    rows = b""
    for row in values:
        if depth == 16:
            raw = row.astype(">u2").tobytes()
        else:
            bits = "".join(f"{value:0{depth}b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            raw = bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8))
        if kind == 1:  # of one byte before: for pixels of up to 8 bits
            raw = bytes((now - before) % 256 for now, before in zip(raw, b"\0" + raw, strict=False))
        rows += bytes([kind]) + raw
    return rows


def png(values: np.ndarray, depth: int, color: int, extra: bytes = b"", interlaced: bool = False, row_filter: int = 0):
    """A PNG of numbers [H, W, channels]."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b""
    for left, top, right, down in passes:
        part = values[top::down, left::right]
        if part.size:
            rows += filtered(part.reshape(len(part), -1), depth, row_filter)
    packed = zlib.compress(rows)
    half = len(packed) // 2  # in two chunks, as large files have many
    body = chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
    return png_chunks.SIGNATURE + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


def numbers(depth: int, channels: int) -> np.ndarray:
    values = _random.integers(0, 1 << depth, (H, W, channels))
    values[1, 1] = values[1, 2] = values[2, 3]  # a colour that occurs several times
    if depth == 16:
        values[1, 2] ^= 1  # and one that differs in the lowest bit alone
    return values


def level(values: np.ndarray, depth: int) -> np.ndarray:
    return np.rint(values * 255 / ((1 << depth) - 1)).astype(int)


def as_rgba(values: np.ndarray, depth: int, color: int) -> np.ndarray:
    scaled = level(values, depth)
    rgba = np.full((*values.shape[:2], 4), 255)
    rgba[..., :3] = scaled[..., : 3 if color in (2, 6) else 1]
    if color in (4, 6):
        rgba[..., 3] = scaled[..., -1]
    return rgba


def error(got: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(got.astype(int) - expected).max())


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("color", "depth"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)],
)
def test_every_colour_type_and_depth(color, depth, interlaced):
    values = numbers(depth, CHANNELS[color])
    got = decode_image(png(values, depth, color, interlaced=interlaced))
    # Of 16 bits in several channels Pillow keeps the high byte, which may be one less than the nearest.
    assert error(got, as_rgba(values, depth, color)) <= (depth == 16 and color != 0)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes(depth, interlaced):
    values = numbers(depth, 1)
    colors = _random.integers(0, 256, (1 << depth, 4))
    some = max(1, len(colors) // 2)
    expected = colors.copy()
    expected[some:, 3] = 255
    palette = chunk(b"PLTE", colors[:, :3].astype(np.uint8).tobytes())
    alpha = chunk(b"tRNS", colors[:some, 3].astype(np.uint8).tobytes())
    got = decode_image(png(values, depth, 3, palette + alpha, interlaced, row_filter=1))
    assert np.array_equal(got, expected[values[..., 0]])
    expected[:, 3] = 255
    assert np.array_equal(decode_image(png(values, depth, 3, palette, interlaced)), expected[values[..., 0]])


@pytest.mark.parametrize(("color", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_transparent_colours_are_compared_in_full_depth(color, depth):
    values = numbers(depth, CHANNELS[color])
    for key in (values[2, 3], np.zeros(CHANNELS[color], int), np.full(CHANNELS[color], (1 << depth) - 1)):
        expected = as_rgba(values, depth, color)
        expected[(values == key).all(axis=2), 3] = 0
        got = decode_image(png(values, depth, color, chunk(b"tRNS", key.astype(">u2").tobytes())))
        assert np.array_equal(got[..., 3], expected[..., 3])
        assert error(got, expected) <= (depth == 16 and color != 0)


def test_a_transparent_colour_that_is_cut_off_is_left_out():
    values = numbers(8, 3)
    assert np.array_equal(decode_image(png(values, 8, 2, chunk(b"tRNS", b"\0\1"))), as_rgba(values, 8, 2))


def code(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        decode_image(data)
    return caught.value.code


def test_headers_that_cannot_be():
    good = png(numbers(8, 4), 8, 6)
    body = good[8 + 25 :]
    for depth, color in ((3, 0), (4, 2), (16, 3), (1, 4), (2, 6), (8, 1), (8, 5), (8, 7)):
        header = struct.pack(">IIBBBBB", W, H, depth, color, 0, 0, 0)
        assert code(png_chunks.SIGNATURE + chunk(b"IHDR", header) + body) == "texture_damaged"
    assert code(png_chunks.SIGNATURE) == "texture_damaged"
    assert code(png_chunks.SIGNATURE + body) == "texture_damaged"
    assert code(good[:33] + good[8:]) == "texture_damaged"
    assert code(png_chunks.SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, H, 8, 6, 0, 0, 0)) + body) == (
        "texture_damaged"
    )


def test_the_room_is_what_deflate_can_fill_at_best():
    """A file of zeros is as dense as a PNG can be: it is read, and one row more would be seen to be missing."""
    side = 2000
    rows = zlib.compress(bytes((side + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)

    def made(packed: bytes) -> bytes:
        return png_chunks.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")

    assert (side + 1) * side > 900 * len(rows)
    assert decode_image(made(rows)).shape == (side, side, 4)
    with pytest.raises(DamagedError, match="cannot come from"):
        png_chunks.plain(made(rows[: len(rows) * 8 // 10]))
    assert code(made(rows[: len(rows) * 8 // 10])) == "texture_damaged"


@pytest.mark.parametrize("interlaced", [False, True])
def test_the_bytes_of_the_rows_are_counted_as_they_are_packed(interlaced):
    for color, depth in ((0, 1), (3, 4), (2, 8), (6, 16)):
        for height, width in ((1, 1), (1, 9), (2, 3), (5, 5), (9, 13)):
            values = np.zeros((height, width, CHANNELS[color]), int)
            data = png(values, depth, color, interlaced=interlaced)
            _, header, _ = png_chunks.plain(data)
            packed = b"".join(body for kind, body, _ in png_chunks._chunks(data) if kind == b"IDAT")
            assert header.unpacked() == len(zlib.decompress(packed))


def test_checking_a_file_finds_what_decoding_does(tmp_path):
    path = tmp_path / "a.png"
    good = png(numbers(8, 4), 8, 6)
    path.write_bytes(good)
    check_texture(Texture("a.png", path))
    for bad in (good[: len(good) // 2], good[:40], b"\x89PNG\r\n\x1a\n", b"", b"nothing"):
        path.write_bytes(bad)
        with pytest.raises(ModelError) as checked:
            check_texture(Texture("a.png", path))
        with pytest.raises(ModelError) as decoded:
            decode_image(bad, str(path))
        assert (checked.value.code, str(checked.value)) == (decoded.value.code, str(decoded.value))
    # Without its end the picture is whole all the same: it is decoded to know that.
    path.write_bytes(good[:-12])
    assert not png_chunks.is_whole(good[:-12])
    check_texture(Texture("a.png", path))
    flipped = bytearray(good)
    flipped[60] ^= 1
    assert not png_chunks.is_whole(bytes(flipped))
    assert png_chunks.is_whole(good)
