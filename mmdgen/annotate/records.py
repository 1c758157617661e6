"""What must be known about a model before it can be posed and framed."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmdgen.model.records import MorphTerm

AUTO, PERSON = "auto", "person"

# From this confidence on the machine's result is used without a person: head bounds within 4 % of the head's height for
# at least 95 % of such models, eye and mouth morphs right for at least 99 %. Confidences are calibrated against truth;
# this is only where the line is drawn.
SURE = 0.8

EYE_SLOTS = tuple(f"{shape}_{side}" for shape in ("normal", "smile") for side in ("left", "right", "both"))


@dataclass(frozen=True, slots=True)
class HeadBounds:
    """`chin_y`, `top_y` (skull top) and `center_x` in MU; `confidence` in [0, 1]; `reason` says how they were found."""

    chin_y: float
    top_y: float
    center_x: float
    source: str = AUTO
    confidence: float = 1.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EyeMorphs:
    """Which morphs close the eyes and open the mouth, as term lists; an empty list means that there is none.

    `slots` has the keys of `EYE_SLOTS`; left is the character's (x > centre). `mouth_open` opens the mouth.
    """

    slots: dict[str, tuple[MorphTerm, ...]]
    mouth_open: tuple[MorphTerm, ...]
    source: str = AUTO
    confidence: float = 1.0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Annotation:
    """All that posing and framing need: bones by index, bounds and morphs. `neck` and `head` are bone indices."""

    neck: int
    head: int
    bounds: HeadBounds
    eyes: EyeMorphs
    notes: tuple[str, ...] = field(default=())

    def parameter_terms(self) -> dict[str, tuple[MorphTerm, ...]]:
        """Return the terms of the vocabulary's morph parameters: ``left_eye``, ``right_eye``, ``mouth``.

        A normally closed eye is preferred to a smiling one.
        """
        slots = self.eyes.slots
        return {
            "left_eye": slots["normal_left"] or slots["smile_left"],
            "right_eye": slots["normal_right"] or slots["smile_right"],
            "mouth": self.eyes.mouth_open,
        }
