"""What is done to the texels of a model's textures before they are drawn: alpha multiplied, mip levels. Compiled.

Light is counted in whole numbers, so that results do not depend on the machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mmdgen.jit import kernel
from mmdgen.render.prepare import linear_to_srgb, srgb_to_linear

_LIGHT = 20  # bits of a texel's light
_WEIGHT = 8  # bits of a weight along each side
_SUM = _LIGHT + 2 * _WEIGHT
_CELL = 12  # bits of light by which the byte is looked up: cells so small that at most one byte ends in each


@lru_cache(maxsize=1)
def _products() -> np.ndarray:
    """u8 [256, 256]: alpha and colour -> the colour multiplied in linear light."""
    level = np.arange(256) / 255
    product = srgb_to_linear(level)[None, :] * level[:, None]
    return np.rint(linear_to_srgb(product) * 255).astype(np.uint8)


def premultiply_own(texels: np.ndarray) -> None:
    """Multiply the colours of `texels` u8 [H, W, 4] by alpha in linear light, sRGB-encoded again, where they are.

    So that filtering and mip maps mix no colour of transparent texels into the edges.
    """
    _multiply(texels, _products())


@lru_cache(maxsize=2)
def _curves(linear: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return i64 [256], the light of a byte; u8, the byte for which each cell of light is too much at its beginning;
    i64 [257], from where on light is the byte's. `linear`: bytes are sRGB; else light is the byte."""
    byte = np.arange(256) / 255
    middle = np.clip((np.arange(257) - 0.5) / 255, 0, None)  # what is nearest to a byte begins halfway
    light, border = (srgb_to_linear(byte), srgb_to_linear(middle)) if linear else (byte, middle)
    light = np.rint(light * (1 << _LIGHT)).astype(np.int64)
    border = np.ceil(border * (1 << _SUM)).astype(np.int64)
    border[0], border[256] = 0, 1 << (_SUM + 1)
    cell = np.arange((1 << _CELL) + 1, dtype=np.int64) << (_SUM - _CELL)
    return light, (np.searchsorted(border, cell, side="right") - 1).astype(np.uint8), border


def halved(texels: np.ndarray, linear: bool) -> np.ndarray:
    """Return the next mip level of `texels` u8 [H, W, 4]: u8 [max(1, H // 2), max(1, W // 2), 4].

    A texel is what bilinear filtering reads at its centre, which is the mean of four texels where the sides are even.
    `linear`: the bytes of colours stand for sRGB and are averaged in linear light; alpha never is.
    """
    height, width = texels.shape[:2]
    rows, columns = _taps(height), _taps(width)
    result = np.empty((len(rows), len(columns), 4), np.uint8)
    _halve(texels, rows, columns, height % 2 == 0 and width % 2 == 0, *_curves(linear), result)
    return result


def _taps(size: int) -> np.ndarray:
    """i64 [max(1, size // 2), 3]: the two texels that each of the next level's lies between, the latter's weight."""
    count = max(1, size // 2)
    place = (np.arange(count) + 0.5) * (size / count) - 0.5
    first = np.floor(place).astype(np.int64)
    weight = np.rint((place - first) * (1 << _WEIGHT)).astype(np.int64)
    return np.stack([first, np.minimum(first + 1, size - 1), weight], axis=1)


@kernel
def _multiply(texels, table):
    """Replace the colours of `texels` u8 [H, W, 4] by those that `table` u8 [256, 256] has for (alpha, colour)."""
    for y in range(texels.shape[0]):
        row = texels[y]
        for x in range(row.shape[0]):
            alpha = row[x, 3]
            if alpha == 0:
                row[x, 0], row[x, 1], row[x, 2] = np.uint8(0), np.uint8(0), np.uint8(0)
            elif alpha != 255:
                products = table[alpha]
                row[x, 0] = products[row[x, 0]]
                row[x, 1] = products[row[x, 1]]
                row[x, 2] = products[row[x, 2]]


@kernel
def _halve(texels, rows, columns, even, light, codes, border, result):
    """See `halved`; `even` says that all weights are one half."""
    one = 1 << _WEIGHT
    for y in range(result.shape[0]):
        above, below, lower = texels[rows[y, 0]], texels[rows[y, 1]], rows[y, 2]
        target = result[y]
        for x in range(result.shape[1]):
            left, right, after = columns[x, 0], columns[x, 1], columns[x, 2]
            if even:
                for c in range(3):
                    total = light[above[left, c]] + light[above[right, c]]
                    total = (total + light[below[left, c]] + light[below[right, c]]) << (2 * _WEIGHT - 2)
                    code = codes[total >> (_SUM - _CELL)]
                    target[x, c] = code + (total >= border[code + 1])
                alpha = np.int64(above[left, 3]) + above[right, 3] + below[left, 3] + below[right, 3]
                target[x, 3] = (alpha + 2) >> 2
            else:
                a, b = (one - lower) * (one - after), (one - lower) * after
                c_, d = lower * (one - after), lower * after
                for c in range(3):
                    total = light[above[left, c]] * a + light[above[right, c]] * b
                    total += light[below[left, c]] * c_ + light[below[right, c]] * d
                    code = codes[total >> (_SUM - _CELL)]
                    target[x, c] = code + (total >= border[code + 1])
                alpha = above[left, 3] * a + above[right, 3] * b + below[left, 3] * c_ + below[right, 3] * d
                target[x, 3] = (alpha + (1 << (2 * _WEIGHT - 1))) >> (2 * _WEIGHT)
