"""The mouth: the drawn line of the lips and what is seen when they open (the dark inside, teeth, tongue)."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.curves import unit
from mmdgen.samples.mesh import Part, ellipsoid, grid_part, merge
from mmdgen.samples.mouthshape import MOUTH_MOVES, MouthShape
from mmdgen.samples.skull import Skull
from mmdgen.samples.traits import Traits

COUNT = 25  # vertices along one lip


def _ring(mouth: MouthShape, name: str) -> np.ndarray:
    """Return the opening's edge f64 [2 COUNT - 1, 2]: along the upper lip, back along the lower one; "" is rest."""
    t = np.linspace(0, 1, COUNT)
    upper = mouth.edge(name, True)(t) if name else mouth.rest(t)
    lower = mouth.edge(name, False)(t) if name else mouth.rest(t)
    return np.concatenate([upper, lower[-2::-1]])


def _line(mouth: MouthShape, skull: Skull, name: str) -> np.ndarray:
    """Return the lip line's grid f64 [2, n, 3] for one shape."""
    ring = _ring(mouth, name)
    t = np.linspace(0, 1, COUNT)
    taper = 0.25 + 0.75 * np.sin(np.pi * t) ** 0.7
    width = np.concatenate([0.0145 * taper, (0.0090 if not name else 0.011) * taper[-2::-1]])
    out = np.concatenate([np.tile([0.0, 1.0], (COUNT, 1)), np.tile([0.0, -1.0], (COUNT - 1, 1))])
    if name:
        middle = ring.mean(0)
        radial = ring - middle
        out = 0.4 * out + 0.6 * radial / np.maximum(np.linalg.norm(radial, axis=1, keepdims=True), 1e-6)
    inner = ring - 0.25 * out * width[:, None]
    outer = ring + out * width[:, None]
    flat = np.stack([outer, inner])
    return skull.at(flat[..., 0], flat[..., 1], 0.011)


def build_mouth(traits: Traits, skull: Skull, mouth: MouthShape) -> list[Part]:
    """Return the mouth's inside (cavity, teeth, tongue) and the lip line, with the movements of every vowel."""
    names = ["", *MOUTH_MOVES]
    depths = np.array([0.004, 0.05, 0.10, 0.13])
    scales = np.array([1.0, 1.06, 0.98, 0.02])
    bags, lines, teeth, tongues = {}, {}, {}, {}
    fang = traits.face.fang
    t = np.linspace(0.1, 0.9, 17)
    for name in names:
        ring = _ring(mouth, name)
        middle = ring.mean(0)
        flat = middle + (ring - middle)[None] * scales[:, None, None]
        bags[name] = skull.at(flat[..., 0], flat[..., 1], -depths[:, None] * np.ones(len(ring)))
        lines[name] = _line(mouth, skull, name)
        upper = mouth.edge(name, True)(t) if name else mouth.rest(t)
        lower = mouth.edge(name, False)(t) if name else mouth.rest(t)
        gap = np.maximum(upper[:, 1] - lower[:, 1], 0)
        drop = np.minimum(0.034, 0.32 * gap)
        bottom = upper - np.stack([0 * t, drop], -1)
        if fang:
            bottom[4, 1] -= 0.6 * drop[4]
        top = upper + np.array([0.0, 0.012])
        flat = np.stack([top, bottom])
        teeth[name] = skull.at(flat[..., 0], flat[..., 1], -0.022 - (0.02 if not name else 0.0))
        floor = lower[len(t) // 2]
        lift = 0.42 * gap.max()
        width = 0.58 * max(float(np.ptp(lower[:, 0])), 0.02) / 2
        tongue = np.array([floor[0], floor[1] - 0.010, 0.0])
        tongues[name] = (tongue, max(width, 0.01), max(lift, 0.004))

    bag = grid_part("mouth", bags[""])
    bag.uv[:] = np.stack(
        [np.tile(np.linspace(0.02, 0.42, len(ring)), 4), np.repeat([0.1, 0.4, 0.7, 0.95], len(ring))], -1
    )
    bag.normal[:] = (0.0, 0.0, -1.0)
    bag_open = bags["a"].reshape(-1, 3)
    _inward(bag, bag_open)
    row = grid_part("mouth", teeth[""])
    row.uv[:] = np.stack([np.tile(np.linspace(0.55, 0.95, 17), 2), np.repeat([0.1, 0.4], 17)], -1)
    row.normal[:] = (0.0, 0.0, -1.0)
    _facing(row, teeth["a"].reshape(-1, 3))
    ball = ellipsoid("mouth", (0, 0, 0), (1, 1, 1), 7, 13)
    ball.uv[:] = 0.55 + 0.4 * ball.uv
    shape = ball.position.copy()
    ball.normal = unit(ball.normal + np.array([0.0, 0.3, -1.2]))

    def tongue_at(name: str) -> np.ndarray:
        center, width, height = tongues[name]
        center = skull.at(center[0], center[1], -0.085)
        if not name:
            center = center + np.array([0.0, -0.02, 0.03])
        return center + shape * np.array([width, height, 0.05])

    ball.position = tongue_at("")
    lip = grid_part("lips", lines[""])
    lip.normal[:] = (0.0, 0.0, -1.0)
    _facing(lip, lines["a"].reshape(-1, 3))
    lip.edge[:] = 0
    for name in MOUTH_MOVES:
        key = f"mouth_{name}"
        bag.moves[key] = (bags[name] - bags[""]).reshape(-1, 3)
        row.moves[key] = (teeth[name] - teeth[""]).reshape(-1, 3)
        ball.moves[key] = tongue_at(name) - ball.position
        lip.moves[key] = (lines[name] - lines[""]).reshape(-1, 3)
    inside = merge([bag, ball, row])
    inside.edge[:] = 0
    return [inside, lip]


def _facing(part: Part, where: np.ndarray) -> None:
    """Wind the faces so that they are seen from the front when the vertices are at `where`."""
    a, b, c = (where[part.face[:, k]] for k in range(3))
    if np.cross(b - a, c - a)[:, 2].sum() > 0:
        part.face = part.face[:, ::-1].copy()


def _inward(part: Part, where: np.ndarray) -> None:
    """Wind the faces of a bag so that its inside is seen: towards the middle of its mouth."""
    a, b, c = (where[part.face[:, k]] for k in range(3))
    middle = where.mean(0) - np.array([0, 0, 0.05])
    if np.einsum("ij,ij->", np.cross(b - a, c - a), middle - (a + b + c) / 3) < 0:
        part.face = part.face[:, ::-1].copy()
