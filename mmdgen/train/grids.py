"""Sample pictures: what the network makes of fixed held-out inputs, as one PNG to look through while it learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdgen.errors import ConfigError
from mmdgen.png import encode_png

GAP = 4  # pixels between pictures, and around them
PAPER = 255


def grid(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return u8 [H', W', 3]: one row a sample, one column for each u8 [N, H, W, 4] of `columns`.

    The pictures are put over white in sRGB values, as viewers do. Raises `ConfigError` unless all are of one shape.
    """
    if not columns or any(column.dtype != np.uint8 or column.shape != columns[0].shape for column in columns):
        raise ConfigError("the columns of a grid must be u8 pictures of one shape")
    count, height, width, channels = columns[0].shape
    if channels != 4 or not count:
        raise ConfigError(f"a grid needs pictures [N, H, W, 4], found {list(columns[0].shape)}")
    sheet = np.full((GAP + count * (height + GAP), GAP + len(columns) * (width + GAP), 3), PAPER, np.uint8)
    for place, column in enumerate(columns):
        left = GAP + place * (width + GAP)
        for row, image in enumerate(over_white(column)):
            top = GAP + row * (height + GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet


def over_white(pictures: np.ndarray) -> np.ndarray:
    """Return u8 [..., 3] of u8 [..., 4] with straight alpha, over white."""
    alpha = pictures[..., 3:].astype(np.float32) / 255
    return (pictures[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def grid_png(columns: Sequence[np.ndarray]) -> bytes:
    """Return `grid(columns)` as a PNG file."""
    return encode_png(grid(columns))
