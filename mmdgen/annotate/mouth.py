"""Which morph opens the mouth as あ does, and where the mouth is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate import names
from mmdgen.annotate.eyes import EyeFinding
from mmdgen.annotate.motion import Displacement, effect, moving_morphs
from mmdgen.errors import AnnotationError
from mmdgen.model.records import Model, MorphTerm

MOUTH_PANEL = 3
# An opening below this part of the distance between the eyes is no open mouth.
LEAST_OPENING = 0.04
# Of how far the widest of the other named shapes opens it: of 71 models where あ is right it is half as far or more.
# あ２ and ああ do not count: they are meant to be wider (あ opens 0.26 and 0.45 times as far on two models).
LEAST_SHARE = 0.45
NAMELESS = 9.0  # the rank of morphs without a known name


@dataclass(frozen=True, slots=True)
class MouthFinding:
    """`terms` open the mouth. `y` is its height in MU, `opening` how far the lips part."""

    terms: tuple[MorphTerm, ...]
    y: float
    opening: float
    confidence: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Opening:
    morph: int
    label: str
    rank: float
    opening: float
    y: float
    wider: bool  # by its name a stronger version of another shape: あ２, ああ


def find_mouth(
    model: Model, eyes: EyeFinding, share: np.ndarray, refuted: frozenset[int] = frozenset()
) -> MouthFinding:
    """Return the morph that opens the mouth; `share` f32 [V] is how much each vertex follows the head.

    The best spelling of あ that really lowers the lip counts; without one, another open shape; without names, the mouth
    morph that opens farthest. Morphs in `refuted` are not taken. Raises `AnnotationError` ``no_mouth_morph``.
    """
    apart = eyes.boxes["left"].x - eyes.boxes["right"].x
    usable: list[_Opening] = []
    for named in (True, False):
        found = [item for item in _openings(model, eyes, share, named) if item.morph not in refuted]
        largest = max((item.opening for item in found), default=0.0)
        usable = [item for item in found if item.opening >= max(LEAST_OPENING * apart, 0.15 * largest)]
        if usable:
            break
    if not usable:
        raise AnnotationError("no_mouth_morph", f"{model.path}: none of its {len(model.morphs)} morphs opens the mouth")
    widest = max(item.opening for item in usable)
    best = min(
        usable,
        # Without a name the first morph that opens widely: あ leads the mouth panel by custom.
        key=lambda item: (item.rank, item.rank >= NAMELESS and item.opening < 0.6 * widest, item.morph),
    )
    if best.rank < 1:
        confidence, reason = 0.97, f"mouth: {best.label} lowers the lip by {best.opening:.2f} MU"
    elif best.rank < names.MOUTH_BY_LETTER:
        confidence, reason = 0.85, f"mouth: {best.label} opens it, there is no あ"
    else:
        confidence, reason = 0.6, f"mouth: {best.label} opens it farthest of what there is"
    other = max((item for item in usable if item is best or not item.wider), key=lambda item: item.opening)
    if best.rank < NAMELESS and best.opening < LEAST_SHARE * other.opening:
        confidence = min(confidence, 0.7)
        reason = f"mouth: {best.label} opens it only {best.opening / other.opening:.2f} as far as {other.label} does"
    return MouthFinding((MorphTerm(best.morph),), best.y, best.opening, confidence, (reason,))


def _openings(model: Model, eyes: EyeFinding, share: np.ndarray, named: bool) -> list[_Opening]:
    """What the morphs called an open mouth do, or (not `named`) the other ones of the mouth panel."""
    found = []
    for number, morph in moving_morphs(model):
        parsed = names.parse(morph.name)
        rank = names.mouth_rank(parsed)
        if rank is None and morph.name_en:
            rank = names.mouth_rank(names.parse(morph.name_en))
        if (rank is not None) != named or (rank is None and morph.panel != MOUTH_PANEL):
            continue
        place = _opening(model, effect(model, [MorphTerm(number)], eyes.center_x), eyes, share)
        if place is None:
            continue
        order = NAMELESS if rank is None else float(rank)
        order += (
            (0.4 if parsed.number else 0.0) + (0.2 if parsed.sided else 0.0) + (0.1 if parsed.base != "あ" else 0.0)
        )
        wider = rank == names.MOUTH_REPEATED or parsed.number > 1
        found.append(_Opening(number, morph.name, order, place[0], place[1], wider))
    return found


def given_mouth(model: Model, eyes: EyeFinding, share: np.ndarray, terms: tuple[MorphTerm, ...]) -> MouthFinding:
    """Return the finding for the `terms` that a person has chosen. Raises `AnnotationError` ``no_mouth_morph``."""
    place = _opening(model, effect(model, terms, eyes.center_x), eyes, share)
    if place is None:
        raise AnnotationError("no_mouth_morph", f"{model.path}: the stored mouth morph does not move the mouth")
    return MouthFinding(terms, place[1], place[0], 1.0, ())


def _opening(model: Model, moved: Displacement, eyes: EyeFinding, share: np.ndarray) -> tuple[float, float] | None:
    """How far a morph parts the lips near the face's middle, and the mouth's height; None if it moves elsewhere."""
    if moved.empty:
        return None
    left, right = eyes.boxes["left"], eyes.boxes["right"]
    apart = left.x - right.x
    eye_y = (left.y + right.y) / 2
    position = model.position[moved.index].astype(np.float64)
    # Below the eyes, not wider than the eyes are apart, and not past the neck.
    near = (
        (share[moved.index] > 0.5)
        & (np.abs(position[:, 0] - eyes.center_x) < 0.5 * apart)
        & (position[:, 1] < eye_y - 0.2 * apart)
        & (position[:, 1] > eye_y - 2.0 * apart)
    )
    if np.count_nonzero(near) < 3:
        return None
    rise = moved.offset[near, 1].astype(np.float64)
    size = np.linalg.norm(moved.offset[near].astype(np.float64), axis=1)
    opening = max(-rise.min(), 0.0) + min(max(rise.max(), 0.0), max(-rise.min(), 0.0))
    weight = np.abs(rise)
    if opening < 0.1 * size.max():
        opening, weight = 0.5 * size.max(), size  # an open mouth that is pushed forward instead of lips that part
    # Lips: the vertices whose motion changes most; the jaw below moves along.
    y = float((position[near, 1] * weight).sum() / weight.sum())
    return float(opening), y
