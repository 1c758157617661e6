"""Image files as seeds of the fuzzer: every container that textures come in, with maps of their headers and chunks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fuzz_seed import Field, Seed
from PIL import Image

from mmdgen import rng


def _header(at: int, codes: str, order: str = "<") -> list[Field]:
    """Fields that follow each other; ``x`` skips a byte, ``C`` is an unsigned count of 32 bits."""
    fields = []
    for code in codes:
        role, kind = ("count", "I") if code == "C" else ("value", code)
        if code != "x":
            fields.append(Field(at, order + kind, role))
        at += struct.calcsize(order + kind)
    return fields


def _png_map(data: bytes) -> tuple[list[Field], list[int]]:
    fields, cuts, at = [], [], 8
    bodies = {b"IHDR": "IIBBBBB", b"PLTE": "BBB", b"tRNS": "BBB", b"gAMA": "I", b"acTL": "II", b"fcTL": "IIIIIHHBB"}
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        cuts.append(at)
        fields += [Field(at, ">I", "count"), *_header(at + 8, bodies.get(kind, "BBBBB")[: max(length, 1)], ">")]
        at += 12 + length
    return fields, [*cuts, len(data)]


def mend_png(data: bytes) -> bytes:
    """`data` with the check sum of every chunk made right, so that what it holds is looked at."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _jpeg_map(data: bytes) -> tuple[list[Field], list[int]]:
    fields, cuts, at = [], [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        cuts.append(at)
        fields += [Field(at + 1, ">B"), Field(at + 2, ">H", "count")]
        body = {0xC0: "BHHBBBBBBBBBB", 0xC2: "BHHBBBBBBBBBB", 0xDA: "BBBBBBBBBB", 0xDD: "H"}.get(marker, "B" * 18)
        fields += [f for f in _header(at + 4, body, ">") if f.offset + f.size <= at + 2 + length]
        at += 2 + length
        if marker == 0xDA:
            break
    return fields, [*cuts, min(at, len(data)), len(data)]


def _gif_map(data: bytes) -> tuple[list[Field], list[int]]:
    fields, cuts = _header(6, "HHBBB"), [6, 13]
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while at < len(data) and data[at] in (0x21, 0x2C):
        cuts.append(at)
        fields.append(Field(at, "<B"))
        if data[at] == 0x2C:
            fields += _header(at + 1, "HHHHB")
            local = data[at + 9]
            at += 10 + (3 << (local & 7) + 1 if local & 0x80 else 0)
            fields.append(Field(at, "<B"))
            at += 1
        else:
            fields.append(Field(at + 1, "<B"))
            at += 2
        while at < len(data) and data[at]:
            fields.append(Field(at, "<B", "count"))
            at += 1 + data[at]
        at += 1
    return fields, [*cuts, len(data)]


def _tiff_map(data: bytes) -> tuple[list[Field], list[int]]:
    order = "<" if data[:2] == b"II" else ">"
    fields = _header(4, "I", order)
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    fields.append(Field(at, order + "H", "count"))
    cuts = [8, at]
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        kind = struct.unpack_from(order + "H", data, entry + 2)[0]
        fields += _header(entry, "HHCHH" if kind == 3 else "HHCI", order)
        cuts.append(entry)
    return fields, [*cuts, len(data)]


def _webp_map(data: bytes) -> tuple[list[Field], list[int]]:
    fields, cuts, at = [Field(4, "<I", "count")], [], 12
    bodies = {b"VP8X": "BBBBHBHB", b"VP8L": "BI", b"VP8 ": "BBBBBBHH"}
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        cuts.append(at)
        fields += [Field(at + 4, "<I", "count"), *_header(at + 8, bodies.get(kind, "BBBB")[:length])]
        at += 8 + length + (length & 1)
    return fields, [*cuts, len(data)]


def _image_map(kind: str, data: bytes) -> tuple[list[Field], list[int]]:
    if kind == "bmp":
        return [*_header(2, "CHHC"), *_header(14, "CiiHHICiiCC"), *_header(54, "IIII")], [14, 54, len(data)]
    if kind == "tga":
        start = 18 + data[0]
        return _header(0, "BBBHHBHHHHBB"), [18, start, len(data)]
    if kind == "dds":
        extra = _header(128, "IIIII") if data[84:88] == b"DX10" else []
        return [*_header(4, "I" * 18), *_header(76, "IIIIIIIIIIIII"), *extra], [4, 76, 108, 128, len(data)]
    walkers = {"png": _png_map, "jpeg": _jpeg_map, "gif": _gif_map, "tiff": _tiff_map, "webp": _webp_map}
    return walkers[kind](data)


def image_seed(kind: str, name: str, data: bytes) -> Seed:
    fields, cuts = _image_map(kind, data)
    fields = [field for field in fields if field.offset + field.size <= len(data)]
    cuts = sorted({cut for cut in cuts if cut <= len(data)})
    return Seed(kind, name, data, tuple(fields), (), tuple(cuts), mend_png if kind == "png" else None)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


H, W = 7, 13
RGBA = rng.generator(7, "tests", "fuzz", "by hand").integers(0, 256, (H, W, 4), np.uint8)
BGRA = RGBA[..., [2, 1, 0, 3]]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"", interlace: int = 0) -> bytes:
    """A PNG of filtered rows, with `extra` chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(
    bits: int, body: bytes, compression: int = 0, masks: tuple[int, ...] = (), size: int = 40, shape: tuple = (H, W)
) -> bytes:
    """A BMP with the header of `size` bytes; for a palette give its colours as `masks`."""
    header = struct.pack("<IiiHHIIiiII", size, shape[1], shape[0], 1, bits, compression, len(body), 0, 0, 0, 0)
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


def tga(kind: int, bits: int, body: bytes, descriptor: int = 0, palette: bytes = b"", palette_bits: int = 0) -> bytes:
    """A TGA of `W` x `H` pixels with an id of four bytes."""
    entries = len(palette) * 8 // palette_bits if palette else 0
    header = struct.pack(
        "<BBBHHBHHHHBB", 4, bool(palette), kind, 0, entries, palette_bits, 0, 0, W, H, bits, descriptor
    )
    return header + b"id!!" + palette + body


def tga_runs(pixels: np.ndarray) -> bytes:
    """Pixels u8 [H, W, n] in packets: each row a run of its first pixel's three, then the rest as they are."""
    rows = pixels.copy()
    rows[:, :3] = rows[:, :1]
    return b"".join(b"\x82" + row[0].tobytes() + bytes([W - 4]) + row[3:].tobytes() for row in rows)


def dds(
    body: bytes, four_cc: bytes = b"", bits: int = 0, masks: tuple[int, ...] = (0, 0, 0, 0), dxgi: int = 0
) -> bytes:
    """A DDS of 8 x 4 pixels."""
    flags = 4 if four_cc else 0x40 | bool(masks[3])
    header = struct.pack("<4s7I44x", b"DDS ", 124, 0x1007, 4, 8, 0, 0, 0)
    header += struct.pack("<2I4s5I", 32, flags, four_cc or bytes(4), bits, *masks) + struct.pack(
        "<5I", 0x1000, *[0] * 4
    )
    return header + (struct.pack("<5I", dxgi, 3, 0, 1, 0) if four_cc == b"DX10" else b"") + body


def image_seeds(kind: str) -> Iterator[Seed]:
    """Files made by Pillow, and by hand where Pillow does not write that kind."""
    noise = rng.generator(7, "tests", "fuzz", "image").integers(0, 256, (6, 9, 4), np.uint8)
    rgba, rgb = Image.fromarray(noise), Image.fromarray(noise[..., :3])
    grey, palette = Image.fromarray(noise[..., 0]), rgb.quantize(8)
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    files: dict[str, Callable[[], list[tuple[str, bytes]]]] = {
        "png": lambda: [
            ("rgba", _saved(rgba, "PNG")),
            ("rgb", _saved(rgb, "PNG")),
            ("palette", _saved(palette, "PNG", transparency=1)),
            ("16 bits", _saved(deep, "PNG")),
            ("one bit", _saved(grey.convert("1"), "PNG")),
            ("interlaced", png(1, 1, 8, 6, b"\0abcd", chunk(b"acTL", bytes(8)), interlace=1)),
            ("key", png(2, 1, 8, 2, b"\0abcdef", chunk(b"tRNS", b"\0a\0b\0c"))),
        ],
        "jpeg": lambda: [
            ("rgb", _saved(rgb, "JPEG", quality=60)),
            ("progressive", _saved(rgb, "JPEG", progressive=True)),
            ("grey", _saved(grey, "JPEG")),
            ("cmyk", _saved(rgba.convert("CMYK"), "JPEG")),
        ],
        "bmp": lambda: [
            ("24", _saved(rgb, "BMP")),
            ("palette", _saved(palette, "BMP")),
            ("32", bmp(32, BGRA.tobytes())),
            ("16", bmp(16, bytes(28 * H))),
            ("masks", bmp(32, BGRA.tobytes(), 3, (0xFF0000, 0xFF00, 0xFF))),
            ("v5", bmp(32, BGRA.tobytes(), 3, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124)),
            # Runs, which Pillow does not write: a run of 4, end of line, 3 as they are, one more, end of the picture.
            ("runs", bmp(8, b"\4\1\0\0\0\3\1\0\1\0\1\0\0\1", 1, (0xFF, *range(255)), shape=(2, 4))),
        ],
        "tga": lambda: [
            ("bgra", tga(2, 32, BGRA.tobytes(), 8)),
            ("runs", tga(10, 24, tga_runs(BGRA[..., :3]), 0x30)),
            ("palette", tga(1, 8, (BGRA[..., 0] % 4).tobytes(), 0, bytes(range(12)), 24)),
            ("palette runs", tga(9, 8, tga_runs(BGRA[..., :1] % 4), 0, bytes(range(8)), 16)),
            ("grey", tga(3, 8, BGRA[..., 0].tobytes())),
            ("16", tga(2, 16, BGRA[..., :2].tobytes(), 1)),
        ],
        "dds": lambda: [
            *((kind.decode(), dds(bytes(range(32)), kind)) for kind in (b"DXT1", b"DXT3", b"DXT5", b"ATI2", b"BC4U")),
            *((f"dx10 {n}", dds(bytes(range(32)), b"DX10", dxgi=n)) for n in (71, 80, 83, 95, 98)),
            ("32", dds(bytes(128), bits=32, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000))),
            ("24", dds(bytes(96), bits=24, masks=(0xFF0000, 0xFF00, 0xFF, 0))),
            ("16", dds(bytes(64), bits=16, masks=(0xF800, 0x7E0, 0x1F, 0))),
            ("luminance", dds(bytes(32), bits=8, masks=(0xFF, 0, 0, 0))),
        ],
        "gif": lambda: [
            ("palette", _saved(palette, "GIF")),
            ("transparent", _saved(palette, "GIF", transparency=2, interlace=1)),
            ("animated", _saved(palette, "GIF", save_all=True, append_images=[grey.quantize(4)], duration=5)),
        ],
        "tiff": lambda: [
            (f"{mode} {how}", _saved(image, "TIFF", compression=how))
            for mode, image, how in (
                ("rgba", rgba, None),
                ("rgb", rgb, "tiff_lzw"),
                ("rgba", rgba, "tiff_adobe_deflate"),
                ("palette", palette, "packbits"),
                ("rgb", rgb, "jpeg"),
                ("bits", grey.convert("1"), "packbits"),
                ("deep", deep, None),
                ("grey", grey, "tiff_deflate"),
            )
        ],
        "webp": lambda: [
            ("lossless", _saved(rgba, "WEBP", lossless=True)),
            ("lossy", _saved(rgb, "WEBP", quality=50)),
            ("lossy alpha", _saved(rgba, "WEBP", quality=50)),
            ("animated", _saved(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)], lossless=True)),
        ],
    }
    for name, data in files[kind]():
        yield image_seed(kind, name, data)
