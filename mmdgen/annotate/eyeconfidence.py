"""How sure eye and mouth morphs are, from the evidence of names, geometry and pictures together."""

from __future__ import annotations

from dataclasses import dataclass

from mmdgen.annotate.records import SURE

# A geometric confidence from here on means that names and motion agree.
NAMED = 0.8


@dataclass(frozen=True, slots=True)
class SlotEvidence:
    """`geometry` is the confidence without pictures; `wrong` and `unclear` name the slots that the pictures refute or
    leave open; `told_apart` whether normal and smiling lids were seen to differ (None: not seen)."""

    geometry: float
    wrong: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    told_apart: bool | None = None
    has_smile: bool = True
    has_normal: bool = True


def eyes_confidence(evidence: SlotEvidence) -> tuple[float, str]:
    """Return how probably all slots are right, and the doubt in words ("" where there is none)."""
    if evidence.wrong:
        return 0.1, "the pictures refute " + ", ".join(evidence.wrong)
    if evidence.geometry < NAMED:
        # Many shapes cover the iris (smiling, calm, squeezed eyes): without names a picture cannot tell which is meant.
        return min(evidence.geometry, 0.6), "names and motion leave open which morphs are meant"
    if not evidence.has_normal:
        # Where the blink is no closed eye, the shape of the winks is guessed: ウィンク is normal on one model in five.
        return min(evidence.geometry, SURE - 0.1), "only smiling eyes were found, no normally closed ones"
    if evidence.unclear:
        return min(evidence.geometry, SURE - 0.05), "the pictures leave open " + ", ".join(evidence.unclear)
    if evidence.has_smile and evidence.told_apart is None:
        return min(evidence.geometry, 0.9), ""
    if evidence.has_smile and not evidence.told_apart:
        return 0.3, "normal and smiling lids bend the wrong way"
    return max(evidence.geometry, 0.99), ""
