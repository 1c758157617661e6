"""How sure eye and mouth morphs are, from the evidence of names, geometry and pictures together."""

from __future__ import annotations

from dataclasses import dataclass

from mmdgen.annotate.records import SURE

# A geometric confidence from here on means that names and motion agree.
NAMED = 0.8

# The tiers. Measured (docs/annotation-quality.md, "Eyes and mouth"), all lists of a model right: CONFIRMED in 150 of
# 150 characters never used before, and in 63 of 63 of the annotated real models that were used in making this.
CONFIRMED = 0.99
# Lids whose lines are not seen, so that exchanged names would not show: 1 of 1 right, so below CONFIRMED by caution.
NOT_COMPARED = 0.9
# Seen, but the pictures leave something open: 6 of 6 right, all of them faces without textures. Not sure by choice: a
# lid that hides 86 to 92 % of the iris (planted, 0.8 of the way) ends here too.
LEFT_OPEN = SURE - 0.05
# The other ones did not occur among 220 models with truth. They are ranks of doubt, not frequencies.
ONLY_SMILES, UNNAMED, EXCHANGED, REFUTED = SURE - 0.1, 0.6, 0.3, 0.1


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
        return REFUTED, "the pictures refute " + ", ".join(evidence.wrong)
    if evidence.geometry < NAMED:
        # Many shapes cover the iris (smiling, calm, squeezed eyes): without names a picture cannot tell which is meant.
        return min(evidence.geometry, UNNAMED), "names and motion leave open which morphs are meant"
    if not evidence.has_normal:
        # Where the blink is no closed eye, the shape of the winks is guessed: ウィンク is normal on one model in five.
        return min(evidence.geometry, ONLY_SMILES), "only smiling eyes were found, no normally closed ones"
    if evidence.unclear:
        return min(evidence.geometry, LEFT_OPEN), "the pictures leave open " + ", ".join(evidence.unclear)
    if evidence.has_smile and evidence.told_apart is None:
        return min(evidence.geometry, NOT_COMPARED), ""
    if evidence.has_smile and not evidence.told_apart:
        return EXCHANGED, "normal and smiling lids bend the wrong way"
    return max(evidence.geometry, CONFIRMED), ""
