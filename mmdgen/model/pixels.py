"""Pixels that Pillow does not decode as MMD does: channels by bit masks (BMP, DDS), true-colour and palette TGA."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_ALPHA = np.array([0, 0, 0, 255], np.uint8).view(np.uint32)[0]
_ROWS = 128


def has_alpha(image: np.ndarray) -> bool:
    """Whether any pixel of `image` u8 [H, W, 4] is not fully opaque. Stops at the first rows that show it."""
    if not image.flags.c_contiguous:
        return bool((image[..., 3] != 255).any())
    words = image.view(np.uint32).reshape(image.shape[0], image.shape[1])
    for start in range(0, len(words), _ROWS):
        rows = words[start : start + _ROWS]
        if rows.size and np.bitwise_and.reduce(rows, axis=None) & _ALPHA != _ALPHA:
            return True
    return False


def opaque_if_empty(image: np.ndarray) -> np.ndarray:
    """`image` u8 [H, W, 4] with alpha 255 everywhere if it is 0 everywhere: a fourth byte that nobody filled in."""
    if image.size and not image[0, 0, 3] and not image[..., 3].any():
        image = image.copy()
        image[..., 3] = 255
    return image


def grey_to_rgba(grey: np.ndarray) -> np.ndarray:
    """u8 [H, W] -> opaque u8 [H, W, 4]."""
    spread = np.array([1, 1, 1, 0], np.uint8).view(np.uint32)[0]
    return (grey.astype(np.uint32) * spread | _ALPHA).view(np.uint8).reshape(*grey.shape, 4)


def masked_to_rgba(words: np.ndarray, masks: Sequence[int]) -> np.ndarray:
    """Unsigned integers [H, W] -> u8 [H, W, 4]; `masks` are the bits of red, green, blue and alpha.

    A channel of n bits is scaled so that all bits set are 255; one without bits is 0, alpha 255.
    """
    if words.dtype == np.dtype("<u4"):
        places = [mask.bit_length() // 8 - 1 if mask in (0xFF, 0xFF00, 0xFF0000, 0xFF000000) else -1 for mask in masks]
        if min(places[:3]) >= 0 and (places[3] >= 0 or masks[3] == 0):
            image = (
                np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 4)[..., [max(p, 0) for p in places]]
            )
            image = np.ascontiguousarray(image)
            if masks[3] == 0:
                image[..., 3] = 255
            return image
    image = np.empty((*words.shape, 4), np.uint8)
    for channel, mask in enumerate(masks):
        if mask == 0:
            image[..., channel] = 255 if channel == 3 else 0
            continue
        shift = (mask & -mask).bit_length() - 1
        full = mask >> shift
        value = (words & words.dtype.type(mask)) >> words.dtype.type(shift)
        image[..., channel] = (value.astype(np.uint64) * 255 + full // 2) // full
    return image


def decode_bmp(data: bytes) -> np.ndarray | None:
    """The u8 [H, W, 4] of an uncompressed BMP of 16 or 32 bits a pixel; None for others, which Pillow decodes well.

    Pillow drops the fourth byte of 32-bit BMPs with the plain 40-byte header, where many editors put alpha; MMD shows
    it. ValueError or struct.error for damaged files.
    """
    offset, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if header < 40 or bits not in (16, 32) or compression not in (0, 3, 6):
        return None
    if compression == 0:
        masks = (0x7C00, 0x3E0, 0x1F, 0) if bits == 16 else (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    elif header >= 56 or compression == 6:
        masks = struct.unpack_from("<4I", data, 54)
    else:
        red, green, blue = struct.unpack_from("<3I", data, 54)
        masks = (red, green, blue, ~(red | green | blue) & 0xFF000000 if bits == 32 else 0)
    rows, stride = abs(height), (width * bits // 8 + 3) // 4 * 4
    check_room(data, offset, rows * stride)
    words = np.ndarray((rows, width), f"<u{bits // 8}", data, offset, (stride, bits // 8))
    return opaque_if_empty(masked_to_rgba(words if height < 0 else words[::-1], masks))


def check_room(data: bytes, offset: int, size: int) -> None:
    """ValueError unless `size` bytes follow `offset` in `data`."""
    if size <= 0 or offset + size > len(data):
        raise ValueError(f"{size} bytes of pixels expected at byte {offset}, the file has {len(data)}")


# Formats of the DX10 header that hold plain bytes, with their masks; those that differ by sRGB from one of Pillow's.
_DXGI_MASKS = {
    **dict.fromkeys((87, 90, 91), (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),  # B8G8R8A8
    **dict.fromkeys((88, 92, 93), (0xFF0000, 0xFF00, 0xFF, 0)),  # B8G8R8X8
    **dict.fromkeys((27, 28, 29), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),  # R8G8B8A8
}
_DXGI_SRGB = {72: 71, 75: 74, 78: 77}  # BC1, BC2, BC3
_PREMULTIPLIED = {b"DXT2": b"DXT3", b"DXT4": b"DXT5"}


def decode_dds(data: bytes) -> np.ndarray | None:
    """The u8 [H, W, 4] of an uncompressed true-colour DDS (its first level); None for other kinds.

    ValueError or struct.error for damaged files.
    """
    height, width = struct.unpack_from("<2I", data, 12)
    flags, four_cc, bits, *masks = struct.unpack_from("<I4s5I", data, 80)
    offset = 128
    if flags & 4:
        if four_cc != b"DX10" or (masks_of := _DXGI_MASKS.get(struct.unpack_from("<I", data, 128)[0])) is None:
            return None
        masks, bits, offset = list(masks_of), 32, 148
    elif not flags & 0x40 or bits not in (16, 24, 32):
        return None
    elif not flags & 1:
        masks[3] = 0
    size = bits // 8
    check_room(data, offset, height * width * size)
    if size == 3:
        raw = np.frombuffer(data, np.uint8, height * width * 3, offset).reshape(height, width, 3)
        words = np.zeros((height, width, 4), np.uint8)
        words[..., :3] = raw
        words = words.view("<u4")[..., 0]
    else:
        words = np.frombuffer(data, f"<u{size}", height * width, offset).reshape(height, width)
    return opaque_if_empty(masked_to_rgba(words, masks))


def plain_dds(data: bytes) -> tuple[bytes, bool]:
    """A DDS file that Pillow knows with the same blocks as `data`, and whether its colours are multiplied by alpha."""
    four_cc = data[84:88]
    if four_cc in _PREMULTIPLIED:
        return data[:84] + _PREMULTIPLIED[four_cc] + data[88:], True
    if four_cc == b"DX10" and (plain := _DXGI_SRGB.get(struct.unpack_from("<I", data, 128)[0])):
        return data[:128] + struct.pack("<I", plain) + data[132:], False
    return data, False


def unpremultiply(image: np.ndarray) -> np.ndarray:
    """u8 [H, W, 4] with colours multiplied by alpha -> straight alpha."""
    alpha = np.maximum(image[..., 3:].astype(np.uint32), 1)
    color = np.minimum((image[..., :3].astype(np.uint32) * 255 + alpha // 2) // alpha, 255)
    return np.concatenate([color.astype(np.uint8), image[..., 3:]], axis=2)


def is_tga(data: bytes) -> bool:
    """Whether `data` begins with a header that a TGA file can have (the format has no signature)."""
    if len(data) < 18:
        return False
    _, has_map, kind, _, length, map_bits, _, _, width, height, bits, _ = struct.unpack_from("<BBBHHBHHHHBB", data)
    if kind not in (1, 2, 3, 9, 10, 11) or has_map > 1 or not width or not height:
        return False
    if kind & 7 == 1:
        return bool(has_map and length) and map_bits in (15, 16, 24, 32) and bits in (8, 16)
    return bits in ((15, 16, 24, 32) if kind & 7 == 2 else (8, 16))


def simple_tga(data: bytes) -> bytes:
    """The TGA `data` with its pixel bytes declared as what Pillow gives unchanged: grey, grey + alpha, BGR or BGRA.

    The id, the palette and the footer are left out. ValueError where the palette or uncompressed pixels do not fit the
    file.
    """
    id_length, has_map, kind, _, length, map_bits = struct.unpack_from("<BBBHHB", data)
    bits, descriptor = data[16], data[17]
    start = 18 + id_length + (length * ((map_bits + 7) // 8) if has_map else 0)
    width, height = struct.unpack_from("<2H", data, 12)
    size = (bits + 7) // 8
    check_room(data, start, width * height * size if kind < 8 else 1)
    plain = (2 if size > 2 else 3) | kind & 8
    body = data[start:-26] if data.endswith(b"TRUEVISION-XFILE.\0") else data[start:]
    header = struct.pack("<BBB5xHHHHBB", 0, 0, plain, 0, 0, width, height, size * 8, descriptor & 0x30)
    # Pillow looks for a footer in the last 26 bytes and fails where there are fewer.
    return header + body + (bytes(26) if len(body) < 26 else b"")


def tga_colors(raw: np.ndarray, data: bytes) -> np.ndarray:
    """u8 [H, W, 4] from the pixel bytes u8 [H, W, n] of the TGA `data`: RGBA for n = 4, else as in the file."""
    id_length, _, kind, first, length, map_bits = struct.unpack_from("<BBBHHB", data)
    bits, descriptor = data[16], data[17]
    if kind & 7 == 2:
        if bits > 16:
            return opaque_if_empty(raw)
        words = np.ascontiguousarray(raw).view("<u2")[..., 0]
        return _five_bits(words, descriptor & 15 > 0)
    if kind & 7 == 3:
        rgba = grey_to_rgba(np.ascontiguousarray(raw[..., 0]))
        if bits == 16:
            rgba[..., 3] = raw[..., 1]
        return opaque_if_empty(rgba)
    size = (map_bits + 7) // 8
    check_room(data, 18 + id_length, length * size)
    entries = np.frombuffer(data, np.uint8, length * size, 18 + id_length).reshape(1, length, size)
    if size == 2:
        palette = _five_bits(entries.view("<u2")[..., 0], False)
    else:
        palette = np.full((1, length, 4), 255, np.uint8)
        palette[..., :size] = entries
        palette = opaque_if_empty(palette[..., [2, 1, 0, 3]])
    index = raw[..., 0].astype(np.int32) | (raw[..., 1].astype(np.int32) << 8 if bits == 16 else 0)
    return palette[0][np.clip(index - first, 0, length - 1)]


def _five_bits(words: np.ndarray, alpha: bool) -> np.ndarray:
    return opaque_if_empty(masked_to_rgba(words, (0x7C00, 0x3E0, 0x1F, 0x8000 if alpha else 0)))
