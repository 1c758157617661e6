"""The face as a smooth surface: where the skin is, for every feature on it, in front of it or behind it.

The surface is a stack of tilted rings, as a sculptor would lay them: each ring runs from a point of the front profile
over a point of the side to a point of the back profile. `theta` is 0 in front and grows to the character's left, `v` is
0 at the neck and 1 on the crown. Design units.
"""

from __future__ import annotations

import numpy as np

from mmdgen.samples.curves import Spline, smoothstep, unit
from mmdgen.samples.traits import FaceTraits

NOSE_Y = -0.545
CHIN_V = 0.14
RING_SAMPLES = 2048
TABLE_X, TABLE_COLUMNS = 0.62, 42
TABLE_Y, TABLE_ROWS = (-0.99, 0.55), 100


class Skull:
    """The head surface of one face. `point(theta, v)` is the skin, `at(x, y)` finds it from the front."""

    def __init__(self, face: FaceTraits) -> None:
        self.face = face
        w, j = face.width, face.jaw
        # v, front y, front z, side x, side y, side z, back y, back z, sharpness of the front's y over x
        rows = np.array(
            [
                [0.000, -0.760, -0.060, 0.235, -0.680, 0.130, -0.600, 0.330, 1.0],
                [0.060, -0.900, -0.360, 0.400 * j, -0.640, 0.060, -0.520, 0.470, 1.2],
                [0.140, -1.000, -0.630, 0.545 * w * j, -0.520, 0.020, -0.400, 0.600, face.chin],
                [0.220, -0.870, -0.705, 0.625 * w, -0.400, 0.010, -0.280, 0.680, 0.5 * face.chin + 0.5],
                [0.350, -0.580, -0.750, 0.690 * w, -0.220, 0.010, -0.100, 0.740, 1.2],
                [0.500, -0.260, -0.748, 0.722 * w, 0.000, 0.020, 0.070, 0.780, 1.0],
                [0.640, 0.080, -0.768, 0.735, 0.230, 0.020, 0.280, 0.790, 1.0],
                [0.770, 0.430, -0.735, 0.700, 0.480, 0.030, 0.520, 0.740, 1.0],
                [0.880, 0.700, -0.560, 0.545, 0.710, 0.045, 0.720, 0.560, 1.0],
                [0.950, 0.835, -0.310, 0.320, 0.835, 0.055, 0.840, 0.350, 1.0],
                [1.000, 0.880, 0.060, 0.004, 0.880, 0.060, 0.880, 0.064, 1.0],
            ]
        )
        # the spline, sampled so densely that straight lines between the samples are good to 1e-6
        self._rings = Spline(rows[:, 0], rows[:, 1:])(np.linspace(0, 1, RING_SAMPLES + 1))
        self._front_y = self._rings[np.linspace(CHIN_V * RING_SAMPLES, 0.9 * RING_SAMPLES, 64).astype(int), 0]
        x, y = np.meshgrid(np.linspace(0, TABLE_X, TABLE_COLUMNS), np.linspace(*TABLE_Y, TABLE_ROWS))
        self._table = np.stack(self._solve(x, y), -1)  # (theta, v) of every (x, y)

    def base(self, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the surface f64 [..., 3] without nose, lips and sockets."""
        theta, v = np.broadcast_arrays(np.asarray(theta, float), np.asarray(v, float))
        along = np.clip(v, 0, 1) * RING_SAMPLES
        low = np.minimum(along.astype(int), RING_SAMPLES - 1)
        share = (along - low)[..., None]
        ring = self._rings[low] * (1 - share) + self._rings[low + 1] * share
        front_y, front_z, side_x, side_y, side_z, back_y, back_z, sharp = np.moveaxis(ring, -1, 0)
        s, c = np.sin(theta), np.cos(theta)
        front = c > 0
        flat = np.where(front, self.face.flat * smoothstep(0.10, 0.35, v) * (1 - smoothstep(0.72, 0.95, v)), 0.08)
        x = side_x * s * (1 + flat * c * c)
        k = np.abs(c) * (1 + 0.6 * flat * s * s)
        z = np.where(front, side_z + (front_z - side_z) * k, side_z + (back_z - side_z) * k)
        k_y = np.abs(c) ** np.where(front, np.maximum(sharp, 1e-3), 1.0)
        y = np.where(front, side_y + (front_y - side_y) * k_y, side_y + (back_y - side_y) * k_y)
        return np.stack([x, y, z], -1)

    def _relief(self, p: np.ndarray) -> np.ndarray:
        """Return how far nose, lips, sockets and cheeks stand out of base points f64 [..., 3] along -z."""
        x, y = p[..., 0], p[..., 1]
        side = np.abs(x)
        below = np.where(y < NOSE_Y, 0.042, 0.105)  # the nose's slope is long above and short below
        height = 0.085 * self.face.nose * np.exp(-((x / 0.052) ** 2) - ((y - NOSE_Y) / below) ** 2)
        height += 0.020 * self.face.nose * np.exp(-((x / 0.06) ** 2) - ((y + 0.33) / 0.16) ** 2)
        height += 0.012 * np.exp(-((x / 0.11) ** 2) - ((y + 0.745) / 0.07) ** 2)
        height -= 0.014 * np.exp(-((x / 0.12) ** 2) - ((y + 0.835) / 0.045) ** 2)
        height -= 0.022 * np.exp(-(((side - 0.33) / 0.17) ** 2) - ((y - self.face.eye_line) / 0.17) ** 2)
        height += 0.018 * np.exp(-(((side - 0.40) / 0.16) ** 2) - ((y + 0.56) / 0.14) ** 2)
        return height * smoothstep(0.05, -0.35, p[..., 2])

    def point(self, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the skin f64 [..., 3]: nose, a hint of lips and eye sockets added to the base."""
        p = self.base(theta, v)
        p[..., 2] -= self._relief(p)
        return p

    def normal(self, theta: np.ndarray, v: np.ndarray, smooth: float = 0.55) -> np.ndarray:
        """Return unit normals f64 [..., 3], `smooth` of the way to those of the base (drawn faces are lit softly)."""
        low, high = np.clip(v - 2e-3, 0, 1), np.clip(v + 2e-3, 0, 1)
        around = [self.base(theta + 1e-3, v), self.base(theta - 1e-3, v), self.base(theta, high), self.base(theta, low)]
        even = unit(np.cross(around[2] - around[3], around[0] - around[1]))
        if smooth >= 1:
            return even
        for p in around:
            p[..., 2] -= self._relief(p)
        return unit((1 - smooth) * unit(np.cross(around[2] - around[3], around[0] - around[1])) + smooth * even)

    def _solve(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (theta, v) of the base surface at (x, y), by Newton's method from a rough guess."""
        theta = np.arcsin(np.clip(x / 0.85, -0.93, 0.93))
        v = np.interp(y - 0.25 * x * x, self._front_y, np.linspace(CHIN_V, 0.9, 64))
        for _ in range(6):
            p = self.base(theta, v)
            a = (self.base(theta + 1e-5, v) - p)[..., :2] * 1e5
            b = (self.base(theta, v + 1e-5) - p)[..., :2] * 1e5
            gap_x, gap_y = x - p[..., 0], y - p[..., 1]
            det = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
            det = np.where(np.abs(det) < 1e-6, 1e-6, det)
            theta = theta + np.clip((gap_x * b[..., 1] - gap_y * b[..., 0]) / det, -0.2, 0.2)
            v = np.clip(v + np.clip((gap_y * a[..., 0] - gap_x * a[..., 1]) / det, -0.1, 0.1), 0.08, 0.95)
            theta = np.clip(theta, -1.45, 1.45)
        return theta, v

    def locate(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (theta, v) of the front skin seen at (x, y), interpolated in a table: good to about 1e-4.

        For |x| < 0.62 between chin and forehead; other points give the nearest of these.
        """
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        across = np.clip(np.abs(x) / TABLE_X, 0, 1) * (TABLE_COLUMNS - 1)
        up = np.clip((y - TABLE_Y[0]) / (TABLE_Y[1] - TABLE_Y[0]), 0, 1) * (TABLE_ROWS - 1)
        i = np.minimum(across.astype(int), TABLE_COLUMNS - 2)
        j = np.minimum(up.astype(int), TABLE_ROWS - 2)
        a, b = (across - i)[..., None], (up - j)[..., None]
        t = self._table
        found = (t[j, i] * (1 - a) + t[j, i + 1] * a) * (1 - b) + (t[j + 1, i] * (1 - a) + t[j + 1, i + 1] * a) * b
        return np.sign(x) * found[..., 0], found[..., 1]

    def at(self, x: np.ndarray, y: np.ndarray, ahead: float | np.ndarray = 0.0) -> np.ndarray:
        """Return points f64 [..., 3] on the front skin at (x, y), moved `ahead` of it along -z (negative: behind)."""
        theta, v = self.locate(x, y)
        p = self.point(theta, v)
        p[..., 2] -= ahead
        return p
