"""Mesh parts and the primitives that every feature is built from.

Everything is built in *design units*: the chin's tip is at y = -1, the top of the flat hair at y = +1, x = 0 is the
face's middle, the face looks along -z and the character's left is +x. `character` scales the result to MMD units. A
grid [R, C, 3] of points has its outer side where the cross product of the row step and the column step points, which in
MMD's left-handed frame gives clockwise front faces.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen.samples.curves import unit

HEAD_BONE = "頭"


@dataclass(eq=False)
class Part:
    """A piece of one material. n vertices, m faces.

    `position`, `normal` f64 [n, 3]; `uv` f64 [n, 2]; `face` i64 [m, 3]; `weights` maps bone names to f64 [n] that sum
    to 1 over the bones; `edge` f64 [n] scales the outline; `moves` maps the name of a basic movement (``blink_left``,
    ``mouth_a``, ...) to displacements f64 [n, 3] at full strength.
    """

    material: str
    position: np.ndarray
    normal: np.ndarray
    uv: np.ndarray
    face: np.ndarray
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    edge: np.ndarray = field(default_factory=lambda: np.empty(0))
    moves: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.position)
        if not self.weights:
            self.weights = {HEAD_BONE: np.ones(count)}
        if not len(self.edge):
            self.edge = np.ones(count)

    def bound_to(self, bone: str) -> Part:
        """Bind every vertex to one bone; return the part itself."""
        self.weights = {bone: np.ones(len(self.position))}
        return self


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Return the faces of a [rows, columns] grid of vertices, i64 [2 (rows-1) (columns-1), 3]."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    return np.stack([a, b, c, c, b, d], -1).reshape(-1, 3)


def grid_normals(point: np.ndarray, wrap: bool = False) -> np.ndarray:
    """Return unit normals of grids f64 [..., R, C, 3]. `wrap`: the last column repeats the first one."""
    by_row = np.gradient(point, axis=-3)
    by_column = np.gradient(point, axis=-2)
    if wrap:
        seam = 0.5 * (point[..., :, 1, :] - point[..., :, -2, :])
        by_column[..., :, 0, :] = by_column[..., :, -1, :] = seam
    return unit(np.cross(by_row, by_column))


def grid_uv(rows: int, columns: int) -> np.ndarray:
    """Return texture coordinates f64 [R, C, 2]: u runs along the columns, v along the rows."""
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    return np.stack([u, v], -1)


def grid_part(
    material: str, point: np.ndarray, uv: np.ndarray | None = None, wrap: bool = False, flip: bool = False
) -> Part:
    """Make a part of one grid f64 [R, C, 3] or of several of one shape [L, R, C, 3]."""
    if flip:
        point = point[..., ::-1, :]
        uv = uv if uv is None else uv[..., ::-1, :]
    rows, columns = point.shape[-3:-1]
    if uv is None:
        uv = np.broadcast_to(grid_uv(rows, columns), (*point.shape[:-1], 2))
    normal = grid_normals(point, wrap)
    count = int(np.prod(point.shape[:-3], dtype=int))
    face = grid_faces(rows, columns)
    face = (face[None] + (np.arange(count) * rows * columns)[:, None, None]).reshape(-1, 3)
    return Part(material, point.reshape(-1, 3), normal.reshape(-1, 3), np.array(uv, float).reshape(-1, 2), face)


def merge(parts: list[Part], material: str | None = None) -> Part:
    """Join parts into one of the first part's material (or of `material`)."""
    if not parts:
        raise ValueError("there is nothing to merge")
    starts = np.cumsum([0] + [len(part.position) for part in parts])
    total = int(starts[-1])
    joined = Part(
        material or parts[0].material,
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.normal for part in parts]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate([part.face + start for part, start in zip(parts, starts[:-1], strict=True)]),
        {},
        np.concatenate([part.edge for part in parts]),
    )
    joined.weights = {}
    for part, start in zip(parts, starts[:-1], strict=True):
        stop = start + len(part.position)
        for bone, weight in part.weights.items():
            joined.weights.setdefault(bone, np.zeros(total))[start:stop] = weight
        for name, move in part.moves.items():
            joined.moves.setdefault(name, np.zeros((total, 3)))[start:stop] = move
    return joined


def mirrored(part: Part) -> Part:
    """Return the part's mirror image at x = 0: names with ``left`` and ``左`` change to the other side."""

    def swap(name: str) -> str:
        for one, other in (("left", "right"), ("左", "右")):
            if one in name:
                return name.replace(one, other)
            if other in name:
                return name.replace(other, one)
        return name

    flip = np.array([-1.0, 1.0, 1.0])
    return Part(
        part.material,
        part.position * flip,
        part.normal * flip,
        part.uv.copy(),
        part.face[:, ::-1].copy(),
        {swap(bone): weight.copy() for bone, weight in part.weights.items()},
        part.edge.copy(),
        {swap(name): move * flip for name, move in part.moves.items()},
    )


def drop_thin_faces(part: Part, area: float = 1e-6) -> Part:
    """Return the part without faces that have no area (collapsed poles and tips)."""
    a, b, c = (part.position[part.face[:, k]] for k in range(3))
    keep = np.linalg.norm(np.cross(b - a, c - a), axis=1) > area
    part.face = part.face[keep]
    return part


def drop_unused(part: Part) -> Part:
    """Return the part without vertices that no face uses."""
    used, face = np.unique(part.face, return_inverse=True)
    return Part(
        part.material,
        part.position[used],
        part.normal[used],
        part.uv[used],
        face.reshape(-1, 3),
        {bone: weight[used] for bone, weight in part.weights.items()},
        part.edge[used],
        {name: move[used] for name, move in part.moves.items()},
    )


def wound(part: Part) -> Part:
    """Turn all faces of a part over where they disagree with its normals; return the part itself."""
    a, b, c = (part.position[part.face[:, k]] for k in range(3))
    if np.einsum("ij,ij->", np.cross(b - a, c - a), part.normal[part.face].sum(1)) < 0:
        part.face = part.face[:, ::-1].copy()
    return part


def oriented(part: Part, outside: np.ndarray) -> Part:
    """Turn a part inside out where its normals point away from `outside` f64 [n, 3] or [3]; return the part itself."""
    if (part.normal * outside).sum() < 0:
        part.normal = -part.normal
    return wound(part)


def ellipsoid(
    material: str,
    center: tuple[float, float, float],
    radii: tuple[float, float, float],
    rows: int = 9,
    columns: int = 16,
    turn: np.ndarray | None = None,
) -> Part:
    """Make an ellipsoid; `turn` [3, 3] rotates it about its centre."""
    polar = np.linspace(1e-3, np.pi - 1e-3, rows)[:, None]
    azimuth = np.linspace(0, 2 * np.pi, columns)[None, :]
    sphere = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.cos(polar) * np.ones_like(azimuth), np.sin(polar) * np.sin(azimuth)], -1
    )
    point = sphere * np.array(radii)
    normal = unit(sphere / np.array(radii))
    if turn is not None:
        point, normal = point @ turn.T, normal @ turn.T
    part = grid_part(material, point + np.array(center), wrap=True)
    part.normal = normal.reshape(-1, 3)
    return wound(part)


def sweep(
    material: str,
    spine: np.ndarray,
    outward: np.ndarray,
    width: np.ndarray,
    thickness: np.ndarray,
    sides: int = 8,
    back: float = 0.45,
    u_range: np.ndarray | None = None,
    v: np.ndarray | None = None,
) -> Part:
    """Sweep a lens-shaped section along spines: locks of hair, ropes, ribbons.

    `spine`, `outward` f64 [L, R, 3]; `width`, `thickness` f64 [L, R] full width and height of the section. `sides`
    points around; the inner side is only `back` times as thick. `u_range` f64 [L, 2] gives u across the visible side,
    `v` f64 [L, R] along. Returns one part with L * R * (sides + 1) vertices.
    """
    count, rows = spine.shape[:2]
    tangent = unit(np.gradient(spine, axis=1))
    across = unit(np.cross(tangent, outward))
    out = unit(np.cross(across, tangent))
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    height = np.where(np.sin(angle) > 0, np.sin(angle), back * np.sin(angle))
    point = (
        spine[:, :, None]
        + across[:, :, None] * (0.5 * width[:, :, None] * np.cos(angle))[..., None]
        + out[:, :, None] * (thickness[:, :, None] * height)[..., None]
    )
    if u_range is None:
        u_range = np.tile([0.0, 1.0], (count, 1))
    if v is None:
        v = np.tile(np.linspace(0, 1, rows), (count, 1))
    share = 0.5 + 0.5 * np.cos(angle)
    u = u_range[:, :1] + (u_range[:, 1:] - u_range[:, :1]) * share[None]
    uv = np.stack(np.broadcast_arrays(u[:, None, :], v[:, :, None]), -1)
    part = grid_part(material, point, uv, wrap=True)
    return wound(part)


def tube(
    material: str, spine: np.ndarray, radius: np.ndarray, sides: int = 10, up: tuple[float, float, float] = (0, 0, -1)
) -> Part:
    """Make a round tube along one spine f64 [R, 3] with `radius` f64 [R]; the ends stay open."""
    outward = np.broadcast_to(np.array(up, float), spine.shape)[None]
    return sweep(material, spine[None], outward, 2 * radius[None], radius[None], sides, back=1.0)
