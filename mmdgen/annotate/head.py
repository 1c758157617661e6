"""The chin: where the front of the face ends below the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate.eyes import EyeFinding
from mmdgen.annotate.mesh import HeadMesh
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
WEAK_BREAK = 0.14  # a double chin or a thick neck: believed only where nothing falls back farther
ROUND = 0.08  # how far back the lowest point of a chin may lie
UNEVEN = 0.12  # spread of the cuts beside the middle
ODD = (0.12, 0.95)  # below the mouth; 0.3 to 0.6 is common
STEEP = 2.5  # a surface that falls back this much faster than it sinks is the underside of the jaw


@dataclass(frozen=True, slots=True)
class Chin:
    """`y` in MU, the depth `z` of the surface just above it, `reason`, and what speaks against it.

    `agree`: nothing else lies before the skin; `uneven`: the cuts beside the middle differ; `weak`: the surface falls
    back only a little; `odd`: so near to the mouth or far from it as hardly any chin is.
    """

    y: float
    z: float
    agree: bool
    uneven: bool
    weak: bool
    odd: bool
    reason: str


def find_chin(model: Model, mesh: HeadMesh, eyes: EyeFinding, mouth: MouthFinding, skin: frozenset[int]) -> Chin:
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
    heights = mouth.y - unit * STEP * np.arange(int(BELOW / STEP))
    near = mesh.select(
        (mesh.low[:, 1] < mouth.y)
        & (mesh.high[:, 1] > heights[-1])
        & (mesh.low[:, 0] < eyes.center_x + 0.1 * unit)
        & (mesh.high[:, 0] > eyes.center_x - 0.1 * unit)
    )
    by_skin = by_all = None
    for least in (BREAK, WEAK_BREAK):
        skin_corners = near.corners[np.isin(near.material, list(skin))]
        by_skin = _chin_of(skin_corners, eyes.center_x, heights, unit, least)
        by_all = _chin_of(near.corners, eyes.center_x, heights, unit, least)
        if by_skin is not None or by_all is not None:
            break
    else:
        raise AnnotationError("no_face_geometry", f"{model.path}: no chin below the mouth at y = {mouth.y:.2f}")
    y, z, spread = by_skin or by_all or (0.0, 0.0, 0.0)
    agree = by_skin is not None and by_all is not None and abs(by_skin[0] - by_all[0]) < 0.04 * unit
    return Chin(
        y,
        z,
        agree,
        uneven=spread >= UNEVEN * unit,
        weak=least != BREAK,
        odd=not ODD[0] < (mouth.y - y) / unit < ODD[1],
        reason="the face's profile falls back to the neck",
    )


def _chin_of(triangles: np.ndarray, center_x: float, heights: np.ndarray, unit: float, least: float):
    """The median (y, z) of the chin over the cuts and the spread of y; None where most cuts have none."""
    found = [
        _chin_of_cut(slice_mesh(triangles, center_x + offset * unit)[0], heights, unit, least) for offset in OFFSETS
    ]
    kept = np.array([item for item in found if item is not None])
    if len(kept) < 3:
        return None
    y, z = np.median(kept, axis=0)
    return float(y), float(z), float(np.ptp(kept[:, 0]))


def _chin_of_cut(segments: np.ndarray, heights: np.ndarray, unit: float, least: float) -> tuple[float, float] | None:
    """The (y, z) at which the foremost surface, going down `heights`, falls back by `least` for good."""
    depth = front_depth(segments, heights)
    if not np.isfinite(depth).any():
        return None
    reach = int(REACH / STEP)
    wide = np.where(np.isfinite(depth), depth, 1e9)
    ahead = np.concatenate([wide[reach:], np.full(reach, wide[-1])])
    falls = np.flatnonzero((wide < 1e8) & (ahead - wide > least * unit))
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
            # A round chin sinks while it falls back: its tip is where hardly anything more of it can be seen in front.
            beyond = np.flatnonzero(wide[at:] > wide[at] + ROUND * unit)
            at += max(int(beyond[0]) - 1, 0) if len(beyond) else 0
            return float(heights[at]), float(wide[at])
        resumed = first + reach + int(np.flatnonzero(later < wide[at] + 0.15 * unit)[0])
        falls = falls[falls > resumed]
    return None
