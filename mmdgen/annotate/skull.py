"""The top of the skull with the flat hair over it, without what stands or is worn on top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate import names
from mmdgen.annotate.eyes import EyeFinding
from mmdgen.annotate.head import Chin, head_triangles
from mmdgen.annotate.slices import front_depth, layer_heights, slice_mesh
from mmdgen.model.records import Model

# Proportions of anime heads, measured on 40 annotated ones, in units of the head height H (chin to top).
EYE_HEIGHT = 0.40  # the upper lids' edge above the chin
PRIOR_SPREAD = 0.075  # standard deviation of the top predicted from it
# The dome: near its apex a skull with flat hair is y = top - a x^2 - b (z - z0)^2 with these a and b.
BEND_X, BEND_Z = 1.2, 1.0
WIDTH, COLUMNS = 0.24, 9
DEPTHS = 44
APEX = np.linspace(0.22, 0.70, 13)  # where z0 may be, behind the forehead
AROUND = 0.28  # how far from the apex the dome counts
TOLERANCE = 0.02
LAYERS = 4
LEAST_COVER = 0.35
GOOD_COVER = 0.5
FAR = 2.0  # standard deviations from what the face's proportions let expect


@dataclass(frozen=True, slots=True)
class SkullTop:
    """`y` in MU with a confidence; `cover` is the part of the dome that the surface follows."""

    y: float
    cover: float
    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Dome:
    score: float
    top: float
    apex: float
    cover: float


def find_top(model: Model, share: np.ndarray, eyes: EyeFinding, chin: Chin) -> SkullTop:
    """Return the height of the skull's top.

    Cuts through the middle of the head give the height of the outermost surface over a grid of (x, z). A dome of a
    head's curvature is laid where most of it agrees (votes for top and apex), which tufts, ribbons, ears and a tail
    behind cannot outvote; proportions of the face weigh the votes. Where only something much too high is found (a
    hat), the layers below it vote as well, and at last the proportions alone decide.
    """
    eye_y = (eyes.boxes["left"].y + eyes.boxes["right"].y) / 2
    size = (eye_y - chin.y) / EYE_HEIGHT
    faces, material = head_triangles(model, share, 0.5)
    corners = model.position[model.face[faces]].astype(np.float64)
    forehead = _forehead(corners, eyes.center_x, eye_y, size, chin)
    high = corners[:, :, 1].max(axis=1) > eye_y + 0.15 * size
    plain = ~_accessory_faces(model, faces, material)
    best: tuple[_Dome, np.ndarray, str] | None = None
    far_before = True
    for chosen, what in ((high & plain, "the hair's dome"), (high, "the dome of hair and what is worn")):
        layers, xs, zs = _heights(corners[chosen], eyes.center_x, forehead, size)
        for count, suffix in ((1, ""), (LAYERS, " under something higher")):
            dome = _vote(layers[:count], xs, zs, size, chin.y)
            if dome.cover < LEAST_COVER:
                continue
            far = abs(dome.top - chin.y - size) > FAR * PRIOR_SPREAD * size
            if best is None or (far_before and not far):
                best, far_before = (dome, layers[:count], what + suffix), far
            if not far and dome.cover > GOOD_COVER:
                break
        if best is not None and not far_before:
            break
    expected = chin.y + size
    if best is None:
        return SkullTop(expected, 0.0, 0.35, "from the proportions of the face: no dome of a skull was found")
    dome, grid, reason = best
    top = _refine(grid, xs, zs, dome, size)
    off = abs(top - expected) / (PRIOR_SPREAD * size)
    confidence = 0.95 * min(1.0, 0.45 + 0.75 * dome.cover) * (1.0 if off < 1.5 else max(0.4, 1.3 - 0.2 * off))
    if " under " in reason:
        confidence *= 0.8
    return SkullTop(top, dome.cover, float(confidence), reason)


def _forehead(corners: np.ndarray, center_x: float, eye_y: float, size: float, chin: Chin) -> float:
    """The depth of the face between the eyes, in MU; the chin's depth where nothing is there."""
    segments = slice_mesh(corners, center_x + 0.004 * size)
    depth = front_depth(segments, eye_y + size * np.linspace(-0.06, 0.06, 7))
    depth = depth[np.isfinite(depth)]
    return float(np.median(depth)) if len(depth) else chin.z


def _accessory_faces(model: Model, faces: np.ndarray, material: np.ndarray) -> np.ndarray:
    """Which faces belong, by the names of their material or of the bones they hang on, to something worn or standing."""
    worn_material = np.array([names.is_accessory(m.name) or names.is_accessory(m.name_en) for m in model.materials])
    worn_bone = np.array([names.is_accessory(name) for name in model.skeleton.name])
    corners = model.face[faces]
    main = model.bone_index[np.arange(len(model.position)), model.bone_weight.argmax(axis=1)]
    return worn_material[material] | worn_bone[main[corners]].any(axis=1)


def _heights(corners: np.ndarray, center_x: float, forehead: float, size: float):
    """Heights of the surfaces over the grid: layers f64 [LAYERS, columns, depths] in MU, x and z of the grid in `size`."""
    xs = np.linspace(-WIDTH, WIDTH, COLUMNS) + 0.003
    zs = np.linspace(-0.05, 1.0, DEPTHS)
    low, high = corners[:, :, 0].min(axis=1), corners[:, :, 0].max(axis=1)
    layers = np.full((LAYERS, COLUMNS, DEPTHS), -np.inf)
    for column, x in enumerate(center_x + xs * size):
        here = (low <= x) & (high >= x)
        if here.any():
            layers[:, column] = layer_heights(slice_mesh(corners[here], x), forehead + zs * size, LAYERS)
    return layers, xs, zs


def _vote(grid: np.ndarray, xs: np.ndarray, zs: np.ndarray, size: float, chin_y: float) -> _Dome:
    """The dome that most cells agree on. A cell votes once, with its best layer."""
    height = (grid - chin_y) / size
    tops = np.arange(0.72, 1.45, 0.005)
    prior = np.exp(-0.5 * ((tops - 1.0) / (1.6 * PRIOR_SPREAD)) ** 2)
    best = _Dome(-1.0, chin_y + size, 0.45, 0.0)
    for apex in APEX:
        dz = zs - apex
        region = np.abs(dz) < AROUND
        lifted = height[:, :, region] + BEND_X * xs[None, :, None] ** 2 + BEND_Z * dz[region][None, None, :] ** 2
        lifted = lifted.reshape(len(grid), -1)
        distance = np.abs(lifted[:, :, None] - tops).min(axis=0)
        votes = np.maximum(1 - distance / (1.5 * TOLERANCE), 0).sum(axis=0) / lifted.shape[1]
        score = votes * (0.25 + prior)
        at = int(np.argmax(score))
        if score[at] > best.score:
            cover = float((distance[:, at] < 1.5 * TOLERANCE).mean())
            best = _Dome(float(score[at]), chin_y + float(tops[at]) * size, float(apex), cover)
    return best


def _refine(grid: np.ndarray, xs: np.ndarray, zs: np.ndarray, dome: _Dome, size: float) -> float:
    """The height that a person would mark: the highest of the surface that follows the dome, in the middle columns."""
    model = dome.top - size * (BEND_X * xs[:, None] ** 2 + BEND_Z * (zs - dome.apex)[None, :] ** 2)
    middle = np.abs(xs) < 0.13
    around = np.abs(zs - dome.apex) < AROUND
    fits = np.abs(grid - model) < 1.5 * TOLERANCE * size
    heights = np.where(fits & middle[None, :, None] & around[None, None, :], grid, -np.inf).max(axis=(0, 2))
    heights = np.sort(heights[np.isfinite(heights)])[::-1]
    if len(heights) == 0:
        return dome.top
    return float(np.median(heights[:3]))
