"""The skin of the head: a grid of the skull's surface with holes for eyes and mouth, closed by rings of lid and lip.

Each hole is a rectangle of grid cells. Between its border and the drawn outline lie a few loops of vertices on the
skin; a lid closes by sliding these loops over the surface, so a shut eye is as smooth as if there had been no hole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmdgen.samples.curves import bump, lerp, smoothstep, unit
from mmdgen.samples.eyeshape import EyeShape
from mmdgen.samples.mesh import Part, drop_thin_faces, grid_faces, grid_part, merge, mirrored, oriented, wound
from mmdgen.samples.mouthshape import MOUTH_MOVES, MouthShape
from mmdgen.samples.skull import Skull
from mmdgen.samples.traits import Traits

ROWS, COLUMNS = 46, 73  # rows of rings; columns with the seam repeated at the back
COVERING = (
    "long_straight",
    "wavy_long",
    "hime",
    "short_bob",
    "medium_layered",
    "curly_short",
    "two_side_up",
)  # hair over the ears
COVERED = 0.3  # how far ears below such hair stand off
LOOPS = 6  # loops of a lid or lip patch, the hole's border and the edge included

Curve = Callable[[np.ndarray], np.ndarray]


def skin_uv(point: np.ndarray) -> np.ndarray:
    """Return the face texture's coordinates f64 [..., 2]: a flat projection from the front."""
    return np.stack([0.5 + point[..., 0] / 2.0, (1.0 - point[..., 1]) / 2.2], -1)


@dataclass(frozen=True, slots=True)
class Hole:
    """Grid lines (inclusive) of a rectangle: rows `low`..`high` (an even number of cells), columns `first`..`last`."""

    low: int
    high: int
    first: int
    last: int

    def border(self, upper: bool) -> np.ndarray:
        """Return grid (row, column) pairs i64 [n, 2] from the middle of the first column to that of the last one."""
        middle = (self.low + self.high) // 2
        end = self.high if upper else self.low
        step = 1 if upper else -1
        up = [(row, self.first) for row in range(middle, end, step)]
        over = [(end, column) for column in range(self.first, self.last + 1)]
        down = [(row, self.last) for row in range(end - step, middle - step, -step)]
        return np.array(up + over + down)

    def mirrored(self) -> Hole:
        return Hole(self.low, self.high, COLUMNS - 1 - self.last, COLUMNS - 1 - self.first)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return theta [COLUMNS] and v [ROWS], dense in the face."""
    share = np.linspace(-1, 1, COLUMNS)
    v = np.linspace(0, 1, ROWS)
    return np.pi * (0.52 * share + 0.48 * share**3), v - 0.045 * np.sin(2 * np.pi * v)


def _hole(theta: np.ndarray, v: np.ndarray, outline: tuple[np.ndarray, np.ndarray]) -> Hole:
    """Return the smallest rectangle with an even number of rows that leaves a margin around (theta, v) points."""
    column_margin, row_margin = 0.045, 0.016
    first = int(np.searchsorted(theta, outline[0].min() - column_margin)) - 1
    last = int(np.searchsorted(theta, outline[0].max() + column_margin))
    low = int(np.searchsorted(v, outline[1].min() - row_margin)) - 1
    high = int(np.searchsorted(v, outline[1].max() + row_margin))
    return Hole(low, high + (high - low) % 2, first, last)


def _patch(
    skull: Skull,
    theta: np.ndarray,
    v: np.ndarray,
    hole: Hole,
    curves: dict[str, Curve],
    upper: bool,
    moves: dict[str, tuple[Curve, float]],
) -> Part:
    """Make the half ring of skin between a hole's border and an edge curve, with its movements.

    `moves` maps a movement to the curve where the edge goes and how far ahead of the skin it lies there.
    """
    border = hole.border(upper)
    count = len(border)
    t = np.linspace(0, 1, count)
    edge = curves["upper" if upper else "lower"](t)
    edge_theta, edge_v = skull.locate(edge[:, 0], edge[:, 1])
    share = np.linspace(0, 1, LOOPS)[:, None] ** 0.85
    loop_theta = lerp(theta[border[:, 1]], edge_theta, share)
    loop_v = lerp(v[border[:, 0]], edge_v, share)
    point = skull.point(loop_theta, loop_v)
    normal = skull.normal(loop_theta, loop_v)
    face = grid_faces(LOOPS, count)
    part = Part("face", point.reshape(-1, 3), normal.reshape(-1, 3), skin_uv(point).reshape(-1, 2), face)
    wound(part)
    flat = skull.base(loop_theta, loop_v)[..., :2]
    for name, (curve, ahead) in moves.items():
        weight = share[..., None] ** 1.1
        target = flat + weight * (curve(t) - edge)[None]
        there = skull.at(target[..., 0], target[..., 1], ahead * share * np.ones(count))
        move = there - point
        move[0] = 0
        part.moves[name] = move.reshape(-1, 3)
    return drop_thin_faces(part)


def _rim(
    skull: Skull,
    t_edge: Curve,
    center: tuple[float, float],
    depth: float,
    moves: dict[str, tuple[Curve, float]],
    upper: bool,
) -> Part:
    """Make the short wall that leads from a lid's edge back to the eyeball."""
    t = np.linspace(0, 1, 25)
    edge = t_edge(t)
    point = np.stack([skull.at(edge[:, 0], edge[:, 1]), skull.at(edge[:, 0], edge[:, 1], -depth)])
    inward = np.concatenate([np.array(center) - edge, np.full((len(t), 1), -0.12)], -1)
    normal = np.broadcast_to(unit(inward), point.shape)
    part = Part(
        "face", point.reshape(-1, 3), normal.reshape(-1, 3), skin_uv(point).reshape(-1, 2), grid_faces(2, len(t))
    )
    if not upper:
        part.face = part.face[:, ::-1].copy()
    for name, (curve, ahead) in moves.items():
        goal = curve(t)
        there = np.stack([skull.at(goal[:, 0], goal[:, 1], ahead), skull.at(goal[:, 0], goal[:, 1], -0.4 * depth)])
        part.moves[name] = (there - point).reshape(-1, 3)
    part.edge = np.zeros(len(part.position))
    return part


def build_skin(traits: Traits, skull: Skull, shape: EyeShape, mouth: MouthShape) -> Part:
    """Return the head's skin with holes, lids, lips and every movement of the skin (left and right apart)."""
    theta, v = _grid()
    outline = shape.scaled(np.linspace(0, 2, 64), np.ones(64))
    left = _hole(theta, v, skull.locate(outline[:, 0], outline[:, 1]))
    middle = COLUMNS // 2
    left = Hole(left.low, left.high, max(left.first, middle + 1), left.last)
    lips = mouth.reach()
    mouth_hole = _hole(theta, v, skull.locate(lips[:, 0], lips[:, 1]))
    mouth_hole = Hole(
        mouth_hole.low, min(mouth_hole.high, left.low), *sorted((mouth_hole.first, COLUMNS - 1 - mouth_hole.first))
    )
    if (mouth_hole.high - mouth_hole.low) % 2:
        mouth_hole = Hole(mouth_hole.low - 1, mouth_hole.high, mouth_hole.first, mouth_hole.last)

    grid_theta, grid_v = np.meshgrid(theta, v)
    point = skull.point(grid_theta, grid_v)
    normal = skull.normal(grid_theta, grid_v)
    normal[-1] = (0, 1, 0)
    keep = np.ones((ROWS - 1, COLUMNS - 1), bool)
    for hole in (left, left.mirrored(), mouth_hole):
        keep[hole.low : hole.high, hole.first : hole.last] = False
    face = grid_faces(ROWS, COLUMNS).reshape(ROWS - 1, COLUMNS - 1, 2, 3)[keep].reshape(-1, 3)
    grid = Part("face", point.reshape(-1, 3), normal.reshape(-1, 3), skin_uv(point).reshape(-1, 2), face)
    grid = drop_thin_faces(grid)
    grid.moves.update(_chin_moves(grid.position, skull))

    curves = {"upper": shape.upper, "lower": shape.lower}
    upper_moves: dict[str, tuple[Curve, float]] = {
        "blink_left": (shape.closed, 0.012),
        "smile_left": (shape.smiling, 0.012),
        "half_left": (shape.half, 0.006),
        "wide_left": (shape.wide, 0.0),
    }
    lower_moves: dict[str, tuple[Curve, float]] = {
        "blink_left": (shape.closed, 0.012),
        "smile_left": (shape.smiling, 0.012),
    }
    eye = merge(
        [
            _patch(skull, theta, v, left, curves, True, upper_moves),
            _patch(skull, theta, v, left, curves, False, lower_moves),
            _rim(skull, shape.upper, shape.center, 0.055, upper_moves, True),
            _rim(skull, shape.lower, shape.center, 0.055, lower_moves, False),
        ]
    )
    lip_parts = []
    for upper in (True, False):
        moves = {f"mouth_{name}": (mouth.edge(name, upper), 0.0) for name in MOUTH_MOVES}
        patch = _patch(skull, theta, v, mouth_hole, {"upper": mouth.rest, "lower": mouth.rest}, upper, moves)
        chin = _chin_moves(patch.position, skull)
        for name, move in chin.items():  # the chin's way down fades towards the lip, which has its own
            share = np.repeat(np.linspace(1, 0, LOOPS), len(patch.position) // LOOPS)[:, None]
            patch.moves[name] = patch.moves.get(name, np.zeros_like(move)) + move * share
        lip_parts.append(patch)
    return merge([grid, eye, mirrored(eye), *lip_parts])


def _chin_moves(point: np.ndarray, skull: Skull) -> dict[str, np.ndarray]:
    """Return how the chin follows the opening mouth."""
    moves = {}
    for name, amount in (("mouth_a", 0.045), ("mouth_o", 0.028), ("mouth_e", 0.015)):
        fall = chin_share(point)
        move = np.zeros_like(point)
        move[:, 1] = -amount * fall
        move[:, 2] = 0.35 * amount * fall
        moves[name] = move
    return moves


def chin_share(point: np.ndarray) -> np.ndarray:
    """Return how far points f64 [n, 3] of the face follow the jaw, 0 to 1."""
    return bump(point[:, 0], 0, 0.30) * smoothstep(-0.74, -0.93, point[:, 1]) * smoothstep(-0.1, -0.45, point[:, 2])


def build_ear(traits: Traits, skull: Skull) -> Part:
    """Return the left ear: a shallow shell, pointed for elves."""
    elf = traits.extras.elf
    flat = COVERED if traits.hair.style in COVERING and not elf else 1.0
    turn = np.linspace(0, 2 * np.pi, 25)
    shape_y = np.sin(turn)
    point_up = np.exp(-(((turn - 0.5 * np.pi) / (0.55 + 0.45 * elf)) ** 2))
    radius_y = 0.17 + 0.03 * np.sin(turn - 0.4)
    outline_y = radius_y * shape_y + elf * 0.24 * point_up**2
    outline_z = 0.085 * np.cos(turn) - 0.035 * shape_y + elf * 0.12 * point_up
    outline_x = 0.075 + 0.035 * shape_y + elf * 0.34 * point_up**1.5 - 0.055 * np.cos(turn)
    rings = []
    for scale, depth in ((0.55, -0.075), (1.0, -0.01), (1.06, 0.016), (0.92, 0.035), (0.60, 0.010), (0.05, -0.02)):
        center = np.array([0.70 * traits.face.width, -0.20, 0.05])
        x = (outline_x * (scale if scale < 1 else 1.0) + depth) * flat - 0.02 * (1 - flat)
        rings.append(center + np.stack([x, outline_y * scale, outline_z * scale], -1))
    point = np.stack(rings)
    part = grid_part("face", point, skin_uv(point), wrap=True)
    oriented(part, part.position - part.position.mean(0))
    part.uv[:] = skin_uv(np.array([0.66, -0.25, 0.0]))
    return drop_thin_faces(part)


def chin_y(skin: Part) -> float:
    """Return the chin's tip: the lowest point of the skin of the head, in design units."""
    return float(skin.position[:, 1].min())
