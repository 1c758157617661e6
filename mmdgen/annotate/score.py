"""How good the automatic annotation is: compared with people's annotations and with exact truth, and summed up.

Lengths are parts of the true head's height (top - chin). A list of terms is right when it moves the same vertices the
same way as the true list, whichever morphs it is made of.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdgen.annotate import auto
from mmdgen.annotate.motion import displacement
from mmdgen.annotate.records import EYE_SLOTS, SURE, Annotation, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError
from mmdgen.model.records import Model, MorphTerm

CHIN_LIMIT, BOUNDS_LIMIT = 0.02, 0.04  # what counts as right; the chin alone is also told by the narrower limit
COSINE, RATIO = 0.98, (0.9, 1.1)  # two displacements of all vertices are the same motion
MOUTH = "mouth_open"
SLOTS = (*EYE_SLOTS, MOUTH)
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
PERCENTILES = (50, 75, 90, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a model. `bounds` or `eyes` may be unknown; `rejected` says why people do not want it."""

    bounds: HeadBounds | None = None
    eyes: EyeMorphs | None = None
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class BoundsScore:
    """Signed errors as parts of the true head's height: above and to the character's left are positive."""

    chin: float
    top: float
    center: float
    confidence: float

    @property
    def worst(self) -> float:
        return max(abs(self.chin), abs(self.top), abs(self.center))

    @property
    def right(self) -> bool:
        return self.worst <= BOUNDS_LIMIT


@dataclass(frozen=True, slots=True)
class SlotScore:
    """Whether the truth has terms in a slot (`wanted`), whether the machine has (`found`), whether both do the same."""

    wanted: bool
    found: bool
    right: bool


@dataclass(frozen=True, slots=True)
class Score:
    """One model. `code` is the machine's reason to refuse it, or empty; `head` tells models with one head apart."""

    name: str
    kind: str
    head: tuple
    truth: Truth
    found: Annotation | None
    code: str
    seconds: float
    bounds: BoundsScore | None
    slots: dict[str, SlotScore]

    @property
    def eyes_right(self) -> bool:
        """Whether all six eye slots and the mouth do what the true ones do (empty ones included)."""
        return all(item.right for item in self.slots.values())


def score_bounds(found: HeadBounds, truth: HeadBounds) -> BoundsScore:
    """Compare bounds. Raises ValueError for a truth without a height."""
    height = truth.top_y - truth.chin_y
    if not height > 0:
        raise ValueError(f"a true head needs a height, found {truth}")
    return BoundsScore(
        (found.chin_y - truth.chin_y) / height,
        (found.top_y - truth.top_y) / height,
        (found.center_x - truth.center_x) / height,
        found.confidence,
    )


def same_motion(model: Model, found: Sequence[MorphTerm], truth: Sequence[MorphTerm], center_x: float) -> bool:
    """Whether two lists of terms move the same vertices of `model` the same way; two that move nothing do too.

    The displacements of all vertices are compared as two vectors: by the cosine between them and their lengths.
    """
    if tuple(found) == tuple(truth):
        return True
    vectors = []
    for terms in (found, truth):
        moved = displacement(model, list(terms), center_x)
        full = np.zeros((len(model.position), 3))
        full[moved.index] = moved.offset
        vectors.append(full.ravel())
    return same_vectors(*vectors)


def same_vectors(found: np.ndarray, truth: np.ndarray) -> bool:
    """Whether two displacements f64 [n] are the same motion: cosine above `COSINE`, lengths within `RATIO`."""
    a, b = float(np.linalg.norm(found)), float(np.linalg.norm(truth))
    if a == 0 or b == 0:
        return a == b
    return float(found @ truth) > COSINE * a * b and RATIO[0] <= a / b <= RATIO[1]


def score_slots(model: Model, found: EyeMorphs | None, truth: EyeMorphs, center_x: float) -> dict[str, SlotScore]:
    """Compare the six eye slots and the mouth; `found` is None where the machine has refused the model."""
    scores = {}
    for slot in SLOTS:
        wanted = truth.mouth_open if slot == MOUTH else truth.slots[slot]
        if found is None:
            scores[slot] = SlotScore(bool(wanted), False, False)
            continue
        got = found.mouth_open if slot == MOUTH else found.slots[slot]
        right = bool(wanted) == bool(got) and (not wanted or same_motion(model, got, wanted, center_x))
        scores[slot] = SlotScore(bool(wanted), bool(got), right)
    return scores


def score_model(
    model: Model,
    truth: Truth,
    *,
    kind: str,
    name: str = "",
    find: Callable[[Model], Annotation] = auto.annotate,
) -> Score:
    """Annotate `model` with `find` (timed) and compare the result with `truth`. `kind` groups scores."""
    found, code = None, ""
    start = time.perf_counter()
    try:
        found = find(model)
    except AnnotationError as error:
        code = error.code
    seconds = time.perf_counter() - start
    bounds, slots = None, {}
    if found is not None and truth.bounds is not None:
        bounds = score_bounds(found.bounds, truth.bounds)
    if truth.eyes is not None:
        center = truth.bounds or (found.bounds if found is not None else None)
        slots = score_slots(model, found and found.eyes, truth.eyes, center.center_x if center else 0.0)
    known = truth.bounds
    head = (round(known.chin_y, 2), round(known.top_y, 2)) if known else (model.id,)
    return Score(name or model.path.name, kind, head, truth, found, code, seconds, bounds, slots)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval (Wilson's score interval) of a share of which `right` of `count` were seen."""
    if count == 0:
        return 0.0, 1.0
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def calibration(pairs: Iterable[tuple[float, bool]], bins: Sequence[float] = BINS) -> list[dict[str, Any]]:
    """Return rows of a calibration table for (confidence, right) pairs: bin, count, mean confidence, share right.

    A bin holds what is at or above its lower edge and below the upper one; the last one holds its upper edge too.
    """
    items = list(pairs)
    rows = []
    for low, high in itertools.pairwise(bins):
        last = high == bins[-1]
        inside = [(c, r) for c, r in items if low <= c and (c < high or (last and c <= high))]
        count, right = len(inside), sum(r for _, r in inside)
        rows.append(
            {
                "low": low,
                "high": high,
                "count": count,
                "mean_confidence": round(sum(c for c, _ in inside) / count, 4) if count else None,
                "share_right": round(right / count, 4) if count else None,
                "interval": [round(value, 4) for value in wilson(right, count)],
            }
        )
    return rows


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return percentiles of absolute errors, in % of the head's height."""
    errors = np.abs(np.array(list(values), float)) * 100
    return {f"p{p}": round(float(np.percentile(errors, p)), 3) for p in PERCENTILES} if len(errors) else {}


def _share(right: int, count: int) -> float | None:
    return round(right / count, 4) if count else None


def summarise(scores: Sequence[Score]) -> dict[str, Any]:
    """Sum up: bounds, slots, calibration, times. Refused models count as not found and not sure."""
    usable = [s for s in scores if not s.truth.rejected]
    with_bounds = [s for s in usable if s.truth.bounds is not None]
    scored = [s.bounds for s in with_bounds if s.bounds is not None]
    sure = [b for b in scored if b.confidence >= SURE]
    with_eyes = [s for s in usable if s.slots]
    eye_pairs = [(s.found.eyes.confidence, s.eyes_right) for s in with_eyes if s.found is not None]
    sure_eyes = [right for confidence, right in eye_pairs if confidence >= SURE]
    rejected = [s for s in scores if s.truth.rejected]
    seconds = [s.seconds for s in scores if s.found is not None]
    return {
        "models": len(scores),
        "heads": len({s.head for s in scores}),
        "refused": _codes(s for s in usable if s.found is None),
        "rejected_by_people": {"count": len(rejected), "refused_too": sum(s.found is None for s in rejected)},
        "bounds": {
            "count": len(with_bounds),
            "found": len(scored),
            "chin_percent": percentiles(b.chin for b in scored),
            "top_percent": percentiles(b.top for b in scored),
            "center_percent": percentiles(b.center for b in scored),
            "chin_within_2_percent": _share(sum(abs(b.chin) <= CHIN_LIMIT for b in scored), len(with_bounds)),
            "right": _share(sum(b.right for b in scored), len(with_bounds)),
            "coverage": _share(len(sure), len(with_bounds)),
            "right_where_sure": _share(sum(b.right for b in sure), len(sure)),
            "right_where_unsure": _share(
                sum(b.right for b in scored) - sum(b.right for b in sure), len(scored) - len(sure)
            ),
            "calibration": calibration((b.confidence, b.right) for b in scored),
        },
        "eyes": {
            "count": len(with_eyes),
            "slots": {slot: slot_summary(s.slots[slot] for s in with_eyes) for slot in SLOTS},
            "right": _share(sum(right for _, right in eye_pairs), len(with_eyes)),
            "coverage": _share(len(sure_eyes), len(with_eyes)),
            "right_where_sure": _share(sum(sure_eyes), len(sure_eyes)),
            "calibration": calibration(eye_pairs),
            "certainty": certainty(with_eyes),
        },
        "milliseconds": {f"p{p}": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 90, 100) if seconds},
    }


def certainty(scores: Sequence[Score]) -> dict[str, dict[str, int]]:
    """Return how many were sure or not and right or not, for whole models and for every slot (by its model's
    confidence; empty slots that ought to be empty are right). Refused models have no confidence and count apart."""
    rows: dict[str, dict[str, int]] = {}
    for name in ("model", *SLOTS):
        row: dict[str, int] = {"sure_right": 0, "sure_wrong": 0, "unsure_right": 0, "unsure_wrong": 0, "refused": 0}
        for score in scores:
            if score.found is None:
                row["refused"] += 1
                continue
            right = score.eyes_right if name == "model" else score.slots[name].right
            sure = score.found.eyes.confidence >= SURE
            row[f"{'sure' if sure else 'unsure'}_{'right' if right else 'wrong'}"] += 1
        rows[name] = row
    return rows


def slot_summary(items: Iterable[SlotScore]) -> dict[str, Any]:
    """Return counts, precision (right of found) and recall (right of wanted) of one slot."""
    rows = list(items)
    wanted, found = sum(i.wanted for i in rows), sum(i.found for i in rows)
    hits = sum(i.right and i.found for i in rows)
    return {
        "wanted": wanted,
        "found": found,
        "right": hits,
        "precision": _share(hits, found),
        "recall": _share(hits, wanted),
    }


def _codes(scores: Iterable[Score]) -> dict[str, int]:
    codes = [s.code for s in scores]
    return {code: codes.count(code) for code in sorted(set(codes))}


def worst(scores: Sequence[Score], count: int) -> list[Score]:
    """Return the worst cases: sure and wrong first, then by error; wrong morphs count as an error of a whole head."""

    def badness(score: Score) -> tuple[bool, float]:
        error, lied = 0.0, False
        if score.bounds is not None:
            error = score.bounds.worst
            lied = not score.bounds.right and score.bounds.confidence >= SURE
        if score.slots and score.found is not None and not score.eyes_right:
            error += 1.0
            lied |= score.found.eyes.confidence >= SURE
        return lied, error

    known = [s for s in scores if not s.truth.rejected and (s.bounds is not None or s.slots)]
    return sorted(known, key=badness, reverse=True)[:count]
