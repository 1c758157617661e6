"""What a VPD file says. Nothing is repaired here: ``write_vpd(read_vpd(b)) == b``, comments and number texts included.

A VPD is a cp932 text::

    Vocaloid Pose Data file

    miku.osm;		// the model's file
    1;			// how many bones follow

    Bone0{首
      0.000000,0.000000,0.000000;		// translation x, y, z in MU
      0.000000,0.043619,0.000000,0.999048;	// quaternion x, y, z, w
    }

    Morph0{まばたき
      1.000000;			// weight; only MikuMikuMoving writes morphs
    }

Next to its values every record keeps the text that it was read from (`raw`). The writer uses that text as long as it
says what the record says: a record changed by `dataclasses.replace` is written anew, and all others stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SIGNATURE = b"Vocaloid Pose Data file"


@dataclass(frozen=True, slots=True)
class VpdBone:
    """The pose of one bone: `translation` xyz in MU, added to the rest position; `rotation` quaternion xyzw."""

    name: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class VpdMorph:
    """The weight of one morph."""

    name: str
    weight: float
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class VpdFile:
    """Exactly what the file says.

    `parent` is the file name of the model; `blocks` are the bones and morphs in the order of the file. `bone_count` is
    None where the file states as many bones as it holds, else the number that it states.
    """

    parent: str
    blocks: tuple[VpdBone | VpdMorph, ...]
    bone_count: int | None = None
    raw: bytes = field(default=b"", repr=False, compare=False)

    @property
    def bones(self) -> tuple[VpdBone, ...]:
        return tuple(block for block in self.blocks if isinstance(block, VpdBone))

    @property
    def morphs(self) -> tuple[VpdMorph, ...]:
        return tuple(block for block in self.blocks if isinstance(block, VpdMorph))

    @property
    def stated_bones(self) -> int:
        """How many bones the file says that it holds."""
        return len(self.bones) if self.bone_count is None else self.bone_count
