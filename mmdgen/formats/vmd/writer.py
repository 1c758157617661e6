"""`VmdFile` -> VMD bytes, the exact inverse of the reader."""

from __future__ import annotations

import numpy as np

from mmdgen.formats.cursor import Buffer, layout
from mmdgen.formats.vmd import records as vmd
from mmdgen.formats.vmd.records import VmdFile


def write_vmd(file: VmdFile) -> bytes:
    """The bytes of `file`; reading them gives the same records, and ``write_vmd(read_vmd(data)) == data``.

    A short model name is filled up with NUL. FormatError, with the field path, for what VMD cannot hold: an unknown
    signature, a name that is too long, an array of another dtype, a section after a missing one, IK states that the
    properties do not count.
    """
    buffer = Buffer()
    size = vmd.name_size(file.signature)
    if size is None or len(file.signature) != vmd.SIGNATURE_SIZE:
        buffer.fail(f"unknown signature {file.signature!r}", "signature")
    buffer.raw(file.signature)
    if len(file.name) > size:
        buffer.fail(f"{len(file.name)} bytes, at most {size} fit", "name")
    buffer.raw(file.name.ljust(size, b"\0"))
    missing = ""
    for section, dtype in vmd.SECTIONS.items():
        items = getattr(file, section)
        if items is None:
            missing = missing or section
            continue
        _refuse_after(buffer, missing, section)
        buffer.put("I", len(items), f"{section}.count")
        _items(buffer, items, dtype, section)
    if file.properties is not None:
        _refuse_after(buffer, missing, "properties")
        _properties(buffer, file.properties, file.iks)
    elif len(file.iks):
        buffer.fail(f"{len(file.iks)} IK states without properties", "iks")
    buffer.raw(file.tail)
    return buffer.getvalue()


def _properties(buffer: Buffer, properties: np.ndarray, iks: np.ndarray) -> None:
    _check(buffer, properties, vmd.PROPERTY, "properties")
    _check(buffer, iks, vmd.IK, "iks")
    total = int(properties["ik_count"].sum(dtype=np.uint64))
    if total != len(iks):
        buffer.fail(f"{len(iks)} IK states, the properties count {total}", "iks")
    buffer.put("I", len(properties), "properties.count")
    states, at = iks.tobytes(), 0
    for i in buffer.items("properties", len(properties)):
        frame, visible, count = properties[i].tolist()
        buffer.pack(layout("IBI"), (frame, visible, count), "frame")
        end = at + count * vmd.IK.itemsize
        buffer.raw(states[at:end])
        at = end


def _refuse_after(buffer: Buffer, missing: str, section: str) -> None:
    if missing:
        buffer.fail(f"{missing} is missing, but a later section is there", section)


def _check(buffer: Buffer, items: np.ndarray, dtype: np.dtype, field: str) -> None:
    if items.dtype != dtype:
        buffer.fail(f"the array is of {items.dtype}, expected {dtype}", field)


def _items(buffer: Buffer, items: np.ndarray, dtype: np.dtype, field: str) -> None:
    _check(buffer, items, dtype, field)
    buffer.array(items)
