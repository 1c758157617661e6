"""What close-ups show in numbers: which eye changes, whether its iris is covered, how the lids' line bends, how far the
mouth opens.

All lengths are shares of an eye's height or of the distance between the eyes, so that they hold for any model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdgen.annotate.closeup import EYE, FACE, Closeups
from mmdgen.annotate.lids import LEFT, RIGHT, SIDES, SIGN, EyeBox

CHANGED = 20  # of 255: what textures shift by under a moving skin is less
_STRONG = 40
_AROUND = 3  # pixels
_FEWEST_PIXELS = 12  # an eye that shows fewer cannot be judged


@dataclass(frozen=True, slots=True)
class EyeMeasure:
    """One eye of a picture. `change` is its share of all change against the rest picture, `visible` how much of its
    iris is left (about 1 at rest). `bend` is how much higher the ends of the dark line are than its middle, `line` how
    high its middle lies over the iris's lower edge, both in iris heights; None where no line is dark enough.
    """

    change: float
    visible: float
    bend: float | None
    line: float | None


@dataclass(frozen=True, slots=True)
class PictureMeasure:
    """One picture against the rest picture. `amount` is the mean change (0 to 255) in the two eyes' area, `eyes` by
    side (None where the eye cannot be seen), `elsewhere` the share of change outside of both. `holes` is the area of
    the face that becomes see-through. `mouth` is the share of change around the mouth, `opened` the height of what
    changes there without a gap, in distances between the eyes, `inside` the area of the mouth's inside that appears.
    """

    amount: float
    eyes: dict[str, EyeMeasure | None]
    elsewhere: float
    holes: float
    mouth: float
    opened: float
    inside: float


@dataclass(frozen=True, slots=True)
class _Eye:
    iris: np.ndarray  # bool [H, W]
    near: np.ndarray  # bool [H, W]: the iris and a little around it, on its side of the face
    edges: tuple[int, int, int, int]  # left, right, top, bottom of the iris in pixels
    zone: np.ndarray  # bool [H, W]: the eye with lids and lashes


def measure_closeups(pictures: Closeups, boxes: dict[str, EyeBox], center_x: float) -> dict[str, PictureMeasure]:
    """Return what every picture but ``rest`` shows; `boxes` and `center_x` as they were drawn with."""
    apart = (boxes[LEFT].x - boxes[RIGHT].x) * pictures.scale
    middle = pictures.column(center_x)
    eyes = {side: _find_eye(pictures, boxes[side], side, middle, apart) for side in SIDES}
    zones = [eye.zone for eye in eyes.values() if eye is not None]
    blank = np.zeros(pictures.true["rest"].shape[:2], bool)
    around = np.logical_or.reduce([blank, *zones])
    eye_row = pictures.row((boxes[LEFT].y + boxes[RIGHT].y) / 2)
    mouth = _mouth_zone(blank, [eye for eye in eyes.values() if eye is not None], eye_row, middle, apart)
    return {name: _measure(pictures, name, eyes, around, mouth, apart) for name in pictures.true if name != "rest"}


def _find_eye(pictures: Closeups, box: EyeBox, side: str, middle: float, apart: float) -> _Eye | None:
    """The iris in the rest picture: of what is red on that side, the rows that hold most (brows are thinner)."""
    image = pictures.false["rest"].astype(int)
    width = image.shape[1]
    beside = (np.arange(width) + 0.5 - middle) * SIGN[side] > 0
    red = (image[..., EYE] - image[..., FACE] > 60) & beside[None]
    count = red.sum(axis=1)
    if count.sum() >= _FEWEST_PIXELS:
        rows = np.flatnonzero(count)
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 2) + 1)
        run = max(runs, key=lambda run: count[run].sum())
        iris = np.zeros_like(red)
        iris[run[0] : run[-1] + 1] = red[run[0] : run[-1] + 1]
    else:
        # No surface is known to be the eye: the opening as the lids' motion tells it.
        x, half = pictures.column(box.x), 0.7 * box.half_width * pictures.scale
        top, bottom = pictures.row(box.y), pictures.row(box.y - 0.8 * box.opening)
        if pictures.eyes or bottom - top < 4 or half < 3:
            return None
        iris = np.zeros_like(red)
        iris[int(max(top, 0)) : int(bottom) + 1, int(max(x - half, 0)) : int(x + half) + 1] = True
    columns, rows = np.flatnonzero(iris.any(axis=0)), np.flatnonzero(iris.any(axis=1))
    if len(columns) < 3 or len(rows) < 2:
        return None
    left, right, top, bottom = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    tall = max(bottom - top, 0.5 * (right - left))
    half = max(1.1 * (right - left), 0.42 * apart)
    zone = np.zeros_like(red)
    center = (left + right) / 2
    rows_of_zone = slice(int(max(top - 0.8 * tall, 0)), int(bottom + 0.5 * tall) + 1)
    zone[rows_of_zone, int(max(center - half, 0)) : int(center + half) + 1] = True
    near = iris.copy()
    for step in range(1, _AROUND + 1):
        for axis in (0, 1):
            near |= np.roll(iris, step, axis) | np.roll(iris, -step, axis)
    return _Eye(iris, near & beside[None], (left, right, top, bottom), zone & beside[None])


def _mouth_zone(blank: np.ndarray, eyes: Sequence[_Eye], eye_row: float, middle: float, apart: float) -> np.ndarray:
    """Below the eyes and no wider than they are apart."""
    lowest = max((eye.edges[3] for eye in eyes), default=0)
    zone = np.zeros_like(blank)
    top = int(max(eye_row + 0.35 * apart, lowest + 0.05 * apart, 0))
    zone[top:, int(max(middle - 0.55 * apart, 0)) : int(middle + 0.55 * apart) + 1] = True
    return zone


def _measure(pictures: Closeups, name: str, eyes, around, mouth, apart: float) -> PictureMeasure:
    rest, now = pictures.true["rest"].astype(int), pictures.true[name].astype(int)
    change = np.abs(now - rest).max(axis=2)
    change[change <= CHANGED] = 0
    total = float(change.sum()) + 1e-9
    found: dict[str, EyeMeasure | None] = {}
    for side, eye in eyes.items():
        found[side] = None
        if eye is not None:
            bend, line = _line(pictures.true[name], eye.edges)
            share = float(change[eye.zone].sum()) / total
            found[side] = EyeMeasure(share, _visible(pictures, name, eye), bend, line)
    area = max(int(np.count_nonzero(around)), 1)
    vanished = (rest[..., 3] > 200) & (now[..., 3] < 100) & _inner(rest[..., 3] > 200)
    strong = (change > _STRONG) & mouth
    run = longest = np.zeros(strong.shape[1], int)
    for row in strong:
        run = np.where(row, run + 1, 0)
        longest = np.maximum(longest, run)
    # The third highest column: one alone may be a shadow's edge.
    opened = float(np.sort(longest)[-3]) / apart
    return PictureMeasure(
        amount=float(change[around].sum()) / area,
        eyes=found,
        elsewhere=float(change[~around].sum()) / total,
        holes=float(np.count_nonzero(vanished)) / apart**2,
        mouth=float(change[mouth].sum()) / total,
        opened=opened,
        inside=float(np.count_nonzero(strong)) / apart**2,
    )


def _visible(pictures: Closeups, name: str, eye: _Eye) -> float:
    """How much of the iris is left. Eyes that are no surface of their own: how much has kept its colour."""
    if pictures.eyes:
        rest, now = (
            np.clip(image[eye.near][:, EYE].astype(float) - 0.5 * image[eye.near][:, FACE], 0, None).sum()
            for image in (pictures.false["rest"], pictures.false[name])
        )
        return float(now / max(rest, 1e-9))
    change = np.abs(pictures.true[name].astype(int) - pictures.true["rest"].astype(int)).max(axis=2)
    return float(np.mean(change[eye.iris] <= CHANGED))


def _line(image: np.ndarray, edges: tuple[int, int, int, int]) -> tuple[float | None, float | None]:
    """The dark line across an eye: its bend and height, both in iris heights."""
    left, right, top, bottom = edges
    wide, tall = right - left, max(bottom - top, 0.4 * (right - left))
    rows = slice(max(int(top - 0.1 * tall), 0), int(np.ceil(bottom + 0.3 * tall)))
    part = image[rows, max(int(left - 0.1 * wide), 0) : int(np.ceil(right + 0.1 * wide)), :3].astype(float).mean(axis=2)
    skin = float(np.quantile(part, 0.75))
    dark = np.clip(0.88 * skin - part, 0, None)
    weight = dark.sum(axis=0)
    seen = weight > 0.12 * skin
    if skin < 30 or np.mean(seen) < 0.7 or np.count_nonzero(seen) < 5:
        return None, None
    place = (dark * np.arange(len(part))[:, None]).sum(axis=0)[seen] / weight[seen]
    across = np.linspace(-1, 1, part.shape[1])[seen]
    curve = np.polyfit(across, place, 2)
    return float(-curve[0] / tall), float((bottom - rows.start - curve[2]) / tall)


def _inner(mask: np.ndarray) -> np.ndarray:
    """`mask` without its border of 3 pixels: the outline of a face may move."""
    result = mask.copy()
    for step in (1, 2, 3):
        for axis in (0, 1):
            result &= np.roll(mask, step, axis) & np.roll(mask, -step, axis)
    return result
