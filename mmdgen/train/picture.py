"""A person's picture made fit for the networks: its background transparent, its size theirs.

Arrays only; files are decoded where they come from. Pictures are u8 [H, W, 4], sRGB, straight alpha, top row first.
"""

from __future__ import annotations

import numpy as np

from mmdgen.errors import TrainError

TOLERANCE = 12  # how far a channel may be from the background's colour, of 255
_LOBES = 3
_ROWS = 64


def prepare(
    image: np.ndarray,
    size: int,
    *,
    fit: bool = False,
    background: tuple[int, int, int] | None = None,
    tolerance: int = TOLERANCE,
    name: str = "the picture",
) -> np.ndarray:
    """Return the picture as a network takes it, u8 [size, size, 4], RGB 0 where alpha is 0.

    With `background`, what has this colour and reaches the picture's edge becomes transparent (`clear_background`);
    with `fit`, another size is resized (`fitted`). Raises `TrainError` for a picture without transparency, one without
    anything else, and another size without `fit`; each says what to do.
    """
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise TrainError(f"{name}: a picture is uint8 [H, W, 4], found {image.dtype} {list(image.shape)}")
    if background is not None:
        image = clear_background(image, background, tolerance)
    if image[..., 3].min(initial=255) == 255:
        if background is not None:
            raise TrainError(f"{name}: nothing at its edge has the colour #{bytes(background).hex()}")
        raise TrainError(
            f"{name}: it has no transparent background, and the networks have only seen heads that do: cut the head "
            "out, or, if the background is of one colour, name that: --background-transparent '#rrggbb'"
        )
    if image[..., 3].max(initial=0) == 0:
        raise TrainError(f"{name}: it is transparent everywhere")
    height, width = image.shape[:2]
    if (height, width) != (size, size):
        if not fit:
            raise TrainError(
                f"{name}: it has {width} x {height} pixels, the networks take {size} x {size}: resize it, or let "
                "--fit do that"
            )
        image = fitted(image, size)
    return np.where(image[..., 3:] > 0, image, np.uint8(0))


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """Return the whole picture in the middle of u8 [size, size, 4]; what a picture that is no square lacks is empty.

    Resampled with a Lanczos window (3 lobes, widened where the picture shrinks, so that every pixel counts) in linear
    light and premultiplied, so that neither edges darken nor colours of transparent pixels bleed.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    across, down = _weights(width, side, size), _weights(height, side, size)
    table = _to_linear(np.arange(256) / 255).astype(np.float32)
    total = np.zeros((size, size, 4), np.float32)
    for top in range(0, height, _ROWS):  # in bands: a large picture in floats would be sixteen times its size
        band = image[top : top + _ROWS]
        alpha = band[..., 3:].astype(np.float32) / 255
        plane = np.concatenate([table[band[..., :3]] * alpha, alpha], axis=2)
        narrow = np.einsum("sw,rwc->rsc", across, plane, optimize=True)
        total += np.einsum("sr,rwc->swc", down[:, top : top + _ROWS], narrow, optimize=True)
    # Near edges the window swings over 1, colours and alpha alike: divided before they are clipped, colours stay.
    colour = np.clip(total[..., :3] / np.maximum(total[..., 3:], 1e-6), 0, 1)
    straight = np.concatenate([_to_srgb(colour), np.clip(total[..., 3:], 0, 1)], axis=2)
    return np.rint(straight * 255).astype(np.uint8)


def clear_background(image: np.ndarray, color: tuple[int, int, int], tolerance: int = TOLERANCE) -> np.ndarray:
    """Return the picture with the pixels transparent that have about the colour and are joined to the picture's edge.

    Every channel may differ by `tolerance`; joined are neighbours across a side. What is enclosed by the head stays, as
    do half-covered pixels of outlines: this is for drawings on paper of one colour, not for photographs.
    """
    off = np.abs(image[..., :3].astype(np.int16) - np.array(color, np.int16))
    near = np.asarray(off.max(axis=2) <= tolerance)
    result = image.copy()
    result[_joined_to_edge(near)] = 0
    return result


def _joined_to_edge(mask: np.ndarray) -> np.ndarray:
    """Where a mask [H, W] is joined to the picture's edge, across sides of pixels.

    Runs of rows are the nodes of a graph, 0 is the edge; trees are hung onto others with a lower root until none is
    left. That takes a few rounds whatever way the background winds.
    """
    runs = _runs(mask)
    touch = mask[1:] & mask[:-1]
    touch[:, 1:] &= ~(mask[1:, :-1] & mask[:-1, :-1])  # once for two runs that touch
    rim = mask.copy()
    rim[1:-1, 1:-1] = False
    outer = np.unique(runs[rim])
    a = np.concatenate([np.zeros_like(outer), runs[:-1][touch]])
    b = np.concatenate([outer, runs[1:][touch]])
    root = np.arange(int(runs.max(initial=0)) + 1, dtype=np.int32)
    while len(a):
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        a, b = a[apart], b[apart]
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(root, further := root[root]):
            root = further
    return mask & (root[runs] == 0)


def _runs(mask: np.ndarray) -> np.ndarray:
    """Number the runs of True in each row of a mask [H, W] from 1: i32 [H, W], meaningful where the mask is True."""
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    return np.cumsum(starts.reshape(-1), dtype=np.int32).reshape(mask.shape)


def _weights(length: int, side: int, size: int) -> np.ndarray:
    """Weights f32 [size, length] that resample `length` pixels, centred in `side`, to `size`.

    Each row sums to 1 over the side, to less where some of it lies beyond the pixels that are there.
    """
    scale = side / size
    reach = max(scale, 1.0)
    centre = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    distance = (np.arange(side)[None] - centre) / reach
    window = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0)
    window /= window.sum(axis=1, keepdims=True)
    first = (side - length) // 2
    return window[:, first : first + length].astype(np.float32)


def _to_linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _to_srgb(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 0.0031308) ** (1 / 2.4) - 0.055)
