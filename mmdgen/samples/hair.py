"""Hair: the form that it lies on, the cap over the skull, and locks swept along it.

`theta` turns around the head as on the skull (0 in front, + to the character's left). `s` runs from the crown: 0 is the
whorl, 1 the widest line, and past 1 it hangs straight down, s - 1 design units below that line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.samples.curves import lerp, smoothstep, unit
from mmdgen.samples.mesh import Part, grid_part, oriented, sweep

TILES = 8  # strands side by side in the hair texture
HEAD_SHARE = 0.55  # share of the texture's height for the hair on the head, s = 0 to HEAD_S
HEAD_S = 1.35


@dataclass(frozen=True, slots=True)
class HairForm:
    """The surface that flat hair makes around the head: half width, depths, and how boxy it is."""

    width: float = 0.815
    front: float = 0.850
    back: float = 0.920
    middle_y: float = 0.13
    top_y: float = 1.0
    flat: float = 0.16

    def point(
        self, theta: np.ndarray, s: np.ndarray, lift: np.ndarray | float = 0.0, spread: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """Return points f64 [..., 3], `lift` outside the form; `spread` widens what hangs."""
        base, normal = self._frame(theta, s, spread)
        return base + normal * np.asarray(lift, float)[..., None]

    def normal(self, theta: np.ndarray, s: np.ndarray) -> np.ndarray:
        return self._frame(theta, s, 1.0)[1]

    def _frame(self, theta: np.ndarray, s: np.ndarray, spread: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        theta, s, spread = np.broadcast_arrays(
            np.asarray(theta, float), np.asarray(s, float), np.asarray(spread, float)
        )
        polar = np.clip(s, 0, 1) * np.pi / 2
        radius, height = np.sin(polar), np.cos(polar)
        sine, cosine = np.sin(theta), np.cos(theta)
        depth = np.where(cosine > 0, self.front, self.back)
        box = self.flat * radius
        x = self.width * radius * sine * (1 + box * cosine**2) * spread
        z = -depth * radius * cosine * (1 + 0.6 * box * sine**2) * spread
        y = self.middle_y + (self.top_y - self.middle_y) * height - np.maximum(s - 1, 0)
        normal = unit(np.stack([x / self.width**2, height / (self.top_y - self.middle_y), z / depth**2], -1))
        return np.stack([x, y, z + 0.04 * (1 - radius)], -1), normal

    def s_at(self, y: float | np.ndarray) -> np.ndarray:
        """Return s of the height y on the form."""
        y = np.asarray(y, float)
        height = np.clip((y - self.middle_y) / (self.top_y - self.middle_y), 0, 1)
        return np.where(y > self.middle_y, np.arccos(height) * 2 / np.pi, 1 + self.middle_y - y)


def texture_v(s: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the hair texture's v: the head's part by s, so that the gloss lies at one height, the rest by length."""
    s, end = np.broadcast_arrays(s, np.maximum(end, HEAD_S + 1e-6))
    hanging = HEAD_SHARE + (0.99 - HEAD_SHARE) * (s - HEAD_S) / (end - HEAD_S)
    return np.where(s < HEAD_S, HEAD_SHARE * s / HEAD_S, hanging)


def tile_range(tile: np.ndarray) -> np.ndarray:
    """Return the u range f64 [L, 2] of strands of the texture, by number."""
    low = (np.asarray(tile, int) % TILES) / TILES
    return np.stack([low + 0.004, low + 1 / TILES - 0.004], -1)


def build_cap(form: HairForm, nape_y: float = -0.62, hairline: float = 0.0, tiles: int = 24) -> Part:
    """Return the hair that lies flat on the skull, from the whorl to the hairline; its top is the head's top."""
    columns, rows = 73, 16
    theta = np.linspace(-np.pi, np.pi, columns)
    turn = np.abs(theta)
    end = lerp(0.66 - hairline, 0.98, smoothstep(0.75, 1.20, turn))
    end = lerp(end, 1 + form.middle_y + 0.02, smoothstep(1.20, 1.75, turn))
    end = lerp(end, 1 + form.middle_y - nape_y, smoothstep(1.65, 2.3, turn))
    share = np.linspace(0.0, 1, rows)[:, None]
    s = lerp(0.012, end[None], share)
    spread = 1 - 0.42 * smoothstep(1.0, 1.9, s) ** 1.2
    lift = np.zeros_like(s)
    point = form.point(theta[None], s, lift, spread)
    inner = form.point(theta, end + 0.02, -0.16, spread[-1])
    point = np.concatenate([point, inner[None]])
    u = np.broadcast_to((theta / (2 * np.pi) + 0.5) * tiles / TILES, (rows + 1, columns))
    v = np.concatenate([texture_v(s, np.full_like(s, 3.0)), texture_v(end, np.full(columns, 3.0))[None]])
    part = grid_part("hair_cap", point, np.stack([u, v], -1), wrap=True)
    oriented(part, part.position)
    part.normal[:columns] = (0, 1, 0)
    return part


@dataclass(slots=True)
class Locks:
    """A group of L locks over the form, all arrays f64 [L] or broadcast to it; see `build`."""

    theta_root: np.ndarray
    theta_tip: np.ndarray
    s_root: np.ndarray | float
    s_tip: np.ndarray | float
    width: np.ndarray | float
    lift: np.ndarray | float = 0.03
    thickness: np.ndarray | float = 0.045
    bulge: np.ndarray | float = 0.0  # how far the middle stands off
    flick: np.ndarray | float = 0.0  # how far the tip stands off (+) or tucks in (-)
    spread: np.ndarray | float = 0.0  # widening per design unit of hanging
    blunt: np.ndarray | float = 0.0  # 0 pointed, 1 cut straight
    sway: np.ndarray | float = 0.0  # sideways bend of the tip, radians of theta
    wave: np.ndarray | float = 0.0  # amplitude of waves
    waves: np.ndarray | float = 2.0  # number of waves
    phase: np.ndarray | float = 0.0
    fullness: float = 0.35  # where the lock is widest
    gravity: float = 1.0  # exponent of the way from root theta to tip theta

    def build(self, material: str, form: HairForm, tile: np.ndarray, rings: int = 13, sides: int = 8) -> Part:
        """Sweep the locks. `tile` i64 [L] chooses their strands of the texture."""
        count = len(np.atleast_1d(self.theta_root))

        def column(value: np.ndarray | float) -> np.ndarray:
            return np.broadcast_to(np.asarray(value, float), (count,))[:, None]

        t = np.linspace(0, 1, rings)[None]
        theta = lerp(column(self.theta_root), column(self.theta_tip), t**self.gravity) + column(self.sway) * t**2.5
        s = lerp(column(self.s_root), column(self.s_tip), t)
        wave = (
            column(self.wave)
            * np.sin(2 * np.pi * (column(self.waves) * t + column(self.phase)))
            * smoothstep(0.15, 0.5, t)
        )
        rooted = smoothstep(0, 0.22, t)
        lift = (
            lerp(-0.05, column(self.lift), rooted)
            + column(self.bulge) * np.sin(np.pi * t)
            + column(self.flick) * smoothstep(0.55, 1.0, t) ** 1.5
            + 0.5 * wave
        )
        spread = 1 + column(self.spread) * np.maximum(s - 1, 0)
        theta = theta + wave / np.maximum(0.8 * np.sin(np.clip(s, 0.15, 1) * np.pi / 2), 0.2)
        spine = form.point(theta, s, lift, spread)
        outward = form.normal(theta, s)
        full = self.fullness
        body = np.where(t < full, 0.45 + 0.55 * smoothstep(0, full, t), 1 - smoothstep(full, 1.0, t) ** 1.6)
        tail = np.maximum(1 - t, 0) ** 0.75
        taper = np.where(t < full, body, 0.5 * tail + 0.5 * body)
        cut = np.where(t < full, body, 1.0 - 0.10 * t)
        shape = lerp(taper, cut, column(self.blunt))
        width = np.maximum(column(self.width) * shape, 0.004)
        thickness = np.maximum(column(self.thickness) * lerp(shape**0.5, 1.0, 0.2), 0.004)
        thickness = np.where(t >= 0.999, thickness * 0.25, thickness)
        v = texture_v(s, np.broadcast_to(column(self.s_tip), s.shape))
        return sweep(material, spine, outward, width, thickness, sides, 0.4, tile_range(tile), v)


def curtain(
    form: HairForm,
    theta: tuple[float, float],
    s: tuple[float, float],
    lift: float,
    spread: float,
    tuck: float = 0.0,
    teeth: float = 0.16,
) -> Part:
    """Return a sheet behind the locks of the back hair (seen from inside), so that nothing shines through."""
    grid_theta = np.linspace(*theta, 33)[None]
    tooth = np.abs(np.linspace(0, 8, 33) % 1 - 0.5) * 2  # a ragged lower edge
    end = s[1] - teeth * tooth - 0.6 * teeth * np.abs(np.linspace(-1, 1, 33))
    grid_s = s[0] + (end - s[0])[None] * np.linspace(0, 1, 14)[:, None]
    hang = np.maximum(grid_s - 1, 0)
    offset = lift - tuck * smoothstep(s[1] - 0.5, s[1], grid_s) ** 1.5
    point = form.point(grid_theta, grid_s + 0 * grid_theta, offset, 1 + spread * hang)
    u = np.broadcast_to((grid_theta - theta[0]) * 1.4, point.shape[:2])
    v = np.broadcast_to(texture_v(grid_s, np.full_like(grid_s, s[1])), point.shape[:2])
    inside = grid_part("hair_back", point, np.stack([u, v], -1))
    oriented(inside, (np.array([0.0, 0.0, 0.1]) - inside.position) * np.array([1, 0, 1]))
    inside.edge[:] = 0
    return inside
