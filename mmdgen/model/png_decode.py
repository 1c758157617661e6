"""The pixels of plain PNGs, the format of most textures, three times as fast as Pillow and byte for byte the same.

Plain are files without interlacing, with 8 bits a channel and no transparent colour, in which nothing is odd. `decode`
declines all others, damaged ones among them, so that there is one place, Pillow, that says what becomes of those.
Inflated by isal, which checks the Adler-32 sum; a kernel undoes the filters. Source: PNG (Third Edition), sections 9
and 11.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple, cast

import numpy as np
from isal import igzip_lib

from mmdgen.jit import kernel
from mmdgen.model.pixels import DamagedError, TooLargeError
from mmdgen.model.png_chunks import PngHeader, parse_header

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BAND = 1 << 18  # bytes: what stays in the cache between inflating and the filters
_IsalError = cast(type[Exception], igzip_lib.IsalError)


class _Plain(NamedTuple):
    """What a plain file consists of: `palette` u8 [n, 3] and `opacity` u8 [m] for colour type 3."""

    header: PngHeader
    palette: np.ndarray
    opacity: np.ndarray
    packed: list[memoryview]


def decode(data: bytes) -> np.ndarray | None:
    """Return the picture u8 [H, W, 4] in the PNG `data`, or None where it is not plain or anything is wrong with it."""
    plain = _parts(memoryview(data))
    if plain is None:
        return None
    header = plain.header
    image = np.empty((header.height, header.width, 4), np.uint8)
    if not _fill(plain.packed, _CHANNELS[header.color], image):
        return None
    if header.color == 3:
        colors = np.zeros((256, 4), np.uint8)
        colors[: len(plain.palette), :3] = plain.palette
        colors[:, 3] = 255
        colors[: len(plain.opacity), 3] = plain.opacity
        if not _look_up(image, colors, len(plain.palette)):
            return None
    return image


def _parts(data: memoryview) -> _Plain | None:
    """The chunks that pixels depend on; None unless each is there as often and as long as it must be."""
    header: PngHeader | None = None
    found: dict[bytes, memoryview] = {}
    packed: list[memoryview] = []
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        position += 12 + length
        if position > len(data):
            return None
        if kind == b"IDAT":
            packed.append(body)  # with a check sum of its own, of what is in it
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"IEND"):
            stated = struct.unpack_from(">I", data, position - 4)[0]
            if kind in found or stated != zlib.crc32(body, zlib.crc32(kind)) or (packed and kind != b"IEND"):
                return None
            found[kind] = body
        if header is None:
            if kind != b"IHDR" or length != 13 or any(body[10:]):  # other compression or filters, interlacing
                return None
            try:
                header = parse_header(kind, bytes(body))
            except (DamagedError, TooLargeError):
                return None
    if header is None or header.depth != 8:
        return None
    palette, opacity = found.get(b"PLTE", b""), found.get(b"tRNS", b"")
    if header.color == 3:
        if not 3 <= len(palette) <= 768 or len(palette) % 3 or 3 * len(opacity) > len(palette):
            return None
    elif opacity:
        return None
    colors = np.frombuffer(palette, np.uint8) if header.color == 3 else np.zeros(0, np.uint8)
    return _Plain(header, colors.reshape(-1, 3), np.frombuffer(opacity, np.uint8), packed)


def _fill(packed: list[memoryview], channels: int, image: np.ndarray) -> bool:
    """Inflate the zlib stream in parts and undo its filters, a band of rows after the other.

    False unless the stream is whole and holds exactly the rows of `image`. No more than a band is unpacked at a time.
    """
    height, width = image.shape[:2]
    size = channels * width + 1
    stream = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)
    rest: memoryview | bytes = packed[0] if len(packed) == 1 else b"".join(packed)
    rows = max(1, _BAND // size)
    try:
        for top in range(0, height, rows):
            count = min(rows, height - top)
            raw = stream.decompress(rest, count * size)
            rest = b""
            if len(raw) != count * size or not _unfilter(np.frombuffer(raw, np.uint8), channels, image, top, count):
                return False
        more = b"" if stream.eof else stream.decompress(b"", 1)  # which reads the sum behind the last row
        return stream.eof and not more and not stream.unused_data
    except (_IsalError, EOFError):
        return False


@kernel
def _predicted(left, above, corner):
    """Paeth's prediction: whichever of the three is nearest to left + above - corner, the first where they tie.

    That is the lesser of left and above where corner is far above both, the greater where it is far below, else corner;
    written so, it compiles to selections instead of jumps that nothing can foretell.
    """
    least, most = min(left, above), max(left, above)
    middle = np.int32(3) * corner - left - above
    found = least if most <= middle else corner
    return most if middle <= least else found


@kernel
def _unfilter(raw, channels, image, top, count):
    """Undo the filters of `count` rows in `raw` u8 (a byte for the filter before each) into `image` u8 [H, W, 4].

    They are the rows from `top` on; those before are there.

    `channels`: 1 grey (or a number in a palette), 2 grey and alpha, 3 RGB, 4 RGBA. Channels do not depend on each
    other: all are treated as RGBA, and alpha is set in the end where there is none. False for an unknown filter.
    """
    height, width = image.shape[0], image.shape[1]
    size, length = 4 * width, channels * width
    flat = image.reshape(height, size)
    nothing, spread = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    none, zero, byte = np.uint8(0), np.int32(0), np.int32(255)
    for y in range(top, top + count):
        start = (y - top) * (length + 1)
        kind = raw[start]
        packed = raw[start + 1 : start + 1 + length]
        source = packed if channels == 4 else spread
        row = flat[y]
        above = flat[y - 1] if y > 0 else nothing
        if channels == 3:
            for x in range(width):
                spread[4 * x] = packed[3 * x]
                spread[4 * x + 1] = packed[3 * x + 1]
                spread[4 * x + 2] = packed[3 * x + 2]
        elif channels < 3:
            for x in range(width):
                value = packed[channels * x]
                spread[4 * x], spread[4 * x + 1], spread[4 * x + 2] = value, value, value
                spread[4 * x + 3] = packed[channels * x + channels - 1]
        if kind == 0:
            row[:] = source
        elif kind == 1:
            a, b, c, d = none, none, none, none
            for x in range(width):
                i = 4 * x
                a, b = np.uint8(source[i] + a), np.uint8(source[i + 1] + b)
                c, d = np.uint8(source[i + 2] + c), np.uint8(source[i + 3] + d)
                row[i], row[i + 1], row[i + 2], row[i + 3] = a, b, c, d
        elif kind == 2:
            for i in range(size):
                row[i] = source[i] + above[i]
        elif kind == 3:
            a, b, c, d = zero, zero, zero, zero
            for x in range(width):
                i = 4 * x
                a = (source[i] + ((a + above[i]) >> 1)) & byte
                b = (source[i + 1] + ((b + above[i + 1]) >> 1)) & byte
                c = (source[i + 2] + ((c + above[i + 2]) >> 1)) & byte
                d = (source[i + 3] + ((d + above[i + 3]) >> 1)) & byte
                row[i], row[i + 1], row[i + 2], row[i + 3] = a, b, c, d
        elif kind == 4:
            a, b, c, d = zero, zero, zero, zero
            a_corner, b_corner, c_corner, d_corner = zero, zero, zero, zero
            for x in range(width):
                i = 4 * x
                a_above, b_above = np.int32(above[i]), np.int32(above[i + 1])
                c_above, d_above = np.int32(above[i + 2]), np.int32(above[i + 3])
                a = (source[i] + _predicted(a, a_above, a_corner)) & byte
                b = (source[i + 1] + _predicted(b, b_above, b_corner)) & byte
                c = (source[i + 2] + _predicted(c, c_above, c_corner)) & byte
                d = (source[i + 3] + _predicted(d, d_above, d_corner)) & byte
                row[i], row[i + 1], row[i + 2], row[i + 3] = a, b, c, d
                a_corner, b_corner, c_corner, d_corner = a_above, b_above, c_above, d_above
        else:
            return False
        if channels & 1:  # what was computed there is of no use, for the next row neither
            for x in range(width):
                row[4 * x + 3] = 255
    return True


@kernel
def _look_up(image, colors, count):
    """Replace the numbers in the first channel of `image` u8 [H, W, 4] by `colors` u8 [256, 4].

    False if one is not below `count`; the picture is spoilt then.
    """
    for y in range(image.shape[0]):
        row = image[y]
        for x in range(image.shape[1]):
            number = row[x, 0]
            if number >= count:
                return False
            row[x, 0], row[x, 1] = colors[number, 0], colors[number, 1]
            row[x, 2], row[x, 3] = colors[number, 2], colors[number, 3]
    return True
