"""What the decoders of textures share: limits, channels by bit masks, opacity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_SIDE = 16384
MAX_PIXELS = 64 << 20

_ALPHA = np.array([0, 0, 0, 255], np.uint8).view(np.uint32)[0]
_ROWS = 128


class TooLargeError(Exception):
    """The picture is larger than what is decoded."""


class DamagedError(ValueError):
    """The file cannot hold the picture that it claims."""


def check_pixels(width: int, height: int, room: float) -> None:
    """Raise `DamagedError` for no pixels, or more than the `room` that the file has for them at the best compression.

    Raises `TooLargeError` for sizes over the limits, whatever the file holds.
    """
    if width <= 0 or height <= 0:
        raise DamagedError(f"the image has {width} x {height} pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise TooLargeError(
            f"{width} x {height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} altogether are decoded"
        )
    if width * height > room:
        raise DamagedError(f"{width} x {height} pixels are claimed, the file has room for {room:.0f} at most")


def check_room(data: bytes, offset: int, size: int) -> None:
    """`DamagedError` unless `size` bytes follow `offset` in `data`."""
    if size <= 0 or offset + size > len(data):
        raise DamagedError(f"{size} bytes of pixels expected at byte {offset}, the file has {len(data)}")


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
