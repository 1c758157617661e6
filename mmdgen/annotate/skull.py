"""The top of the skull with the flat hair over it, without what stands or is worn on top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate import names
from mmdgen.annotate.eyes import EyeFinding
from mmdgen.annotate.head import Chin
from mmdgen.annotate.mesh import HeadMesh
from mmdgen.annotate.slices import front_depth, layer_heights, slice_mesh
from mmdgen.model.records import Model

# Proportions of 44 annotated heads: top - chin = A * (upper lids' edge - chin) + B * (distance between the eyes).
EYE_FACTOR, APART_FACTOR = 1.95, 0.616
APART_RANGE = (0.6, 1.3)  # of the height of the lids over the chin
PRIOR_SPREAD = 0.055  # standard deviation of the top so predicted, in head heights (leaving one out)
# Lengths below are in units of the predicted head height.
# The dome: near its apex a skull with flat hair is y = top - a x^2 - b (z - z0)^2 with these a and b.
BEND_X, BEND_Z = 1.2, 1.0
WIDTH, COLUMNS = 0.24, 9
DEPTHS = 44
APEX = np.linspace(0.22, 0.70, 13)  # where z0 may be, behind the forehead
AROUND = 0.28  # how far from the apex the dome counts
TOLERANCE = 0.02
LAYERS = 4
LEAST_COVER, GOOD_COVER = 0.35, 0.5
FAR = 2.2  # standard deviations from the prediction
ABSURD = 0.3  # of the predicted height: no skull is so far from the prediction
SUSPICIOUS = 0.3  # standard deviations above it: worth asking whether a hat was seen
RIVAL = 0.035  # domes that differ by this in height are different surfaces
# What covers a skull but reaches no lower than this above the chin is a hat, a hood or a helmet: hair reaches lower.
HAT_RIM = 0.42
WORN_SHARE = 0.2  # of the dome: what owns less of it cannot have been taken for the skull
HAIR_THICKNESS = 0.035
THICK = 0.11  # what lies closer to bare skin than this is rather a crown of hair with a texture of its own than a hat
HAT_THICKNESS, HAT_SPREAD = 0.08, 0.06
TALL_HAT = 1.17
REASONS = {
    "dome": "the hair's dome",
    "under": "the hair's dome under what is worn",
    "crown": "the dome of what lies on the bare skull, hair or a flat cap",
    "bald": "flat hair over the bare skull under what is worn",
    "inner": "the hair's dome under something higher",
    "partial": "what there is of the hair's dome",
    "named": "the dome of all there is",
    "guess": "guessed under a hat",
    "face": "from the proportions of the face: no dome of a skull was found",
}
KINDS = tuple(REASONS)


@dataclass(frozen=True, slots=True)
class SkullTop:
    """`y` in MU and what speaks for it.

    `kind` is how it was found (of `KINDS`), `cover` the part of the dome that the surface follows, `rival` the votes
    of the best dome at another height as a part of its own (outermost surface only), `off` how far the top lies above
    the one that the face's proportions predict, in predicted head heights, and `lean` how unlike both sides are.
    """

    y: float
    kind: str
    cover: float
    rival: float
    off: float
    lean: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Heights of the surfaces over (x, z): `height` f64 [layers, columns, depths] and `owner`, the triangle, or -1."""

    height: np.ndarray
    owner: np.ndarray

    def layers(self, count: int) -> _Grid:
        return _Grid(self.height[:count], self.owner[:count])


@dataclass(frozen=True, slots=True)
class _Dome:
    top: float  # MU
    apex: float
    cover: float
    rival: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the head is looked for: `size` is the predicted head height and `expected` the predicted top, in MU."""

    chin_y: float
    center_x: float
    forehead: float
    size: float
    xs: np.ndarray
    zs: np.ndarray

    @property
    def expected(self) -> float:
        return self.chin_y + self.size

    def far(self, dome: _Dome) -> bool:
        return abs(dome.top - self.expected) > FAR * PRIOR_SPREAD * self.size

    def absurd(self, dome: _Dome) -> bool:
        return abs(dome.top - self.expected) > ABSURD * self.size


def find_top(model: Model, mesh: HeadMesh, eyes: EyeFinding, chin: Chin, skin: frozenset[int]) -> SkullTop:
    """Return the height of the skull's top; `skin` are the materials that lips and lids belong to.

    Cuts through the middle of the head give the height of the outermost surface over a grid of (x, z). A dome of a
    head's curvature is laid where most of it agrees (votes for top and apex), which tufts, ribbons, ears and a tail
    behind cannot outvote; proportions of the face weigh the votes. Accessories by name and what lies on the head as
    a hat does are left out, and the layers below a surface that is much too high vote as well. Where nothing of the
    skull is left to see, it is guessed from the hat and the proportions.
    """
    eye_y = (eyes.boxes["left"].y + eyes.boxes["right"].y) / 2
    frame = _frame(mesh, eyes, chin, eye_y)
    high = mesh.select((mesh.share > 0.5) & (mesh.high[:, 1] > eye_y + 0.15 * frame.size))
    plain = high.select(~_named_accessories(model, high))
    grid = _heights(plain, frame)
    outer = _vote(grid.layers(1), frame)
    worn = _worn(model, mesh, frame)
    if worn and (outer.cover < LEAST_COVER or _owned(grid, outer, plain, worn, frame) > WORN_SHARE):
        bare_mesh = plain.select(~np.isin(plain.material, list(worn)))
        bare_grid = _heights(bare_mesh, frame)
        bare = _vote(bare_grid.layers(1), frame)
        if bare.cover > GOOD_COVER and not frame.absurd(bare):
            if _owned(bare_grid, bare, bare_mesh, skin, frame) < 0.5:
                return _measured(bare_grid.layers(1), bare, "under", frame)
            if outer.cover > GOOD_COVER and outer.top - bare.top < THICK * frame.size:
                return _measured(grid.layers(1), outer, "crown", frame)
            over = _refine(bare_grid.layers(1), frame, bare) + HAIR_THICKNESS * frame.size
            return _found(over, "bald", bare, frame)
        if outer.cover >= LEAST_COVER:
            return _guessed(outer, frame)
    if outer.cover > GOOD_COVER and not frame.far(outer):
        return _measured(grid.layers(1), outer, "dome", frame)
    inner = _vote(grid, frame)
    if inner.cover > GOOD_COVER and not frame.far(inner):
        return _measured(grid, inner, "inner", frame)
    if outer.cover >= LEAST_COVER:
        return _measured(grid.layers(1), outer, "partial", frame)
    worn_grid = _heights(high, frame)
    whole = _vote(worn_grid.layers(1), frame)
    if whole.cover >= LEAST_COVER:
        if whole.top > frame.expected + SUSPICIOUS * PRIOR_SPREAD * frame.size:
            return _guessed(whole, frame)
        # No higher than a skull should be: hair that is called like something worn.
        return _measured(worn_grid.layers(1), whole, "named", frame)
    return SkullTop(frame.expected, "face", 0.0, 1.0, 0.0, 0.0, REASONS["face"])


def _frame(mesh: HeadMesh, eyes: EyeFinding, chin: Chin, eye_y: float) -> _Frame:
    rise = eye_y - chin.y
    apart = float(np.clip((eyes.boxes["left"].x - eyes.boxes["right"].x) / rise, *APART_RANGE))
    size = rise * (EYE_FACTOR + APART_FACTOR * apart)
    x = eyes.center_x + 0.004 * size
    here = (mesh.low[:, 0] <= x) & (mesh.high[:, 0] >= x)
    segments, _ = slice_mesh(mesh.corners[here], x)
    depth = front_depth(segments, eye_y + size * np.linspace(-0.06, 0.06, 7))
    depth = depth[np.isfinite(depth)]
    forehead = float(np.median(depth)) if len(depth) else chin.z
    xs = np.linspace(-WIDTH, WIDTH, COLUMNS) + 0.003
    return _Frame(chin.y, eyes.center_x, forehead, size, xs, np.linspace(-0.05, 1.0, DEPTHS))


def _named_accessories(model: Model, mesh: HeadMesh) -> np.ndarray:
    """Which triangles belong, by the names of their material or main bone, to something worn or standing."""
    material = np.array([names.is_accessory(m.name) or names.is_accessory(m.name_en) for m in model.materials], bool)
    corner = model.face[mesh.face, 0]
    bone = model.bone_index[corner, model.bone_weight[corner].argmax(axis=1)]
    used = np.unique(bone)
    worn = used[[names.is_accessory(model.skeleton.name[b]) for b in used.tolist()]]
    return material[mesh.material] | np.isin(bone, worn)


def _worn(model: Model, mesh: HeadMesh, frame: _Frame) -> frozenset[int]:
    """Materials that lie on the skull without reaching down to the ears, as hats do and hair does not.

    Materials with one texture and colour count as one, because hair is often split into several of them.
    """
    corners = mesh.corners[mesh.share > 0.5]
    owner = np.repeat(mesh.material[mesh.share > 0.5], 3)
    x = (corners[:, :, 0].ravel() - frame.center_x) / frame.size
    y = (corners[:, :, 1].ravel() - frame.chin_y) / frame.size
    groups: dict[tuple, list[int]] = {}
    for number in np.unique(owner).tolist():
        item = model.materials[number]
        look = (item.texture, tuple(round(c, 2) for c in item.diffuse[:3]) if item.texture < 0 else ())
        groups.setdefault(look, []).append(number)
    found: list[int] = []
    for numbers in groups.values():
        if any(names.is_hair(model.materials[n].name) for n in numbers):
            continue
        mine = np.isin(owner, numbers)
        on_top = np.count_nonzero((np.abs(x[mine]) < WIDTH) & (y[mine] > 0.8))
        if on_top >= 12 and np.quantile(y[mine], 0.1) >= HAT_RIM:
            found += numbers
    return frozenset(found)


def _follows(grid: _Grid, dome: _Dome, frame: _Frame) -> np.ndarray:
    """bool [layers, columns, depths]: the cells whose surface lies on the dome."""
    model = dome.top - frame.size * (BEND_X * frame.xs[:, None] ** 2 + BEND_Z * (frame.zs - dome.apex)[None, :] ** 2)
    around = np.abs(frame.zs - dome.apex) < AROUND
    return (np.abs(grid.height - model) < 1.5 * TOLERANCE * frame.size) & around


def _owned(grid: _Grid, dome: _Dome, mesh: HeadMesh, materials: frozenset[int], frame: _Frame) -> float:
    """The part of the outermost surface on the dome that belongs to `materials`; `mesh` is what the grid was cut of."""
    owner = grid.owner[0][_follows(grid.layers(1), dome, frame)[0]]
    return float(np.isin(mesh.material[owner], list(materials)).mean()) if len(owner) else 0.0


def _heights(mesh: HeadMesh, frame: _Frame) -> _Grid:
    height = np.full((LAYERS, COLUMNS, DEPTHS), -np.inf)
    owner = np.full((LAYERS, COLUMNS, DEPTHS), -1, np.int64)
    depths = frame.forehead + frame.zs * frame.size
    for column, x in enumerate(frame.center_x + frame.xs * frame.size):
        here = np.flatnonzero((mesh.low[:, 0] <= x) & (mesh.high[:, 0] >= x))
        segments, source = slice_mesh(mesh.corners[here], x)
        if len(segments):
            height[:, column], found = layer_heights(segments, depths, LAYERS)
            owner[:, column] = np.where(found >= 0, here[source][found], -1)
    return _Grid(height, owner)


def _vote(grid: _Grid, frame: _Frame) -> _Dome:
    """The dome that most cells agree on. A cell votes once, with its best layer."""
    height = (grid.height - frame.chin_y) / frame.size
    tops = np.arange(0.75, 1.40, 0.005)
    prior = 0.25 + np.exp(-0.5 * ((tops - 1.0) / (1.8 * PRIOR_SPREAD)) ** 2)
    most = np.zeros(len(tops))
    best, best_score = _Dome(frame.expected, 0.45, 0.0, 1.0), 0.0
    for apex in APEX:
        dz = frame.zs - apex
        region = np.abs(dz) < AROUND
        lifted = height[:, :, region] + BEND_X * frame.xs[None, :, None] ** 2 + BEND_Z * dz[region][None, None, :] ** 2
        lifted = lifted.reshape(len(lifted), -1)
        distance = np.abs(lifted[:, :, None] - tops).min(axis=0)
        votes = np.maximum(1 - distance / (1.5 * TOLERANCE), 0).mean(axis=0)
        most = np.maximum(most, votes)
        score = votes * prior
        at = int(np.argmax(score))
        if score[at] > best_score:
            cover = float((distance[:, at] < 1.5 * TOLERANCE).mean())
            best = _Dome(frame.chin_y + float(tops[at]) * frame.size, float(apex), cover, float(votes[at]))
            best_score = float(score[at])
    if best.cover == 0:
        return best
    elsewhere = most[np.abs(frame.chin_y + tops * frame.size - best.top) > RIVAL * frame.size]
    return _Dome(best.top, best.apex, best.cover, float(elsewhere.max() / max(best.rival, 1e-9)))


def _found(y: float, kind: str, dome: _Dome, frame: _Frame, lean: float = 0.0) -> SkullTop:
    return SkullTop(y, kind, dome.cover, dome.rival, (y - frame.expected) / frame.size, lean, REASONS[kind])


def _measured(grid: _Grid, dome: _Dome, kind: str, frame: _Frame) -> SkullTop:
    return _found(_refine(grid, frame, dome), kind, dome, frame, _lean(grid, dome, frame))


def _lean(grid: _Grid, dome: _Dome, frame: _Frame) -> float:
    """How differently both sides follow the dome, 0 to 1."""
    sides = _follows(grid, dome, frame).any(axis=0).mean(axis=1)
    return float(np.abs(sides - sides[::-1]).mean() / max(sides.mean(), 1e-9))


def _guessed(worn: _Dome, frame: _Frame) -> SkullTop:
    """Under a hat: between where the hat and where the proportions put the skull, by how far each can be trusted."""
    by_hat, by_face = 1 / HAT_SPREAD**2, 1 / PRIOR_SPREAD**2
    inside = worn.top - HAT_THICKNESS * frame.size
    y = (inside * by_hat + frame.expected * by_face) / (by_hat + by_face)
    if worn.top > frame.chin_y + TALL_HAT * frame.size:
        y = frame.expected  # a tall hat says nothing about what is in it
    return _found(float(y), "guess", worn, frame)


def _refine(grid: _Grid, frame: _Frame, dome: _Dome) -> float:
    """The height that a person would mark: of the cuts near the middle, the median of how high they follow the dome."""
    middle = np.abs(frame.xs) < 0.13
    fits = _follows(grid, dome, frame) & middle[None, :, None]
    highest = np.where(fits, grid.height, -np.inf).max(axis=(0, 2))
    highest = highest[np.isfinite(highest)]
    return float(np.median(highest)) if len(highest) else dome.top
