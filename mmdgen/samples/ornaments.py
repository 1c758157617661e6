"""Small things that clothes and hair share: bows, flowers, stars, frills."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.curves import unit
from mmdgen.samples.mesh import Part, ellipsoid, grid_part, merge, oriented, sweep


def basis(normal: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the matrix [3, 3] whose columns are right, up and out for something fixed on a surface."""
    out = unit(np.asarray(normal, float))
    right = unit(np.cross(out, np.asarray(up, float)))
    return np.stack([right, np.cross(right, out), out], -1)


def place(part: Part, turn: np.ndarray, center: np.ndarray) -> Part:
    """Rotate a part by [3, 3] and move its origin to `center`; mirrored frames turn the faces over."""
    part.position = part.position @ turn.T + center
    part.normal = part.normal @ turn.T
    if np.linalg.det(turn) < 0:
        part.face = part.face[:, ::-1].copy()
    return part


def bow(size: float, material: str = "ribbon", tails: float = 1.0, droop: float = 0.15) -> Part:
    """Return a bow in its own frame (x right, y up, z out), `size` across: two loops, a knot, two tails."""
    t = np.linspace(0, 1, 11)
    spines, widths, thicks, outs, ranges = [], [], [], [], []
    for sign in (-1.0, 1.0):
        spines.append(
            np.stack(
                [
                    sign * 0.5 * size * t,
                    -droop * size * t**2 + 0.02 * size * np.sin(np.pi * t),
                    0.06 * size * np.sin(np.pi * t),
                ],
                -1,
            )
        )
        widths.append(
            size * (0.12 + 0.36 * np.sin(np.pi * np.clip(t * 0.62, 0, 1)) ** 1.3) * np.clip((1.02 - t) * 7, 0.1, 1)
        )
        thicks.append(size * (0.03 + 0.10 * np.sin(np.pi * t) ** 0.8) * np.clip((1.03 - t) * 5, 0.1, 1))
        outs.append(np.tile([0.0, 0.0, 1.0], (11, 1)))
        ranges.append([0.05, 0.45])
    for sign in (-1.0, 1.0):
        if tails:
            spines.append(
                np.stack(
                    [
                        sign * size * (0.02 + 0.22 * t),
                        -size * tails * (0.05 + 0.62 * t),
                        0.02 * size + 0.03 * size * np.sin(3 * t),
                    ],
                    -1,
                )
            )
            widths.append(size * (0.08 + 0.14 * t))
            thicks.append(np.full(11, 0.022 * size))
            outs.append(np.tile([0.0, 0.0, 1.0], (11, 1)))
            ranges.append([0.55, 0.95])
    body = sweep(
        material, np.stack(spines), np.stack(outs), np.stack(widths), np.stack(thicks), 10, 0.7, np.array(ranges)
    )
    knot = ellipsoid(material, (0.0, -0.01 * size, 0.06 * size), (0.085 * size, 0.10 * size, 0.075 * size), 7, 10)
    knot.uv = 0.05 + 0.3 * knot.uv
    return merge([body, knot])


def flower(size: float, material: str = "ribbon", petals: int = 5) -> Part:
    """Return a flower in its own frame, `size` across."""
    parts = []
    for k in range(petals):
        angle = 2 * np.pi * k / petals + 0.3
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        petal = ellipsoid(material, (0.0, 0.27 * size, 0.0), (0.20 * size, 0.25 * size, 0.05 * size), 6, 9)
        petal.uv = 0.05 + 0.35 * petal.uv
        parts.append(place(petal, turn, np.zeros(3)))
    heart = ellipsoid(material, (0, 0, 0.05 * size), (0.12 * size, 0.12 * size, 0.06 * size), 5, 9)
    heart.uv = np.full_like(heart.uv, 0.98)
    return merge([*parts, heart])


def star(size: float, material: str = "metal", points: int = 5, sharp: float = 0.45) -> Part:
    """Return a raised star in its own frame."""
    angle = np.linspace(0, 2 * np.pi, 2 * points + 1)
    reach = np.where(np.arange(2 * points + 1) % 2 == 0, 0.5, 0.5 * sharp) * size
    rim = np.stack([reach * np.sin(angle), reach * np.cos(angle), np.zeros_like(angle)], -1)
    middle = np.tile([0.0, 0.0, 0.12 * size], (len(angle), 1))
    back = rim * 0.9 + [0, 0, -0.06 * size]
    point = np.stack([back, rim, 0.05 * rim + middle])
    part = grid_part(material, point, wrap=True)
    oriented(part, np.array([0.0, 0.0, 1.0]))
    part.normal = unit(part.normal + np.array([0.0, 0.0, 0.35]))
    return part


def frill(
    path: np.ndarray, outward: np.ndarray, width: float, waves: int, depth: float, material: str = "ribbon"
) -> Part:
    """Return a wavy strip along a path f64 [n, 3]; it hangs `width` along `outward` f64 [n, 3] and waves."""
    count = len(path)
    t = np.linspace(0, 1, count)
    wave = np.sin(2 * np.pi * waves * t)
    side = unit(np.cross(np.gradient(path, axis=0), outward))
    rows = [
        path,
        path + outward * 0.5 * width + side * (0.5 * depth * wave)[:, None],
        path + outward * width + side * (depth * wave)[:, None],
    ]
    uv = np.stack(np.meshgrid(t * waves * 0.25, [0.05, 0.25, 0.45]), -1)
    return grid_part(material, np.stack(rows), uv)
