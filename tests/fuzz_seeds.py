"""Seeds of the fuzzer: small files of every kind, and where their numbers, texts, records and sections lie.

The map of a PMX, PMD, VMD or VPD file is what the reader itself reads: a `Cursor` that notes every value. So it stays
right when a reader changes. `fuzz_images` has the image files.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from fuzz_images import image_seed, image_seeds
from fuzz_seed import IMAGE_KINDS, Field, Record, Seed
from pmd_build import small_pmd
from pmx_build import build_pmx, cut_sections
from toy import CHIN, TOP, ToyBuilder, toy_builder

from mmdgen.errors import FormatError
from mmdgen.formats import cursor as cursors
from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd import write_pmd
from mmdgen.formats.pmd.records import PmdFile, PmdMorph
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx

LARGEST_SHARED = 6000  # bytes: a mutation of a small file hits something
_MAPPED_ITEMS = 12  # of an array; more of the same tell nothing new


# -- maps of files that a Cursor reads ---------------------------------------------------------------------------------


class RecordingCursor(cursors.Cursor):
    """A `Cursor` that notes what it reads. The notes of the cursor made last are in `last`."""

    last: RecordingCursor

    def __init__(self, data: bytes, file: str = "<bytes>") -> None:
        super().__init__(data, file)
        self.fields: list[Field] = []
        self.records: list[Record] = []
        self.cuts: list[int] = []
        self._count: Field | None = None
        RecordingCursor.last = self

    def unpack(self, numbers: cursors.Layout, field: str) -> tuple[Any, ...]:
        position = self.position
        values = super().unpack(numbers, field)
        for kind in numbers._kinds:
            self.fields.append(Field(position, "<" + kind))
            position += struct.calcsize("<" + kind)
        return values

    def count(self, field: str, minimum: int, kind: str = "i") -> int:
        position = self.position
        value = super().count(field, minimum, kind)
        self._note_count(Field(position, "<" + kind, "count"))
        return value

    def _note_count(self, field: Field) -> None:
        self.fields = [other for other in self.fields if other.offset != field.offset]
        self.fields.append(field)
        self._count = field
        if not self._steps:
            self.cuts.append(field.offset)

    def text(self, encoding: str, field: str) -> str:
        position = self.position
        value = super().text(encoding, field)
        self.fields.append(Field(position, "<i", "count"))
        return value

    def array(self, dtype: np.dtype, count: int, field: str) -> np.ndarray:
        position = self.position
        items = super().array(dtype, count, field)
        for number in range(count):
            start = position + number * dtype.itemsize
            self.records.append(Record(start, start + dtype.itemsize, self._count))
            if number < _MAPPED_ITEMS:
                self.fields += _fields_of(dtype, start)
        return items

    def walk(self, count: int, kind_at: int, sizes: Any, name: str, kind_name: str) -> np.ndarray:
        offsets = super().walk(count, kind_at, sizes, name, kind_name)
        bone = sizes[0] - kind_at - 5  # a BDEF1 vertex: head, type, one bone, edge scale
        for number, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            self.records.append(Record(start, end, self._count))
            if number >= _MAPPED_ITEMS:
                continue
            kind = self._data[start + kind_at]
            self.fields += [Field(start + at, "<f") for at in range(0, kind_at, 4)]
            self.fields.append(Field(start + kind_at, "<B"))
            at = start + kind_at + 1
            for _ in range((1, 2, 4, 2, 4)[kind]):
                self.fields.append(Field(at, "<" + {1: "b", 2: "h", 4: "i"}[bone]))
                at += bone
            self.fields += [Field(place, "<f") for place in range(at, end, 4)]
        return offsets

    def items(self, name: str, count: int) -> Iterator[int]:
        counted = self._count
        for index in super().items(name, count):
            start = self.position
            yield index
            self.records.append(Record(start, self.position, counted))


def _fields_of(dtype: np.dtype, start: int) -> list[Field]:
    """The numbers of one item of a numpy type."""
    if dtype.names:
        places: Any = dtype.fields
        return [field for name in dtype.names for field in _fields_of(places[name][0], start + places[name][1])]
    base, shape = dtype.subdtype or (dtype, ())
    if base.kind not in "iuf":
        return []
    code = "<" + {"u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i", "f4": "f"}[base.str[1:]]
    return [Field(start + k * base.itemsize, code) for k in range(int(np.prod(shape)))]


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    """While it lasts, every reader makes a `RecordingCursor`."""
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("mmdgen.formats.") and "Cursor" in vars(module) and module is not cursors:
                stack.enter_context(mock.patch.object(module, "Cursor", RecordingCursor))
        yield


def mapped(kind: str, name: str, data: bytes, weight: int = 1) -> Seed:
    """The seed of a file; of one that its reader rejects, the map reaches as far as the reader came."""
    read, _ = reader_and_writer(kind)
    with _recording(), contextlib.suppress(FormatError):
        read(data)
    notes = RecordingCursor.last
    return Seed(
        kind,
        name,
        data,
        tuple(field for field in notes.fields if field.size),
        tuple(record for record in notes.records if record.start < record.end),
        tuple(sorted({0, *notes.cuts, len(data)})),
        weight=weight,
    )


@functools.cache
def reader_and_writer(kind: str) -> tuple[Callable[..., Any], Callable[[Any], bytes]]:
    """``read_<kind>`` and ``write_<kind>``."""
    package = importlib.import_module(f"mmdgen.formats.{kind}")
    if kind == "pmx":
        from mmdgen.formats.pmx.reader import read_pmx

        return read_pmx, write_pmx
    return getattr(package, f"read_{kind}"), getattr(package, f"write_{kind}")


# -- models ------------------------------------------------------------------------------------------------------------


def head_builder() -> ToyBuilder:
    """A ball with lids and lips, the least that `annotate` takes for a character's head, with a morph of every kind.

    Some skin follows a bone by append (頭D), some is spherically deformed between neck and head.
    """
    toy = ToyBuilder()
    toy.bones += [
        pmx.PmxBone("頭D", position=(0, 16.8, 0.1), parent_index=1, flags=0x100, append_index=2, append_ratio=1.0),
        pmx.PmxBone("右目", position=(-0.4, 18, -0.8), parent_index=2),
        pmx.PmxBone("左目", position=(0.4, 18, -0.8), parent_index=2, flags=0x300, append_index=4, append_ratio=-0.5),
    ]
    face = (pmx.BDEF1, (2,), (1.0,), None)
    middle, up = np.array((0.0, 16.0, 0.0)), np.array((0.0, 1.0, 0.0))
    toy.box((-0.3, 15, -0.3), (0.3, 16.9, 0.3), (pmx.SDEF, (1, 2), (0.5,), (middle, middle - up, middle + up)))
    toy.material("首")
    toy.textures += ["tex\\肌.png", "目.bmp"]
    first, rings, around = len(toy.positions), 7, 9
    for ring in range(rings):
        rise = np.pi * (ring / (rings - 1) - 0.5)
        for step in range(around):
            turn = 2 * np.pi * step / around
            normal = np.array((np.cos(rise) * np.sin(turn), np.sin(rise), -np.cos(rise) * np.cos(turn)))
            toy.positions.append(np.array((0, (CHIN + TOP) / 2, 0)) + normal * (1, 1.1, 1))
            toy.normals.append(normal)
            toy.uvs.append((step / around, ring / rings))
            toy.weights.append(face if ring else (pmx.BDEF4, (2, 3, 1, 0), (0.4, 0.3, 0.2, 0.1), None))
    for ring in range(rings - 1):
        for step in range(around):
            i, j = first + ring * around + step, first + ring * around + (step + 1) % around
            toy.faces += [(i, i + around, j), (j, i + around, j + around)]
    toy.material("顔", texture_index=0, sphere_index=1, sphere_mode=1)
    follows = (pmx.BDEF1, (3,), (1.0,), None)
    lids = {}
    for side, x in (("left", 0.42), ("right", -0.42)):
        lids[side] = toy.quad((x, 18.12, -1.05), (0.2, 0, 0), (0, 0.02, 0), follows)
        toy.quad((x, 17.88, -1.05), (0.2, 0, 0), (0, 0.02, 0), face)
    toy.quad((0, 17.3, -1.02), (0.2, 0, 0), (0, 0.03, 0), face)
    lower = toy.quad((0, 17.24, -1.02), (0.2, 0, 0), (0, 0.03, 0), face)
    toy.material("目", texture_index=1, flags=0x11)
    down = (0, -0.22, 0)
    toy.vertex_morph("まばたき", {int(v): down for side in lids for v in lids[side]})
    toy.vertex_morph("ウィンク", {int(v): down for v in lids["left"]})
    toy.vertex_morph("ウィンク右", {int(v): down for v in lids["right"]})
    toy.vertex_morph("あ", {int(v): (0, -0.25, 0) for v in lower}, panel=3)
    for kind, rows in (
        (pmx.MORPH_GROUP, [(0, 1.0), (3, 0.5)]),
        (pmx.MORPH_BONE, [(4, (0, 0.1, 0), (0, 0, 0.1, 0.995))]),
        (pmx.MORPH_UV, [(first, (0.1, 0.2, 0, 0)), (first + 1, (0.1, 0, 0, 0))]),
    ):
        toy.morphs.append(pmx.PmxMorph(f"m{kind}", "", 4, kind, np.array(rows, pmx.OFFSET_DTYPES[kind])))
    table = np.ones(1, pmx.OFFSET_DTYPES[pmx.MORPH_MATERIAL])
    table["material"] = -1
    toy.morphs.append(pmx.PmxMorph("hide", "", 4, pmx.MORPH_MATERIAL, table))
    return toy


def _pmx_seeds() -> Iterator[Seed]:
    head, toy = head_builder().file(), toy_builder().file()
    yield mapped("pmx", "head", write_pmx(head), 10)
    yield mapped("pmx", "toy", write_pmx(toy), 3)
    sane = pmx.PmxHeader(version=2.1, additional_uv_count=1)
    yield mapped("pmx", "all records", write_pmx(build_pmx(1, sane, vertices=6)), 4)
    wide = pmx.PmxHeader(
        version=2.1,
        encoding="utf-8",
        additional_uv_count=4,
        vertex_index_size=4,
        texture_index_size=2,
        material_index_size=4,
        bone_index_size=4,
        morph_index_size=2,
        body_index_size=4,
        extra_globals=b"x",
    )
    yield mapped("pmx", "wide", write_pmx(build_pmx(2, wide, vertices=5)))
    yield mapped("pmx", "wild", write_pmx(build_pmx(3, pmx.PmxHeader(version=2.1), vertices=6, wild=True)))
    old = pmx.PmxHeader(vertex_index_size=2, bone_index_size=2)
    yield mapped("pmx", "old", write_pmx(build_pmx(4, old, vertices=4, records=1)))
    yield mapped("pmx", "cut", write_pmx(cut_sections(build_pmx(5, old, vertices=3, records=1), 1, b"\1\0")))
    yield mapped("pmx", "empty", write_pmx(build_pmx(6, vertices=0, records=0)))


def head_pmd() -> PmdFile:
    """The same head as a PMD file, without what PMD does not have."""
    head = head_builder().file()
    vertices = np.zeros(len(head.vertices), pmd.VERTEX)
    for name in ("position", "normal", "uv"):
        vertices[name] = head.vertices[name]
    vertices["bone"] = head.vertices["bone_index"][:, :2].clip(0)
    vertices["weight"] = np.where(head.vertices["deform"] == pmx.BDEF1, 100, 60)
    materials = np.zeros(len(head.materials), pmd.MATERIAL)
    materials["diffuse"], materials["alpha"], materials["toon"] = 0.5, 1, pmd.NO_TOON
    materials["index_count"] = [material.index_count for material in head.materials]
    bones = np.zeros(len(head.bones), pmd.BONE)
    for bone, row in zip(head.bones, bones, strict=True):
        row["name"], row["parent"] = _fixed(bone.name, 20), bone.parent_index & 0xFFFF
        row["tail"], row["position"] = pmd.NONE, bone.position
        if bone.append_index >= 0:
            row["kind"], row["tail"], row["ik"] = pmd.ROTATION_SHARE, bone.append_index, 100 * bone.append_ratio % 65536
    moved = [morph for morph in head.morphs if morph.kind == pmx.MORPH_VERTEX]
    base = np.zeros(len(np.unique(np.concatenate([morph.offsets["vertex"] for morph in moved]))), pmd.OFFSET)
    base["index"] = np.unique(np.concatenate([morph.offsets["vertex"] for morph in moved]))
    morphs = [PmdMorph(_fixed("base", 20), pmd.MORPH_BASE, base)]
    for morph in moved:
        entries = np.zeros(len(morph.offsets), pmd.OFFSET)
        entries["index"], entries["offset"] = (
            np.searchsorted(base["index"], morph.offsets["vertex"]),
            morph.offsets["offset"],
        )
        morphs.append(PmdMorph(_fixed(morph.name, 20), morph.panel, entries))
    return PmdFile(
        version=1.0,
        name=_fixed("head", pmd.NAME_SIZE),
        comment=_fixed("", pmd.COMMENT_SIZE),
        vertices=vertices,
        indices=head.faces.ravel().astype("<u2"),
        materials=materials,
        bones=bones,
        morphs=tuple(morphs),
    )


def _pmd_seeds() -> Iterator[Seed]:
    whole = small_pmd()
    yield mapped("pmd", "whole", write_pmd(whole), 2)
    yield mapped("pmd", "head", write_pmd(head_pmd()), 2)
    old = {"english_flag": None, "english": None, "toons": None, "bodies": None, "joints": None}
    yield mapped("pmd", "old", write_pmd(small_pmd(**old)))
    yield mapped("pmd", "no english", write_pmd(small_pmd(english_flag=0, english=None)))
    yield mapped("pmd", "cut", write_pmd(small_pmd(joints=None, tail=b"\1\0\0\0x")))


def _fixed(text: str, size: int) -> bytes:
    return (text.encode("cp932") + b"\0").ljust(size, b"\xfd")[:size]


def vmd_bytes(version: int = 2, sections: int = 6, frames: int = 3) -> bytes:
    """A VMD motion with the first `sections` of: bones, morphs, cameras, lights, shadows, IK states."""
    name = 20 if version == 2 else 10
    magic = b"Vocaloid Motion Data 0002" if version == 2 else b"Vocaloid Motion Data file"
    head = magic.ljust(30, b"\0") + _fixed("試験", name)
    curves = bytes([20, 20, 0, 0, 20, 20, 20, 20, 107, 107, 107, 107, 107, 107, 107, 107] * 4)
    bones = [_fixed("頭", 15) + struct.pack("<I7f", 5 * k, 0, k, 0, 0, 0, 0, 1) + curves for k in range(frames)]
    morphs = [_fixed("まばたき", 15) + struct.pack("<If", 3 * k, k / 3) for k in range(frames)]
    cameras = [struct.pack("<I7f24sIB", k, -45, 0, 10, 0, 0, k, 0, curves[:24], 30, 0) for k in range(frames)]
    lights = [struct.pack("<I6f", k, 0.6, 0.6, 0.6, -0.5, -1, 0.5) for k in range(frames)]
    shadows = [struct.pack("<IBf", k, 1, 0.05) for k in range(frames)]
    iks = [
        struct.pack("<IBI", k, 1, 2) + b"".join(_fixed(n, 20) + bytes([k & 1]) for n in ("左足ＩＫ", "右足ＩＫ"))
        for k in range(frames)
    ]
    parts = (bones, morphs, cameras, lights, shadows, iks)[:sections]
    return head + b"".join(struct.pack("<I", len(part)) + b"".join(part) for part in parts)


def _vmd_seeds() -> Iterator[Seed]:
    yield mapped("vmd", "whole", vmd_bytes())
    yield mapped("vmd", "first version", vmd_bytes(1, 4, 2))
    yield mapped("vmd", "without shadows", vmd_bytes(2, 4, 1))
    yield mapped("vmd", "bones only", vmd_bytes(2, 1, 4))
    yield mapped("vmd", "empty", vmd_bytes(2, 6, 0))


VPD = """Vocaloid Pose Data file\r
\r
試験.osm;\t\t// 親ファイル名\r
2;\t\t\t\t// 総ポーズボーン数\r
\r
Bone0{首\r
  0.000000,1.500000,0.000000;\t\t\t\t// trans x,y,z\r
  0.000000,0.087156,0.000000,0.996195;\t\t// Quaternion x,y,z,w\r
}\r
\r
Bone1{頭\r
  0.000000,-0.250000,1e-3;\t\t\t\t// trans x,y,z\r
  0.130526,0.000000,0.000000,0.991445;\t\t// Quaternion x,y,z,w\r
}\r
\r
Morph0{あ\r
  0.500000;\t\t\t\t// weight\r
}\r
\r
"""


def _vpd_seeds() -> Iterator[Seed]:
    for name, text in (("whole", VPD), ("no morphs", VPD.partition("Morph0")[0]), ("unix", VPD.replace("\r", ""))):
        data = text.encode("cp932")
        lines = [match.start() for match in re.finditer(rb"^", data, re.MULTILINE)]
        records = tuple(Record(a, b, None) for a, b in itertools.pairwise(lines))
        yield Seed("vpd", name, data, records=records, cuts=(*(m.start() for m in re.finditer(b"Bone|Morph", data)), 0))


# -- all ---------------------------------------------------------------------------------------------------------------

_SUFFIXES = {"pmx": ".pmx", "pmd": ".pmd", "vmd": ".vmd", "vpd": ".vpd", "png": ".png", "tga": ".tga"}


def _shared_seeds(kind: str, shared: Path) -> Iterator[Seed]:
    if kind not in _SUFFIXES:
        return
    for folder in ("fixtures", "goldens"):
        for path in sorted((shared / folder).rglob("*" + _SUFFIXES[kind])):
            if path.stat().st_size <= LARGEST_SHARED:
                data = path.read_bytes()
                yield image_seed(kind, path.name, data) if kind in IMAGE_KINDS else mapped(kind, path.name, data)


@functools.cache
def seeds_of(kind: str, shared: Path | None = None) -> tuple[Seed, ...]:
    """All seeds of a kind: those made by code, then the small files of the folder `shared`, by name."""
    made = {"pmx": _pmx_seeds, "pmd": _pmd_seeds, "vmd": _vmd_seeds, "vpd": _vpd_seeds}
    own = made[kind]() if kind in made else image_seeds(kind)
    return (*own, *(_shared_seeds(kind, shared) if shared is not None else ()))
