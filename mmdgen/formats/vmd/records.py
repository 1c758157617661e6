"""What a VMD file says, in the file's own order and units. Nothing is repaired here: ``write_vmd(read_vmd(b)) == b``.

Names are fixed-size cp932 fields that end at the first NUL; what follows it is kept, and a name may be cut in the
middle of a character, because MMD copies only as many bytes as fit. Hence names are ``bytes`` of the full size;
`field_text` decodes them. Keyframes stand in the order of the file, which is often not that of their frame numbers. MMD
plays 30 frames a second. Sources: the notes on the format by its first describers (http://blog.goo.ne.jp/torisu_tetosuki,
https://mikumikudance.fandom.com/wiki/VMD_file_format), checked against real files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen.formats.text import decode_fixed

SIGNATURE_SIZE = 30
SIGNATURE = b"Vocaloid Motion Data 0002".ljust(SIGNATURE_SIZE, b"\0")
OLD_SIGNATURE = b"Vocaloid Motion Data file".ljust(SIGNATURE_SIZE, b"\0")  # MMD before its multi-model edition
NAME_SIZE, OLD_NAME_SIZE, KEY_NAME_SIZE = 20, 10, 15

BONE = np.dtype(
    [
        ("name", f"S{KEY_NAME_SIZE}"),
        ("frame", "<u4"),
        ("position", "<f4", 3),  # MU, added to the rest position
        ("rotation", "<f4", 4),  # quaternion xyzw
        ("interpolation", "u1", 64),  # see `curves_of`
    ]
)
MORPH = np.dtype([("name", f"S{KEY_NAME_SIZE}"), ("frame", "<u4"), ("weight", "<f4")])
CAMERA = np.dtype(
    [
        ("frame", "<u4"),
        ("distance", "<f4"),  # MU, negative in front of the target
        ("target", "<f4", 3),
        ("rotation", "<f4", 3),  # radians about x, y, z
        ("interpolation", "u1", (6, 4)),  # x, y, z, rotation, distance, fov: ax, bx, ay, by
        ("fov_deg", "<u4"),
        ("orthographic", "u1"),  # 0: perspective
    ]
)
LIGHT = np.dtype([("frame", "<u4"), ("color", "<f4", 3), ("direction", "<f4", 3)])
SHADOW = np.dtype([("frame", "<u4"), ("mode", "u1"), ("distance", "<f4")])
PROPERTY = np.dtype([("frame", "<u4"), ("visible", "u1"), ("ik_count", "<u4")])  # then that many of `IK`
IK = np.dtype([("name", f"S{NAME_SIZE}"), ("enabled", "u1")])

# The sections in the order of the file, with their records. A file may end before any but the first.
SECTIONS = {"bones": BONE, "morphs": MORPH, "cameras": CAMERA, "lights": LIGHT, "shadows": SHADOW}

_PHYSICS_OFF = (0x63, 0x0F)


@dataclass(frozen=True, slots=True, eq=False)
class VmdFile:
    """Exactly what the file says.

    `signature` of 30 bytes; `name` of the model, 20 bytes (10 after the old signature); `bones` `BONE [n]`, `morphs`
    `MORPH`, `cameras` `CAMERA`, `lights` `LIGHT`, `shadows` `SHADOW`, `properties` `PROPERTY`: None where the file ends
    before the section. `iks` `IK` holds the states of all `properties` one after another. `tail` is what follows the
    last section, or the remains of a section in whose middle the file ends.
    """

    signature: bytes
    name: bytes
    bones: np.ndarray
    morphs: np.ndarray | None = None
    cameras: np.ndarray | None = None
    lights: np.ndarray | None = None
    shadows: np.ndarray | None = None
    properties: np.ndarray | None = None
    iks: np.ndarray = field(default_factory=lambda: np.zeros(0, IK))
    tail: bytes = field(default=b"", repr=False)

    @property
    def truncated(self) -> bool:
        """Whether the file ends in the middle of a section."""
        return bool(self.tail) and self.properties is None

    def iks_by_property(self) -> list[np.ndarray]:
        """The IK states `IK [ik_count]` of each property keyframe; empty without property keyframes."""
        if self.properties is None or len(self.properties) == 0:
            return []
        return np.split(self.iks, np.cumsum(self.properties["ik_count"], dtype=np.int64)[:-1])


def name_size(signature: bytes) -> int | None:
    """The bytes of the model name after a `signature` of 30 bytes; None if it is none.

    Some exporters write no version at all; their files are like those of version 0002.
    """
    text = signature.partition(b"\0")[0]
    if text == OLD_SIGNATURE.rstrip(b"\0"):
        return OLD_NAME_SIZE
    if text in (SIGNATURE.rstrip(b"\0"), b"Vocaloid Motion Data"):
        return NAME_SIZE
    return None


def field_text(raw: bytes) -> str:
    """The text of a fixed-size field, up to its first NUL; damaged text as in `mmdgen.formats.text`."""
    return decode_fixed(raw)[0]


def curves_of(interpolation: np.ndarray) -> np.ndarray:
    """The control points u1 [..., 4, 4] of bone `interpolation` u1 [..., 64]: curve x, y, z, rotation; ax, ay, bx, by.

    The block is four rows of 16 bytes, each one the row above moved left by one byte. MMD later put the physics switch
    over the bytes 2 and 3 of the first row, so every curve is taken from the row that begins with it.
    """
    rows = np.asarray(interpolation).reshape(*np.shape(interpolation)[:-1], 4, 4, 4)
    return rows[..., 0]


def interpolation_of(curves: np.ndarray, physics: bool = True) -> np.ndarray:
    """The block u1 [..., 64] as MMD writes it for control points u1 [..., 4, 4]; `curves_of` is its inverse."""
    first = np.moveaxis(np.asarray(curves, np.uint8), -1, -2)
    first = first.reshape(*first.shape[:-2], 16)
    block = np.zeros((*first.shape[:-1], 4, 16), np.uint8)
    for row in range(4):
        block[..., row, : 16 - row] = first[..., row:]
    block[..., 0, 2:4] = (0, 0) if physics else _PHYSICS_OFF
    return block.reshape(*first.shape[:-1], 64)


def physics_of(interpolation: np.ndarray) -> np.ndarray:
    """Whether physics may move the bone from its key on, bool [...], of bone `interpolation` u1 [..., 64]."""
    return ~(np.asarray(interpolation)[..., 2:4] == _PHYSICS_OFF).all(axis=-1)
