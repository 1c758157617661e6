"""VMD bytes -> `VmdFile`.

The file holds: header; then keyframes of bones, morphs, camera, light, self-shadow, and of visibility and IK, each
section with its count before it. Older versions of MMD and many exporters stop after one of them.
"""

from __future__ import annotations

import numpy as np

from mmdgen.formats.cursor import Cursor, TruncatedError, layout
from mmdgen.formats.vmd import records as vmd
from mmdgen.formats.vmd.records import VmdFile

_PROPERTY_START = layout("IB")


def read_vmd(data: bytes, file: str = "<bytes>") -> VmdFile:
    """Everything that the VMD file `data` says; `file` names it in errors.

    FormatError where the file is damaged, with the byte offset and the field path. A file may end before or inside any
    section but the first, that of the bones. ``write_vmd(read_vmd(data)) == data`` always holds.
    """
    cursor = Cursor(data, file)
    signature = cursor.take(vmd.SIGNATURE_SIZE, "signature")
    size = vmd.name_size(signature)
    if size is None:
        cursor.fail(
            f"this is no VMD file of a known version: it begins with {signature!r}",
            "signature",
            back=vmd.SIGNATURE_SIZE,
        )
    name = cursor.take(size, "name")
    sections: dict[str, np.ndarray] = {"bones": _array(cursor, "bones")}
    mark = cursor.mark()
    try:
        for section in list(vmd.SECTIONS)[1:]:
            if cursor.remaining:
                sections[section] = _array(cursor, section)
                mark = cursor.mark()
        if cursor.remaining:
            sections["properties"], sections["iks"] = _properties(cursor)
    except TruncatedError:
        cursor.rewind(mark)
    return VmdFile(signature=signature, name=name, **sections, tail=cursor.rest())


def _array(cursor: Cursor, section: str) -> np.ndarray:
    """A section of equal records with its count before it."""
    dtype = vmd.SECTIONS[section]
    return cursor.array(dtype, cursor.count(f"{section}.count", dtype.itemsize, "I"), section)


def _properties(cursor: Cursor) -> tuple[np.ndarray, np.ndarray]:
    """The visibility keyframes and the IK states of all of them."""
    count = cursor.count("properties.count", vmd.PROPERTY.itemsize, "I")
    properties = np.empty(count, vmd.PROPERTY)
    states = bytearray()
    for i in cursor.items("properties", count):
        frame, visible = cursor.unpack(_PROPERTY_START, "frame")
        ik_count = cursor.count("iks.count", vmd.IK.itemsize, "I")
        properties[i] = frame, visible, ik_count
        states += cursor.take(ik_count * vmd.IK.itemsize, "iks")
    return properties, np.frombuffer(states, vmd.IK)
