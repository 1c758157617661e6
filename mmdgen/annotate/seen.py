"""Which materials the head's picture shows: every surface behind every pixel, near to far, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmdgen.model.records import Model

# Points tested at most. A head in 256 x 256 pixels has about two million; more come from hostile files, of which every
# n-th face is then taken.
MOST_POINTS = 8_000_000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Fragments:
    """What lies behind the pixels of a square picture, sorted by pixel and then from near to far. N of them.

    `pixel` i32 [N] is row x size + column, `face` i32 [N] indexes `Model.face`, `uv` f32 [N, 2].
    """

    pixel: np.ndarray
    face: np.ndarray
    uv: np.ndarray

    def select(self, chosen: np.ndarray) -> Fragments:
        """Return the fragments of a mask or index array, which keeps their order."""
        return Fragments(self.pixel[chosen], self.face[chosen], self.uv[chosen])


def rasterize(
    model: Model,
    position: np.ndarray,
    faces: np.ndarray,
    double_sided: np.ndarray,
    box: tuple[float, float, float],
    size: int,
) -> Fragments:
    """Return the fragments of `faces` i32 [n] seen from the front, with the vertices at `position` [V, 3] MU.

    `double_sided` bool [n] says whose backs are seen too. `box` is left, top and height of the square picture in MU,
    which has `size` x `size` pixels; each is looked at in its middle.
    """
    left, top, height = box
    scale = size / height
    corners = position[model.face[faces]].astype(np.float64)
    x, y, z = (corners[..., 0] - left) * scale, (top - corners[..., 1]) * scale, corners[..., 2]
    # Twice the area in the picture (y down): front faces, clockwise for MMD's viewer, have a positive one.
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    seen = (area > 1e-9) | (double_sided & (area < -1e-9))
    first = np.ceil(np.clip(np.stack([x.min(axis=1), y.min(axis=1)], axis=1), 0, size) - 0.5).astype(np.int64)
    last = np.floor(np.clip(np.stack([x.max(axis=1), y.max(axis=1)], axis=1), 0, size) - 0.5).astype(np.int64)
    extent = last - first + 1
    kept = np.flatnonzero(seen & (extent > 0).all(axis=1))
    total = int(extent[kept].prod(axis=1).sum())
    if total > MOST_POINTS:
        kept = kept[:: total // MOST_POINTS + 1]
    count = extent[kept].prod(axis=1)
    ends = np.cumsum(count)
    parts = []
    start = 0
    while start < len(kept):
        stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _CHUNK, side="right"))
        stop = max(stop, start + 1)
        parts.append(_points(kept[start:stop], count[start:stop], x, y, z, area, first, extent, size))
        start = stop
    if not parts:
        none = np.zeros(0, np.int32)
        return Fragments(none, none, np.zeros((0, 2), np.float32))
    pixel, row, depth, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((depth, pixel))
    row = row[order]
    uv = np.einsum("nk,nkc->nc", weights[order], model.uv[model.face[faces[row]]])
    return Fragments(pixel[order].astype(np.int32), faces[row].astype(np.int32), uv.astype(np.float32))


def _points(rows, count, x, y, z, area, first, extent, size):
    """The pixels whose middles lie in the triangles `rows`: pixel, row, depth and barycentric weights of each."""
    row = np.repeat(rows, count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    column = first[row, 0] + place % extent[row, 0]
    line = first[row, 1] + place // extent[row, 0]
    px, py = column + 0.5, line + 0.5
    weights = np.empty((len(row), 3))
    for corner, (a, b) in enumerate(((1, 2), (2, 0))):
        ax, ay = x[row, a], y[row, a]
        weights[:, corner] = ((x[row, b] - ax) * (py - ay) - (px - ax) * (y[row, b] - ay)) / area[row]
    weights[:, 2] = 1 - weights[:, 0] - weights[:, 1]
    inside = (weights >= 0).all(axis=1)
    row, weights = row[inside], weights[inside]
    depth = np.einsum("nk,nk->n", weights, z[row])
    return (line * size + column)[inside], row, depth, weights


def visible_share(
    fragments: Fragments, material: np.ndarray, alpha: np.ndarray, texel_alpha: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return f32 [N] in [0, 1]: how much of its pixel each fragment makes up.

    `material` i32 [N] are the fragments' materials, `alpha` f32 [materials] their opacity; `texel_alpha` returns the
    opacity f32 [n] of a material's texture at `uv` f32 [n, 2].
    """
    opacity = alpha[material].astype(np.float64)
    for number in np.unique(material).tolist():
        mine = np.flatnonzero(material == number)
        opacity[mine] *= texel_alpha(number, fragments.uv[mine])
    # What is left of the light after each fragment, multiplied up from the first of its pixel. A floor keeps the
    # logarithms finite: behind an opaque surface 1e-12 is left.
    through = np.log(np.maximum(1 - opacity, 1e-12))
    total = np.concatenate([[0.0], np.cumsum(through)])
    starts = np.flatnonzero(np.r_[True, fragments.pixel[1:] != fragments.pixel[:-1]]) if len(opacity) else []
    lengths = np.diff(np.r_[starts, len(opacity)]).astype(np.int64)
    before = total[:-1] - np.repeat(total[starts], lengths)
    return (np.exp(before) * opacity).astype(np.float32)
