"""BMP files of every kind. Pillow drops alpha, fails on empty rows of RLE and mistakes some palettes for grey."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from mmdgen.model.pixels import DamagedError, check_pixels, check_room, masked_to_rgba, opaque_if_empty

# Runs of 255 pixels in two bytes are the densest.
_RUN_DENSITY = 128
_RAW, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_CORE, _OS2_SHORT, _OS2 = 12, 16, 64


@dataclass(frozen=True, slots=True)
class _Layout:
    """`offset` of the pixels, `palette` (offset, entries, bytes an entry), `masks` of red, green, blue, alpha."""

    width: int
    height: int
    top_down: bool
    bits: int
    compression: int
    offset: int
    palette: tuple[int, int, int]
    masks: tuple[int, int, int, int]

    @property
    def stride(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4


def decode(data: bytes) -> np.ndarray:
    """Return the u8 [H, W, 4] of the BMP `data`.

    The fourth byte of 32 bits is alpha, also with the plain 40-byte header, unless it is 0 in every pixel: so D3DX does
    (as Wine's tests, which run on both, show). Raises `DamagedError`, `TooLargeError` or struct.error.
    """
    layout = _layout(data)
    if layout.bits > 8:
        return _true_color(data, layout)
    if layout.compression in (_RLE8, _RLE4):
        index = _runs(data, layout)
    else:
        rows = np.ndarray((layout.height, layout.stride), np.uint8, data, layout.offset, (layout.stride, 1))
        index = _unpack(rows, layout.bits)[:, : layout.width]
    index = index if layout.top_down else index[::-1]
    return np.ascontiguousarray(_palette(data, layout)[index]).view(np.uint8).reshape(*index.shape, 4)


def is_whole(data: bytes) -> bool:
    """Return whether all pixels are there, if that is seen without decoding. Raises as `decode` does."""
    return _layout(data).compression not in (_RLE8, _RLE4)


def _layout(data: bytes) -> _Layout:
    """The header, checked against the length of the file."""
    offset, header = struct.unpack_from("<2I", data, 10)
    compression, used, top_down = _RAW, 0, False
    if header == _CORE:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
    elif header == _OS2_SHORT or header >= 40:
        width, height, _, bits = struct.unpack_from("<2i2H", data, 18)
        top_down, height = height < 0, abs(height)
        if header != _OS2_SHORT:
            compression, _, _, _, used = struct.unpack_from("<5I", data, 30)
    else:
        raise DamagedError(f"there is no header of {header} bytes")
    if (
        bits not in (1, 2, 4, 8, 16, 24, 32)
        or compression not in (_RAW, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS)
        or (compression == _RLE8 and bits != 8)
        or (compression == _RLE4 and bits != 4)
        or (compression in (_MASKS, _ALPHA_MASKS) and (bits < 16 or header == _OS2))
    ):
        raise DamagedError(f"there are no pixels of {bits} bits with compression {compression}")
    start = 14 + header
    if compression in (_MASKS, _ALPHA_MASKS) and header == 40:
        start += 12 if compression == _MASKS else 16
    size = 3 if header == _CORE else 4
    entries = min(used or 1 << bits, 1 << bits) if bits <= 8 else 0
    if offset < start:  # left 0 by some writers
        offset = start + entries * size
    entries = max(0, min(entries, (min(offset, len(data)) - start) // size))
    masks = _masks(data, header, bits, compression)
    layout = _Layout(width, height, top_down, bits, compression, offset, (start, entries, size), masks)
    if compression in (_RLE8, _RLE4):
        check_pixels(width, height, _RUN_DENSITY * max(0, len(data) - offset))
    else:
        check_pixels(width, height, np.inf)
        check_room(data, offset, layout.stride * height)
    return layout


def _masks(data: bytes, header: int, bits: int, compression: int) -> tuple[int, int, int, int]:
    if compression == _RAW:
        return (0x7C00, 0x3E0, 0x1F, 0) if bits == 16 else (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    if compression not in (_MASKS, _ALPHA_MASKS):
        return (0, 0, 0, 0)
    if header >= 56 or compression == _ALPHA_MASKS:
        return struct.unpack_from("<4I", data, 54)
    red, green, blue = struct.unpack_from("<3I", data, 54)
    # The header has no place for alpha: what the colours leave of the high byte.
    return red, green, blue, ~(red | green | blue) & 0xFF000000 if bits == 32 else 0


def _true_color(data: bytes, layout: _Layout) -> np.ndarray:
    shape = (layout.height, layout.width)
    step = layout.bits // 8
    if layout.bits == 24:
        rows = np.ndarray((*shape, 3), np.uint8, data, layout.offset, (layout.stride, 3, 1))
        image = np.empty((*shape, 4), np.uint8)
        image[..., 3] = 255
        rows = rows if layout.top_down else rows[::-1]
        for channel in range(3):
            image[..., channel] = rows[..., 2 - channel]
        return image
    words = np.ndarray(shape, f"<u{step}", data, layout.offset, (layout.stride, step))
    return opaque_if_empty(masked_to_rgba(words if layout.top_down else words[::-1], layout.masks))


def _palette(data: bytes, layout: _Layout) -> np.ndarray:
    """u32 [256], the bytes of each RGBA; numbers past the end of the palette are black."""
    start, entries, size = layout.palette
    colors = np.zeros((256, 4), np.uint8)
    colors[:, 3] = 255
    rows = np.frombuffer(data, np.uint8, entries * size, start).reshape(entries, size)
    colors[:entries, :3] = rows[:, 2::-1]
    return colors.view(np.uint32)[:, 0]


def _unpack(rows: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [H, n] -> numbers of 1, 2, 4 or 8 bits [H, n * 8 / bits], the high ones first."""
    if bits == 8:
        return rows
    if bits == 1:
        return np.unpackbits(rows, axis=1)
    parts = [rows >> shift & (1 << bits) - 1 for shift in range(8 - bits, -1, -bits)]
    return np.stack(parts, axis=2).reshape(len(rows), -1)


def _runs(data: bytes, layout: _Layout) -> np.ndarray:
    """u8 [H, W] of run-length coded numbers, as they are stored. Pixels that the runs jump over are 0.

    The file has to say that it ends, or fill the picture: else it was cut off.
    """
    width, height, four = layout.width, layout.height, layout.compression == _RLE4
    image = bytearray(width * height)
    position, x, y = layout.offset, 0, 0
    while y < height:
        if position + 2 > len(data):
            if y == height - 1 and x >= width:
                break
            raise DamagedError(f"the runs end in row {y} of {height}")
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            run = bytes((value >> 4, value & 15)) * (count + 1 >> 1) if four else bytes((value,)) * count
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            break
        elif value == 2:
            if position + 2 > len(data):
                raise DamagedError(f"the runs end in row {y} of {height}")
            x, y = x + data[position], y + data[position + 1]
            position += 2
            continue
        else:
            count = value
            size = count + 1 >> 1 if four else count
            run = data[position : position + size]
            if len(run) < size:
                raise DamagedError(f"the runs end in row {y} of {height}")
            if four:
                run = bytes(part for byte in run for part in (byte >> 4, byte & 15))
            position += size + (size & 1)  # to an even number of bytes
        fits = min(count, width - x)
        if fits > 0:
            image[y * width + x : y * width + x + fits] = run[:fits]
        x += count
    return np.frombuffer(image, np.uint8).reshape(height, width)
