"""Which materials the head's picture shows: every surface behind every pixel, near to far, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.model.records import Model

# Points tested at most. A head in 256 x 256 pixels has about two million; more come from hostile files, of which every
# n-th face is then taken.
MOST_POINTS = 4_000_000
_CHUNK = 1 << 20
_SAME_DEPTH = 1e-6  # MU
# Where a pixel is looked at: beside its middle, so that edges on round numbers do not belong to both of their faces.
_MIDDLE = (0.50013, 0.50029)


@dataclass(frozen=True, slots=True, eq=False)
class Fragments:
    """What lies behind the pixels of a square picture, sorted by pixel and then from near to far. N of them.

    `pixel` i32 [N] is row x size + column, `face` i32 [N] indexes `Model.face`, `depth` f64 [N] is z in MU, `uv` f32
    [N, 2].
    """

    pixel: np.ndarray
    face: np.ndarray
    depth: np.ndarray
    uv: np.ndarray

    def depths(self, size: int) -> np.ndarray:
        """Return f64 [size x size]: the depth of the farthest fragment of each pixel, -inf where there is none."""
        last = np.flatnonzero(np.r_[self.pixel[1:] != self.pixel[:-1], True][: len(self.pixel)])
        far = np.full(size * size, -np.inf)
        far[self.pixel[last]] = self.depth[last]
        return far


def rasterize(
    model: Model,
    position: np.ndarray,
    faces: np.ndarray,
    double_sided: np.ndarray,
    box: tuple[float, float, float],
    size: int,
    far: np.ndarray | None = None,
) -> Fragments:
    """Return the fragments of `faces` i32 [n] seen from the front, with the vertices at `position` [V, 3] MU.

    `double_sided` bool [n] says whose backs are seen too. `box` is left, top and height of the square picture in MU,
    which has `size` x `size` pixels; each is looked at in its middle. With `far` (see `Fragments.depths`) only what
    does not lie behind that depth is returned.
    """
    if far is None:
        far = np.full(size * size, np.inf)
    wanted = (far > -np.inf).reshape(size, size)
    if not wanted.any():
        faces, double_sided = faces[:0], double_sided[:0]
    columns, lines = np.flatnonzero(wanted.any(axis=0)), np.flatnonzero(wanted.any(axis=1))
    low = np.array([columns[0], lines[0]]) if len(lines) else np.zeros(2)
    high = np.array([columns[-1], lines[-1]]) + 1 if len(lines) else np.zeros(2)
    left, top, height = box
    scale = size / height
    corners = position[model.face[faces]].astype(np.float64)
    x, y, z = (corners[..., 0] - left) * scale, (top - corners[..., 1]) * scale, corners[..., 2]
    # Twice the area in the picture (y down): front faces, clockwise for MMD's viewer, have a positive one.
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    seen = (area > 1e-9) | (double_sided & (area < -1e-9))
    first = np.ceil(np.clip(np.stack([x.min(axis=1), y.min(axis=1)], axis=1), low, high) - 0.5).astype(np.int64)
    last = np.floor(np.clip(np.stack([x.max(axis=1), y.max(axis=1)], axis=1), low, high) - 0.5).astype(np.int64)
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
        parts.append(_points(kept[start:stop], count[start:stop], x, y, z, area, first, extent, size, far))
        start = stop
    if not parts:
        none = np.zeros(0, np.int32)
        return Fragments(none, none, np.zeros(0), np.zeros((0, 2), np.float32))
    pixel, row, depth, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((depth, pixel))
    row = row[order]
    uv = np.einsum("nk,nkc->nc", weights[order], model.uv[model.face[faces[row]]])
    return Fragments(pixel[order].astype(np.int32), faces[row].astype(np.int32), depth[order], uv.astype(np.float32))


def _points(rows, count, x, y, z, area, first, extent, size, far):
    """The pixels whose middles lie in the triangles `rows`: pixel, row, depth and barycentric weights of each."""
    row = np.repeat(rows, count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    column = first[row, 0] + place % extent[row, 0]
    line = first[row, 1] + place // extent[row, 0]
    pixel = line * size + column
    asked = far[pixel] > -np.inf
    row, column, line, pixel = row[asked], column[asked], line[asked], pixel[asked]
    px, py = column + _MIDDLE[0], line + _MIDDLE[1]
    weights = np.empty((len(row), 3))
    for corner, (a, b) in enumerate(((1, 2), (2, 0))):
        ax, ay = x[row, a], y[row, a]
        weights[:, corner] = ((x[row, b] - ax) * (py - ay) - (px - ax) * (y[row, b] - ay)) / area[row]
    weights[:, 2] = 1 - weights[:, 0] - weights[:, 1]
    inside = (weights >= 0).all(axis=1)
    row, weights, pixel = row[inside], weights[inside], pixel[inside]
    depth = np.einsum("nk,nk->n", weights, z[row])
    near = depth <= far[pixel] + _SAME_DEPTH
    return pixel[near], row[near], depth[near], weights[near]


def visible_share(fragments: Fragments, opacity: np.ndarray) -> np.ndarray:
    """Return f64 [N] in [0, 1]: how much of its pixel each fragment makes up, given its `opacity` f64 [N]."""
    if not len(opacity):
        return np.zeros(0)
    # What is left of the light after each fragment, multiplied up from the first of its pixel. A floor keeps the
    # logarithms finite: behind an opaque surface 1e-12 is left.
    through = np.log(np.maximum(1 - np.asarray(opacity, np.float64), 1e-12))
    total = np.concatenate([[0.0], np.cumsum(through)])
    starts = np.flatnonzero(np.r_[True, fragments.pixel[1:] != fragments.pixel[:-1]])
    lengths = np.diff(np.r_[starts, len(opacity)])
    before = total[:-1] - np.repeat(total[starts], lengths)
    return np.exp(before) * opacity
