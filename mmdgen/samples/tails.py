"""Hair that leaves the head: tails, braids, buns and drills, each along a spine in design units."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.curves import Spline, arc_lengths, smoothstep, unit
from mmdgen.samples.hair import tile_range
from mmdgen.samples.mesh import Part, ellipsoid, grid_part, merge, oriented, sweep, tube


def smooth_path(points: list[tuple[float, float, float]], count: int = 24) -> np.ndarray:
    """Return a smooth curve f64 [count, 3] through points, evenly spaced along it."""
    control = np.array(points, float)
    knot = arc_lengths(control)
    fine = Spline(knot, control)(np.linspace(0, knot[-1], 200))
    length = arc_lengths(fine)
    even = np.linspace(0, length[-1], count)
    return np.stack([np.interp(even, length, fine[:, k]) for k in range(3)], -1)


def frame(path: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit tangents and two unit normals f64 [R, 3] that turn little along the path."""
    tangent = unit(np.gradient(path, axis=0))
    first = np.cross(tangent, np.array([0.0, 0.0, 1.0]))
    side = np.where(np.linalg.norm(first, axis=1, keepdims=True) > 0.15, first, np.array([1.0, 0.0, 0.0]))
    side = unit(side - tangent * np.einsum("ij,ij->i", side, tangent)[:, None])
    for k in range(1, len(side)):
        if side[k] @ side[k - 1] < 0:
            side[k] = -side[k]
    return tangent, side, np.cross(tangent, side)


def tail(
    path: np.ndarray,
    radius: float,
    stream: np.random.Generator,
    wave: float = 0.0,
    strands: int = 7,
    twist: float = 0.0,
) -> Part:
    """Return a bundle of locks around a path: full near the middle, pointed at the end."""
    rows = len(path)
    t = np.linspace(0, 1, rows)
    _, side, up = frame(path)
    envelope = radius * (0.30 + 0.70 * smoothstep(0, 0.22, t)) * (1 - 0.72 * smoothstep(0.45, 1.0, t))
    spines, outs, widths, thicks = [], [], [], []
    for k in range(strands + 1):
        angle = 2 * np.pi * k / strands + twist * t * 2 * np.pi + stream.uniform(-0.2, 0.2)
        core = 0.0 if k == strands else 1.0
        out = side * np.cos(angle)[:, None] + up * np.sin(angle)[:, None]
        reach = stream.uniform(0.72, 1.05)
        along = np.clip(t * reach, 0, 1)
        center = np.stack([np.interp(along, t, path[:, j]) for j in range(3)], -1)
        swing = wave * np.sin(2 * np.pi * (2.1 * t + 0.13 * k)) * smoothstep(0.1, 0.4, t)
        spread = 0.62 * core * envelope + swing
        spines.append(center + out * spread[:, None])
        outs.append(out if core else up)
        shape = (0.4 + 0.6 * smoothstep(0, 0.2, t)) * np.maximum(1 - smoothstep(0.5, 1.02, t), 0.015)
        widths.append(np.maximum(radius * (1.45 if core else 1.2) * shape, 0.004))
        thicks.append(np.maximum(radius * 0.55 * shape, 0.004))
    count = strands + 1
    v = 0.40 + 0.59 * t[None].repeat(count, 0)
    tiles = tile_range(stream.integers(0, 8, count))
    return sweep("hair", np.stack(spines), np.stack(outs), np.stack(widths), np.stack(thicks), 8, 0.7, tiles, v)


def braid(path: np.ndarray, radius: float, tuft: float = 0.28) -> Part:
    """Return a plait: two rows of overlapping drops along the path, and a loose end."""
    length = arc_lengths(path)[-1]
    count = max(int(length / (radius * 1.05)), 4)
    _, side, up = frame(path)
    rows = np.linspace(0, len(path) - 1, len(path))
    drops = []
    for k in range(count):
        at = (k + 0.5) / (count + 1) * (len(path) - 1)
        center = np.array([np.interp(at, rows, path[:, j]) for j in range(3)])
        s_dir = unit(np.array([np.interp(at, rows, side[:, j]) for j in range(3)]))
        u_dir = unit(np.array([np.interp(at, rows, up[:, j]) for j in range(3)]))
        t_dir = unit(np.cross(s_dir, u_dir))
        size = radius * (1.0 - 0.35 * k / count)
        for sign in (-1.0, 1.0):
            lean = unit(t_dir * 0.85 + s_dir * 0.62 * sign)
            across = unit(np.cross(lean, u_dir))
            turn = np.stack([across, lean, np.cross(across, lean)], -1)
            shift = 0.5 * radius * (sign * 0.5)
            center_k = center + s_dir * sign * size * 0.42 + t_dir * shift
            drop = ellipsoid("hair", tuple(center_k), (size * 0.60, size * 1.02, size * 0.66), 8, 11, turn)
            drop.uv[:, 0] = (k % 8 + 0.06 + 0.88 * np.abs(2 * drop.uv[:, 0] - 1)) / 8
            drop.uv[:, 1] = 0.42 + 0.5 * (k / count) + 0.05 * drop.uv[:, 1]
            drops.append(drop)
    end = path[-1]
    direction = unit(path[-1] - path[-3])
    spine = end + direction * np.linspace(-0.04, tuft, 8)[:, None]
    shape = np.array([0.5, 0.8, 1.0, 1.05, 0.95, 0.7, 0.4, 0.03])
    tufts = sweep(
        "hair", spine[None], up[-1:].repeat(8, 0)[None], (radius * 1.5 * shape)[None], (radius * 0.7 * shape)[None],
        10, 1.0,
        tile_range(np.array([2])), np.linspace(0.9, 0.99, 8)[None],
    )  # fmt: skip
    return merge([*drops, tufts])


def bun(center: tuple[float, float, float], radius: float, turns: int = 10) -> Part:
    """Return a round bun with strands wound around it."""
    part = ellipsoid("hair", center, (radius, radius * 0.92, radius), 17, 33)
    local = part.position - np.array(center)
    angle = np.arctan2(local[:, 0], -local[:, 2])
    polar = np.arccos(np.clip(local[:, 1] / (0.92 * radius), -1, 1))
    groove = 1 + 0.035 * np.cos(turns * angle + 5 * polar)
    part.position = np.array(center) + local * groove[:, None]
    part.uv = np.stack([(part.uv[:, 0] * 8), 0.10 + 0.40 * part.uv[:, 1]], -1)
    return part


def drill(path: np.ndarray, radius: float, turns: float = 5.0) -> Part:
    """Return a corkscrew curl: a cone around the path with a deep spiral groove."""
    rows = 72
    length = np.linspace(0, len(path) - 1, rows)
    center = np.stack([np.interp(length, np.arange(len(path)), path[:, j]) for j in range(3)], -1)
    _, side, up = frame(center)
    t = np.linspace(0, 1, rows)[:, None]
    angle = np.linspace(0, 2 * np.pi, 19)[None]
    cone = radius * (0.45 + 0.55 * smoothstep(0, 0.18, t)) * (1 - 0.80 * smoothstep(0.25, 1.0, t))
    turn = angle - 2 * np.pi * turns * t
    saw = 0.5 + 0.5 * np.cos(turn)
    reach = cone * (0.70 + 0.36 * saw**0.6)
    point = (
        center[:, None]
        + side[:, None] * (reach * np.cos(angle))[..., None]
        + up[:, None] * (reach * np.sin(angle))[..., None]
    )
    uv = np.stack(np.broadcast_arrays(0.01 + 0.115 * (1 - saw), 0.42 + 0.55 * t), -1)
    part = grid_part("hair", point, uv, wrap=True)
    offset = part.position - center.repeat(19, 0)
    return oriented(part, offset)


def hair_tie(
    center: np.ndarray, axis: np.ndarray, radius: float, thick: float = 0.05, material: str = "ribbon"
) -> Part:
    """Return a ring around a tail's root."""
    axis = unit(axis)
    first = unit(np.cross(axis, np.array([0.3, 0.2, 1.0])))
    second = np.cross(axis, first)
    angle = np.linspace(0, 2 * np.pi, 21)[:, None]
    ring = center + radius * (np.cos(angle) * first + np.sin(angle) * second)
    part = tube(material, ring, np.full(21, thick), 8, tuple(axis))
    part.uv *= 0.4
    return part
