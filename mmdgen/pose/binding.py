"""What connects a vocabulary to one model."""

from __future__ import annotations

from dataclasses import dataclass

from mmdgen.model.records import MorphTerm
from mmdgen.pose.vocabulary import PoseVocabulary


@dataclass(frozen=True, slots=True)
class PoseBinding:
    """`neck` and `head` are bone indices; `terms` maps each morph parameter to its terms.

    `center_x` is the face's middle in MU: terms with a side take the vertices and bones beyond it.
    """

    vocabulary: PoseVocabulary
    neck: int
    head: int
    terms: dict[str, tuple[MorphTerm, ...]]
    center_x: float = 0.0
