"""The rendered check: does a picture show what the annotation says?

Closing an eye must change that eye and nothing else and cover its iris; the line of the closed lids must bend as its
slot says; the open mouth must show an opening. What the pictures refute is taken back and the next best is tried
(`annotate_checked`). Limits come from the pictures of 66 models and of their other morphs: what closes an eye leaves
0 to 3 % of its iris, what does not 14 % or more; between the closed eyes of one model the smiling one's score differs
from the normal one's by 0.13 or more, and is 0.28 or more. あ opens 0.07 distances between the eyes or more. い opens
up to 0.17, so the picture tells a mouth that opens from one that does not, and not which vowel it says: that is for
names (`mouth.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mmdgen.annotate import auto
from mmdgen.annotate.bones import find_bones, vertex_share
from mmdgen.annotate.closeup import draw_closeups
from mmdgen.annotate.eyeconfidence import SlotEvidence, eyes_confidence
from mmdgen.annotate.eyes import Exclusions, find_eyes, given_eyes
from mmdgen.annotate.lids import SIDES
from mmdgen.annotate.measures import PictureMeasure, measure_closeups
from mmdgen.annotate.motion import effect
from mmdgen.annotate.mouth import find_mouth
from mmdgen.annotate.records import EYE_SLOTS, Annotation, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError, MmdgenError
from mmdgen.model.records import Model
from mmdgen.render.prepare import TextureImage
from mmdgen.render.renderer import Renderer

RIGHT_ONE, UNCLEAR, WRONG = "right", "unclear", "wrong"
MOUTH = "mouth_open"
COVERED, UNCOVERED = 0.08, 0.14  # of the iris still visible: at most in a closed eye, at least in an open one
OTHER_KEPT = 0.85  # of the other eye's iris
OWN_CHANGE, ELSEWHERE = 0.7, 0.3  # of all change: in the eye that closes; outside of both eyes
FAINT = 1.0  # mean change in the eyes (of 255) below which a picture shows nothing
SMILES = 0.05  # by how much scores of a smiling and a normal line differ at least
SMILING = 0.15  # the least score of a smiling line: below it, what was followed is no line of smiling lids
MOUTH_OPEN, MOUTH_SHUT = 0.055, 0.035  # heights of the opening, in distances between the eyes
HOLES = 0.01  # of the squared distance between the eyes
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class SlotCheck:
    """What the picture of one slot (or of ``mouth_open``) says.

    `verdict` is ``right``, ``unclear`` or ``wrong``, `code` a stable word for why it is not right (``no_change``,
    ``wrong_side``, ``both_sides``, ``elsewhere``, ``not_covered``, ``half_closed``, ``exchanged``, ``hole``,
    ``not_seen``, ``shut``, ``not_the_mouth``), `reason` the same in words with numbers; `measure` what was measured.
    """

    slot: str
    verdict: str
    code: str
    reason: str
    measure: PictureMeasure


@dataclass(frozen=True, slots=True)
class RenderedCheck:
    """`slots` by name, those that are filled, and ``mouth_open``. `told_apart` says whether normal and smiling lids
    were seen to bend differently; None where one of them is missing or no line could be seen."""

    slots: dict[str, SlotCheck]
    told_apart: bool | None

    @property
    def wrong(self) -> tuple[str, ...]:
        """The slots that the pictures refute."""
        return tuple(name for name, item in self.slots.items() if item.verdict == WRONG)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why what is not right is not, the refuted ones first."""
        found = [item for verdict in (WRONG, UNCLEAR) for item in self.slots.values() if item.verdict == verdict]
        return tuple(f"{item.slot}: {item.reason}" for item in found)


def check_rendered(
    model: Model, annotation: Annotation, renderer: Renderer, images: dict[int, TextureImage] | None = None
) -> RenderedCheck:
    """Draw `model` at rest and with each slot of `annotation` and judge the pictures.

    `images` holds decoded textures by number; what is missing in it is decoded and added. Raises `AnnotationError`
    where the bones or the eyes cannot be found, `ModelError` or `RenderError` where the model cannot be drawn.
    """
    bones = find_bones(model)
    finding = given_eyes(model, bones, annotation.eyes.slots)
    terms = {slot: annotation.eyes.slots[slot] for slot in EYE_SLOTS if annotation.eyes.slots[slot]}
    terms[MOUTH] = annotation.eyes.mouth_open
    moved = {slot: effect(model, items, finding.center_x) for slot, items in terms.items()}
    boxes, center = finding.boxes, finding.center_x
    closeups = draw_closeups(model, bones, boxes, center, annotation.bounds.chin_y, terms, moved, renderer, images)
    pictures = measure_closeups(closeups, boxes, center)
    found: dict[str, SlotCheck] = {}
    for slot in terms:
        verdict, code, reason = _mouth(pictures[slot]) if slot == MOUTH else _eye(slot, pictures[slot])
        found[slot] = SlotCheck(slot, verdict, code, reason, pictures[slot])
    told_apart = _shapes(found)
    return RenderedCheck(found, told_apart)


def _eye(slot: str, seen: PictureMeasure) -> tuple[str, str, str]:
    """Judge the picture of one eye slot."""
    side = slot.rpartition("_")[2]
    closing = SIDES if side == "both" else (side,)
    staying = tuple(other for other in SIDES if other not in closing)
    if seen.amount < FAINT:
        eyes = [seen.eyes[each] for each in closing]
        if any(eye is None for eye in eyes):
            return UNCLEAR, "not_seen", f"the {side} eye cannot be seen in the picture"
        if all(eye is not None and eye.visible < COVERED for eye in eyes):
            return UNCLEAR, "not_seen", "the eye closes, but lids and eye have one colour (are textures missing?)"
        return WRONG, "no_change", "the picture does not change"
    for each in closing:
        eye = seen.eyes[each]
        if eye is None:
            return UNCLEAR, "not_seen", f"the {each} eye cannot be seen in the picture"
        for other in staying:
            beside = seen.eyes[other]
            if beside is not None and beside.change > 2 * eye.change:
                return WRONG, "wrong_side", f"it changes the {other} eye instead of the {each} one"
            if beside is not None and (beside.visible < OTHER_KEPT or beside.change > 1 - OWN_CHANGE):
                return WRONG, "both_sides", f"it changes the {other} eye, too"
        if eye.visible > UNCOVERED:
            if eye.visible > 0.75:
                return WRONG, "not_covered", f"the {each} iris stays visible ({eye.visible:.0%} of it)"
            return WRONG, "half_closed", f"the {each} eye closes only in part: {eye.visible:.0%} of its iris is visible"
    change = sum(eye.change for each in closing if (eye := seen.eyes[each]) is not None)
    if seen.elsewhere > ELSEWHERE or change < OWN_CHANGE:
        return UNCLEAR, "elsewhere", f"{seen.elsewhere:.0%} of the change lies outside of the eyes"
    if seen.holes > HOLES:
        return WRONG, "hole", "the face becomes see-through"
    for each in closing:
        eye = seen.eyes[each]
        if eye is not None and eye.visible > COVERED:
            return UNCLEAR, "half_closed", f"{eye.visible:.0%} of the {each} iris stays visible"
    return RIGHT_ONE, "", f"covers the iris and changes nothing else ({change:.0%} of the change)"


def _mouth(seen: PictureMeasure) -> tuple[str, str, str]:
    """Judge the picture of the open mouth."""
    if seen.opened >= MOUTH_OPEN and seen.holes <= HOLES:
        for side, eye in seen.eyes.items():
            if eye is not None and eye.visible < OTHER_KEPT:
                return UNCLEAR, "elsewhere", f"it closes the {side} eye, too"
        return RIGHT_ONE, "", f"opens by {seen.opened:.2f} of the distance between the eyes"
    if seen.holes > HOLES:
        return WRONG, "hole", "the face becomes see-through"
    if seen.inside == 0 and seen.mouth < 0.1:
        return WRONG, "not_the_mouth", "the picture does not change around the mouth"
    if seen.opened < MOUTH_SHUT:
        return WRONG, "shut", f"it opens by only {seen.opened:.2f} of the distance between the eyes"
    return UNCLEAR, "shut", f"it opens by only {seen.opened:.2f} of the distance between the eyes"


def _shapes(found: dict[str, SlotCheck]) -> bool | None:
    """Compare normal with smiling lids; where they are exchanged, the verdicts of both become wrong."""
    told: list[bool] = []
    for side in (*SIDES, "both"):
        pair = [found.get(f"{shape}_{side}") for shape in ("normal", "smile")]
        scores = [_smile_score(item) if item is not None and item.verdict == RIGHT_ONE else None for item in pair]
        if scores[0] is None or scores[1] is None or max(scores[0], scores[1]) < SMILING:
            continue
        more = scores[1] - scores[0]
        if more >= SMILES:
            told.append(True)
        elif more <= -SMILES:
            told.append(False)
            for shape in ("normal", "smile"):
                slot = f"{shape}_{side}"
                reason = "the lids' line bends the other way: normal and smile are exchanged"
                found[slot] = replace(found[slot], verdict=WRONG, code="exchanged", reason=reason)
    return all(told) if told else None


def _smile_score(item: SlotCheck) -> float | None:
    """How much the closed lids smile: their line lies high and its ends hang; None where no line is seen."""
    total = []
    side = item.slot.rpartition("_")[2]
    for each in SIDES if side == "both" else (side,):
        eye = item.measure.eyes[each]
        if eye is None or eye.bend is None or eye.line is None:
            return None
        total.append(0.5 * eye.line - eye.bend)
    return sum(total) / len(total)


def annotate_checked(
    model: Model,
    renderer: Renderer,
    *,
    bounds: HeadBounds | None = None,
    eyes: EyeMorphs | None = None,
    images: dict[int, TextureImage] | None = None,
) -> Annotation:
    """Annotate `model` as `auto.annotate` does, check the eyes and the mouth in pictures, and take back what is wrong.

    The eyes' confidence then combines both kinds of evidence. Given `eyes` (a person's) are not checked. Raises what
    `auto.annotate` raises; a model that cannot be drawn keeps a low confidence and says so.
    """
    annotation = auto.annotate(model, bounds=bounds, eyes=eyes)
    if eyes is not None:
        return annotation
    best: tuple[tuple[int, int], Annotation, RenderedCheck] | None = None
    for candidate in _attempts(model, annotation, bounds):
        try:
            check = check_rendered(model, candidate[0], renderer, images)
        except MmdgenError as error:
            return _unchecked(annotation, f"it could not be checked in pictures: {error}")
        used = _used(candidate[0])
        rank = (sum(slot in used for slot in check.wrong), len(check.wrong))
        if best is None or rank < best[0]:
            best = (rank, candidate[0], check)
        if not check.wrong:
            break
        candidate[1].update(check)
    if best is None:
        return annotation
    return _judged(model, best[1], best[2])


class _Refuted:
    """What the pictures have refuted so far; `update` adds to it."""

    def __init__(self) -> None:
        self.eyes = Exclusions()
        self.mouth: frozenset[int] = frozenset()
        self.annotation: Annotation | None = None
        self.changed = False

    def update(self, check: RenderedCheck) -> None:
        self.changed = False
        if self.annotation is None:
            return
        for slot in check.wrong:
            item = check.slots[slot]
            if slot == MOUTH:
                new = frozenset(term.morph for term in self.annotation.eyes.mouth_open)
                self.changed |= not new <= self.mouth
                self.mouth |= new
                continue
            for term in self.annotation.eyes.slots[slot]:
                before = self.eyes
                if item.code == "exchanged":
                    self.eyes = self.eyes.reshaped(term.morph, "smile" if slot.startswith("normal") else "normal")
                else:
                    self.eyes = self.eyes.without(term.morph, term.side)
                self.changed |= before != self.eyes


def _attempts(model: Model, first: Annotation, bounds: HeadBounds | None) -> Iterator[tuple[Annotation, _Refuted]]:
    """Yield the annotation and, as long as what the caller refutes leaves other candidates, the next ones."""
    state = _Refuted()
    state.annotation = first
    yield first, state
    bones = find_bones(model)
    share = vertex_share(model, bones.share)
    for _ in range(_ROUNDS):
        if not state.changed:
            return
        try:
            lids = find_eyes(model, bones, share, state.eyes)
            mouth = find_mouth(model, lids, share, state.mouth)
            found = EyeMorphs(
                lids.slots,
                mouth.terms,
                confidence=min(lids.confidence, mouth.confidence),
                reasons=lids.reasons + mouth.reasons,
            )
            again = auto.annotate(model, bounds=bounds, eyes=found)
        except AnnotationError:
            return
        state.annotation = again
        yield again, state


def _used(annotation: Annotation) -> set[str]:
    return {slot for slot in EYE_SLOTS if annotation.eyes.slots[slot]} | {MOUTH}


def _judged(model: Model, annotation: Annotation, check: RenderedCheck) -> Annotation:
    """Return `annotation` with the confidence that geometry and pictures give together, the doubts first."""
    eyes = annotation.eyes
    # What the pictures refute and nothing replaces is no answer: an empty optional slot is better than a wrong one.
    slots = dict(eyes.slots)
    for slot in check.wrong:
        if slot.startswith("smile") and any(slots[f"normal_{side}"] for side in SIDES):
            slots[slot] = ()
    evidence = SlotEvidence(
        geometry=eyes.confidence,
        wrong=tuple(slot for slot in check.wrong if slot == MOUTH or slots[slot]),
        unclear=tuple(name for name, item in check.slots.items() if item.verdict == UNCLEAR),
        told_apart=check.told_apart,
        has_smile=any(slots[f"smile_{side}"] for side in (*SIDES, "both")),
        has_normal=all(slots[f"normal_{side}"] for side in SIDES),
    )
    confidence, doubt = eyes_confidence(evidence)
    doubts = check.reasons + ((doubt,) if doubt else ())
    gone = sum(item.path is None for item in model.textures)
    if evidence.unclear and gone:
        # White lids on a white eye, a white mouth in a white face: that is what to mend, not the morphs.
        doubts = (f"{gone} of its {len(model.textures)} textures are missing", *doubts)
    judged = replace(
        eyes, slots=slots, confidence=round(confidence, 3), reasons=tuple(dict.fromkeys(doubts + eyes.reasons))
    )
    return replace(annotation, eyes=judged)


def _unchecked(annotation: Annotation, reason: str) -> Annotation:
    eyes = annotation.eyes
    return replace(
        annotation, eyes=replace(eyes, confidence=min(eyes.confidence, 0.7), reasons=(reason, *eyes.reasons))
    )
