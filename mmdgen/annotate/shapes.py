"""Normal or smiling: which shape of closed eye a morph makes.

Both-eyed morphs are believed by name, unless their lids say that the names are exchanged. A one-eyed wink is what the
both-eyed morph is that it resembles, because the convention (ウィンク smiles, ウィンク２ is normal) is reversed in a
good part of the models.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen.annotate import names
from mmdgen.annotate.lids import SIDES, EyeBox, LidMotion, similarity
from mmdgen.annotate.motion import Displacement
from mmdgen.model.records import Model


@dataclass(slots=True)
class Candidate:
    """A morph that may close an eye. `side` is left, right, both or empty; `shape` normal, smile or empty."""

    morph: int
    name: names.ParsedName
    label: str
    kind: str | None
    moved: Displacement
    motion: dict[str, LidMotion | None] = field(default_factory=dict)
    side: str = ""
    shape: str = ""
    certainty: float = 0.0

    @property
    def main(self) -> bool:
        """Whether it is spelled as most models spell it."""
        return self.name.base in names.MAIN_EYES


def decide_shapes(model: Model, pool: list[Candidate], boxes: dict[str, EyeBox], center: float) -> None:
    """Set `shape` and `certainty` of every candidate of `pool` that closes an eye."""
    both = [c for c in pool if c.side == "both"]
    for candidate in both:
        if candidate.kind in ("blink", "smile"):
            candidate.shape = "normal" if candidate.kind == "blink" else "smile"
            candidate.certainty = 0.97
    normal = preferred([c for c in both if c.shape == "normal"])
    smile = preferred([c for c in both if c.shape == "smile"])
    if normal is not None and smile is not None and _smileness(normal, smile, boxes) > 0.25:
        # The names are exchanged: the lids of the "blink" meet clearly higher and bend the other way.
        for candidate in both:
            if candidate.shape:
                candidate.shape = "smile" if candidate.shape == "normal" else "normal"
                candidate.certainty = 0.75
        normal, smile = smile, normal
    for candidate in pool:
        if not candidate.side or candidate.shape:
            continue
        _shape_of_one(model, candidate, normal, smile, boxes, center)


def _smileness(a: Candidate, b: Candidate, boxes: dict[str, EyeBox]) -> float:
    """How much more `a` smiles than `b`, in eye openings: its lids meet higher and their line bends up."""
    total = []
    for side in SIDES:
        ma, mb = a.motion.get(side), b.motion.get(side)
        if ma is not None and mb is not None:
            opening = boxes[side].opening
            higher, bend = (ma.line_y - mb.line_y) / opening, (mb.bend - ma.bend) / opening
            total.append(min(higher, bend) if higher > 0 and bend > 0 else max(min(higher, 0.0), -1.0))
    return float(np.mean(total)) if total else 0.0


def _shape_of_one(model, candidate: Candidate, normal, smile, boxes: dict[str, EyeBox], center: float) -> None:
    sides = SIDES if candidate.side == "both" else (candidate.side,)
    like = {}
    for shape, other in (("normal", normal), ("smile", smile)):
        if other is not None:
            like[shape] = float(np.mean([similarity(model, candidate.moved, other.moved, s, center) for s in sides]))
    if len(like) == 2 and abs(like["normal"] - like["smile"]) > 0.02 and max(like.values()) > 0.6:
        candidate.shape = max(like, key=lambda shape: like[shape])
        candidate.certainty = 0.97 if max(like.values()) > 0.9 else 0.9
        return
    if len(like) == 1 and max(like.values()) > 0.97:
        candidate.shape, candidate.certainty = next(iter(like)), 0.95
        return
    shape, certainty = _nearest(candidate, sides, normal, smile, boxes)
    if shape:
        candidate.shape, candidate.certainty = shape, certainty
        return
    # Without a pair to compare with: how high the lids meet, how the line bends and how much the lower lid rises.
    motion = candidate.motion[sides[0]]
    opening = boxes[sides[0]].opening
    if motion is None:
        return
    evidence = -1.5 * motion.bend / opening + 2.0 * (motion.up / max(motion.closure, 1e-9) - 0.3)
    if normal is not None and (reference := normal.motion.get(sides[0])) is not None:
        evidence = (
            2.0 * ((motion.line_y - reference.line_y) / opening - 0.12) + 1.0 * (reference.bend - motion.bend) / opening
        )
    if candidate.kind == "blink":
        evidence -= 0.6
    elif candidate.kind == "smile":
        evidence += 0.6
    elif candidate.kind == "wink":
        evidence += -0.15 if candidate.name.number == 2 else 0.15
    candidate.shape = "smile" if evidence > 0 else "normal"
    candidate.certainty = min(0.9, 0.6 + abs(evidence))


def _nearest(candidate: Candidate, sides, normal, smile, boxes: dict[str, EyeBox]) -> tuple[str, float]:
    """The both-eyed morph whose lids move most alike, measured; ('', 0) unless one is clearly nearer."""
    apart = []
    for other in (normal, smile):
        gaps = []
        for side in sides:
            own, its = candidate.motion[side], other.motion[side] if other is not None else None
            if own is None or its is None:
                return "", 0.0
            gap = abs(own.down - its.down) + abs(own.line_y - its.line_y) + abs(own.bend - its.bend)
            gaps.append(gap / boxes[side].opening)
        apart.append(float(np.mean(gaps)))
    if abs(apart[0] - apart[1]) < 0.12:
        return "", 0.0
    return ("normal", "smile")[apart[0] > apart[1]], 0.96 if min(apart) < 0.1 else 0.88


def preferred(candidates: list[Candidate]) -> Candidate | None:
    """The plainest spelling: the known names before others, the eye panel, no number, the first in the file."""
    return min(candidates, key=_plainness, default=None)


def _plainness(candidate: Candidate):
    return (candidate.kind is None, not candidate.main, candidate.name.number, candidate.morph)
