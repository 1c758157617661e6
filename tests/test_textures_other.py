"""TGA, JPEG, GIF, TIFF and WebP where they are odd, and files that claim more pixels than they can hold."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from mmdgen.errors import ModelError
from mmdgen.model.records import Texture
from mmdgen.model.textures import check_texture, decode_image

_random = np.random.Generator(np.random.PCG64(23))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def code(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        decode_image(data)
    return caught.value.code


# -- TGA ---------------------------------------------------------------------------------------------------------------


def tga(
    kind: int, bits: int, width: int, height: int, body: bytes, descriptor: int = 0x20, palette: bytes = b"", size=0
):
    count = len(palette) // (size // 8) if palette else 0
    header = struct.pack("<BBBHHBHHHHBB", 3, bool(palette), kind, 0, count, size, 0, 0, width, height, bits, descriptor)
    return header + b"id." + palette + body


@pytest.mark.parametrize("descriptor", [0x00, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_runs_may_cross_rows(size, descriptor):
    """The standard forbids it, many tools do it: runs that take no notice of the rows' ends."""
    width, height = 7, 6
    pixels, body = [], b""
    while len(pixels) < width * height:
        count = min(int(_random.integers(1, 20)), width * height - len(pixels))
        if _random.random() < 0.5:
            value = _random.bytes(size)
            body += bytes([0x80 | (count - 1)]) + value
            pixels += [value] * count
        else:
            values = [_random.bytes(size) for _ in range(count)]
            body += bytes([count - 1]) + b"".join(values)
            pixels += values
    raw = np.frombuffer(b"".join(pixels), np.uint8).reshape(height, width, size).astype(int)
    raw = raw if descriptor & 0x20 else raw[::-1]
    raw = raw[:, ::-1] if descriptor & 0x10 else raw
    expected = np.full((height, width, 4), 255)
    if size >= 3:
        expected[..., :3] = raw[..., 2::-1]
        expected[..., 3] = raw[..., 3] if size == 4 else 255
        data = tga(10, 8 * size, width, height, body, descriptor)
    elif size == 1:
        expected[..., :3] = raw
        data = tga(11, 8, width, height, body, descriptor)
    else:
        words = raw[..., 0] | raw[..., 1] << 8
        for channel, shift in enumerate((10, 5, 0)):
            expected[..., channel] = np.rint((words >> shift & 31) * 255 / 31)
        expected[..., 3] = np.where(words >> 15, 255, 0)
        data = tga(10, 16, width, height, body, descriptor)
    assert np.array_equal(decode_image(data), expected)
    assert code(data[:-1]) == "texture_damaged"


def test_the_palette_of_a_picture_without_need_is_skipped():
    body = _random.bytes(12)
    expected = np.frombuffer(body, np.uint8).reshape(2, 2, 3)[..., ::-1]
    got = decode_image(tga(2, 24, 2, 2, body, palette=bytes(30), size=24))
    assert np.array_equal(got[..., :3], expected)


def test_palettes_with_numbers_of_16_bits():
    colors = _random.integers(0, 256, (300, 4), dtype=np.uint8)
    index = _random.integers(0, 300, (5, 4), dtype=np.uint16)
    data = tga(1, 16, 4, 5, index.astype("<u2").tobytes(), palette=colors.tobytes(), size=32)
    assert np.array_equal(decode_image(data), colors[index][..., [2, 1, 0, 3]])


# -- JPEG --------------------------------------------------------------------------------------------------------------


def smooth(height: int = 32, width: int = 48) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 7, 255 - x * 5], axis=2).astype(np.uint8)


def near(data: bytes, expected: np.ndarray, tolerance: int) -> None:
    got = decode_image(data)
    assert got.shape == (*expected.shape[:2], 4)
    assert (got[..., 3] == 255).all()
    assert np.abs(got[..., :3].astype(int) - expected).max() <= tolerance


def test_progressive_jpegs():
    near(saved(Image.fromarray(smooth()), "JPEG", quality=97, subsampling=0, progressive=True), smooth(), 8)


def test_orientation_tags_are_not_obeyed():
    image = Image.fromarray(smooth())
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer of photographs would turn it
    plain = decode_image(saved(image, "JPEG", quality=97, subsampling=0))
    assert np.array_equal(decode_image(saved(image, "JPEG", quality=97, subsampling=0, exif=exif)), plain)
    assert np.array_equal(decode_image(saved(image, "PNG", exif=exif))[..., :3], smooth())
    webp = saved(image, "WEBP", lossless=True, exif=exif)
    assert np.array_equal(decode_image(webp)[..., :3], smooth())


def test_jpegs_of_four_inks_as_adobe_writes_them():
    """Adobe's programs store 255 minus the ink and say so in a segment of their own."""
    inks = np.zeros((16, 64, 4), np.uint8)
    for k, values in enumerate(((200, 0, 0, 0), (0, 200, 30, 0), (0, 0, 255, 80), (10, 20, 30, 255))):
        inks[:, 16 * k : 16 * k + 16] = values
    data = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=98)
    assert b"Adobe" in data
    expected = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    near(data, expected, 6)


# -- GIF ---------------------------------------------------------------------------------------------------------------


def gif_codes(index: np.ndarray) -> bytes:
    """Numbers below 8 without compression: three bits and a sign to begin anew often enough that codes keep four."""
    clear, end = 8, 9
    codes: list[int] = []
    for k, value in enumerate(index.reshape(-1).tolist()):
        if k % 4 == 0:
            codes.append(clear)
        codes.append(value)
    total = sum(value << (4 * k) for k, value in enumerate([*codes, end]))
    raw = total.to_bytes(len(codes) // 2 + 1, "little")
    blocks = b"".join(bytes([len(raw[k : k + 255])]) + raw[k : k + 255] for k in range(0, len(raw), 255))
    return b"\x03" + blocks + b"\0"


def gif(colors: np.ndarray, frames: list[tuple[int, int, np.ndarray, int | None]], canvas: tuple[int, int]) -> bytes:
    """A GIF of frames (left, top, numbers, which of them is transparent) on a canvas (width, height)."""
    data = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x82, 0, 0) + colors.astype(np.uint8).tobytes()
    for left, top, index, clear in frames:
        data += b"\x21\xf9\x04" + struct.pack("<BHBB", clear is not None, 5, clear or 0, 0)
        data += b"\x2c" + struct.pack("<HHHHB", left, top, index.shape[1], index.shape[0], 0) + gif_codes(index)
    return data + b"\x3b"


def test_of_a_gif_the_first_frame_is_taken():
    colors = _random.integers(0, 256, (8, 3))
    first, second = _random.integers(0, 8, (2, 6, 5))
    opaque = np.dstack([colors[first], np.full(first.shape, 255)])
    assert np.array_equal(decode_image(gif(colors, [(0, 0, first, None)], (5, 6))), opaque)
    assert np.array_equal(decode_image(gif(colors, [(0, 0, first, None), (0, 0, second, 2)], (5, 6))), opaque)
    got = decode_image(gif(colors, [(0, 0, first, 3), (0, 0, second, None)], (5, 6)))
    assert np.array_equal(got[..., 3], np.where(first == 3, 0, 255))
    assert np.array_equal(got[first != 3], opaque[first != 3])


def test_a_frame_that_does_not_fill_the_canvas():
    colors = _random.integers(0, 256, (8, 3))
    index = _random.integers(0, 7, (3, 4))
    got = decode_image(gif(colors, [(2, 1, index, 7)], (9, 6)))
    assert got.shape == (6, 9, 4)
    assert np.array_equal(got[1:4, 2:6, :3], colors[index])
    outside = np.ones((6, 9), bool)
    outside[1:4, 2:6] = False
    assert (got[outside, 3] == 0).all()


# -- TIFF --------------------------------------------------------------------------------------------------------------


def tiff(pixels: bytes, width: int, height: int, samples: int, depth: int, photometric: int, order: str = "<", **more):
    """An uncompressed TIFF in one strip; `more` are further tags by number, as t338=(1,)."""
    tags = {256: (width,), 257: (height,), 258: (depth,) * samples, 259: (1,), 262: (photometric,), 273: (8,)}
    tags |= {277: (samples,), 278: (height,), 279: (len(pixels),)} | {int(k[1:]): v for k, v in more.items()}
    end = 8 + len(pixels)
    extra_at = end + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, values in sorted(tags.items()):
        kind, letter = (3, "H") if tag not in (273, 279) else (4, "I")
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(raw) > 4:
            field = struct.pack(f"{order}I", extra_at + len(extra))
            extra += raw
        else:
            field = raw.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, end)
    return head + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_without_compression(order):
    width, height = 7, 5
    rgba = _random.integers(0, 256, (height, width, 4))
    got = decode_image(tiff(rgba.astype(np.uint8).tobytes(), width, height, 4, 8, 2, order, t338=(2,)))
    assert np.array_equal(got, rgba)
    rgb = rgba[..., :3].astype(np.uint8)
    got = decode_image(tiff(rgb.tobytes(), width, height, 3, 8, 2, order))
    assert np.array_equal(got, np.dstack([rgb, np.full((height, width), 255)]))
    deep = _random.integers(0, 65536, (height, width))
    got = decode_image(tiff(deep.astype(f"{order}u2").tobytes(), width, height, 1, 16, 1, order))
    assert np.array_equal(got[..., :3], np.repeat(np.rint(deep / 257)[..., None], 3, axis=2))
    deep = _random.integers(0, 65536, (height, width, 3))
    got = decode_image(tiff(deep.astype(f"{order}u2").tobytes(), width, height, 3, 16, 2, order))
    assert np.abs(got[..., :3] - deep / 257).max() < 1
    index = _random.integers(0, 256, (height, width))
    colors = _random.integers(0, 256, (3, 256))
    table = tuple((colors * 257).reshape(-1).tolist())
    got = decode_image(tiff(index.astype(np.uint8).tobytes(), width, height, 1, 8, 3, order, t320=table))
    assert np.array_equal(got[..., :3], colors.T[index])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"])
def test_tiffs_with_compression(compression):
    rgba = np.dstack([smooth(), _random.integers(0, 256, (32, 48), dtype=np.uint8)])
    assert np.array_equal(decode_image(saved(Image.fromarray(rgba), "TIFF", compression=compression)), rgba)


def test_a_jpeg_inside_a_tiff():
    near(saved(Image.fromarray(smooth()), "TIFF", compression="jpeg", quality=97), smooth(), 24)


# -- claims ------------------------------------------------------------------------------------------------------------

SIDE = 8192


def png_claim(color: int = 6, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body or zlib.compress(bytes(5000)))


def bmp_claim(bits: int, compression: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 200, 0, 0, 54) + info + bytes([0, 1]) * 70


def dds_claim(four_cc: bytes, flags: int, bits: int) -> bytes:
    header = struct.pack("<4s7I44x", b"DDS ", 124, 0x1007, SIDE, SIDE, 0, 0, 0)
    masks = (0xFF, 0xFF00, 0xFF0000, 0)
    return header + struct.pack("<2I4s5I", 32, flags, four_cc, bits, *masks) + bytes(20 + 64)


def jpeg_claim() -> bytes:
    data = saved(Image.fromarray(smooth()), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", SIDE, SIDE) + data[start + 4 :]


def webp_claim() -> bytes:
    data = bytearray(saved(Image.fromarray(smooth()), "WEBP"))
    start = data.index(b"VP8 ") + 8 + 6
    data[start : start + 4] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def claims() -> dict[str, bytes]:
    colors = np.zeros((8, 3), int)
    return {
        "png": png_claim(),
        "png grey": png_claim(0),
        "bmp 8": bmp_claim(8, 0),
        "bmp 32": bmp_claim(32, 0),
        "bmp rle8": bmp_claim(8, 1),
        "bmp rle4": bmp_claim(4, 2),
        "tga": tga(2, 32, SIDE, SIDE, bytes(200)),
        "tga rle": tga(10, 32, SIDE, SIDE, bytes(200)),
        "tga map": tga(9, 8, SIDE, SIDE, bytes(200), palette=bytes(30), size=24),
        "dds": dds_claim(bytes(4), 0x40, 32),
        "dds 1": dds_claim(b"DXT1", 4, 0),
        "dds 7": dds_claim(b"DX10", 4, 0),
        "gif": gif(colors, [(0, 0, np.zeros((2, 2), int), None)], (SIDE, SIDE)),
        "tiff": tiff(bytes(100), SIDE, SIDE, 3, 8, 2),
        "tiff lzw": tiff(bytes(100), SIDE, SIDE, 3, 8, 2, t259=(5,)),
        "tiff deflate": tiff(bytes(100), SIDE, SIDE, 3, 8, 2, t259=(8,)),
        "jpeg": jpeg_claim(),
        "webp": webp_claim(),
    }


@pytest.mark.parametrize("name", list(claims()))
def test_small_files_that_claim_large_pictures_are_damaged(name, tmp_path):
    data = claims()[name]
    assert len(data) < 3000
    assert code(data) == "texture_damaged"
    path = tmp_path / "claim"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        check_texture(Texture("claim", path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits its memory as only Linux does")
def test_nothing_is_allocated_for_a_claim(tmp_path):
    """In a process that may take 100 MB more than it has: each of the pictures would need 256 MB."""
    for name, data in claims().items():
        (tmp_path / name).write_bytes(data)
    program = f"""
import resource, sys
from pathlib import Path
from mmdgen.errors import ModelError
from mmdgen.model.textures import decode_image
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (100 << 20),) * 2)
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    try:
        decode_image(path.read_bytes(), path.name)
    except ModelError as error:
        print(path.name, error.code, isinstance(error.__cause__, MemoryError))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(f"{name} texture_damaged False" for name in claims())


def test_jpegs_of_very_many_scans_are_refused():
    data = saved(Image.new("L", (2048, 2048)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    many = data[:start] + data[start:-2] * 2000 + data[-2:]
    assert code(many) == "texture_too_large"
    assert decode_image(data).shape == (2048, 2048, 4)


def test_small_files_may_hold_large_flat_pictures():
    flat = Image.new("RGB", (1024, 1024), (1, 2, 3))
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {"quality": 95}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TGA", {"compression": "tga_rle"}),
    ):
        assert np.abs(decode_image(saved(flat, kind, **options))[..., :3].astype(int) - [1, 2, 3]).max() <= 2, kind
    small = Image.new("RGB", (512, 512), (1, 2, 3))
    assert (decode_image(saved(small, "WEBP", lossless=True))[..., :3] == [1, 2, 3]).all()
