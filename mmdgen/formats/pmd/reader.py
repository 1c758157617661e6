"""PMD bytes -> `PmdFile`.

The file holds: header; vertices, vertex indices, materials, bones, IK, morphs, display lists; then, each only in files
of newer versions, English names, ten toon file names, rigid bodies and joints.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmdgen.formats.cursor import Cursor, TruncatedError, layout
from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd.records import PmdEnglish, PmdFile, PmdIk, PmdMorph

_IK = layout("HHBHf")
_INDEX = np.dtype("<u2")


def read_pmd(data: bytes, file: str = "<bytes>") -> PmdFile:
    """Everything that the PMD file `data` says; `file` names it in errors.

    FormatError where the file is damaged, with the byte offset and the field path. A file may end before or inside any
    of the sections from the English names on. ``write_pmd(read_pmd(data)) == data`` always holds.
    """
    cursor = Cursor(data, file)
    signature = cursor.take(3, "signature")
    if signature != b"Pmd":
        cursor.fail(f"this is no PMD file: it begins with {signature!r}, expected b'Pmd'", "signature", back=3)
    values: dict[str, Any] = {
        "version": cursor.f32("version"),
        "name": cursor.take(pmd.NAME_SIZE, "name"),
        "comment": cursor.take(pmd.COMMENT_SIZE, "comment"),
        "vertices": _array(cursor, pmd.VERTEX, "vertices", "I"),
        "indices": _array(cursor, _INDEX, "indices", "I"),
        "materials": _array(cursor, pmd.MATERIAL, "materials", "I"),
        "bones": _array(cursor, pmd.BONE, "bones", "H"),
        "iks": tuple(_ik(cursor) for _ in cursor.items("iks", cursor.count("iks.count", _IK.size, "H"))),
        "morphs": tuple(_morph(cursor) for _ in cursor.items("morphs", cursor.count("morphs.count", 25, "H"))),
        "shown_morphs": _array(cursor, _INDEX, "shown_morphs", "B"),
        "frame_names": _array(cursor, np.dtype("S50"), "frame_names", "B"),
        "frame_entries": _array(cursor, pmd.FRAME_ENTRY, "frame_entries", "I"),
    }
    while cursor.remaining and "joints" not in values:
        mark = cursor.mark()
        try:
            values |= _optional(cursor, values)
        except TruncatedError:
            cursor.rewind(mark)
            break
    return PmdFile(**values, tail=cursor.rest())


def _optional(cursor: Cursor, values: dict[str, Any]) -> dict[str, Any]:
    """The next of the sections that may be missing, given those that were read."""
    if "english_flag" not in values:
        flag = cursor.u8("english_flag")
        return {"english_flag": flag, "english": _english(cursor, values) if flag else None}
    if "toons" not in values:
        return {"toons": cursor.array(np.dtype("S100"), pmd.TOON_COUNT, "toons")}
    if "bodies" not in values:
        return {"bodies": _array(cursor, pmd.BODY, "bodies", "I")}
    return {"joints": _array(cursor, pmd.JOINT, "joints", "I")}


def _array(cursor: Cursor, dtype: np.dtype, field: str, count_kind: str) -> np.ndarray:
    """A section of equal records with its count before it."""
    return cursor.array(dtype, cursor.count(f"{field}.count", dtype.itemsize, count_kind), field)


def _ik(cursor: Cursor) -> PmdIk:
    bone, target, length, iterations, weight = cursor.unpack(_IK, "")
    return PmdIk(bone, target, iterations, weight, cursor.array(_INDEX, length, "chain"))


def _morph(cursor: Cursor) -> PmdMorph:
    name = cursor.take(pmd.NAME_SIZE, "name")
    count = cursor.count("offsets.count", pmd.OFFSET.itemsize, "I")
    kind = cursor.u8("kind")
    return PmdMorph(name, kind, cursor.array(pmd.OFFSET, count, "offsets"))


def _english(cursor: Cursor, values: dict[str, Any]) -> PmdEnglish:
    names = np.dtype("S20")
    with cursor.at("english"):
        return PmdEnglish(
            name=cursor.take(pmd.NAME_SIZE, "name"),
            comment=cursor.take(pmd.COMMENT_SIZE, "comment"),
            bones=cursor.array(names, len(values["bones"]), "bones"),
            morphs=cursor.array(names, pmd.english_morph_count(len(values["morphs"])), "morphs"),
            frames=cursor.array(np.dtype("S50"), len(values["frame_names"]), "frames"),
        )
