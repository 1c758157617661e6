"""Textures: every kind of file written by code and decoded, and names found however they were damaged."""

from __future__ import annotations

import io
import os
import struct
import threading
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import real_files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from mmdgen.errors import ModelError
from mmdgen.model.dds import unpremultiply
from mmdgen.model.pixels import masked_to_rgba
from mmdgen.model.records import Texture
from mmdgen.model.resolve import resolve
from mmdgen.model.textures import MAX_SIDE, decode_image, decode_picture, decode_texture, has_alpha

H, W = 7, 13
_random = np.random.Generator(np.random.PCG64(5))
RGBA = _random.integers(0, 256, (H, W, 4), dtype=np.uint8)
RGBA[0, :3, 3] = [0, 255, 128]
OPAQUE = RGBA.copy()
OPAQUE[..., 3] = 255
GREY = RGBA[..., 0]


def saved(array: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def check(data: bytes, expected: np.ndarray, tolerance: int = 0) -> None:
    """`data` decodes to `expected`, give or take `tolerance`, without a warning (they are errors here)."""
    got = decode_image(data)
    assert (got.dtype, got.shape) == (np.uint8, expected.shape)
    assert np.abs(got.astype(int) - expected).max() <= tolerance
    assert has_alpha(got) == bool((got[..., 3] < 255).any())


def code_of(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        decode_image(data, "broken.bmp")
    assert "broken.bmp" in str(caught.value)
    return caught.value.code


# -- PNG ---------------------------------------------------------------------------------------------------------------


def png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"", interlace: int = 0) -> bytes:
    """A PNG from filtered rows, with `extra` chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_png_true_colour_and_grey():
    check(saved(RGBA, "PNG"), RGBA)
    check(saved(OPAQUE[..., :3], "PNG"), OPAQUE)
    grey = np.repeat(GREY[..., None], 4, axis=2)
    grey[..., 3] = 255
    check(saved(GREY, "PNG"), grey)
    with_alpha = np.concatenate([np.repeat(GREY[..., None], 3, axis=2), RGBA[..., 3:]], axis=2)
    check(saved(np.stack([GREY, RGBA[..., 3]], axis=2), "PNG"), with_alpha)
    bits = GREY > 127
    black_white = np.where(bits[..., None], [255, 255, 255, 255], [0, 0, 0, 255]).astype(np.uint8)
    check(saved(bits, "PNG"), black_white)


def test_png_with_extras_that_upset_pillow():
    rows = b"".join(b"\0" + row.tobytes() for row in RGBA)
    huge_profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3 << 20)))
    broken = bytearray(chunk(b"tEXt", b"key\0value"))
    broken[-1] ^= 1
    animation = chunk(b"acTL", b"\0\0")
    for extra in (huge_profile, bytes(broken), animation, chunk(b"gAMA", struct.pack(">I", 100000))):
        check(png(W, H, 8, 6, rows, extra), RGBA)


# -- BMP ---------------------------------------------------------------------------------------------------------------


def bmp(
    body: bytes, bits: int, compression: int = 0, masks: tuple[int, ...] = (), size: int = 40, height: int = H
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", size, W, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(max(size, len(header)), b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


def bgra(image: np.ndarray) -> bytes:
    return np.ascontiguousarray(image[::-1, :, [2, 1, 0, 3]]).tobytes()


def test_bmp_of_24_bits():
    check(saved(OPAQUE[..., :3], "BMP"), OPAQUE)


def test_bmp_of_32_bits_keeps_alpha():
    check(bmp(bgra(RGBA), 32), RGBA)
    check(bmp(np.ascontiguousarray(RGBA[..., [2, 1, 0, 3]]).tobytes(), 32, height=-H), RGBA)  # top row first
    unused = RGBA.copy()
    unused[..., 3] = 0
    check(bmp(bgra(unused), 32), OPAQUE)  # a fourth byte that means nothing


def test_bmp_with_masks():
    check(bmp(bgra(RGBA), 32, 3, (0xFF0000, 0xFF00, 0xFF)), RGBA)
    v5 = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    check(bmp(bgra(RGBA), 32, 3, v5, size=124), RGBA)
    check(bmp(bgra(RGBA), 32, 3, (*v5[:3], 0), size=108), OPAQUE)  # the header says that there is no alpha
    rgba = np.ascontiguousarray(RGBA[::-1]).tobytes()
    check(bmp(rgba, 32, 3, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), size=108), RGBA)
    # 5-6-5, rows padded to four bytes
    five = OPAQUE.astype(np.uint16) >> 3
    words = (five[..., 0].astype("<u2") << 11) | (OPAQUE[..., 1] >> 2).astype("<u2") << 5 | five[..., 2]
    body = np.zeros((H, W + 1), "<u2")
    body[:, :W] = words[::-1]
    expected = OPAQUE.copy()
    expected[..., [0, 2]] = np.rint(five[..., [0, 2]] * 255 / 31)
    expected[..., 1] = np.rint((OPAQUE[..., 1] >> 2).astype(np.uint16) * 255 / 63)
    check(bmp(body.tobytes(), 16, 3, (0xF800, 0x7E0, 0x1F)), expected, 1)


# -- TGA ---------------------------------------------------------------------------------------------------------------


def tga(
    kind: int,
    bits: int,
    rows: np.ndarray,
    descriptor: int = 0,
    palette: bytes = b"",
    palette_bits: int = 0,
    first: int = 0,
    tail: bytes = b"",
) -> bytes:
    """A TGA of pixel bytes u8 [H, W, n] in picture order; `descriptor` says the origin; kinds over 8 have runs."""
    if not descriptor & 0x20:
        rows = rows[::-1]
    if descriptor & 0x10:
        rows = rows[:, ::-1]
    rows = np.ascontiguousarray(rows)
    size = rows.shape[2]
    count = len(palette) // max(palette_bits // 8, 1) if palette else 0
    header = struct.pack(
        "<BBBHHBHHHHBB", 4, bool(palette), kind, first, count, palette_bits, 0, 0, W, H, bits, descriptor
    )
    if kind < 8:
        body = rows.tobytes()
    else:
        body = b""
        for row in rows:
            body += (
                bytes([0x80 | 2]) + row[0].tobytes() if (row[:3] == row[0]).all() else bytes([2]) + row[:3].tobytes()
            )
            body += bytes([W - 4]) + row[3:].tobytes()
    assert size == (bits + 7) // 8
    return header + b"id!!" + palette + body + tail


@pytest.mark.parametrize("descriptor", [0x00, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("run_length", [0, 8])
def test_tga_from_every_corner(descriptor, run_length):
    picture = RGBA.copy()
    picture[2, :3] = picture[2, 0]  # a run
    check(tga(2 | run_length, 32, picture[..., [2, 1, 0, 3]], descriptor | 8), picture)
    opaque = picture.copy()
    opaque[..., 3] = 255
    check(tga(2 | run_length, 24, picture[..., [2, 1, 0]], descriptor), opaque)
    grey = picture[..., [0, 0, 0, 3]]
    check(tga(3 | run_length, 16, picture[..., [0, 3]], descriptor | 8), grey)
    grey = grey.copy()
    grey[..., 3] = 255
    check(tga(3 | run_length, 8, picture[..., :1], descriptor), grey)


@pytest.mark.parametrize("run_length", [0, 8])
def test_tga_of_16_bits(run_length):
    five = OPAQUE.astype(np.uint16) >> 3
    words = (five[..., 0].astype("<u2") << 10) | (five[..., 1].astype("<u2") << 5) | five[..., 2]
    expected = np.rint(five * 255 / 31).astype(np.uint8)
    expected[..., 3] = 255
    check(tga(2 | run_length, 16, words[..., None].view(np.uint8), 0x20), expected, 1)
    check(tga(2 | run_length, 15, words[..., None].view(np.uint8), 0x20), expected, 1)
    # With an attribute bit that is set in one half of the pixels
    shown = RGBA[..., 3] > 100
    words = words | shown.astype("<u2") << 15
    expected[..., 3] = np.where(shown, 255, 0)
    check(tga(2 | run_length, 16, np.ascontiguousarray(words)[..., None].view(np.uint8), 0x21), expected, 1)


@pytest.mark.parametrize("run_length", [0, 8])
@pytest.mark.parametrize("palette_bits", [16, 24, 32])
def test_tga_with_palette(run_length, palette_bits):
    colors = _random.integers(0, 256, (6, 4), dtype=np.uint8)
    index = (np.arange(H * W).reshape(H, W, 1) % 6).astype(np.uint8)
    expected = colors.copy()
    if palette_bits < 32:
        expected[:, 3] = 255
    if palette_bits == 16:
        five = colors[:, :3].astype(np.uint16) >> 3
        raw = (five[:, 0] << 10 | five[:, 1] << 5 | five[:, 2]).astype("<u2").tobytes()
        expected[:, :3] = np.rint(five * 255 / 31)
    else:
        raw = np.ascontiguousarray(colors[:, [2, 1, 0, 3][: palette_bits // 8]]).tobytes()
    data = tga(1 | run_length, 8, index + 2, 0x20, raw, palette_bits, first=2)
    check(data, expected[index[..., 0]], 1)


@pytest.mark.parametrize("descriptor", [0, 8])
@pytest.mark.parametrize("run_length", [0, 8])
def test_tga_of_32_bits_has_alpha_whatever_it_says(descriptor, run_length):
    check(tga(2 | run_length, 32, RGBA[..., [2, 1, 0, 3]], descriptor), RGBA)
    unseen = RGBA.copy()
    unseen[..., 3] = 0
    check(tga(2 | run_length, 32, unseen[..., [2, 1, 0, 3]], descriptor), unseen)


def test_tga_footer_does_not_matter():
    footer = struct.pack("<II", 18, 0) + b"TRUEVISION-XFILE.\0"
    check(tga(2, 32, RGBA[..., [2, 1, 0, 3]], 8, tail=footer), RGBA)
    check(tga(10, 32, RGBA[..., [2, 1, 0, 3]], 8, tail=footer), RGBA)


def test_tga_of_one_pixel():
    data = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 1, 1, 32, 8) + bytes([3, 2, 1, 9])
    assert decode_image(data).tolist() == [[[1, 2, 3, 9]]]


# -- DDS ---------------------------------------------------------------------------------------------------------------


def dds(
    body: bytes,
    four_cc: bytes = b"",
    bits: int = 0,
    masks: tuple[int, ...] = (0, 0, 0, 0),
    width: int = 8,
    height: int = 4,
    dxgi: int = 0,
) -> bytes:
    flags = 4 if four_cc else 0x40 | bool(masks[3])
    header = struct.pack("<4s7I44x", b"DDS ", 124, 0x1007, height, width, 0, 0, 0)
    header += struct.pack("<2I4s5I", 32, flags, four_cc or bytes(4), bits, *masks) + struct.pack(
        "<5I", 0x1000, 0, 0, 0, 0
    )
    if four_cc == b"DX10":
        header += struct.pack("<5I", dxgi, 3, 0, 1, 0)
    return header + body


def dxt_colors(c0: int, c1: int, *, four: bool) -> list[tuple[int, ...]]:
    """The colours of a DXT block from their definition."""
    a, b = ([(c >> 11 & 31) * 255 / 31, (c >> 5 & 63) * 255 / 63, (c & 31) * 255 / 31] for c in (c0, c1))
    if four or c0 > c1:
        mixed = [
            [(2 * x + y) / 3 for x, y in zip(a, b, strict=True)],
            [(x + 2 * y) / 3 for x, y in zip(a, b, strict=True)],
        ]
        return [(*map(round, c), 255) for c in (a, b, *mixed)]
    mixed = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    return [*[(*map(round, c), 255) for c in (a, b, mixed)], (0, 0, 0, 0)]


def dxt_block(c0: int, c1: int) -> bytes:
    return struct.pack("<HHI", c0, c1, sum((k % 4) << (2 * k) for k in range(16)))


def dxt_image(*blocks: tuple[int, int], four: bool) -> np.ndarray:
    """Blocks beside each other, each with its four colours from left to right."""
    return np.concatenate([np.tile(np.array(dxt_colors(*b, four=four), np.uint8), (4, 1, 1)) for b in blocks], axis=1)


BLOCKS = ((0xF81F, 0x07E0), (0x1234, 0xABCD))


@pytest.mark.parametrize(("four_cc", "dxgi"), [(b"DXT1", 0), (b"DX10", 71), (b"DX10", 72)])
def test_dds_dxt1(four_cc, dxgi):
    body = b"".join(dxt_block(*block) for block in BLOCKS)
    check(dds(body, four_cc, dxgi=dxgi), dxt_image(*BLOCKS, four=False), 2)


@pytest.mark.parametrize(
    ("four_cc", "dxgi", "premultiplied"),
    [(b"DXT3", 0, False), (b"DXT2", 0, True), (b"DX10", 74, False), (b"DX10", 75, False)],
)
def test_dds_with_four_bits_of_alpha(four_cc, dxgi, premultiplied):
    alpha = struct.pack("<Q", 0xFEDCBA9876543210)
    expected = dxt_image(*BLOCKS, four=True)
    expected[..., 3] = np.tile((np.arange(16) * 17).reshape(4, 4), (1, 2))
    if premultiplied:
        expected = unpremultiply(expected)
    data = dds(b"".join(alpha + dxt_block(*block) for block in BLOCKS), four_cc, dxgi=dxgi)
    got = decode_image(data)
    assert np.array_equal(got[..., 3], expected[..., 3])
    solid = expected[..., 3] >= (200 if premultiplied else 0)  # rounding grows where alpha is small
    assert np.abs(got[solid].astype(int) - expected[solid]).max() <= 3


@pytest.mark.parametrize(
    ("four_cc", "dxgi", "premultiplied"),
    [(b"DXT5", 0, False), (b"DXT4", 0, True), (b"DX10", 77, False), (b"DX10", 78, False)],
)
def test_dds_with_interpolated_alpha(four_cc, dxgi, premultiplied):
    steps = [255, 31, *[round(((7 - k) * 255 + k * 31) / 7) for k in range(1, 7)]]
    indices = [k % 8 for k in range(16)]
    alpha = bytes([255, 31]) + sum(index << (3 * k) for k, index in enumerate(indices)).to_bytes(6, "little")
    expected = dxt_image(*BLOCKS, four=True)
    expected[..., 3] = np.tile(np.array(steps)[indices].reshape(4, 4), (1, 2))
    if premultiplied:
        expected = unpremultiply(expected)
    got = decode_image(dds(b"".join(alpha + dxt_block(*block) for block in BLOCKS), four_cc, dxgi=dxgi))
    assert np.abs(got[..., 3].astype(int) - expected[..., 3]).max() <= 1
    solid = expected[..., 3] >= (200 if premultiplied else 0)
    assert np.abs(got[solid].astype(int) - expected[solid]).max() <= 4


# -- other formats -----------------------------------------------------------------------------------------------------


def smooth(height: int = 16, width: int = 24) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 10, y * 15, 255 - x * 10, np.full_like(x, 255)], axis=2).astype(np.uint8)


def test_jpeg_in_every_colour_space():
    image = smooth()
    check(saved(image[..., :3], "JPEG", quality=95, subsampling=0), image, 8)
    grey = np.repeat(image[..., :1], 4, axis=2)
    grey[..., 3] = 255
    check(saved(image[..., 0], "JPEG", quality=95), grey, 4)
    check(saved(image[..., :3], "JPEG", "CMYK", quality=95), image, 10)


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9, 77])
def test_photographs_are_upright_as_pictures_and_lie_as_textures(orientation):
    """As Pillow turns them; a texture is never turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(smooth(40, 24)[..., :3], "JPEG", quality=95, exif=exif)
    with Image.open(io.BytesIO(data)) as file:
        stored = np.asarray(file)
        expected = np.asarray(ImageOps.exif_transpose(file))
    assert (expected.shape == stored.shape) == (orientation not in (5, 6, 7, 8))
    found = decode_picture(data)
    assert found.flags.c_contiguous
    assert np.array_equal(found[..., :3], expected)
    assert np.array_equal(decode_image(data)[..., :3], stored)


def test_damaged_exif_data_turns_nothing():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = saved(smooth(40, 24)[..., :3], "JPEG", quality=95, exif=exif)
    start = data.index(b"Exif\0\0") + 6
    for damage in (b"XX", data[start : start + 4] + b"\xff\xff\xff\xff", data[start : start + 8] + bytes(2)):
        damaged = data[:start] + damage + data[start + len(damage) :]
        assert np.array_equal(decode_picture(damaged), decode_image(data))


def test_gif_with_transparency():
    index = (np.arange(H * W).reshape(H, W) % 4).astype(np.uint8)
    palette = _random.integers(0, 256, (4, 3), dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    stream = io.BytesIO()
    image.save(stream, "GIF", transparency=2, optimize=False)
    expected = np.concatenate([palette[index], np.where(index == 2, 0, 255)[..., None].astype(np.uint8)], axis=2)
    got = decode_image(stream.getvalue())
    assert np.array_equal(got[..., 3], expected[..., 3])
    shown = expected[..., 3] > 0
    assert np.array_equal(got[shown], expected[shown])


def test_tiff_and_webp():
    check(saved(RGBA, "TIFF"), RGBA)
    check(saved(RGBA, "TIFF", compression="tiff_lzw"), RGBA)
    grey = (np.arange(H * W).reshape(H, W) * 700).astype(np.uint16)
    expected = np.repeat(np.rint(grey / 257.0).astype(np.uint8)[..., None], 4, axis=2)
    expected[..., 3] = 255
    check(saved(grey, "TIFF"), expected)
    unit = (grey / 65535).astype(np.float32)
    check(saved(unit, "TIFF"), expected, 1)
    got = decode_image(saved(RGBA, "WEBP", lossless=True, exact=True))
    assert np.array_equal(got, RGBA)
    check(saved(smooth()[..., :3], "WEBP", quality=95), smooth(), 24)


# -- damage ------------------------------------------------------------------------------------------------------------


def test_files_that_are_no_images():
    assert code_of(b"") == "texture_unknown_format"
    assert code_of(b"hello, this is a text and no picture") == "texture_unknown_format"
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "texture_unknown_format"
    with pytest.raises(ModelError) as caught:
        decode_texture(Texture("a.png", None))
    assert caught.value.code == "texture_missing"


def test_a_vanished_file(tmp_path):
    with pytest.raises(ModelError) as caught:
        decode_texture(Texture("a.png", tmp_path / "a.png"))
    assert caught.value.code == "texture_unreadable"


def test_the_ending_does_not_matter(tmp_path):
    path = tmp_path / "shine.spa"
    path.write_bytes(saved(RGBA, "PNG"))
    assert np.array_equal(decode_texture(Texture("shine.spa", path)), RGBA)


def whole_files() -> dict[str, bytes]:
    image = smooth(40, 40)
    return {
        "png": saved(RGBA, "PNG"),
        "jpeg": saved(image[..., :3], "JPEG", quality=90),
        "bmp": bmp(bgra(RGBA), 32),
        "bmp24": saved(image[..., :3], "BMP"),
        "tga": tga(2, 32, RGBA[..., [2, 1, 0, 3]], 8),
        "tga rle": tga(10, 24, RGBA[..., [2, 1, 0]]),
        "tga map": tga(1, 8, RGBA[..., :1] % 4, 0, bytes(range(12)), 24),
        "dds": dds(b"".join(dxt_block(*block) for block in BLOCKS), b"DXT1"),
        "dds plain": dds(bytes(128), bits=32, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        "gif": saved(RGBA[..., 0], "GIF"),
        "tiff": saved(RGBA, "TIFF"),
        "webp": saved(RGBA, "WEBP", lossless=True),
    }


@pytest.mark.parametrize("name", list(whole_files()))
def test_truncated_files_are_damaged(name):
    data = whole_files()[name]
    decode_image(data)
    for share in (0.5, 0.8):
        assert code_of(data[: int(len(data) * share)]) == "texture_damaged"


@given(
    st.sampled_from(list(whole_files().values())),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_mutated_files_decode_or_fail_with_one_error(data, edits):
    damaged = bytearray(data)
    for place, value in edits:
        damaged[int(place * (len(damaged) - 1))] = value
    try:
        image = decode_image(bytes(damaged))
    except ModelError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 4


@pytest.mark.parametrize(
    "data",
    [
        png(MAX_SIDE + 1, 1, 8, 6, b""),
        png(16000, 16000, 8, 6, b""),
        png(0x7FFFFFFF, 0x7FFFFFFF, 8, 6, b""),
        bmp(b"", 32)[:18] + struct.pack("<ii", 1 << 20, 1 << 20) + bmp(b"", 32)[26:],
        struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 65535, 65535, 32, 8) + bytes(100),
        dds(b"", b"DXT1", width=1 << 20, height=1 << 20),
        b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(40),
    ],
)
def test_bombs_are_refused_before_they_are_unpacked(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert code_of(data) == "texture_too_large"


def test_has_alpha_looks_everywhere():
    image = np.full((300, 5, 4), 255, np.uint8)
    image[..., 0] = 0
    assert not has_alpha(image)
    for row in (0, 150, 299):
        one = image.copy()
        one[row, 4, 3] = 254
        assert has_alpha(one)
        assert has_alpha(one[:, ::-1])
    assert not has_alpha(image[:, ::-1])
    assert not has_alpha(image[:0])


@given(st.integers(0, 0xFFFFFFFF))
@settings(max_examples=50, deadline=None)
def test_masks_scale_to_the_full_range(word):
    words = np.array([[word]], "<u4")
    got = masked_to_rgba(words, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000))[0, 0].tolist()
    bits = (word & 0x3FF, word >> 10 & 0x3FF, word >> 20 & 0x3FF, word >> 30)
    assert got == [int(v * 255 / full + 0.5) for v, full in zip(bits, (1023, 1023, 1023, 3), strict=True)]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A model folder with a file of every kind of name, and a secret beside it."""
    root = tmp_path / "モデル"
    for name in (
        "tex/Face.PNG",
        "tex/sub/deep.tga",
        "Tex/other.bmp",
        "髪.bmp",
        unicodedata.normalize("NFD", "がく.png"),
        "ﾄｩｰﾝ.bmp",
        "only.jpg",
        "both.bmp",
        "both.tga",
        "a b.png",
        "#U8868#U60c5.png",
        "服.png".encode("cp932").decode("cp437"),
        "眼睛.png".encode("gbk").decode("cp932", "ignore") + "x",
        "材质/脸.png".encode("gbk").decode("latin-1"),
        "other-model/other.pmx",
        "other-model/theirs.png",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tex/Face.PNG", "tex/Face.PNG"),
        ("tex\\face.png", "tex/Face.PNG"),
        (".\\TEX\\.\\FACE.png ", "tex/Face.PNG"),
        ("tex\\sub\\..\\face.png", "tex/Face.PNG"),
        ("TEX/other.bmp", "Tex/other.bmp"),
        ("tex/other.bmp", "Tex/other.bmp"),
        ("C:\\Users\\author\\tex\\deep.tga", "tex/sub/deep.tga"),
        ("/home/author/deep.tga", "tex/sub/deep.tga"),
        ("..\\..\\deep.tga", "tex/sub/deep.tga"),
        ("髪.BMP", "髪.bmp"),
        ("がく.png", unicodedata.normalize("NFD", "がく.png")),
        ("トゥーン.bmp", "ﾄｩｰﾝ.bmp"),
        ("only.png", "only.jpg"),
        ("only", "only.jpg"),
        ("both.dds", "both.tga"),
        ("both.bmp", "both.bmp"),
        ("Ａ　Ｂ.png", "a b.png"),
        ("表情.png", "#U8868#U60c5.png"),
        ("服.png", "服.png".encode("cp932").decode("cp437")),
        ("材质\\脸.png", "材质/脸.png".encode("gbk").decode("latin-1")),
        ("face.tga", "tex/Face.PNG"),
        ("none.png", None),
        ("", None),
        (".", None),
        ("tex", None),
        ("..", None),
        ("..\\secret.png", None),
        ("tex/../../secret.png", None),
        ("theirs.png", None),  # another model's
        ("other-model/theirs.png", "other-model/theirs.png"),  # unless it is meant
        ("a\0b.png", None),
    ],
)
def test_names_are_found(folder, name, found):
    path = resolve(folder, name)
    assert path == (folder / found if found else None)


def test_names_that_were_damaged_in_the_file_are_found(folder):
    assert resolve(folder, "髪.bmp".encode("cp932").decode("gbk")) == folder / "髪.bmp"
    (folder / "頬.png").write_bytes(b"x")
    assert resolve(folder, "頬.png".encode("cp932").decode("latin-1")) == folder / "頬.png"


@pytest.mark.parametrize("taken", ["cp437", "cp850", "latin-1", "gbk", "cp1252"])
@pytest.mark.parametrize("name", ["顔.png", "髪.bmp", "表情.tga", "ソース.png", "能登.png"])
def test_names_of_every_damage(tmp_path, name, taken):
    """As one file with a backslash in its name, or cut into a folder and a file there."""
    try:
        damaged = name.encode("cp932").decode(taken)
    except UnicodeDecodeError:
        damaged = name.encode("cp932").decode("latin-1")
    path = tmp_path / damaged
    path.write_bytes(b"x")
    assert resolve(tmp_path, name) == path
    path.unlink()
    path = tmp_path.joinpath("tex", *damaged.split("\\"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert resolve(tmp_path, f"tex\\{name}") == path


def test_raw_bytes_as_names(folder):
    raw = os.fsencode(folder) + b"/" + "口.png".encode("cp932")
    try:
        with open(raw, "wb") as stream:
            stream.write(b"x")
    except OSError:
        pytest.skip("the file system takes only Unicode names")
    path = resolve(folder, "口.png")
    assert path is not None
    assert path.read_bytes() == b"x"


def test_links_do_not_lead_out(folder, tmp_path):
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "away").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder)
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "in.png").symlink_to(folder / "only.jpg")
    assert resolve(folder, "out.png") is None
    assert resolve(folder, "away/secret.png") is None
    assert resolve(folder, "self.png") is None
    assert resolve(folder, "secret.png") is None
    assert resolve(folder, "in.png") == folder / "in.png"
    linked = tmp_path / "link-to-model"
    linked.symlink_to(folder)
    assert resolve(linked, "TEX/face.png") == linked / "tex" / "Face.PNG"


def test_paths_that_go_in_circles_end(folder):
    for name in ("ring", "Ring", "RING"):
        (folder / name).symlink_to(folder)
    for length in (5, 100, 5000):
        assert resolve(folder, "ring\\" * length + "none.png") is None
    assert resolve(folder, "ring/" * 5000 + "only.jpg") == folder / "only.jpg"


def test_a_folder_that_changes_is_read_again(folder):
    assert resolve(folder, "late.png") is None
    path = folder / "late.png"
    path.write_bytes(b"x")
    os.utime(folder, ns=(1, os.stat(folder).st_mtime_ns + 1000))  # file systems with coarse time stamps
    assert resolve(folder, "LATE.png") == path
    path.unlink()
    assert resolve(folder, "late.png") is None


def test_a_missing_folder_has_nothing(tmp_path):
    assert resolve(tmp_path / "none", "a.png") is None


def test_threads_may_resolve_together(folder):
    results: list[Path | None] = []
    threads = [
        threading.Thread(
            target=lambda: results.extend(resolve(folder, name) for name in ("tex\\FACE.png", "服.png") * 20)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 320
    assert None not in results
    assert len(set(results)) == 2


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_name_leads_out(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "inner"
    root.mkdir(exist_ok=True)
    (root / "a.png").write_bytes(b"x")
    path = resolve(root, name)
    assert path is None or path == root / "a.png"


@pytest.mark.corpus
def test_real_textures_decode_as_pillow_decodes_them():
    for path in real_files(".png", ".jpg", ".bmp", ".tga", ".dds", ".spa", ".sph", ".gif")[::15]:
        got = decode_texture(Texture(path.name, path))
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGBA"))
        assert np.array_equal(got[..., :3], expected[..., :3]), path
