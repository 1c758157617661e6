"""`PmdFile` -> PMD bytes, the exact inverse of the reader."""

from __future__ import annotations

import numpy as np

from mmdgen.formats.cursor import Buffer, layout
from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd.records import PmdEnglish, PmdFile, PmdIk, PmdMorph


def write_pmd(file: PmdFile) -> bytes:
    """The bytes of `file`; reading them gives the same records, and ``write_pmd(read_pmd(data)) == data``.

    Short texts are filled up with NUL. FormatError, with the field path, for what PMD cannot hold: too many elements
    for a count, a text that is too long, English names that do not fit the rest, an optional section after a missing
    one.
    """
    buffer = Buffer()
    buffer.raw(b"Pmd")
    buffer.put("f", file.version, "version")
    _fixed(buffer, file.name, pmd.NAME_SIZE, "name")
    _fixed(buffer, file.comment, pmd.COMMENT_SIZE, "comment")
    _array(buffer, file.vertices, pmd.VERTEX, "vertices", "I")
    _array(buffer, file.indices, np.dtype("<u2"), "indices", "I")
    _array(buffer, file.materials, pmd.MATERIAL, "materials", "I")
    _array(buffer, file.bones, pmd.BONE, "bones", "H")
    buffer.put("H", len(file.iks), "iks.count")
    for i in buffer.items("iks", len(file.iks)):
        _ik(buffer, file.iks[i])
    buffer.put("H", len(file.morphs), "morphs.count")
    for i in buffer.items("morphs", len(file.morphs)):
        _morph(buffer, file.morphs[i])
    _array(buffer, file.shown_morphs, np.dtype("<u2"), "shown_morphs", "B")
    _array(buffer, file.frame_names, np.dtype("S50"), "frame_names", "B")
    _array(buffer, file.frame_entries, pmd.FRAME_ENTRY, "frame_entries", "I")
    _optional(buffer, file)
    buffer.raw(file.tail)
    return buffer.getvalue()


def _optional(buffer: Buffer, file: PmdFile) -> None:
    """The sections that may be missing: every one after a missing one must be missing too."""
    sections = ("english_flag", "toons", "bodies", "joints")
    there = [getattr(file, name) is not None for name in sections]
    if sorted(there, reverse=True) != there:
        buffer.fail(f"{sections[there.index(False)]} is missing, but a later section is there")
    if bool(file.english_flag) != (file.english is not None):
        buffer.fail(f"the flag is {file.english_flag}, which contradicts the names", "english")
    if file.english_flag is not None:
        buffer.put("B", file.english_flag, "english_flag")
    if file.english is not None:
        with buffer.at("english"):
            _english(buffer, file.english, file)
    if file.toons is not None:
        if len(file.toons) != pmd.TOON_COUNT:
            buffer.fail(f"{len(file.toons)} names, expected {pmd.TOON_COUNT}", "toons")
        _items(buffer, file.toons, np.dtype("S100"), "toons")
    if file.bodies is not None:
        _array(buffer, file.bodies, pmd.BODY, "bodies", "I")
    if file.joints is not None:
        _array(buffer, file.joints, pmd.JOINT, "joints", "I")


def _english(buffer: Buffer, english: PmdEnglish, file: PmdFile) -> None:
    _fixed(buffer, english.name, pmd.NAME_SIZE, "name")
    _fixed(buffer, english.comment, pmd.COMMENT_SIZE, "comment")
    for field, names, size, expected in (
        ("bones", english.bones, pmd.NAME_SIZE, len(file.bones)),
        ("morphs", english.morphs, pmd.NAME_SIZE, pmd.english_morph_count(len(file.morphs))),
        ("frames", english.frames, pmd.FRAME_NAME_SIZE, len(file.frame_names)),
    ):
        if len(names) != expected:
            buffer.fail(f"{len(names)} names, expected {expected}", field)
        _items(buffer, names, np.dtype(f"S{size}"), field)


def _fixed(buffer: Buffer, raw: bytes, size: int, field: str) -> None:
    if len(raw) > size:
        buffer.fail(f"{len(raw)} bytes, at most {size} fit", field)
    buffer.raw(raw.ljust(size, b"\0"))


def _items(buffer: Buffer, items: np.ndarray, dtype: np.dtype, field: str) -> None:
    if items.dtype != dtype:
        buffer.fail(f"the array is of {items.dtype}, expected {dtype}", field)
    buffer.array(items)


def _array(buffer: Buffer, items: np.ndarray, dtype: np.dtype, field: str, count_kind: str) -> None:
    buffer.put(count_kind, len(items), f"{field}.count")
    _items(buffer, items, dtype, field)


def _ik(buffer: Buffer, ik: PmdIk) -> None:
    buffer.pack(layout("HHBHf"), (ik.bone, ik.target, len(ik.chain), ik.iterations, ik.weight), "")
    _items(buffer, ik.chain, np.dtype("<u2"), "chain")


def _morph(buffer: Buffer, morph: PmdMorph) -> None:
    _fixed(buffer, morph.name, pmd.NAME_SIZE, "name")
    buffer.put("I", len(morph.offsets), "offsets.count")
    buffer.put("B", morph.kind, "kind")
    _items(buffer, morph.offsets, pmd.OFFSET, "offsets")
