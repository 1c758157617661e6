"""TGA files: what D3DX makes of them. Pillow only unpacks their runs.

D3DX does not look at the descriptor's alpha bits: 32 bits have alpha and 16 bits one bit of it, whatever it says (as
Wine's tests show, which run on both). So a picture whose fourth bytes are all 0 is not seen in MMD, and here neither:
some models hide parts by one. 16 bits whose alpha bit is set nowhere are taken as opaque all the same, because all
tools that know no alpha write so.
"""

from __future__ import annotations

import struct

import numpy as np

from mmdgen.model.pixels import DamagedError, check_pixels, check_room, grey_to_rgba, masked_to_rgba, opaque_if_empty

_FOOTER = b"TRUEVISION-XFILE.\0"
_FOOTER_SIZE = 26
_RUNS = 8  # this bit of the kind
_RUN = 128  # pixels at most


def is_tga(data: bytes) -> bool:
    """Return whether `data` begins with a header that a TGA file can have (the format has no signature)."""
    if len(data) < 18:
        return False
    _, has_map, kind, _, length, map_bits, _, _, width, height, bits, _ = struct.unpack_from("<BBBHHBHHHHBB", data)
    if kind not in (1, 2, 3, 9, 10, 11) or has_map > 1 or not width or not height:
        return False
    if kind & 7 == 1:
        return bool(has_map and length) and map_bits in (15, 16, 24, 32) and bits in (8, 16)
    return bits in ((15, 16, 24, 32) if kind & 7 == 2 else (8, 16))


def is_whole(data: bytes) -> bool:
    """Return whether all pixels are there, if that is seen without decoding. Raises as `simple` does."""
    _pixel_offset(data)
    return not data[2] & _RUNS


def simple(data: bytes) -> bytes:
    """Return the TGA `data` with its pixels declared as what Pillow gives unchanged: grey, grey + alpha, BGR or BGRA.

    The id, the palette and the footer are left out. Raises `DamagedError` where the palette or the pixels cannot be in
    the file, `TooLargeError` over the limits.
    """
    kind, bits, descriptor = data[2], data[16], data[17]
    start = _pixel_offset(data)
    size = (bits + 7) // 8
    plain = (2 if size > 2 else 3) | kind & _RUNS
    body = data[start:-_FOOTER_SIZE] if data.endswith(_FOOTER) else data[start:]
    width, height = struct.unpack_from("<2H", data, 12)
    header = struct.pack("<BBB5xHHHHBB", 0, 0, plain, 0, 0, width, height, size * 8, descriptor & 0x30)
    if len(body) >= _FOOTER_SIZE:
        return header + body
    # Pillow looks for a footer in the last 26 bytes and fails where there are fewer. Runs must not go on into what is
    # added for that.
    return unrolled(header + body) if kind & _RUNS else header + body + bytes(_FOOTER_SIZE)


def unrolled(data: bytes) -> bytes:
    """Return a TGA of `simple` with runs as one without. Raises `DamagedError` where the runs end too early."""
    if not data[2] & _RUNS:
        raise DamagedError("the pixels cannot be read")
    width, height = struct.unpack_from("<2H", data, 12)
    size = data[16] // 8
    missing = width * height * size
    position = 18
    parts = []
    while missing > 0:
        if position >= len(data):
            raise DamagedError(f"the runs end {missing // size} pixels too early")
        count = (data[position] & 127) + 1
        if data[position] & 128:
            part = data[position + 1 : position + 1 + size] * count
            position += 1 + size
        else:
            part = data[position + 1 : position + 1 + size * count]
            position += 1 + size * count
        if position > len(data):
            raise DamagedError(f"the runs end {missing // size} pixels too early")
        parts.append(part[:missing])
        missing -= len(part)
    return data[:2] + bytes([data[2] & ~_RUNS]) + data[3:18] + b"".join(parts) + bytes(_FOOTER_SIZE)


def colors(raw: np.ndarray, data: bytes) -> np.ndarray:
    """Return u8 [H, W, 4] for the pixel bytes u8 [H, W, n] of the TGA `data`: RGBA for n = 4, else as in the file."""
    id_length, _, kind, first, length, map_bits = struct.unpack_from("<BBBHHB", data)
    bits = data[16]
    if kind & 7 == 2:
        if bits > 16:
            return raw
        words = np.ascontiguousarray(raw).view("<u2")[..., 0]
        return _five_bits(words, bits == 16)
    if kind & 7 == 3:
        rgba = grey_to_rgba(np.ascontiguousarray(raw[..., 0]))
        if bits == 16:
            rgba[..., 3] = raw[..., 1]
        return rgba
    size = (map_bits + 7) // 8
    entries = np.frombuffer(data, np.uint8, length * size, 18 + id_length).reshape(1, length, size)
    if size == 2:
        palette = _five_bits(entries.view("<u2")[..., 0], False)
    else:
        palette = np.full((1, length, 4), 255, np.uint8)
        palette[..., :size] = entries
        palette = palette[..., [2, 1, 0, 3]]
    index = raw[..., 0].astype(np.int32)
    if bits == 16:
        index |= raw[..., 1].astype(np.int32) << 8
    return palette[0][np.clip(index - first, 0, length - 1)]


def _pixel_offset(data: bytes) -> int:
    """Where the pixels begin, after checking that they, or enough runs for them, can follow there."""
    id_length, has_map, kind, _, length, map_bits = struct.unpack_from("<BBBHHB", data)
    width, height = struct.unpack_from("<2H", data, 12)
    check_pixels(width, height, np.inf)
    start = 18 + id_length + (length * ((map_bits + 7) // 8) if has_map else 0)
    if start >= len(data):
        raise DamagedError(f"the pixels begin at byte {start}, the file has {len(data)}")
    size = (data[16] + 7) // 8
    count = width * height
    check_room(data, start, -(-count // _RUN) * (1 + size) if kind & _RUNS else count * size)
    return start


def _five_bits(words: np.ndarray, alpha: bool) -> np.ndarray:
    return opaque_if_empty(masked_to_rgba(words, (0x7C00, 0x3E0, 0x1F, 0x8000 if alpha else 0)))
