"""DDS files against decoders written here from the formats' definitions."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mmdgen.errors import ModelError
from mmdgen.model.textures import decode_image

_random = np.random.Generator(np.random.PCG64(17))


def dds(
    body: bytes,
    *,
    four_cc: bytes = b"",
    flags: int = 0,
    bits: int = 0,
    masks: tuple[int, ...] = (0, 0, 0, 0),
    width: int = 8,
    height: int = 4,
    dxgi: int = 0,
    mipmaps: int = 0,
    caps2: int = 0,
) -> bytes:
    header = struct.pack("<4s7I44x", b"DDS ", 124, 0x1007, height, width, 0, 0, mipmaps)
    header += struct.pack("<2I4s5I", 32, 4 if four_cc else flags, four_cc or bytes(4), bits, *masks)
    header += struct.pack("<5I", 0x1000 | (0x400008 if mipmaps else 0), caps2, 0, 0, 0)
    if four_cc == b"DX10":
        header += struct.pack("<5I", dxgi, 3, 0, 1, 0)
    return header + body


def code(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        decode_image(data)
    return caught.value.code


# -- plain pixels ------------------------------------------------------------------------------------------------------

RGB, ALPHA, LUMINANCE, ALPHA_ONLY, PALETTE = 0x40, 1, 0x20000, 2, 0x20
PLAIN = {
    "A8R8G8B8": (RGB | ALPHA, 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "X8R8G8B8": (RGB, 32, (0xFF0000, 0xFF00, 0xFF, 0)),
    "X8R8G8B8 with a mask that is not meant": (RGB, 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "A8B8G8R8": (RGB | ALPHA, 32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "A2R10G10B10": (RGB | ALPHA, 32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    "R8G8B8": (RGB, 24, (0xFF0000, 0xFF00, 0xFF, 0)),
    "B8G8R8": (RGB, 24, (0xFF, 0xFF00, 0xFF0000, 0)),
    "R5G6B5": (RGB, 16, (0xF800, 0x7E0, 0x1F, 0)),
    "A1R5G5B5": (RGB | ALPHA, 16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "A4R4G4B4": (RGB | ALPHA, 16, (0xF00, 0xF0, 0xF, 0xF000)),
    "R3G3B2": (RGB, 8, (0xE0, 0x1C, 0x3, 0)),
    "A8R3G3B2": (RGB | ALPHA, 16, (0xE0, 0x1C, 0x3, 0xFF00)),
    "L8": (LUMINANCE, 8, (0xFF, 0, 0, 0)),
    "L16": (LUMINANCE, 16, (0xFFFF, 0, 0, 0)),
    "A8L8": (LUMINANCE | ALPHA, 16, (0xFF, 0, 0, 0xFF00)),
    "A4L4": (LUMINANCE | ALPHA, 8, (0xF, 0, 0, 0xF0)),
    "A8": (ALPHA_ONLY, 8, (0, 0, 0, 0xFF)),
}


def unmasked(words: np.ndarray, flags: int, masks: tuple[int, ...]) -> np.ndarray:
    """One pixel at a time."""
    result = np.zeros((*words.shape, 4), int)
    for place in np.ndindex(words.shape):
        word = int(words[place])
        values = []
        for mask in masks:
            if not mask:
                values.append(0)
                continue
            shift = (mask & -mask).bit_length() - 1
            values.append(int(((word & mask) >> shift) * 255 / (mask >> shift) + 0.5))
        red, green, blue, alpha = values
        if flags & LUMINANCE:
            green = blue = red
        result[place] = red, green, blue, alpha if flags & (ALPHA | ALPHA_ONLY) else 255
    return result


@pytest.mark.parametrize("name", PLAIN)
def test_plain_pixels(name):
    flags, bits, masks = PLAIN[name]
    words = _random.integers(0, 1 << bits, (4, 7), dtype=np.uint64)
    body = b"".join(int(word).to_bytes(bits // 8, "little") for word in words.reshape(-1))
    mips = bytes(bits // 8 * 3 * 2)
    for data in (body, body + mips):
        got = decode_image(dds(data, flags=flags, bits=bits, masks=masks, width=7, mipmaps=2))
        assert np.array_equal(got, unmasked(words, flags, masks))
    assert code(dds(body[:-1], flags=flags, bits=bits, masks=masks, width=7)) == "texture_damaged"


def test_alpha_of_0_is_alpha():
    words = np.full((4, 7), 0x00123456, "<u4")
    flags, bits, masks = PLAIN["A8R8G8B8"]
    assert (decode_image(dds(words.tobytes(), flags=flags, bits=bits, masks=masks, width=7)) == [18, 52, 86, 0]).all()


def test_palette():
    colors = _random.integers(0, 256, (256, 4), dtype=np.uint8)
    index = _random.integers(0, 256, (4, 7), dtype=np.uint8)
    data = dds(colors.tobytes() + index.tobytes(), flags=PALETTE, bits=8, width=7)
    assert np.array_equal(decode_image(data), colors[index])


@pytest.mark.parametrize(
    ("dxgi", "name"),
    [
        (87, "A8R8G8B8"),
        (91, "A8R8G8B8"),
        (88, "X8R8G8B8"),
        (28, "A8B8G8R8"),
        (29, "A8B8G8R8"),
        (85, "R5G6B5"),
        (86, "A1R5G5B5"),
        (115, "A4R4G4B4"),
        (61, "L8"),
        (65, "A8"),
    ],
)
def test_plain_pixels_under_a_dx10_header(dxgi, name):
    flags, bits, masks = PLAIN[name]
    words = _random.integers(0, 1 << bits, (4, 7), dtype=np.uint64)
    body = b"".join(int(word).to_bytes(bits // 8, "little") for word in words.reshape(-1))
    got = decode_image(dds(body, four_cc=b"DX10", dxgi=dxgi, width=7))
    assert np.array_equal(got, unmasked(words, flags, masks))


def test_of_a_cube_map_the_first_face_is_taken():
    words = _random.integers(0, 1 << 32, (6, 4, 4), dtype=np.uint64).astype("<u4")
    flags, bits, masks = PLAIN["A8R8G8B8"]
    data = dds(words.tobytes(), flags=flags, bits=bits, masks=masks, width=4, caps2=0xFE00)
    assert np.array_equal(decode_image(data), unmasked(words[0], flags, masks))


# -- blocks ------------------------------------------------------------------------------------------------------------


def bits_of(block: bytes, start: int, count: int) -> int:
    return int.from_bytes(block, "little") >> start & ((1 << count) - 1)


def bc1(block: bytes, *, four: bool = False) -> np.ndarray:
    first, second = struct.unpack_from("<HH", block)
    ends = [
        np.array([(end >> 11) * 255 / 31, (end >> 5 & 63) * 255 / 63, (end & 31) * 255 / 31, 255])
        for end in (first, second)
    ]
    if four or first > second:
        colors = [*ends, (2 * ends[0] + ends[1]) / 3, (ends[0] + 2 * ends[1]) / 3]
    else:
        colors = [*ends, (ends[0] + ends[1]) / 2, np.zeros(4)]
    return np.array([colors[bits_of(block, 32 + 2 * k, 2)] for k in range(16)]).reshape(4, 4, 4)


def bc4(block: bytes) -> np.ndarray:
    first, second = block[:2]
    if first > second:
        steps = [first, second, *[((7 - k) * first + k * second) / 7 for k in range(1, 7)]]
    else:
        steps = [first, second, *[((5 - k) * first + k * second) / 5 for k in range(1, 5)], 0, 255]
    return np.array([steps[bits_of(block, 16 + 3 * k, 3)] for k in range(16)]).reshape(4, 4)


def picture(blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(blocks, axis=1)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got.astype(float) - expected).max())


def random_blocks(size: int) -> list[bytes]:
    return [_random.bytes(size) for _ in range(12)]


def decoded(blocks: list[bytes], four_cc: bytes, dxgi: int = 0) -> np.ndarray:
    return decode_image(dds(b"".join(blocks), four_cc=four_cc, dxgi=dxgi, width=48))


@pytest.mark.parametrize(("four_cc", "dxgi"), [(b"DXT1", 0), (b"DX10", 70), (b"DX10", 71), (b"DX10", 72)])
def test_bc1(four_cc, dxgi):
    blocks = random_blocks(8)
    got = decoded(blocks, four_cc, dxgi)
    assert error(got, picture([bc1(block) for block in blocks])) <= 2


def explicit_alpha(block: bytes) -> np.ndarray:
    return np.array([bits_of(block, 4 * k, 4) * 17 for k in range(16)]).reshape(4, 4)


@pytest.mark.parametrize(
    ("four_cc", "dxgi", "alpha"),
    [
        *((four_cc, dxgi, explicit_alpha) for four_cc, dxgi in ((b"DXT3", 0), (b"DX10", 74), (b"DX10", 75))),
        *((four_cc, dxgi, bc4) for four_cc, dxgi in ((b"DXT5", 0), (b"DX10", 77), (b"DX10", 78))),
    ],
)
def test_bc2_and_bc3(four_cc, dxgi, alpha):
    blocks = random_blocks(16)
    expected = [np.dstack([bc1(block[8:], four=True)[..., :3], alpha(block)]) for block in blocks]
    assert error(decoded(blocks, four_cc, dxgi), picture(expected)) <= 2


@pytest.mark.parametrize(("four_cc", "dxgi"), [(b"ATI1", 0), (b"BC4U", 0), (b"DX10", 80)])
def test_bc4_is_grey(four_cc, dxgi):
    blocks = random_blocks(8)
    got = decoded(blocks, four_cc, dxgi)
    grey = picture([bc4(block) for block in blocks])
    assert error(got, np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=2)) <= 1


@pytest.mark.parametrize(("four_cc", "dxgi"), [(b"ATI2", 0), (b"BC5U", 0), (b"DX10", 83)])
def test_bc5_is_red_and_green(four_cc, dxgi):
    blocks = random_blocks(16)
    got = decoded(blocks, four_cc, dxgi)
    for channel in (0, 1):
        expected = picture([bc4(block[8 * channel :]) for block in blocks])
        assert error(got[..., channel], expected) <= 1
    assert (got[..., 2:] == [0, 255]).all()


WEIGHTS_4 = [0, 4, 9, 13, 17, 21, 26, 30, 34, 38, 43, 47, 51, 55, 60, 64]


def mixed(first: int, second: int, weight: int) -> int:
    return ((64 - weight) * first + weight * second + 32) >> 6


def four_bit_indices(block: bytes, start: int) -> list[int]:
    """16 numbers of 4 bits, of which the first has its highest bit left out (it is 0)."""
    indices = [bits_of(block, start, 3)]
    return indices + [bits_of(block, start + 3 + 4 * k, 4) for k in range(15)]


def bc7_mode_6(block: bytes) -> np.ndarray:
    """One pair of colours of 7 bits a channel and one bit that is common to the channels of an end."""
    assert bits_of(block, 0, 7) == 0x40
    common = [bits_of(block, 63, 1), bits_of(block, 64, 1)]
    ends = [[bits_of(block, 7 + 14 * c + 7 * e, 7) << 1 | common[e] for c in range(4)] for e in range(2)]
    texels = [
        [mixed(ends[0][c], ends[1][c], WEIGHTS_4[index]) for c in range(4)] for index in four_bit_indices(block, 65)
    ]
    return np.array(texels).reshape(4, 4, 4)


@pytest.mark.parametrize("dxgi", [97, 98, 99])
def test_bc7(dxgi):
    blocks = []
    for _ in range(12):
        value = int.from_bytes(_random.bytes(16), "little") & ~0x7F | 0x40
        blocks.append(value.to_bytes(16, "little"))
    got = decoded(blocks, b"DX10", dxgi)
    assert np.array_equal(got, picture([bc7_mode_6(block) for block in blocks]))


def bc6h_mode_11(block: bytes) -> np.ndarray:
    """One pair of colours of 10 bits a channel as half floats without a sign, shown in [0, 1]."""
    assert bits_of(block, 0, 5) == 3

    def unquantized(value: int) -> int:
        return 0 if value == 0 else 0xFFFF if value == 1023 else ((value << 16) + 0x8000) >> 10

    ends = [[unquantized(bits_of(block, 5 + 30 * e + 10 * c, 10)) for c in range(3)] for e in range(2)]
    texels = []
    for index in four_bit_indices(block, 65):
        halves = [mixed(ends[0][c], ends[1][c], WEIGHTS_4[index]) * 31 >> 6 for c in range(3)]
        light = np.array(halves, np.uint16).view(np.float16).astype(float)
        texels.append([*np.clip(light, 0, 1) * 255, 255])
    return np.array(texels).reshape(4, 4, 4)


def test_bc6h():
    blocks = []
    for number in range(12):
        value = int.from_bytes(_random.bytes(16), "little") & ~0x1F | 3
        if number % 2:  # of halves up to 1.0, 0x3C00, whose 10 bits are about 495
            ends = [int(_random.integers(0, 496)) for _ in range(6)]
            value &= ~(((1 << 60) - 1) << 5)
            for k, end in enumerate(ends):
                value |= end << (5 + 10 * k)
        blocks.append(value.to_bytes(16, "little"))
    got = decoded(blocks, b"DX10", 95)
    assert error(got, picture([bc6h_mode_11(block) for block in blocks])) <= 1


@pytest.mark.parametrize(("four_cc", "dxgi", "size"), [(b"DXT1", 0, 8), (b"DXT5", 0, 16), (b"DX10", 98, 16)])
def test_sizes_that_are_no_multiple_of_four(four_cc, dxgi, size):
    blocks = [(int.from_bytes(_random.bytes(size), "little") & ~0x7F | 0x40).to_bytes(size, "little") for _ in range(6)]
    data = b"".join(blocks)
    whole = decode_image(dds(data, four_cc=four_cc, dxgi=dxgi, width=12, height=8))
    part = decode_image(dds(data, four_cc=four_cc, dxgi=dxgi, width=9, height=7, mipmaps=4))
    assert np.array_equal(part, whole[:7, :9])
    assert code(dds(data[:-1], four_cc=four_cc, dxgi=dxgi, width=9, height=7)) == "texture_damaged"


def test_what_there_is_not():
    assert code(dds(bytes(999), four_cc=b"WHAT")) == "texture_damaged"
    assert code(dds(bytes(999), four_cc=b"DX10", dxgi=200)) == "texture_damaged"
    assert code(dds(bytes(999), flags=0x800, bits=32)) == "texture_damaged"
    assert code(dds(bytes(999), flags=RGB, bits=48)) == "texture_damaged"
    assert code(b"DDS ") == "texture_damaged"
    assert code(dds(bytes(999), flags=RGB, bits=32, width=0)) == "texture_damaged"
