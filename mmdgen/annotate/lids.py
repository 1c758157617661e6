"""How a morph moves the lids of one eye: how far it closes it, along which line, and how much else it moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate.motion import Displacement
from mmdgen.model.records import Model

LEFT, RIGHT = "left", "right"
SIDES = (LEFT, RIGHT)
SIGN = {LEFT: 1.0, RIGHT: -1.0}


@dataclass(frozen=True, slots=True)
class EyeBox:
    """Where one eye is: its lids' middle (`x`, `y`), half width and the height of the opening, all in MU."""

    x: float
    y: float
    half_width: float
    opening: float


@dataclass(frozen=True, slots=True)
class LidMotion:
    """One eye under one morph at weight 1, lengths in MU.

    `down` is how far the fastest lid vertices sink, `up` how far others rise; their sum, `closure`, is the opening of
    the eye when it shuts it, however the lids share the way. `line_y` is the height of the middle of the line along
    which the lids meet, `bend` how much higher its ends are than its middle (negative: the smiling ^ shape), `amount`
    the sum of all motion on this side and `inside` the part of it near the eye. `x`, `y` and `half_width` say where the
    sinking lid is at rest.
    """

    down: float
    up: float
    line_y: float
    bend: float
    amount: float
    inside: float
    x: float
    y: float
    half_width: float
    pushed: bool = False  # a closed eye is pushed forward instead: `down` is how far

    @property
    def closure(self) -> float:
        return self.down + self.up


def lid_motion(model: Model, moved: Displacement, side: str, center_x: float, box: EyeBox | None) -> LidMotion | None:
    """Return what `moved` does on `side` of ``x = center_x``, inside `box` where it is known; None if nothing."""
    position = model.position[moved.index]
    here = (position[:, 0] - center_x) * SIGN[side] > 0
    if not here.any():
        return None
    position, offset = position[here].astype(np.float64), moved.offset[here].astype(np.float64)
    size = np.linalg.norm(offset, axis=1)
    amount = float(size.sum())
    near = np.ones(len(position), bool)
    if box is not None:
        near = (np.abs(position[:, 0] - box.x) < 1.6 * box.half_width) & (
            np.abs(position[:, 1] - box.y) < 1.3 * max(box.opening, 0.6 * box.half_width)
        )
        if not near.any():
            return LidMotion(0.0, 0.0, 0.0, 0.0, amount, 0.0, box.x, box.y, box.half_width)
    inside = float(size[near].sum())
    position, offset = position[near], offset[near]
    rise = offset[:, 1]
    down, up = float(max(-rise.min(), 0.0)), float(max(rise.max(), 0.0))
    farthest = float(np.linalg.norm(offset, axis=1).max())
    pushed = down + up < 0.1 * farthest
    if pushed:
        down = farthest
    # The lids' edges: what moves at least half as far as the fastest, in the way that moves most.
    leading = rise <= 0.5 * min(rise.min(), 0.0) if down > 0 else rise >= 0.5 * up
    if not leading.any():
        leading[:] = True
    line = position[leading] + offset[leading]
    spread = line[:, 0]
    middle, half_width = (spread.min() + spread.max()) / 2, (spread.max() - spread.min()) / 2
    line_y, bend = float(np.median(line[:, 1])), 0.0
    if len(line) >= 5 and half_width > 1e-3:
        u = (spread - middle) / half_width
        design = np.stack([np.ones_like(u), u, u * u], axis=1)
        coefficients = np.linalg.lstsq(design, line[:, 1], rcond=None)[0]
        line_y, bend = float(coefficients[0]), float(coefficients[2])
    start = position[leading]
    return LidMotion(
        down, up, line_y, bend, amount, inside, float(middle), float(start[:, 1].mean()), float(half_width), pushed
    )


def similarity(model: Model, a: Displacement, b: Displacement, side: str, center_x: float) -> float:
    """Return the cosine between two displacements of the vertices on one side, in [-1, 1]; 0 if either is still."""
    parts = []
    for item in (a, b):
        here = (model.position[item.index, 0] - center_x) * SIGN[side] > 0
        parts.append((item.index[here], item.offset[here].astype(np.float64)))
    (ia, oa), (ib, ob) = parts
    norm = np.linalg.norm(oa) * np.linalg.norm(ob)
    if norm == 0:
        return 0.0
    _, first, second = np.intersect1d(ia, ib, assume_unique=True, return_indices=True)
    return float((oa[first] * ob[second]).sum() / norm)
