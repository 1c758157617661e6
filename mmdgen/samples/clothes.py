"""What characters wear above the waist: shapes laid over the torso."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.body import NECK_Z, Torso, build_arm, torso_weights
from mmdgen.samples.curves import lerp, smoothstep, unit
from mmdgen.samples.mesh import Part, ellipsoid, grid_part, mirrored, oriented, tube
from mmdgen.samples.ornaments import basis, bow, frill, place, star
from mmdgen.samples.traits import Traits, variant

SLEEVES = {
    "sailor": "short", "shirt_tie": "long", "blazer": "long", "hoodie": "long", "dress": "puff", "kimono": "wide",
    "armour": "short", "sweater": "long", "tee": "short", "idol": "puff",
}  # fmt: skip


def _at(point: np.ndarray, dx: float, dy: float, dz: float) -> tuple[float, float, float]:
    return float(point[0]) + dx, float(point[1]) + dy, float(point[2]) + dz


def neckline(kind: str, theta: np.ndarray) -> np.ndarray:
    """Return v of the garment's upper edge at theta f64 [...] (0 in front): above it the texture shows skin."""
    turn = np.abs((np.asarray(theta, float) + np.pi) % (2 * np.pi) - np.pi)
    front = smoothstep(0.95, 0.04, turn)
    return {
        "sailor": 0.07 + 0.44 * front**1.2,
        "shirt_tie": 0.03 + 0 * turn,
        "blazer": 0.03 + 0 * turn,
        "hoodie": 0.06 + 0.05 * front,
        "dress": 0.34 + 0.14 * smoothstep(0.9, 0.0, turn),
        "kimono": 0.06 + 0.36 * front**1.1,
        "armour": 0.02 + 0 * turn,
        "sweater": 0.0 + 0 * turn,
        "tee": 0.11 + 0.10 * smoothstep(1.2, 0.0, turn),
        "idol": 0.06 + 0.34 * front**1.1,
    }[kind]


def _lapels(
    torso: Torso, kind: str, knots: list[float], outer: list[float], lift: float, start: float = 0.05, columns: int = 61
) -> Part:
    """Return a collar that follows the neckline: from it to `outer` v at `knots` of |theta|."""
    theta = np.linspace(start, 2 * np.pi - start, columns)
    turn = np.abs((theta + np.pi) % (2 * np.pi) - np.pi)
    inner = neckline(kind, theta) - 0.02
    edge = np.maximum(np.interp(turn, knots, outer), inner + 0.01)
    share = np.linspace(0, 1, 7)[:, None]
    v = lerp(inner[None], edge[None], share)
    rise = lift * (0.55 + 0.45 * np.sin(np.pi * np.clip(share * 0.8 + 0.1, 0, 1)))
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi), share), -1)
    return torso.sheet("collar", np.broadcast_to(theta, v.shape), v, np.broadcast_to(rise, v.shape), uv)


def _band(
    torso: Torso,
    radius: list[float],
    height: list[float],
    start: float = 0.0,
    tip: float = 0.0,
    material: str = "collar",
    v_down: float = 0.12,
) -> Part:
    """Return a band around the neck: rings of `radius` (times the neck's) and `height` over its base.

    `tip` lowers the front ends.
    """
    theta = np.linspace(start, 2 * np.pi - start, 49)
    turn = np.abs((theta + np.pi) % (2 * np.pi) - np.pi)
    rows = []
    count = len(radius)
    for k, (r, h) in enumerate(zip(radius, height, strict=True)):
        ring = torso.neck_radius * r
        drop = tip * (k / (count - 1)) ** 2 * np.exp(-(((turn - start - 0.10) / 0.42) ** 2))
        y = torso.base_y + h - drop + 0.05 * (1 - np.cos(theta)) * 0.5 * (k == 0)
        z = NECK_Z - 0.03 - ring * np.cos(theta) - 0.55 * drop
        rows.append(np.stack(np.broadcast_arrays(ring * np.sin(theta) * (1 + 0.25 * drop), y, z), -1))
    uv = np.stack(np.meshgrid(theta / (2 * np.pi), np.linspace(0, 1, count)), -1)
    part = grid_part(material, np.stack(rows), uv)
    return oriented(part, (part.position - np.array([0, 0, NECK_Z])) * np.array([1, 0, 1]))


def _on_chest(torso: Torso, part: Part, v: float, lift: float, theta: float = 0.0) -> Part:
    """Fix an ornament in its own frame on the torso."""
    p = torso.point(np.array([theta - 0.02, theta + 0.02, theta, theta]), np.array([v, v, v - 0.03, v + 0.03]))
    normal = unit(np.cross(p[2] - p[3], p[1] - p[0]))
    return place(part, basis(normal, np.array([0.0, 1.0, 0.0])), p.mean(0) + normal * lift)


def _throat(torso: Torso) -> np.ndarray:
    """Return the place f64 [3] of a knot before the closed collar."""
    return np.array([0.0, torso.base_y - 0.035, NECK_Z - 1.42 * torso.neck_radius])


def _tie(torso: Torso, size: float) -> list[Part]:
    """Return a necktie: knot and blade."""
    t = np.linspace(0, 1, 14)[:, None]
    side = np.linspace(-1, 1, 5)[None]
    v = 0.10 + 0.55 * t + 0.03 * (1 - np.abs(side)) * (t > 0.95)
    half = (0.045 + 0.085 * smoothstep(0, 0.85, t)) * np.where(t > 0.95, 0.45, 1.0) * size
    width = torso.point(np.array(1.0), v)[..., 0] / np.sin(1.0)
    theta = np.arcsin(np.clip(side * half / width, -0.9, 0.9))
    uv = np.stack(np.broadcast_arrays(0.55 + 0.2 * (side + 1), t), -1)
    blade = torso.sheet(
        "ribbon", theta, v + 0 * side, 0.035 + 0.012 * (1 - np.abs(side)) + 0.055 * smoothstep(0.28, 0.0, t), uv
    )
    knot = ellipsoid("ribbon", (0, 0, 0), (0.068 * size, 0.062, 0.045), 7, 10)
    knot.uv = 0.55 + 0.3 * knot.uv
    return [blade, place(knot, np.eye(3), _throat(torso))]


def build_clothes(traits: Traits, torso: Torso) -> list[Part]:
    """Return collars, ties, bows, sleeves and arms of the character's clothes (the torso itself is `build_torso`)."""
    kind = traits.clothes.kind
    b = traits.body
    parts: list[Part] = []
    if kind in ("sailor", "idol"):
        parts.append(
            _lapels(
                torso,
                kind,
                [0.05, 0.35, 0.8, 1.3, 1.57, 1.9, 2.3, 3.14],
                [0.56, 0.56, 0.46, 0.35, 0.33, 0.37, 0.58, 0.60],
                0.045,
            )
        )
        parts.append(_on_chest(torso, bow(0.52 * b if kind == "sailor" else 0.62 * b, tails=0.9), 0.50, 0.07))
        if kind == "idol":
            for theta in (-0.35, 0.35):
                parts.append(_on_chest(torso, star(0.10), 0.62, 0.03, theta))
    elif kind in ("shirt_tie", "blazer"):
        if kind == "blazer":
            lapel = _lapels(torso, "idol", [0.05, 0.3, 0.6, 1.0, 1.6, 3.14], [0.62, 0.52, 0.36, 0.22, 0.17, 0.15], 0.04)
            lapel.material = "sleeve"
            lapel.uv[:, 0] = 0.5
            parts.append(lapel)
        parts.append(_band(torso, [1.06, 1.16, 1.42, 1.62], [0.10, 0.13, 0.02, -0.07], 0.10, 0.16))
        if variant(traits, "bow for tie", 3) == 0 and traits.build in ("girl", "woman", "chibi"):
            parts.append(
                place(
                    bow(0.42 * b, tails=0.6),
                    basis(np.array([0.0, 0.15, -1.0]), np.array([0.0, 1.0, 0.0])),
                    _throat(torso),
                )
            )
        else:
            parts += _tie(torso, 1.0)
    elif kind == "hoodie":
        theta = np.linspace(0.42, 2 * np.pi - 0.42, 31)
        back = 0.5 - 0.5 * np.cos(theta)
        path = torso.point(theta, np.full(31, 0.13), 0.03 + 0.10 * back)
        path[:, 1] += 0.02 + 0.05 * back
        hood = tube("collar", path, 0.075 + 0.10 * back, 12, (0.0, 1.0, 0.0))
        hood.uv = np.stack([hood.uv[:, 0], 0.2 + 0.5 * hood.uv[:, 1]], -1)
        parts.append(hood)
        for sign in (-1.0, 1.0):
            v = np.linspace(0.16, 0.50, 10)
            cord = tube("ribbon", torso.point(sign * np.linspace(0.30, 0.20, 10), v, 0.055), np.full(10, 0.014), 6)
            cord.uv = 0.1 + 0.2 * cord.uv
            end = ellipsoid(
                "metal", tuple(torso.point(np.array(sign * 0.20), np.array(0.51), 0.055)), (0.02, 0.035, 0.02), 5, 7
            )
            parts += [cord, end]
    elif kind == "dress":
        theta = np.linspace(-np.pi, np.pi, 97)
        v = neckline(kind, theta)
        path = torso.point(theta, v, 0.02)
        outward = unit(torso.point(theta, v + 0.05, 0.10) - path)
        ruffle = frill(path, outward, 0.15 * b, 17, 0.03)
        parts.append(ruffle)
        parts.append(_on_chest(torso, bow(0.34 * b, tails=0.6), 0.50, 0.08))
    elif kind == "kimono":
        for lift, width, material in ((0.025, 0.075, "ribbon"), (0.050, 0.13, "collar")):
            theta = np.linspace(-0.16, 2 * np.pi + 0.16, 73)
            turn = np.abs((np.clip(theta, 0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)
            past = np.maximum(-theta, 0) + np.maximum(theta - 2 * np.pi, 0)
            inner = neckline(kind, np.clip(theta, 0, 2 * np.pi)) - 0.03 + (0.045 if lift > 0.03 else 0) + 1.3 * past
            over = np.where(theta > np.pi, 0.008, 0.0)  # the left side lies over the right one
            share = np.linspace(0, 1, 4)[:, None]
            v = inner[None] + share * width
            uv = np.stack(np.broadcast_arrays(0.1 + 0.3 * theta / (2 * np.pi), share), -1)
            sheet = torso.sheet(
                material, np.broadcast_to(theta, v.shape), v, np.broadcast_to(lift + over + 0 * turn, v.shape), uv
            )
            parts.append(sheet)
    elif kind == "armour":
        theta = np.linspace(-1.45, 1.45, 25)[None]
        v = np.linspace(0.24, 0.80, 12)[:, None]
        top = v + 0.10 * smoothstep(0.9, 1.45, np.abs(theta)) * (1 - (v - 0.24) / 0.56)
        ridge = 0.035 + 0.03 * np.exp(-((theta / 0.12) ** 2)) + 0 * v
        parts.append(torso.sheet("metal", theta + 0 * v, top, ridge))
        parts.append(_band(torso, [1.30, 1.22, 1.25, 1.62], [0.13, 0.11, 0.0, -0.09], 0.0, 0.0, "metal"))
        shoulder = ellipsoid("metal", _at(torso.shoulder, 0.06, 0.06, 0.0), (0.27 * b, 0.22 * b, 0.27 * b), 9, 16)
        plate = ellipsoid("metal", _at(torso.shoulder, 0.16, -0.10, 0.0), (0.25 * b, 0.20 * b, 0.25 * b), 9, 16)
        for piece in (shoulder, plate):
            parts += [piece, mirrored(piece)]
        parts.append(_on_chest(torso, ellipsoid("ribbon", (0, 0, 0), (0.07, 0.09, 0.04), 7, 10), 0.42, 0.07))
    elif kind == "sweater":
        parts.append(_band(torso, [1.10, 1.22, 1.26, 1.26, 1.34], [0.17, 0.20, 0.14, 0.02, -0.10]))
    elif kind == "tee":
        theta = np.linspace(-np.pi, np.pi, 61)
        path = torso.point(theta, neckline(kind, theta), 0.008)
        rim = tube("collar", path, np.full(61, 0.026), 8, (0.0, 1.0, 0.0))
        rim.uv = 0.5 + 0.2 * rim.uv
        parts.append(rim)
    for part in parts:
        part.weights = torso_weights(part.position, torso)
    sleeve = SLEEVES[kind]
    if kind == "sailor" and variant(traits, "sailor sleeves", 2):
        sleeve = "long"
    for piece in build_arm(traits, torso, sleeve):
        parts += [piece, mirrored(piece)]
    return parts
