"""Neck, torso and arms: plain forms that the clothes are painted on and laid over. Design units."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.curves import Spline, smoothstep, unit
from mmdgen.samples.mesh import Part, grid_part, oriented, tube
from mmdgen.samples.traits import Traits

NECK_Y, HEAD_PIVOT_Y = -1.06, -0.78  # the joints 首 and 頭
NECK_Z = 0.13


class Torso:
    """The upper body from the neck's base (v = 0) to the hips (v = 1) as a surface around a vertical axis."""

    def __init__(self, traits: Traits) -> None:
        b, w = traits.body, traits.shoulder
        grown = traits.build == "woman"
        slim = 0.93 if traits.build in ("girl", "woman", "chibi") else 1.0
        bust = {"woman": 0.10, "girl": 0.05}.get(traits.build, 0.02) * b
        # below the neck's base: y, half width, front depth, back depth
        rows = np.array(
            [
                [0.00, 0.245 * slim, 0.245, 0.235],
                [0.07, 0.330 * slim, 0.275, 0.265],
                [0.15, 0.480 * w, 0.285, 0.290],
                [0.25, 0.690 * w, 0.290, 0.305],
                [0.40, 0.780 * w, 0.315, 0.325],
                [0.60, 0.720 * w, 0.360 + 0.6 * bust, 0.340],
                [0.90, 0.660 * w, 0.385 + bust, 0.330],
                [1.35, 0.590 * b * slim, 0.340, 0.300],
                [1.75, 0.540 * b * slim, 0.330, 0.290],
                [2.20, 0.660 * b, 0.370, 0.340],
            ]
        )
        if grown:
            rows[6, 2] += 0.03
        rows[:, 0] *= b
        rows[:, 2:] *= 0.6 + 0.4 * b
        self.neck_radius = 0.235 * (0.55 + 0.45 * b) * (1.10 if traits.build == "man" else 0.98 if slim < 1 else 1.04)
        rows[0, 1:] = self.neck_radius
        rows[1, 1:] = np.maximum(rows[1, 1:], self.neck_radius * 1.18)
        self.base_y = -1.09 - 0.12 * (b - 1)
        knot = np.linspace(0, 1, len(rows))
        self._spline = Spline(knot, rows)
        self.height = float(rows[-1, 0])
        self.shoulder = np.array([0.72 * w, self.base_y - 0.37 * b, NECK_Z])

    def point(self, theta: np.ndarray, v: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Return points f64 [..., 3]; theta is 0 in front and grows to the character's left."""
        theta, v = np.broadcast_arrays(np.asarray(theta, float), np.asarray(v, float))
        down, width, front, back = np.moveaxis(self._spline(v), -1, 0)
        sine, cosine = np.sin(theta), np.cos(theta)
        depth = np.where(cosine > 0, front, back)
        box = 0.22 * smoothstep(0.15, 0.4, v)
        x = (width + lift) * sine * (1 + box * cosine**2)
        z = NECK_Z - (depth + lift) * cosine * (1 + box * sine**2)
        y = (
            self.base_y
            - down
            - 0.07 * cosine * smoothstep(0.02, 0.2, v) * smoothstep(0.75, 0.4, v)
            + 0.6 * np.asarray(lift) * smoothstep(0.4, 0.15, v)
        )
        return np.stack(np.broadcast_arrays(x, y, z), -1)

    def sheet(
        self, material: str, theta: np.ndarray, v: np.ndarray, lift: float | np.ndarray, uv: np.ndarray | None = None
    ) -> Part:
        """Lay a grid of (theta, v) f64 [R, C] over the torso, its outer side seen."""
        part = grid_part(material, self.point(theta, v, lift), uv)
        return oriented(part, (part.position - np.array([0.0, 0.0, NECK_Z])) * np.array([1, 0.3, 1]))


def build_neck(traits: Traits, torso: Torso) -> Part:
    """Return the neck, from inside the head to below the collar, its weights passing from 首 to 上半身2 and 頭."""
    rows, columns = 15, 25
    theta = np.linspace(-np.pi, np.pi, columns)[None]
    t = np.linspace(0, 1, rows)[:, None]
    top, low = -0.58, torso.base_y - 0.14
    y = top + (low - top) * t + 0 * theta
    r = torso.neck_radius
    radius = r * (0.97 - 0.05 * np.sin(np.pi * np.clip(t * 1.3, 0, 1)) + 0.40 * smoothstep(0.72, 1.0, t) ** 1.5)
    shift = 0.05 * (1 - t)  # the neck leans forward a little
    point = np.stack(np.broadcast_arrays(radius * np.sin(theta), y, NECK_Z - shift - radius * np.cos(theta)), -1)
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi) + 0.5, t), -1)
    part = grid_part("neck", point, uv, wrap=True)
    oriented(part, part.position * np.array([1, 0, 1]))
    height = part.position[:, 1]
    head = smoothstep(HEAD_PIVOT_Y - 0.12, HEAD_PIVOT_Y + 0.10, height)
    body = smoothstep(NECK_Y + 0.02, NECK_Y - 0.14, height)
    part.weights = {"頭": head, "上半身2": body, "首": 1 - head - body}
    part.edge[:] = 0.6
    return part


def build_torso(traits: Traits, torso: Torso) -> Part:
    """Return the torso's surface; the texture is the garment."""
    theta = np.linspace(-np.pi, np.pi, 49)[None]
    v = np.linspace(0.0, 1, 30)[:, None]
    uv = np.stack(np.broadcast_arrays(theta / (2 * np.pi) + 0.5, v), -1)
    part = torso.sheet("cloth", theta + 0 * v, v + 0 * theta, 0.0, uv)
    part.weights = torso_weights(part.position, torso)
    return part


def torso_weights(point: np.ndarray, torso: Torso) -> dict[str, np.ndarray]:
    """Return the weights of what lies on the torso: shoulders, 上半身2, 上半身."""
    low = smoothstep(torso.base_y - 0.45 * torso.height, torso.base_y - 0.75 * torso.height, point[:, 1])
    side = {}
    for name, sign in (("左肩", 1.0), ("右肩", -1.0)):
        side[name] = 0.7 * smoothstep(0.35, 0.75, sign * point[:, 0] / max(torso.shoulder[0], 1e-6)) * (1 - low)
        side[name] *= smoothstep(torso.base_y - 0.32 * torso.height, torso.base_y - 0.18 * torso.height, point[:, 1])
    rest = 1 - side["左肩"] - side["右肩"]
    return {**side, "上半身2": rest * (1 - low), "上半身": rest * low}


def arm_path(traits: Traits, torso: Torso) -> np.ndarray:
    """Return the left arm's joints f64 [4, 3]: shoulder, elbow, wrist, finger tips."""
    start = torso.shoulder + np.array([-0.02, -0.03, 0.0])
    b = traits.body
    direction = unit(np.array([0.58, -0.82, 0.0]))
    elbow = start + direction * 0.88 * b
    wrist = elbow + unit(np.array([0.55, -0.83, -0.06])) * 0.78 * b
    return np.stack([start, elbow, wrist, wrist + unit(np.array([0.5, -0.86, -0.06])) * 0.34 * b])


def build_arm(traits: Traits, torso: Torso, sleeve: str) -> list[Part]:
    """Return the left arm: a sleeve ("long", "short", "puff", "wide" or "none") over a plain arm with a mitten hand."""
    joints = arm_path(traits, torso)
    knot = np.array([0.0, 1.0, 2.0, 2.45])
    path = Spline(knot, joints)
    b = traits.body * (0.95 if traits.build in ("girl", "woman", "chibi") else 1.06)
    t = np.linspace(0, 2.45, 26)
    radius = b * np.interp(
        t,
        [0, 0.15, 0.9, 1.1, 1.9, 2.02, 2.15, 2.32, 2.45],
        [0.165, 0.165, 0.125, 0.12, 0.085, 0.085, 0.115, 0.10, 0.02],
    )
    arm = tube("body_skin", path(t), radius, 10)
    arm.uv = np.full_like(arm.uv, 0.5)
    _arm_weights(arm, t, 10)
    parts = [arm]
    if sleeve != "none":
        end = {"long": 1.95, "short": 0.55, "puff": 0.62, "wide": 2.0}[sleeve]
        s = np.concatenate([[-0.14], np.linspace(-0.03, end, 14)])
        loose = np.interp(
            s,
            [0, 0.3, end],
            {
                "long": [0.02, 0.03, 0.045],
                "short": [0.02, 0.035, 0.06],
                "puff": [0.05, 0.15, 0.02],
                "wide": [0.03, 0.08, 0.30],
            }[sleeve],
        )
        shape = b * (np.interp(s, [0, 0.15, 0.9, 1.1, 1.9, 2.0], [0.17, 0.165, 0.125, 0.12, 0.085, 0.085]) + loose)
        shape[:2] *= 0.62, 0.93
        way = path(np.clip(s, 0, 2.45))
        way[s < 0] = joints[0] + (joints[1] - joints[0]) * s[s < 0][:, None]  # the first rings lie inside the shoulder
        cloth = tube("sleeve", way, shape, 12)
        cloth.uv = np.stack([cloth.uv[:, 0], 0.05 + 0.9 * cloth.uv[:, 1]], -1)
        _arm_weights(cloth, np.clip(s, 0, None), 12)
        parts.append(cloth)
    return parts


def _arm_weights(part: Part, t: np.ndarray, sides: int) -> None:
    along = np.repeat(t, sides + 1)
    elbow = smoothstep(0.85, 1.15, along)
    wrist = smoothstep(1.9, 2.1, along)
    root = smoothstep(0.12, -0.04, along) * 0.5
    part.weights = {"左肩": root, "左腕": (1 - elbow) - root * (1 - elbow), "左ひじ": elbow - wrist, "左手首": wrist}
    part.weights["左腕"] = 1 - root - part.weights["左ひじ"] - wrist
