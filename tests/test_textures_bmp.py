"""BMPs of every header, depth and compression, written here byte by byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mmdgen.errors import ModelError
from mmdgen.model.records import Texture
from mmdgen.model.textures import check_texture, decode_image

H, W = 5, 11
_random = np.random.Generator(np.random.PCG64(3))
INFO = (40, 52, 56, 64, 108, 124)


def padded(rows: list[bytes]) -> bytes:
    return b"".join(row + bytes(-len(row) % 4) for row in rows)


def packed(row: np.ndarray, bits: int) -> bytes:
    text = "".join(f"{value:0{bits}b}" for value in row)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[k : k + 8], 2) for k in range(0, len(text), 8))


def bmp(
    body: bytes,
    bits: int,
    *,
    header: int = 40,
    palette: bytes = b"",
    compression: int = 0,
    masks: tuple[int, ...] = (),
    top_down: bool = False,
    used: int = 0,
    offset: int | None = None,
) -> bytes:
    if header == 12:
        info = struct.pack("<IHHHH", 12, W, H, 1, bits)
    else:
        info = struct.pack("<IiiHH", header, W, -H if top_down else H, 1, bits)
        if header > 16:
            info += struct.pack("<IIiiII", compression, len(body), 2835, 2835, used, 0)
            info += struct.pack(f"<{len(masks)}I", *masks)
            info = info.ljust(header, b"\0")
    start = 14 + len(info) + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(body), 0, 0, start if offset is None else offset)
        + info
        + palette
        + body
    )


def colors_of(count: int, size: int) -> tuple[np.ndarray, bytes]:
    """RGBA colours and the same as a palette with entries of `size` bytes, whose fourth byte means nothing."""
    colors = _random.integers(0, 256, (count, 4))
    colors[:, 3] = 255
    entries = colors[:, [2, 1, 0, 3]].astype(np.uint8)
    entries[:, 3] = 77
    return colors, np.ascontiguousarray(entries[:, :size]).tobytes()


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [12, 16, *INFO])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_with_every_header(bits, header, top_down):
    if top_down and header == 12:
        return  # its height has no sign
    colors, palette = colors_of(1 << bits, 3 if header == 12 else 4)
    index = _random.integers(0, 1 << bits, (H, W))
    rows = index if top_down else index[::-1]
    body = padded([packed(row, bits) for row in rows])
    data = bmp(body, bits, header=header, palette=palette, top_down=top_down)
    assert np.array_equal(decode_image(data), colors[index])


def test_black_and_white_palettes_are_palettes():
    """A palette of black and white, in a picture of more bits or the other way round, which Pillow mistakes."""
    index = _random.integers(0, 2, (H, W))
    for bits in (1, 4, 8):
        body = padded([packed(row, bits) for row in index[::-1]])
        for first, second in ((0, 255), (255, 0)):
            palette = bytes([first] * 3 + [0] + [second] * 3 + [0])
            got = decode_image(bmp(body, bits, palette=palette, used=2))
            assert np.array_equal(got[..., 0], np.where(index, second, first))


def test_short_palettes_and_missing_offsets():
    colors, palette = colors_of(256, 4)
    index = _random.integers(0, 256, (H, W))
    body = padded([packed(row, 8) for row in index[::-1]])
    assert np.array_equal(decode_image(bmp(body, 8, palette=palette, offset=0)), colors[index])
    got = decode_image(bmp(body, 8, palette=palette[: 4 * 40], used=40))
    expected = colors.copy()
    expected[40:, :3] = 0
    assert np.array_equal(got, expected[index])


@pytest.mark.parametrize("header", [12, *INFO])
def test_true_colour_and_high_colour(header):
    colors = _random.integers(0, 256, (H, W, 3))
    opaque = np.dstack([colors, np.full((H, W), 255)])
    body = padded([row[:, ::-1].astype(np.uint8).tobytes() for row in colors[::-1]])
    assert np.array_equal(decode_image(bmp(body, 24, header=header)), opaque)
    five = colors >> 3
    words = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2] | 0x8000  # the last bit means nothing
    body = padded([row.astype("<u2").tobytes() for row in words[::-1]])
    expected = np.dstack([np.rint(five * 255 / 31), np.full((H, W), 255)])
    assert np.array_equal(decode_image(bmp(body, 16, header=header)), expected)


def test_the_fourth_byte_is_alpha_unless_it_is_nowhere_set():
    """What D3DX does by Wine's tests, which run on Windows, too: one byte that is not 0 makes all of them alpha."""
    pixels = _random.integers(0, 256, (H, W, 4))
    for header in (12, *INFO):
        for alpha in (pixels[..., 3], 0, None):
            image = pixels.copy()
            if alpha is None:
                image[..., 3] = 0
                image[2, 3, 3] = 1
            else:
                image[..., 3] = alpha
            body = np.ascontiguousarray(image[::-1][..., [2, 1, 0, 3]].astype(np.uint8)).tobytes()
            expected = image.copy()
            if not image[..., 3].any():
                expected[..., 3] = 255
            assert np.array_equal(decode_image(bmp(body, 32, header=header)), expected)


MASKS = [
    (16, (0xF800, 0x7E0, 0x1F, 0)),
    (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    (16, (0xF00, 0xF0, 0xF, 0xF000)),
    (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
]


@pytest.mark.parametrize(("bits", "masks"), MASKS)
@pytest.mark.parametrize(("header", "compression"), [(40, 6), (56, 3), (108, 3), (124, 3), (40, 3), (52, 3)])
def test_masks(bits, masks, header, compression):
    if header <= 52 and compression == 3 and masks[3] and masks[3] != 0xFF000000:
        return  # there is no place for that
    kinds = f"<u{bits // 8}"
    words = _random.integers(0, 1 << bits, (H, W), dtype=np.uint64)
    expected = np.full((H, W, 4), 255)
    for channel, mask in enumerate(masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            value = (words & np.uint64(mask)) >> np.uint64(shift)
            expected[..., channel] = np.floor(value * 255 / (mask >> shift) + 0.5)
    if header <= 52 and compression == 3 and bits == 32 and not masks[3]:
        expected[..., 3] = (words >> np.uint64(24)).astype(int)  # what the colours leave of the high byte
    body = padded([row.astype(kinds).tobytes() for row in words[::-1]])
    given = masks[:3] if header <= 52 and compression == 3 else masks
    if header == 40:
        data = bmp(body, bits, palette=struct.pack(f"<{len(given)}I", *given), compression=compression)
    else:
        data = bmp(body, bits, header=header, masks=given, compression=compression)
    assert np.array_equal(decode_image(data), expected)


# -- run lengths -------------------------------------------------------------------------------------------------------


def test_rle8_with_all_its_codes():
    colors, palette = colors_of(256, 4)
    index = np.zeros((H, W), int)  # in the order of the file: the lowest row first
    body = bytes([5, 9, 6, 200, 0, 0])  # two runs fill a row
    index[0] = [9] * 5 + [200] * 6
    body += bytes([0, 0])  # an empty row
    body += bytes([0, 5, 1, 2, 3, 4, 5, 0, 0, 0])  # literal, padded to an even length; the rest of the row is left out
    index[2, :5] = [1, 2, 3, 4, 5]
    body += bytes([0, 2, 3, 1, 200, 7])  # a jump by (3, 1), then a run that is longer than the row
    index[4, 3:] = 7
    body += bytes([0, 1])
    data = bmp(body, 8, palette=palette, compression=1)
    assert np.array_equal(decode_image(data), colors[index[::-1]])


def test_rle4_with_all_its_codes():
    colors, palette = colors_of(16, 4)
    index = np.zeros((H, W), int)
    body = bytes([7, 0x3A, 4, 0xBB, 0, 0])  # runs alternate between two numbers
    index[0] = [3, 10, 3, 10, 3, 10, 3, 11, 11, 11, 11]
    body += bytes([0, 5, 0x12, 0x34, 0x50, 0x00, 0, 0])  # five numbers in three bytes, and one to an even length
    index[1, :5] = [1, 2, 3, 4, 5]
    body += bytes([0, 7, 0x12, 0x34, 0x56, 0x70, 0, 0])  # seven numbers in four bytes
    index[2, :7] = [1, 2, 3, 4, 5, 6, 7]
    body += bytes([11, 0xFF, 0, 0, 11, 0xEE])  # no end is said, but the picture is full
    index[3], index[4] = 15, 14
    data = bmp(body, 4, palette=palette, compression=2)
    assert np.array_equal(decode_image(data), colors[index[::-1]])
    cut = bmp(body[:-4], 4, palette=palette, compression=2)
    assert code(cut) == "texture_damaged"


@pytest.mark.parametrize("bits", [4, 8])
def test_random_runs(bits):
    """An encoder that chooses runs, literals, jumps and row ends at random, and what they draw."""
    colors, palette = colors_of(1 << bits, 4)
    for _ in range(100):
        index, body = np.zeros((H, W), int), b""
        for row in range(H):
            x = 0
            while x < W:
                count = int(_random.integers(1, W - x + 1))
                choice = _random.integers(0, 4)
                values = _random.integers(0, 1 << bits, count)
                if choice == 0 and count >= 3:
                    raw = packed(values, bits)
                    body += bytes([0, count]) + raw + bytes(len(raw) % 2)
                elif choice == 1:
                    values[:] = 0
                    body += bytes([0, 2, count, 0])
                elif choice == 2 and row < H - 1:
                    break
                else:
                    other = values[-1] if bits == 8 else values[0]
                    values[::2], values[1::2] = values[0], other if bits == 4 else values[0]
                    body += bytes([count, values[0] if bits == 8 else values[0] << 4 | int(other)])
                index[row, x : x + count] = values
                x += count
            body += bytes([0, 0])
        data = bmp(body + bytes([0, 1]), bits, palette=palette, compression=1 if bits == 8 else 2)
        assert np.array_equal(decode_image(data), colors[index[::-1]])


# -- damage ------------------------------------------------------------------------------------------------------------


def code(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        decode_image(data)
    return caught.value.code


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24, 32])
def test_a_byte_too_few(bits, tmp_path):
    body = bytes((W * bits + 31) // 32 * 4 * H)
    palette = bytes(4 << bits) if bits <= 8 else b""
    whole = bmp(body, bits, palette=palette)
    decode_image(whole)
    assert code(whole[:-1]) == "texture_damaged"
    path = tmp_path / "a.bmp"
    path.write_bytes(whole)
    check_texture(Texture("a.bmp", path))
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="bytes of pixels expected"):
        check_texture(Texture("a.bmp", path))


def test_what_there_is_not():
    body = bytes(4 * W * H)
    for header, bits, compression in (
        (40, 24, 1),
        (40, 8, 2),
        (40, 4, 1),
        (40, 8, 3),
        (40, 24, 4),
        (40, 24, 5),
        (40, 3, 0),
        (64, 1, 3),
        (20, 24, 0),
    ):
        assert code(bmp(body, bits, header=header, compression=compression)) == "texture_damaged"
    assert code(b"BM") == "texture_damaged"
    assert code(bmp(body, 24)[:30]) == "texture_damaged"
