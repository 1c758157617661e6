"""How fast is the PMX reader? Times it against a reader that goes field by field, in the same run, on the same file.

    python tools/bench/parse.py [--vertices 50000] [--repeats 7] [--deform mixed|runs|one] [--file MODEL.pmx]

Prints one JSON object: medians and spread (fastest and slowest) in milliseconds, their ratio, and whether both readers
agree. The file is generated: vertices of four deform types in random order (``mixed``, the worst case for the reader),
in runs of a few dozen as real models have them (``runs``), or all BDEF2 (``one``); two faces a vertex, and bones,
materials, morphs, bodies and joints as in a large real model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmdgen import rng
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.pmx.writer import write_pmx


def build_file(vertex_count: int, deform: str) -> bytes:
    """A PMX file of `vertex_count` vertices with everything that a character model has."""
    random = rng.generator(1, "bench", "parse", vertex_count)
    bone_count, morph_count, material_count, body_count = 300, 60, 30, 100
    vertices = np.zeros(vertex_count, pmx.VERTEX)
    for name in ("position", "normal", "uv"):
        vertices[name] = random.normal(size=vertices[name].shape)
    kinds = np.array([pmx.BDEF1, pmx.BDEF2, pmx.BDEF4, pmx.SDEF])
    if deform == "one":
        vertices["deform"] = pmx.BDEF2
    elif deform == "mixed":
        vertices["deform"] = random.choice(kinds, vertex_count, p=[0.5, 0.35, 0.1, 0.05])
    else:
        runs = random.choice(kinds, vertex_count, p=[0.5, 0.35, 0.1, 0.05])
        vertices["deform"] = np.repeat(runs, random.geometric(1 / 30, vertex_count))[:vertex_count]
    vertices["bone_index"] = random.integers(0, bone_count, (vertex_count, 4))
    vertices["bone_weight"] = random.dirichlet(np.ones(4), vertex_count)
    vertices["edge_scale"] = 1.0
    face_count = 2 * vertex_count
    bones = tuple(
        pmx.PmxBone(f"ボーン{i}", f"bone {i}", (0.0, i * 0.1, 0.0), i - 1, flags=0x011F, tail=-1, append_index=0)
        for i in range(bone_count)
    )
    morphs = []
    for i in range(morph_count):
        offsets = np.zeros(800, pmx.VERTEX_OFFSET)
        offsets["vertex"] = random.integers(0, vertex_count, 800)
        offsets["offset"] = random.normal(size=(800, 3))
        morphs.append(pmx.PmxMorph(f"モーフ{i}", f"morph {i}", 2, pmx.MORPH_VERTEX, offsets))
    zero = (0.0, 0.0, 0.0)
    file = pmx.PmxFile(
        header=pmx.PmxHeader(vertex_index_size=2 if vertex_count <= 65536 else 4),
        name="計測用",
        name_en="bench",
        comment="",
        comment_en="",
        vertices=vertices,
        faces=random.integers(0, vertex_count, (face_count, 3)).astype(np.int32),
        textures=tuple(f"tex/{i}.png" for i in range(material_count)),
        materials=tuple(
            pmx.PmxMaterial(f"材質{i}", texture_index=i, index_count=3 * face_count // material_count)
            for i in range(material_count)
        ),
        bones=bones,
        morphs=tuple(morphs),
        frames=(pmx.PmxDisplayFrame("Root", "Root", 1, tuple((0, i) for i in range(bone_count))),),
        bodies=tuple(
            pmx.PmxRigidBody(f"剛体{i}", "", i, 1, 0xFFFF, 2, (1.0, 1.0, 1.0), zero, zero, 1.0, 0.5, 0.5, 0.0, 0.5, 1)
            for i in range(body_count)
        ),
        joints=tuple(
            pmx.PmxJoint(f"J{i}", "", 0, i, i + 1, zero, zero, (zero, zero, zero, zero), zero, zero)
            for i in range(body_count - 1)
        ),
    )
    return write_pmx(file)


class FieldByField:
    """The plain way to read PMX: one `struct` call for each number, one dict for each record.

    The formats are compiled beforehand, which a plain reader often does not even do.
    """

    NUMBERS: ClassVar = {kind: struct.Struct("<" + kind) for kind in "bBhHif"}
    SIGNED: ClassVar = {1: "b", 2: "h", 4: "i"}
    UNSIGNED: ClassVar = {1: "B", 2: "H", 4: "i"}

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def get(self, kind: str) -> Any:
        number = self.NUMBERS[kind]
        (value,) = number.unpack_from(self.data, self.position)
        self.position += number.size
        return value

    def floats(self, count: int) -> list[float]:
        return [self.get("f") for _ in range(count)]

    def text(self) -> str:
        size = self.get("i")
        self.position += size
        return self.data[self.position - size : self.position].decode(self.encoding)

    def index(self, size: int) -> int:
        return self.get(self.SIGNED[size])

    def vertex_index(self) -> int:
        return self.get(self.UNSIGNED[self.sizes[0]])

    def many(self, read: Callable[[], Any]) -> list[Any]:
        return [read() for _ in range(self.get("i"))]

    def read(self) -> dict[str, Any]:
        self.position = 8
        settings = [self.get("B") for _ in range(self.get("B"))]
        self.encoding = ("utf-16-le", "utf-8")[settings[0]]
        self.additional_uv_count = settings[1]
        self.sizes = settings[2:8]
        texts = [self.text() for _ in range(4)]
        return {
            "texts": texts,
            "vertices": self.many(self.vertex),
            "faces": self.many(self.vertex_index),
            "textures": self.many(self.text),
            "materials": self.many(self.material),
            "bones": self.many(self.bone),
            "morphs": self.many(self.morph),
            "frames": self.many(self.frame),
            "bodies": self.many(self.body),
            "joints": self.many(self.joint),
        }

    def vertex(self) -> dict[str, Any]:
        vertex: dict[str, Any] = {"position": self.floats(3), "normal": self.floats(3), "uv": self.floats(2)}
        vertex["additional_uv"] = [self.floats(4) for _ in range(self.additional_uv_count)]
        kind = vertex["deform"] = self.get("B")
        bones = {pmx.BDEF1: 1, pmx.BDEF2: 2, pmx.SDEF: 2}.get(kind, 4)
        vertex["bones"] = [self.index(self.sizes[3]) for _ in range(bones)]
        vertex["weights"] = self.floats({1: 0, 2: 1, 4: 4}[bones])
        if kind == pmx.SDEF:
            vertex["sdef"] = [self.floats(3) for _ in range(3)]
        vertex["edge_scale"] = self.get("f")
        return vertex

    def material(self) -> dict[str, Any]:
        material = {"name": self.text(), "name_en": self.text(), "colors": self.floats(11), "flags": self.get("B")}
        material["edge"] = self.floats(5)
        material["textures"] = [self.index(self.sizes[1]) for _ in range(2)]
        material["sphere_mode"] = self.get("B")
        material["toon_shared"] = self.get("B")
        material["toon"] = self.get("b") if material["toon_shared"] else self.index(self.sizes[1])
        material["memo"] = self.text()
        material["index_count"] = self.get("i")
        return material

    def bone(self) -> dict[str, Any]:
        bone = {"name": self.text(), "name_en": self.text(), "position": self.floats(3)}
        bone["parent"] = self.index(self.sizes[3])
        bone["layer"] = self.get("i")
        flags = bone["flags"] = self.get("H")
        bone["tail"] = self.index(self.sizes[3]) if flags & 1 else self.floats(3)
        if flags & 0x0300:
            bone["append"] = (self.index(self.sizes[3]), self.get("f"))
        if flags & 0x0400:
            bone["fixed_axis"] = self.floats(3)
        if flags & 0x0800:
            bone["local_axes"] = self.floats(6)
        if flags & 0x2000:
            bone["external_key"] = self.get("i")
        if flags & 0x0020:
            bone["ik"] = (self.index(self.sizes[3]), self.get("i"), self.get("f"), self.many(self.ik_link))
        return bone

    def ik_link(self) -> tuple[int, list[float]]:
        bone = self.index(self.sizes[3])
        return bone, self.floats(6) if self.get("B") else []

    def morph(self) -> dict[str, Any]:
        morph = {"name": self.text(), "name_en": self.text(), "panel": self.get("B"), "kind": self.get("B")}
        morph["offsets"] = self.many(lambda: self.offset(morph["kind"]))
        return morph

    def offset(self, kind: int) -> tuple:
        if kind in (pmx.MORPH_GROUP, pmx.MORPH_FLIP):
            return self.index(self.sizes[4]), self.get("f")
        if kind == pmx.MORPH_VERTEX:
            return self.vertex_index(), self.floats(3)
        if kind == pmx.MORPH_BONE:
            return self.index(self.sizes[3]), self.floats(7)
        if kind == pmx.MORPH_MATERIAL:
            return self.index(self.sizes[2]), self.get("B"), self.floats(28)
        if kind == pmx.MORPH_IMPULSE:
            return self.index(self.sizes[5]), self.get("B"), self.floats(6)
        return self.vertex_index(), self.floats(4)

    def frame(self) -> dict[str, Any]:
        frame = {"name": self.text(), "name_en": self.text(), "special": self.get("B")}
        frame["elements"] = self.many(lambda: self.index(self.sizes[4 if self.get("B") else 3]))
        return frame

    def body(self) -> dict[str, Any]:
        body = {"name": self.text(), "name_en": self.text(), "bone": self.index(self.sizes[3])}
        body["bits"] = (self.get("B"), self.get("H"), self.get("B"))
        body["values"] = self.floats(14)
        body["mode"] = self.get("B")
        return body

    def joint(self) -> dict[str, Any]:
        joint = {"name": self.text(), "name_en": self.text(), "kind": self.get("B")}
        joint["bodies"] = [self.index(self.sizes[5]) for _ in range(2)]
        joint["values"] = self.floats(24)
        return joint


def agree(fast: pmx.PmxFile, plain: dict[str, Any]) -> bool:
    """Whether both readers found the same geometry, morphs and names."""
    pairs = [
        (fast.vertices["position"], [v["position"] for v in plain["vertices"]]),
        (fast.vertices["deform"], [v["deform"] for v in plain["vertices"]]),
        (fast.vertices["bone_index"][:, 0], [v["bones"][0] for v in plain["vertices"]]),
        (fast.vertices["edge_scale"], [v["edge_scale"] for v in plain["vertices"]]),
        (fast.faces.reshape(-1), plain["faces"]),
        ([len(m.offsets) for m in fast.morphs], [len(m["offsets"]) for m in plain["morphs"]]),
    ]
    names = all(
        [record.name for record in getattr(fast, section)] == [record["name"] for record in plain[section]]
        for section in ("materials", "bones", "morphs", "frames", "bodies", "joints")
    )
    return names and all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def milliseconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def summary(times: list[float]) -> dict[str, float]:
    """Median, fastest and slowest of some times in milliseconds."""
    return {
        "median_ms": round(statistics.median(times), 2),
        "min_ms": round(min(times), 2),
        "max_ms": round(max(times), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vertices", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--deform", choices=("mixed", "runs", "one"), default="mixed")
    parser.add_argument("--file", type=Path, help="a PMX file to read in place of the generated one")
    options = parser.parse_args()
    data = options.file.read_bytes() if options.file else build_file(options.vertices, options.deform)
    fast, plain = read_pmx(data), FieldByField(data).read()
    same = agree(fast, plain)
    del plain
    reader, writer, field_by_field = [], [], []
    for _ in range(options.repeats):  # in turns, so that other work on the machine slows all of them alike
        reader += [milliseconds(lambda: read_pmx(data)) for _ in range(3)]
        writer.append(milliseconds(lambda: write_pmx(fast)))
        field_by_field.append(milliseconds(lambda: FieldByField(data).read()))
    result = {
        "vertices": len(fast.vertices),
        "deform": None if options.file else options.deform,
        "bytes": len(data),
        "readers_agree": same,
        "round_trip": write_pmx(fast) == data,
        "reader": summary(reader),
        "writer": summary(writer),
        "field_by_field": summary(field_by_field),
        "ratio": round(statistics.median(field_by_field) / statistics.median(reader), 1),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
