"""The chunks of PNG files: what the pixels depend on, and whether it is all there."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mmdgen.model.pixels import MAX_PIXELS, DamagedError, check_pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Channels by colour type, and the depths that it may have.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# A deflate stream grows by a factor of 1,032 at most: 258 bytes for two bits. The header and rounding come on top.
_DEFLATE = 1032
_SLACK = 64
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class PngHeader:
    """The fields of IHDR; `color` is the colour type."""

    width: int
    height: int
    depth: int
    color: int
    interlaced: bool

    def unpacked(self) -> int:
        """Return the bytes of the filtered rows, which are what is compressed."""
        bits = _CHANNELS[self.color] * self.depth
        passes = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, right, down in passes:
            width, height = -(-(self.width - left) // right), -(-(self.height - top) // down)
            if width > 0 and height > 0:
                total += (1 + (width * bits + 7) // 8) * height
        return total


def plain(data: bytes) -> tuple[bytes, PngHeader, tuple[int, ...] | None]:
    """Return the PNG `data` with only those chunks that pixels depend on, its header and its transparent colour.

    The colour is None for none and for palettes. Raises `DamagedError` where the compressed data cannot hold the
    pixels, `pixels.TooLargeError` over the limits.
    """
    header: PngHeader | None = None
    key: tuple[int, ...] | None = None
    parts: list[bytes] = [data[:8]]
    packed = 0
    for kind, body, whole in _chunks(data):
        if header is None:
            header = parse_header(kind, body)
        elif kind == b"IHDR":
            raise DamagedError("there are two headers")
        elif kind == b"IDAT":
            packed += len(body)
        elif kind == b"tRNS" and header.color in (0, 2):
            count = 1 if header.color == 0 else 3
            if len(body) < 2 * count:
                continue  # damaged, and Pillow fails on it; libpng leaves it out
            key = struct.unpack_from(f">{count}H", body)
        if kind in _NEEDED:
            parts.append(whole)
    if header is None:
        raise DamagedError("there is no header")
    if header.unpacked() > packed * _DEFLATE + _SLACK:
        raise DamagedError(f"{header.unpacked()} bytes of pixels cannot come from {packed} compressed ones")
    return b"".join(parts), header, key


def is_whole(data: bytes) -> bool:
    """Return whether `data` reads to its end with every checksum right. Raises as `plain` does."""
    plain(data)
    found = set()
    for kind, body, whole in _chunks(data):
        if len(whole) != len(body) + 12 or struct.unpack(">I", whole[-4:])[0] != zlib.crc32(body, zlib.crc32(kind)):
            return False
        found.add(kind)
    return {b"IDAT", b"IEND"} <= found


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, body and all bytes of each chunk up to the end, the last one as far as it goes."""
    position = 8
    kind = b""
    while kind != b"IEND" and position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        yield kind, data[position + 8 : end - 4], data[position:end]
        position = end


def parse_header(kind: bytes, body: bytes) -> PngHeader:
    """Return what the first chunk of a PNG says. Raises as `plain` does."""
    if kind != b"IHDR" or len(body) < 13:
        raise DamagedError("the file does not begin with its header")
    width, height, depth, color, _, _, interlace = struct.unpack_from(">2I5B", body)
    if depth not in _DEPTHS.get(color, ()):
        raise DamagedError(f"there is no colour type {color} with {depth} bits")
    check_pixels(width, height, MAX_PIXELS)
    return PngHeader(width, height, depth, color, bool(interlace))
