"""The chin: where the front of the face ends below the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate.eyes import EyeFinding
from mmdgen.annotate.mouth import MouthFinding
from mmdgen.annotate.slices import front_depth, slice_mesh
from mmdgen.errors import AnnotationError
from mmdgen.model.records import Model

# Lengths below are in units of the distance between the eyes' and the mouth's height (about 0.9 MU).
STEP = 0.004
BELOW = 1.4  # how far below the mouth the chin is looked for
OFFSETS = (0.005, -0.03, 0.03, -0.06, 0.06)  # cuts beside the middle, where two halves may leave a seam
REACH = 0.12  # over this height ...
BREAK = 0.28  # ... the surface falls back by this much at the chin: the neck lies 0.4 and more behind it
STEEP = 2.5  # a surface that falls back this much faster than it sinks is the underside of the jaw
VISIBLE = 0.01  # alpha below this is not drawn


@dataclass(frozen=True, slots=True)
class Chin:
    """`y` in MU, the depth `z` of the surface just above it, `spread` of the cuts' results and a confidence."""

    y: float
    z: float
    spread: float
    confidence: float
    reason: str


def head_triangles(model: Model, share: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the visible faces whose corners all follow the head by at least `least`, i32 [n], and their materials i32 [n]."""
    material = np.repeat(np.arange(len(model.materials), dtype=np.int32), [m.face_count for m in model.materials])
    material = np.resize(material, len(model.face)) if len(material) != len(model.face) else material
    alpha = np.array([m.diffuse[3] for m in model.materials], np.float32)
    kept = np.flatnonzero((share[model.face] >= least).all(axis=1) & (alpha[material] > VISIBLE))
    return kept.astype(np.int32), material[kept]


def find_chin(model: Model, share: np.ndarray, eyes: EyeFinding, mouth: MouthFinding, skin: frozenset[int]) -> Chin:
    """Return the chin tip of `model`: the lowest point of the face seen from the front, near the middle.

    The cut through the middle is followed down from the mouth along its foremost point until it falls back to the neck.
    Only what turns with the head is seen, so collars and scarves are not, and of it first the materials `skin` that
    lips and lids belong to, so that a microphone is not taken for a chin.

    Raises `AnnotationError` ``no_face_geometry``.
    """
    eye_y = (eyes.boxes["left"].y + eyes.boxes["right"].y) / 2
    unit = eye_y - mouth.y
    if not unit > 0:
        raise AnnotationError("no_face_geometry", f"{model.path}: the mouth at {mouth.y:.2f} is not below the eyes")
    faces, material = head_triangles(model, share, 0.3)
    corners = model.position[model.face[faces]].astype(np.float64)
    heights = mouth.y - unit * STEP * np.arange(int(BELOW / STEP))
    near = (corners[:, :, 1].min(axis=1) < mouth.y) & (corners[:, :, 1].max(axis=1) > heights[-1])
    results = []
    for chosen in (np.isin(material, list(skin)), np.ones(len(faces), bool)):
        triangles = corners[near & chosen]
        found = [_chin_of_cut(slice_mesh(triangles, eyes.center_x + o * unit), heights, unit) for o in OFFSETS]
        found = [item for item in found if item is not None]
        if len(found) >= 3:
            y, z = np.median(np.array(found), axis=0)
            results.append((float(y), float(z), float(np.ptp([item[0] for item in found]))))
        else:
            results.append(None)
    by_skin, by_all = results
    if by_skin is None and by_all is None:
        raise AnnotationError("no_face_geometry", f"{model.path}: no chin below the mouth at y = {mouth.y:.2f}")
    if by_skin is None or by_all is None:
        y, z, spread = by_skin or by_all
        return Chin(y, z, spread, 0.7, "the chin in some cuts only")
    y, z, spread = by_skin
    agree = abs(by_skin[0] - by_all[0]) < 0.04 * unit
    confidence = (0.97 if agree else 0.75) * (1.0 if spread < 0.12 * unit else 0.8)
    if not 0.12 < (mouth.y - y) / unit < 0.95:
        confidence *= 0.6
    return Chin(
        y,
        z,
        spread,
        confidence,
        "the face's profile falls back to the neck" + ("" if agree else "; other parts lie before it"),
    )


def _chin_of_cut(segments: np.ndarray, heights: np.ndarray, unit: float) -> tuple[float, float] | None:
    """The (y, z) at which the foremost surface, going down `heights`, falls back for good."""
    depth = front_depth(segments, heights)
    if not np.isfinite(depth).any():
        return None
    reach = int(REACH / STEP)
    wide = np.where(np.isfinite(depth), depth, 1e9)
    ahead = np.concatenate([wide[reach:], np.full(reach, wide[-1])])
    falls = np.flatnonzero((wide < 1e8) & (ahead - wide > BREAK * unit))
    while len(falls):
        first = int(falls[0])
        # Inside the reach the surface first stays and then falls: the steep part begins where it falls fastest.
        steps = np.diff(wide[first : first + reach + 1])
        steep = np.flatnonzero(steps > STEEP * STEP * unit)
        at = first + (int(steep[0]) if len(steep) else 0)
        back = wide[min(first + reach, len(wide) - 1)]
        later = wide[first + reach :]
        # A slit (an open mouth) is followed by the surface coming forward again.
        returns = np.count_nonzero(later < wide[at] + 0.15 * unit) > 0.08 / STEP and back - wide[at] > 0
        if not returns:
            return float(heights[at]), float(wide[at])
        resumed = first + reach + int(np.flatnonzero(later < wide[at] + 0.15 * unit)[0])
        falls = falls[falls > resumed]
    return None
