"""Cuts of a triangle mesh with planes x = constant, and the outermost height or depth along them."""

from __future__ import annotations

import numpy as np


def slice_mesh(triangles: np.ndarray, x: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut `triangles` f64 [F, 3, 3] with the plane at `x`.

    Returns the segments f64 [n, 2, 2] of (y, z) and i64 [n], the triangles that they come from.
    """
    distance = triangles[:, :, 0] - x
    beyond = distance > 0
    count = beyond.sum(axis=1)
    crossed = np.flatnonzero((count > 0) & (count < 3))
    triangles, distance, beyond, count = triangles[crossed], distance[crossed], beyond[crossed], count[crossed]
    rows = np.arange(len(triangles))
    # The corner that is alone on its side: both edges from it cross the plane.
    lone = np.where(count == 1, beyond.argmax(axis=1), (~beyond).argmax(axis=1))
    start, from_start = triangles[rows, lone], distance[rows, lone]
    ends = []
    for step in (1, 2):
        corner = (lone + step) % 3
        part = (from_start / (from_start - distance[rows, corner]))[:, None]
        ends.append(start + part * (triangles[rows, corner] - start))
    return np.stack(ends, axis=1)[:, :, 1:], crossed


def front_depth(segments: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return f64 [n], the smallest z (the foremost point) of `segments` at each height `y`; inf where there is none."""
    if not len(segments):
        return np.full(len(y), np.inf)
    return _crossings(segments[:, :, 0], segments[:, :, 1], y).min(axis=1)


def layer_heights(segments: np.ndarray, z: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `layers` largest heights of `segments` at each depth `z`, from the top.

    Heights are f64 [layers, n], -inf where there are fewer; the second result i64 [layers, n] says which segment each
    belongs to, -1 for none.
    """
    values = _crossings(segments[:, :, 1], -segments[:, :, 0], z)
    height, owner = np.full((layers, len(z)), -np.inf), np.full((layers, len(z)), -1, np.int64)
    kept = min(layers, values.shape[1])
    if kept:
        first = np.argpartition(values, kept - 1, axis=1)[:, :kept]
        lowest = np.take_along_axis(values, first, axis=1)
        order = np.argsort(lowest, axis=1)
        height[:kept] = -np.take_along_axis(lowest, order, axis=1).T
        owner[:kept] = np.take_along_axis(first, order, axis=1).T
    owner[~np.isfinite(height)] = -1
    return height, owner


def _crossings(along: np.ndarray, value: np.ndarray, at: np.ndarray) -> np.ndarray:
    """f64 [len(at), segments]: each segment's value where it passes over `at`, else inf."""
    swap = along[:, 0] > along[:, 1]
    a0, a1 = np.where(swap, along[:, 1], along[:, 0]), np.where(swap, along[:, 0], along[:, 1])
    v0, v1 = np.where(swap, value[:, 1], value[:, 0]), np.where(swap, value[:, 0], value[:, 1])
    slope = (v1 - v0) / np.maximum(a1 - a0, 1e-12)
    over = (at[:, None] >= a0) & (at[:, None] <= a1)
    return np.where(over, v0 + (at[:, None] - a0) * slope, np.inf)
