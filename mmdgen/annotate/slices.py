"""Cuts of a triangle mesh with planes x = constant, and the outermost height or depth along them."""

from __future__ import annotations

import numpy as np


def slice_mesh(triangles: np.ndarray, x: float) -> np.ndarray:
    """Return the segments f64 [n, 2, 2] of (y, z) in which `triangles` f64 [F, 3, 3] meet the plane at `x`."""
    distance = triangles[:, :, 0] - x
    beyond = distance > 0
    count = beyond.sum(axis=1)
    crossed = (count > 0) & (count < 3)
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
    return np.stack(ends, axis=1)[:, :, 1:]


def front_depth(segments: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return f64 [n], the smallest z (the foremost point) of `segments` at each height `y`; inf where there is none."""
    return _lowest(segments[:, :, 0], segments[:, :, 1], y)


def top_height(segments: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return f64 [n], the largest y of `segments` at each depth `z`; -inf where there is none."""
    return -_lowest(segments[:, :, 1], -segments[:, :, 0], z)


def layer_heights(segments: np.ndarray, z: np.ndarray, layers: int) -> np.ndarray:
    """Return f64 [layers, n], the `layers` largest heights at each depth `z`, from the top; -inf where there are fewer."""
    values = _crossings(segments[:, :, 1], -segments[:, :, 0], z)
    found = np.full((layers, len(z)), np.inf)
    kept = min(layers, values.shape[1])
    if kept:
        found[:kept] = np.sort(np.partition(values, kept - 1, axis=1)[:, :kept], axis=1).T
    return -found


def _crossings(along: np.ndarray, value: np.ndarray, at: np.ndarray) -> np.ndarray:
    """f64 [len(at), segments]: each segment's value where it passes over `at`, else inf."""
    swap = along[:, 0] > along[:, 1]
    a0, a1 = np.where(swap, along[:, 1], along[:, 0]), np.where(swap, along[:, 0], along[:, 1])
    v0, v1 = np.where(swap, value[:, 1], value[:, 0]), np.where(swap, value[:, 0], value[:, 1])
    slope = (v1 - v0) / np.maximum(a1 - a0, 1e-12)
    over = (at[:, None] >= a0) & (at[:, None] <= a1)
    return np.where(over, v0 + (at[:, None] - a0) * slope, np.inf)


def _lowest(along: np.ndarray, value: np.ndarray, at: np.ndarray) -> np.ndarray:
    if not len(along):
        return np.full(len(at), np.inf)
    return _crossings(along, value, at).min(axis=1)
