"""Which morphs close the eyes: six slots, (normal, smile) x (left, right, both), and where the eyes are.

Names propose and geometry decides. The side is where vertices move, never what the name says; what does not close the
eye is not taken; normal and smiling shapes are told apart in `shapes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmdgen.annotate import names
from mmdgen.annotate.bones import HeadBones
from mmdgen.annotate.lids import LEFT, RIGHT, SIDES, EyeBox, lid_motion, similarity
from mmdgen.annotate.motion import Displacement, effect, moving_morphs, swapped_materials
from mmdgen.annotate.records import EYE_SLOTS
from mmdgen.annotate.shapes import Candidate, decide_shapes, preferred
from mmdgen.errors import AnnotationError
from mmdgen.model.records import Model, MorphTerm

EYE_PANEL = 2
CLOSED = 0.62  # of the opening: what closes less is half-lidded or does not close
OPEN = 0.35  # of the opening: an eye that moves less stays open
LEAST_OPENING = 0.06  # of the distance between the eyes: a morph that moves lids less closes no eye
PURE = 0.75  # of the motion lies near the eye
ALIKE = 0.05  # what similarities differ by between copies of one shape, at most


@dataclass(frozen=True, slots=True)
class EyeFinding:
    """The slots, the eyes' places by side, the face's middle and how sure all that is."""

    slots: dict[str, tuple[MorphTerm, ...]]
    boxes: dict[str, EyeBox]
    center_x: float
    confidence: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What is known to be wrong: (morph, side of its term) pairs that do not do what their slot says, and (morph,
    shape) pairs whose shape is known instead of guessed."""

    refuted: frozenset[tuple[int, str]] = frozenset()
    shapes: frozenset[tuple[int, str]] = frozenset()

    def without(self, morph: int, side: str) -> Exclusions:
        """Return this with the term of `morph` on `side` refuted."""
        return replace(self, refuted=self.refuted | {(morph, side)})

    def reshaped(self, morph: int, shape: str) -> Exclusions:
        """Return this with the `shape` of `morph` known."""
        others = frozenset(item for item in self.shapes if item[0] != morph)
        return replace(self, shapes=others | {(morph, shape)})


def find_eyes(model: Model, bones: HeadBones, share: np.ndarray, exclusions: Exclusions = Exclusions()) -> EyeFinding:
    """Return the eye morphs of `model`; `share` f32 [V] is how much each vertex follows the head.

    What `exclusions` refute is not taken.

    Raises `AnnotationError`: ``no_eye_morph`` if nothing closes an eye, ``no_eye_morph_left`` or ``no_eye_morph_right``
    if only the other one can be closed.
    """
    center = _first_center(model, bones)
    gone = frozenset(morph for morph, side in exclusions.refuted if side == "both")
    named = candidates = _candidates(model, share, center, gone, named=True)
    reasons: list[str] = []
    reference = _reference(model, named, center)
    if reference is None:
        candidates = _candidates(model, share, center, gone, named=False)
        reference = _by_geometry(model, bones, candidates, center)
        if reference is not None:
            reasons.append(f"no eye morph has a known name: {reference.label} closes the eyes")
    if reference is None:
        raise AnnotationError("no_eye_morph", f"{model.path}: none of its {len(model.morphs)} morphs closes an eye")
    center = _center(model, named or [reference], center)
    boxes = _boxes(model, reference, center)
    if max(box.opening for box in boxes.values()) < LEAST_OPENING * abs(boxes[LEFT].x - boxes[RIGHT].x):
        raise AnnotationError("no_eye_morph", f"{model.path}: {reference.label} hardly moves the lids")
    for candidate in candidates:
        _measure(model, candidate, boxes, center)
    if named:
        pool = named
        decide_shapes(model, pool, boxes, center)
    else:
        pool = _alike(model, reference, candidates, boxes, center)
    for candidate in pool:
        for morph, shape in exclusions.shapes:
            if candidate.morph == morph and candidate.shape:
                candidate.shape = shape
    slots, confidence, more = _fill(model, pool, exclusions, center)
    reasons += more
    if not named:
        confidence *= 0.7
    for side in SIDES:
        if not (slots[f"normal_{side}"] or slots[f"smile_{side}"]):
            raise AnnotationError(f"no_eye_morph_{side}", f"{model.path}: no morph closes the {side} eye")
    return EyeFinding(slots, boxes, center, confidence, tuple(reasons))


def given_eyes(model: Model, bones: HeadBones, slots: dict[str, tuple[MorphTerm, ...]]) -> EyeFinding:
    """Return the finding for `slots` that a person has filled: where those morphs move the lids.

    Raises `AnnotationError` ``no_eye_morph`` if they move nothing.
    """
    center = _first_center(model, bones)
    boxes: dict[str, EyeBox] = {}
    for side in SIDES:
        # The both-eyed morph, too: a person may have given a side the other side's morph.
        for slot in (f"normal_{side}", "normal_both", f"smile_{side}", "smile_both"):
            moved = effect(model, slots[slot], center)
            motion = lid_motion(model, moved, side, center, None) if not moved.empty else None
            if motion is not None and motion.closure > 0 and side not in boxes:
                boxes[side] = EyeBox(motion.x, motion.y, max(motion.half_width, 0.3 * motion.closure), motion.closure)
    if len(boxes) < 2:
        raise AnnotationError("no_eye_morph", f"{model.path}: the stored eye morphs do not move both eyes")
    center = (boxes[LEFT].x + boxes[RIGHT].x) / 2
    return EyeFinding(slots, boxes, center, 1.0, ())


def _first_center(model: Model, bones: HeadBones) -> float:
    rest = model.skeleton.rest
    if bones.left_eye >= 0:
        return float(rest[bones.left_eye, 0] + rest[bones.right_eye, 0]) / 2
    return float(rest[bones.head, 0])


def _candidates(
    model: Model, share: np.ndarray, center: float, gone: frozenset[int], *, named: bool
) -> list[Candidate]:
    """The morphs that move the head and are called an eye-closing one, or (not `named`) whatever may be one."""
    found = []
    for number, morph in moving_morphs(model):
        if number in gone:
            continue
        parsed = names.parse(morph.name)
        kind = names.eye_class(parsed)
        if kind is None and morph.name_en:
            kind = names.eye_class(names.parse(morph.name_en))
        if kind == "other" or (kind is not None) != named or (kind is None and morph.panel != EYE_PANEL):
            continue
        if kind == "smile" and morph.panel == 3:
            continue  # 笑い in the mouth panel smiles with the mouth
        moved = effect(model, [MorphTerm(number)], center)
        if moved.empty:
            continue
        on_head = share[moved.index] > 0.5
        if np.count_nonzero(on_head) < 0.5 * len(on_head):
            continue
        moved = Displacement(moved.index[on_head], moved.offset[on_head])
        found.append(Candidate(number, parsed, morph.name, kind, moved))
    return found


def _halves(model: Model, moved: Displacement, center: float) -> tuple[float, float] | None:
    """The x of the outermost moved vertices left and right of the middle gap; None unless two eyes move."""
    x = model.position[moved.index, 0].astype(np.float64)
    strong = np.abs(moved.offset[:, 1]) > 0.3 * np.abs(moved.offset[:, 1]).max(initial=0)
    x = np.sort(x[strong])
    if len(x) < 4:
        return None
    gap = np.diff(x)
    at = int(np.argmax(gap))
    if gap[at] < 0.1 * (x[-1] - x[0]) or min(at + 1, len(x) - at - 1) < 0.2 * len(x):
        return None
    return float(x[0] + x[-1]) / 2, float(gap[at])


def _center(model: Model, candidates: list[Candidate], first: float) -> float:
    """The face's middle: between the two eyes that the both-eyed morphs move, which needs no names and no bones."""
    middles = []
    for candidate in candidates:
        if candidate.kind in ("blink", "smile", None):
            halves = _halves(model, candidate.moved, first)
            if halves is not None:
                middles.append(halves[0])
    if not middles:
        return first
    return float(np.median(middles))


def _reference(model: Model, named: list[Candidate], center: float) -> Candidate | None:
    """The morph that tells what closing means on this model: the one called a blink, or a wink, that moves most."""
    ranked = []
    for candidate in named:
        closures = [m.closure for m in (lid_motion(model, candidate.moved, s, center, None) for s in SIDES) if m]
        if not closures or max(closures) <= 0:
            continue
        rank = {"blink": 3.0, "smile": 2.0, "wink": 1.0}[candidate.kind or "wink"]
        rank += 0.5 if len(closures) == 2 and min(closures) > 0.5 * max(closures) else 0.0
        rank += 0.3 if candidate.main else 0.0
        rank -= 0.25 if candidate.name.number else 0.0
        ranked.append((rank, max(closures), candidate))
    # A "blink" that moves the lids half as far as a wink does is a half-closed eye.
    farthest = max((closure for _, closure, _ in ranked), default=0.0)
    closing = [item for item in ranked if item[1] >= CLOSED * farthest]
    return max(closing, key=lambda item: item[:2])[2] if closing else None


def _by_geometry(model: Model, bones: HeadBones, candidates: list[Candidate], center: float) -> Candidate | None:
    """Without names: of the morphs that sink lids on both sides, the one that closes most and moves little else."""
    scored = []
    for candidate in candidates:
        left, right = (lid_motion(model, candidate.moved, side, center, None) for side in SIDES)
        if left is None or right is None or left.pushed or right.pushed:
            continue
        if min(left.closure, right.closure) < 0.7 * max(left.closure, right.closure):
            continue
        if bones.left_eye >= 0:
            eye, apart = model.skeleton.rest[bones.left_eye], abs(left.x - right.x)
            if abs(left.x - eye[0]) > 0.5 * apart or abs(left.y - eye[1]) > 0.5 * apart:
                continue
        sinking = (left.down + right.down) / (left.closure + right.closure + 1e-9)
        scored.append(((left.closure + right.closure) * max(sinking - 0.4, 0.0), candidate))
    # Of those that do it nearly as well the first: まばたき leads the eye panel by custom.
    most = max((score for score, _ in scored), default=0.0)
    return next((candidate for score, candidate in scored if score > 0 and score >= 0.7 * most), None)


def _alike(model: Model, reference: Candidate, candidates: list[Candidate], boxes, center: float) -> list[Candidate]:
    """The reference and the nameless morphs that are one half of it: the one-eyed winks that belong to it."""
    pool = [reference]
    reference.shape, reference.certainty = "normal", 0.9
    for candidate in candidates:
        if (
            candidate.side in SIDES
            and similarity(model, candidate.moved, reference.moved, candidate.side, center) > 0.9
        ):
            candidate.shape, candidate.certainty = "normal", 0.9
            pool.append(candidate)
    return pool


def _boxes(model: Model, reference: Candidate, center: float) -> dict[str, EyeBox]:
    """Both eyes as the reference moves them; an eye that it does not move mirrors the other one."""
    found: dict[str, EyeBox] = {}
    for side in SIDES:
        motion = lid_motion(model, reference.moved, side, center, None)
        if motion is not None and motion.closure > 0:
            found[side] = EyeBox(motion.x, motion.y, max(motion.half_width, 0.3 * motion.closure), motion.closure)
    largest = max(box.opening for box in found.values())
    for side, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        box = found.get(side)
        if box is None or box.opening < OPEN * largest:
            mirror = found[other]
            found[side] = EyeBox(2 * center - mirror.x, mirror.y, mirror.half_width, mirror.opening)
    return found


def _measure(model: Model, candidate: Candidate, boxes: dict[str, EyeBox], center: float) -> None:
    closes, stays = [], []
    for side in SIDES:
        motion = lid_motion(model, candidate.moved, side, center, boxes[side])
        candidate.motion[side] = motion
        closure = motion.closure / boxes[side].opening if motion is not None else 0.0
        closes.append(closure >= CLOSED)
        stays.append(closure <= OPEN)
    if all(closes):
        candidate.side = "both"
    elif closes[0] and stays[1]:
        candidate.side = LEFT
    elif closes[1] and stays[0]:
        candidate.side = RIGHT


def _purity(candidate: Candidate, side: str) -> float:
    """The part of all motion that lies near the eye of `side`."""
    total = sum(m.amount for m in candidate.motion.values() if m is not None)
    motion = candidate.motion[side]
    return motion.inside / total if motion is not None and total > 0 else 0.0


def _most_alike(
    model: Model, ones: list[Candidate], both: Candidate | None, side: str, center: float
) -> list[Candidate]:
    """Of several one-eyed candidates those that move the lids as `both` does: ウィンク3 is often a shape of its own."""
    if both is None or len(ones) < 2:
        return ones
    like = [similarity(model, one.moved, both.moved, side, center) for one in ones]
    return [one for one, value in zip(ones, like, strict=True) if value >= max(like) - ALIKE]


def _fill(model: Model, pool: list[Candidate], exclusions: Exclusions, center: float):
    """Fill the six slots; return them with a confidence for the normal (else smiling) one-eyed ones, and reasons."""
    slots: dict[str, tuple[MorphTerm, ...]] = dict.fromkeys(EYE_SLOTS, ())
    certainty: dict[str, float] = {}
    reasons = []
    for shape in ("normal", "smile"):
        boths = [c for c in pool if c.side == "both" and c.shape == shape]
        both = preferred([c for c in boths if min(_purity(c, s) for s in SIDES) >= PURE / 2]) or preferred(boths)
        if both is not None:
            slots[f"{shape}_both"] = (MorphTerm(both.morph),)
        for side in SIDES:
            name = f"{shape}_{side}"
            ones = [c for c in pool if c.side == side and c.shape == shape]
            pure = _most_alike(model, [c for c in ones if _purity(c, side) >= PURE], both, side, center)
            one = preferred(pure) or (preferred(ones) if both is None else None)
            if one is not None:
                slots[name] = (MorphTerm(one.morph),)
                certainty[name] = one.certainty
                reasons.append(f"{name}: {one.label} moves the vertices of the {side} eye")
            elif (
                both is not None
                and (both.morph, side) not in exclusions.refuted
                # Materials have no side: what shows a closed eye in place of the open one closes both or none.
                and not swapped_materials(model, [MorphTerm(both.morph)])
            ):
                slots[name] = (MorphTerm(both.morph, side=side),)
                certainty[name] = both.certainty * 0.97
                reasons.append(f"{name}: {both.label}, its {side} half")
        left, right = slots[f"{shape}_left"], slots[f"{shape}_right"]
        if not slots[f"{shape}_both"] and left and right:
            slots[f"{shape}_both"] = left + right
    used = [certainty.get(f"normal_{s}", 0.85 * certainty.get(f"smile_{s}", 0.0)) for s in SIDES]
    return slots, min(used), reasons
