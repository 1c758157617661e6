"""DDS files: plain pixels of any masks here, and what Pillow needs to unpack the blocks of the others.

Of cube maps, volumes and mip maps the first face, slice and level is taken: it comes first in the file.
"""

from __future__ import annotations

import struct

import numpy as np

from mmdgen.model.pixels import DamagedError, check_pixels, check_room, masked_to_rgba

_FOUR_CC, _RGB, _LUMINANCE, _ALPHA_ONLY, _PALETTE8, _ALPHA = 0x4, 0x40, 0x20000, 0x2, 0x20, 0x1
# Formats of the DX10 header that hold plain bytes: bits a pixel, masks, and whether the first mask is grey.
_DXGI = {
    **dict.fromkeys((87, 90, 91), (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), False)),  # B8G8R8A8
    **dict.fromkeys((88, 92, 93), (32, (0xFF0000, 0xFF00, 0xFF, 0), False)),  # B8G8R8X8
    **dict.fromkeys((27, 28, 29), (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), False)),  # R8G8B8A8
    24: (32, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000), False),  # R10G10B10A2
    85: (16, (0xF800, 0x7E0, 0x1F, 0), False),  # B5G6R5
    86: (16, (0x7C00, 0x3E0, 0x1F, 0x8000), False),  # B5G5R5A1
    115: (16, (0xF00, 0xF0, 0xF, 0xF000), False),  # B4G4R4A4
    **dict.fromkeys((60, 61), (8, (0xFF, 0, 0, 0), True)),  # R8, shown as grey
    65: (8, (0, 0, 0, 0xFF), False),  # A8
}
_SRGB = {72: 71, 75: 74, 78: 77}  # BC1, BC2, BC3: what differs by sRGB from one that Pillow knows
_PREMULTIPLIED = {b"DXT2": b"DXT3", b"DXT4": b"DXT5"}
_SMALL_BLOCKS = (b"DXT1", b"ATI1", b"BC4U", b"BC4S")  # of 8 bytes; others have 16
_SMALL_DXGI = (70, 71, 72, 79, 80, 81)


def decode(data: bytes) -> np.ndarray | None:
    """Return the u8 [H, W, 4] of a DDS with plain pixels (its first level); None for blocks, whose room is checked.

    Raises `DamagedError`, `TooLargeError` or struct.error for damaged files.
    """
    height, width = struct.unpack_from("<2I", data, 12)
    flags, four_cc, bits, *masks = struct.unpack_from("<I4s5I", data, 80)
    check_pixels(width, height, np.inf)
    offset, grey, palette = 128, False, None
    if flags & _FOUR_CC:
        dxgi = struct.unpack_from("<I", data, 128)[0] if four_cc == b"DX10" else 0
        offset = 148 if four_cc == b"DX10" else 128
        if dxgi not in _DXGI:
            small = dxgi in _SMALL_DXGI if dxgi else four_cc in _SMALL_BLOCKS
            check_room(data, offset, ((width + 3) // 4) * ((height + 3) // 4) * (8 if small else 16))
            return None
        bits, masks, grey = _DXGI[dxgi]
    elif flags & _PALETTE8 and bits == 8:
        check_room(data, offset, 1024)
        palette = np.frombuffer(data, np.uint8, 1024, offset).reshape(256, 4)
        offset += 1024
    elif flags & _LUMINANCE:
        grey = True
        masks[3] = masks[3] if flags & _ALPHA else 0
    elif flags & _RGB:
        masks[3] = masks[3] if flags & _ALPHA else 0
    elif flags & _ALPHA_ONLY:
        masks = [0, 0, 0, masks[3]]
    else:
        raise DamagedError(f"there is no pixel format with flags {flags:#x}")
    if bits not in (8, 16, 24, 32):
        raise DamagedError(f"there are no pixels of {bits} bits")
    size = bits // 8
    check_room(data, offset, height * width * size)
    if palette is not None:
        return palette[np.frombuffer(data, np.uint8, height * width, offset).reshape(height, width)]
    if grey:
        masks = [masks[0], masks[0], masks[0], masks[3]]
    if size == 3:
        words = np.zeros((height, width, 4), np.uint8)
        words[..., :3] = np.frombuffer(data, np.uint8, height * width * 3, offset).reshape(height, width, 3)
        words = words.view("<u4")[..., 0]
    else:
        words = np.frombuffer(data, f"<u{size}", height * width, offset).reshape(height, width)
    return masked_to_rgba(words, [mask & ((1 << bits) - 1) for mask in masks])


def plain(data: bytes) -> tuple[bytes, bool]:
    """Return a DDS that Pillow knows with the same blocks as `data`, and whether its colours are times alpha."""
    four_cc = data[84:88]
    if four_cc in _PREMULTIPLIED:
        return data[:84] + _PREMULTIPLIED[four_cc] + data[88:], True
    if four_cc == b"DX10" and (plain := _SRGB.get(struct.unpack_from("<I", data, 128)[0])):
        return data[:128] + struct.pack("<I", plain) + data[132:], False
    return data, False


def unpremultiply(image: np.ndarray) -> np.ndarray:
    """Return u8 [H, W, 4] with straight alpha for one whose colours are multiplied by alpha."""
    alpha = np.maximum(image[..., 3:].astype(np.uint32), 1)
    color = np.minimum((image[..., :3].astype(np.uint32) * 255 + alpha // 2) // alpha, 255)
    return np.concatenate([color.astype(np.uint8), image[..., 3:]], axis=2)
