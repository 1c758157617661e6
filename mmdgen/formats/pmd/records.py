"""What a PMD file says, in the file's own order and units. Nothing is repaired here: ``write_pmd(read_pmd(b)) == b``.

Texts are fixed-size cp932 fields that end at the first NUL; what follows it (0xFD or garbage) is kept. Hence texts are
``bytes`` of the full size here, `field_text` decodes them. Sources: the notes on the format by its first describers
(http://blog.goo.ne.jp/torisu_tetosuki, collected at http://symfo.web.fc2.com/etc/pmd.html), checked against real files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen.formats.text import decode_fixed

NAME_SIZE, COMMENT_SIZE, TOON_SIZE, FRAME_NAME_SIZE, TOON_COUNT = 20, 256, 100, 50, 10
NONE = 0xFFFF  # a bone index that names none
NO_TOON = 0xFF

VERTEX = np.dtype(
    [
        ("position", "<f4", 3),
        ("normal", "<f4", 3),
        ("uv", "<f4", 2),
        ("bone", "<u2", 2),
        ("weight", "u1"),  # percent of the first bone; the second one has the rest
        ("no_edge", "u1"),  # 1: not part of outlines
    ]
)
MATERIAL = np.dtype(
    [
        ("diffuse", "<f4", 3),
        ("alpha", "<f4"),
        ("specular_power", "<f4"),
        ("specular", "<f4", 3),
        ("ambient", "<f4", 3),
        ("toon", "u1"),  # of the toon list, NO_TOON for none
        ("edge", "u1"),
        ("index_count", "<u4"),  # vertex indices, three a face
        ("texture", "S20"),  # texture*sphere, either may be missing
    ]
)
# Bone kinds
ROTATE, ROTATE_MOVE, IK, UNKNOWN, UNDER_IK, UNDER_ROTATION, IK_TARGET, HIDDEN, TWIST, ROTATION_SHARE = range(10)
BONE = np.dtype(
    [
        ("name", "S20"),
        ("parent", "<u2"),
        ("tail", "<u2"),  # ROTATION_SHARE: the bone whose rotation it takes a share of
        ("kind", "u1"),
        ("ik", "<u2"),  # UNDER_ROTATION: the bone whose rotation it takes; ROTATION_SHARE: percent, signed
        ("position", "<f4", 3),
    ]
)
OFFSET = np.dtype([("index", "<u4"), ("offset", "<f4", 3)])
MORPH_BASE = 0  # a morph kind; the others are the panels 1 brow, 2 eye, 3 mouth, 4 other
FRAME_ENTRY = np.dtype([("bone", "<u2"), ("frame", "u1")])
BODY = np.dtype(
    [
        ("name", "S20"),
        ("bone", "<u2"),
        ("group", "u1"),
        ("mask", "<u2"),
        ("shape", "u1"),
        ("size", "<f4", 3),
        ("position", "<f4", 3),  # relative to the bone
        ("rotation", "<f4", 3),
        ("mass", "<f4"),
        ("linear_damping", "<f4"),
        ("angular_damping", "<f4"),
        ("restitution", "<f4"),
        ("friction", "<f4"),
        ("mode", "u1"),
    ]
)
JOINT = np.dtype(
    [
        ("name", "S20"),
        ("body_a", "<u4"),
        ("body_b", "<u4"),
        ("position", "<f4", 3),
        ("rotation", "<f4", 3),
        ("limits", "<f4", (4, 3)),  # translation lower, upper; rotation lower, upper
        ("spring_translation", "<f4", 3),
        ("spring_rotation", "<f4", 3),
    ]
)


def field_text(raw: bytes) -> str:
    """The text of a fixed-size field, up to its first NUL; damaged text as in `mmdgen.formats.text`."""
    return decode_fixed(raw)[0]


@dataclass(frozen=True, slots=True, eq=False)
class PmdIk:
    bone: int
    target: int
    iterations: int
    weight: float
    chain: np.ndarray  # u2 [n] bones


@dataclass(frozen=True, slots=True, eq=False)
class PmdMorph:
    """`offsets` `OFFSET [n]`: `index` is a vertex in the base morph, else an entry of the base morph."""

    name: bytes
    kind: int
    offsets: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PmdEnglish:
    """English names: of bones S20 [B], of the morphs but the base one S20 [M - 1], of display frames S50."""

    name: bytes
    comment: bytes
    bones: np.ndarray
    morphs: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PmdFile:
    """Exactly what the file says.

    `vertices` `VERTEX [V]`, `indices` u2 (three a face), `materials` `MATERIAL`, `bones` `BONE`. The sections from
    `english_flag` on came with later versions of MMD: None where the file ends before them. `tail` is what follows the
    last section, or the remains of an optional section in whose middle the file ends.
    """

    version: float
    name: bytes
    comment: bytes
    vertices: np.ndarray
    indices: np.ndarray
    materials: np.ndarray
    bones: np.ndarray
    iks: tuple[PmdIk, ...] = ()
    morphs: tuple[PmdMorph, ...] = ()
    shown_morphs: np.ndarray = field(default_factory=lambda: np.zeros(0, "<u2"))
    frame_names: np.ndarray = field(default_factory=lambda: np.zeros(0, "S50"))
    frame_entries: np.ndarray = field(default_factory=lambda: np.zeros(0, FRAME_ENTRY))
    english_flag: int | None = None
    english: PmdEnglish | None = None  # there where the flag is not 0
    toons: np.ndarray | None = None  # S100 [10]
    bodies: np.ndarray | None = None
    joints: np.ndarray | None = None
    tail: bytes = field(default=b"", repr=False)

    @property
    def truncated(self) -> bool:
        """Whether the file ends in the middle of an optional section."""
        return bool(self.tail) and self.joints is None


def english_morph_count(morphs: int) -> int:
    """How many English morph names a file with `morphs` morphs holds: the base one has none."""
    return max(morphs - 1, 0)
