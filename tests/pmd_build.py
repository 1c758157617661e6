"""A small PMD file that uses every section."""

from __future__ import annotations

import numpy as np

from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd.records import PmdEnglish, PmdFile, PmdIk, PmdMorph


def fixed(text: str, size: int = 20) -> bytes:
    """A field as editors write it: NUL, then 0xFD."""
    raw = text.encode("cp932")
    return (raw + b"\0").ljust(size, b"\xfd")[:size]


def small_pmd(**changes) -> PmdFile:
    """Two quads (x < 0, x > 0), two materials, five bones, a base morph over vertices 4-7 and one morph on it."""
    vertices = np.zeros(8, pmd.VERTEX)
    square = np.array([(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)], np.float32)
    vertices["position"] = np.concatenate([square - np.array([2, 0, 0]), square + np.array([1, 0, 0])])
    vertices["normal"] = (0, 0, -1)
    vertices["uv"] = np.tile(square[:, :2], (2, 1))
    vertices["bone"] = (1, 0)
    vertices["weight"] = [100, 100, 70, 0, 100, 100, 30, 100]
    vertices["no_edge"][5] = 1
    materials = np.zeros(2, pmd.MATERIAL)
    materials["diffuse"] = (0.25, 0.5, 0.75)
    materials["alpha"] = [1.0, 0.98]
    materials["specular"] = (0.125, 0.25, 0.375)
    materials["specular_power"] = 6
    materials["ambient"] = (0.5, 0.625, 0.875)
    materials["toon"] = [3, 0xFF]
    materials["edge"] = [1, 0]
    materials["index_count"] = 6
    materials["texture"] = [fixed("face.bmp*shine.sph"), fixed("glow.spa")]
    bones = np.zeros(5, pmd.BONE)
    for bone, (name, parent, tail, kind, ik) in zip(
        bones,
        [
            ("センター", 0xFFFF, 1, pmd.ROTATE_MOVE, 0),
            ("頭", 0, 0, pmd.ROTATE, 0),
            ("両目", 1, 0, pmd.ROTATE, 0),
            ("左目", 1, 0, pmd.UNDER_ROTATION, 2),
            ("右目", 1, 2, pmd.ROTATION_SHARE, 0x10000 - 30),
        ],
        strict=True,
    ):
        bone["name"], bone["parent"], bone["tail"], bone["kind"], bone["ik"] = fixed(name), parent, tail, kind, ik
        bone["position"] = (0, parent % 7, 0)
    base = np.zeros(4, pmd.OFFSET)
    base["index"] = [4, 5, 6, 7]
    blink = np.zeros(2, pmd.OFFSET)
    blink["index"], blink["offset"] = [1, 2], [(0, -1, 0), (0, -0.5, 0)]
    values = {
        "version": 1.0,
        "name": fixed("試験"),
        "comment": fixed("作者", 256),
        "vertices": vertices,
        "indices": np.array([0, 1, 2, 0, 2, 3, 4, 5, 6, 4, 6, 7], "<u2"),
        "materials": materials,
        "bones": bones,
        "iks": (PmdIk(1, 2, 40, 0.5, np.array([0, 1], "<u2")),),
        "morphs": (PmdMorph(fixed("base"), 0, base), PmdMorph(fixed("まばたき"), 2, blink)),
        "shown_morphs": np.array([1], "<u2"),
        "frame_names": np.array([fixed("体", 50)], "S50"),
        "frame_entries": np.array([(1, 1)], pmd.FRAME_ENTRY),
        "english_flag": 1,
        "english": PmdEnglish(
            fixed("test"),
            fixed("author", 256),
            np.array([b"center", b"head", b"eyes", b"eye L", b"eye R"], "S20"),
            np.array([b"blink"], "S20"),
            np.array([b"body"], "S50"),
        ),
        "toons": np.array([b"toon%02d.bmp" % i for i in range(1, 11)], "S100"),
        "bodies": np.zeros(1, pmd.BODY),
        "joints": np.zeros(2, pmd.JOINT),
    }
    return PmdFile(**{**values, **changes})
