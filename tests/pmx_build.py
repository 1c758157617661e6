"""Generated `PmxFile` values that use every record kind, with any bit pattern that the format can hold."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmdgen import rng
from mmdgen.formats.cursor import layout
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.text import decode_text

NAMES = ("頭", "首", "ｳｨﾝｸ２右", "eye_L", "", "笑い\r\n", "𠮷野", "はぅ∧", "\ufeffBOM", "a\0b")


class Builder:
    """Draws records from one random stream. `wild`: any bits (NaN with payloads, damaged text); else sane values."""

    def __init__(self, seed: int, header: pmx.PmxHeader, wild: bool) -> None:
        self.random = rng.generator(seed, "tests", "pmx")
        self.header = header
        self.wild = wild

    def integer(self, low: int, high: int) -> int:
        """A number of [low, high]."""
        return int(self.random.integers(low, high + 1))

    def index(self, size: int, *, unsigned: bool = False) -> int:
        if not self.wild:
            return self.integer(0, 2)
        if unsigned and size < 4:
            return self.integer(0, 256**size - 1)
        return self.integer(-(256**size) // 2, 256**size // 2 - 1)

    def floats(self, count: int) -> tuple:
        values = self.random.normal(size=count).astype("<f4")
        if self.wild and self.random.random() < 0.3:
            values = np.frombuffer(self.random.bytes(4 * count), "<f4").copy()
            if self.random.random() < 0.5:  # a signalling NaN with a payload
                values.view("<u4")[self.integer(0, count - 1)] = self.random.choice(
                    [0x7F800001, 0xFFABCDEF, 0x7FC00000]
                )
        return layout(f"{count}f").unpack_from(values.tobytes(), 0)

    def float(self) -> float:
        return self.floats(1)[0]

    def text(self) -> str:
        if self.wild and self.random.random() < 0.3:
            size = self.integer(0, 9)
            raw = bytes(self.random.choice([0x00, 0x30, 0xD8, 0xDB, 0xDC, 0xFF, 0xE3, 0x81, 0x41], size).astype("u1"))
            return decode_text(raw, self.header.encoding)
        return str(self.random.choice(NAMES))

    def names(self) -> tuple[str, str]:
        return self.text(), self.text()

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """Floats of any bits where wild; every integer field 0."""
        items = np.zeros(count, dtype)
        for name in dtype.names or ():
            if dtype[name].base == np.dtype("<f4"):
                width = dtype[name].itemsize // 4
                for row in range(count):
                    bits = np.frombuffer(layout(f"{width}f").pack(self.floats(width)), "<f4")
                    items[name][row] = bits.reshape(dtype[name].shape)
        return items

    def vertices(self, count: int, kinds: tuple[int, ...]) -> np.ndarray:
        vertices = self.array(pmx.VERTEX, count)
        vertices["deform"] = self.random.choice(kinds, count)
        vertices["additional_uv"][:, self.header.additional_uv_count :] = 0
        size = self.header.bone_index_size
        vertices["bone_index"] = [[self.index(size) for _ in range(4)] for _ in range(count)] or vertices["bone_index"]
        for vertex in vertices:
            kind = vertex["deform"]
            bones, weights = {pmx.BDEF1: (1, 0), pmx.BDEF2: (2, 1), pmx.SDEF: (2, 1)}.get(int(kind), (4, 4))
            vertex["bone_index"][bones:] = -1
            vertex["bone_weight"][weights:] = 0
            if kind != pmx.SDEF:
                for name in ("sdef_c", "sdef_r0", "sdef_r1"):
                    vertex[name] = 0
        return vertices

    def material(self) -> pmx.PmxMaterial:
        shared = self.integer(0, 1)
        size = self.header.texture_index_size
        return pmx.PmxMaterial(
            *self.names(),
            diffuse=self.floats(4),
            specular=self.floats(3),
            specular_power=self.float(),
            ambient=self.floats(3),
            flags=self.integer(0, 255),
            edge_color=self.floats(4),
            edge_size=self.float(),
            texture_index=self.index(size),
            sphere_index=self.index(size),
            sphere_mode=self.integer(0, 3),
            toon_shared=shared,
            toon_index=self.integer(0, 255) if shared else self.index(size),
            memo=self.text(),
            index_count=self.integer(0, 9) * 3,
        )

    def bone(self, flags: int | None = None) -> pmx.PmxBone:
        flags = self.integer(0, 0xFFFF) if flags is None else flags
        size = self.header.bone_index_size
        append = flags & (pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION)
        return pmx.PmxBone(
            *self.names(),
            position=self.floats(3),
            parent_index=self.index(size),
            layer=self.integer(-2, 9),
            flags=flags,
            tail=self.index(size) if flags & pmx.BONE_TAIL_IS_BONE else self.floats(3),
            append_index=self.index(size) if append else -1,
            append_ratio=self.float() if append else 0.0,
            fixed_axis=self.floats(3) if flags & pmx.BONE_FIXED_AXIS else None,
            local_axes=(self.floats(3), self.floats(3)) if flags & pmx.BONE_LOCAL_AXES else None,
            external_key=self.integer(-(2**31), 2**31 - 1) if flags & pmx.BONE_EXTERNAL_PARENT else None,
            ik=self.ik() if flags & pmx.BONE_IK else None,
        )

    def ik(self) -> pmx.PmxIk:
        size = self.header.bone_index_size
        links = []
        for _ in range(self.integer(0, 3)):
            limits = (self.floats(3), self.floats(3)) if self.integer(0, 1) else None
            links.append(pmx.PmxIkLink(self.index(size), limits))
        return pmx.PmxIk(self.index(size), self.integer(0, 255), self.float(), tuple(links))

    def morph(self, kind: int) -> pmx.PmxMorph:
        header = self.header
        offsets = self.array(pmx.OFFSET_DTYPES[kind], self.integer(0, 3))
        sizes = {
            "morph": header.morph_index_size,
            "bone": header.bone_index_size,
            "material": header.material_index_size,
            "body": header.body_index_size,
        }
        name = (offsets.dtype.names or ("",))[0]
        for offset in offsets:
            vertex = name == "vertex"
            offset[name] = self.index(header.vertex_index_size if vertex else sizes[name], unsigned=vertex)
            for flag in {"operation", "local"} & set(offsets.dtype.names or ()):
                offset[flag] = self.integer(0, 1)
        return pmx.PmxMorph(*self.names(), self.integer(0, 4), kind, offsets)

    def frame(self) -> pmx.PmxDisplayFrame:
        sizes = (self.header.bone_index_size, self.header.morph_index_size)
        kinds = [self.integer(0, 1) for _ in range(self.integer(0, 3))]
        return pmx.PmxDisplayFrame(*self.names(), self.integer(0, 1), tuple((k, self.index(sizes[k])) for k in kinds))

    def body(self) -> pmx.PmxRigidBody:
        name, name_en = self.names()
        return pmx.PmxRigidBody(
            name=name,
            name_en=name_en,
            bone_index=self.index(self.header.bone_index_size),
            group=self.integer(0, 15),
            mask=self.integer(0, 0xFFFF),
            shape=self.integer(0, 2),
            size=self.floats(3),
            position=self.floats(3),
            rotation=self.floats(3),
            mass=self.float(),
            linear_damping=self.float(),
            angular_damping=self.float(),
            restitution=self.float(),
            friction=self.float(),
            mode=self.integer(0, 2),
        )

    def joint(self) -> pmx.PmxJoint:
        size = self.header.body_index_size
        limits = (self.floats(3), self.floats(3), self.floats(3), self.floats(3))
        bodies = (self.index(size), self.index(size))
        place = (self.floats(3), self.floats(3))
        kind = self.integer(0, 5)
        return pmx.PmxJoint(*self.names(), kind, *bodies, *place, limits, self.floats(3), self.floats(3))

    def soft_body(self) -> pmx.PmxSoftBody:
        header = self.header
        size = header.vertex_index_size
        return pmx.PmxSoftBody(
            *self.names(),
            shape=self.integer(0, 1),
            material_index=self.index(header.material_index_size),
            group=self.integer(0, 15),
            mask=self.integer(0, 0xFFFF),
            flags=self.integer(0, 7),
            link_distance=self.integer(0, 9),
            cluster_count=self.integer(0, 9),
            total_mass=self.float(),
            collision_margin=self.float(),
            aero_model=self.integer(0, 4),
            config=self.floats(12),
            cluster=self.floats(6),
            iterations=tuple(self.integer(0, 9) for _ in range(4)),
            stiffness=self.floats(3),
            anchors=tuple(
                (self.index(header.body_index_size), self.index(size, unsigned=True), self.integer(0, 1))
                for _ in range(self.integer(0, 2))
            ),
            pins=tuple(self.index(size, unsigned=True) for _ in range(self.integer(0, 2))),
        )


def build_pmx(
    seed: int = 0,
    header: pmx.PmxHeader | None = None,
    *,
    vertices: int = 6,
    kinds: tuple[int, ...] = (0, 1, 2, 3, 4),
    records: int = 2,
    wild: bool = False,
) -> pmx.PmxFile:
    """A file with `vertices` vertices of the deform `kinds`, every morph kind and about `records` records a section."""
    header = header or pmx.PmxHeader(version=2.1)
    b = Builder(seed, header, wild)
    faces = [[b.index(header.vertex_index_size, unsigned=True) for _ in range(3)] for _ in range(vertices)]
    every_flag = (0, pmx.BONE_IK | pmx.BONE_TAIL_IS_BONE, 0x2D20, 0x3FFF)
    return pmx.PmxFile(
        header=header,
        name=b.text(),
        name_en=b.text(),
        comment=b.text(),
        comment_en=b.text(),
        vertices=b.vertices(vertices, kinds),
        faces=np.array(faces, np.int32).reshape(-1, 3),
        textures=tuple(b.text() for _ in range(records)),
        materials=tuple(b.material() for _ in range(records)),
        bones=(*(b.bone(flags) for flags in every_flag[: 2 * records]), *(b.bone() for _ in range(records))),
        morphs=tuple(b.morph(kind) for kind in sorted(pmx.OFFSET_DTYPES)) if records else (),
        frames=tuple(b.frame() for _ in range(records)),
        bodies=tuple(b.body() for _ in range(records)),
        joints=tuple(b.joint() for _ in range(records)),
        soft_bodies=tuple(b.soft_body() for _ in range(records)) if header.version > 2.0 else (),
    )


def cut_sections(file: pmx.PmxFile, sections: int, tail: bytes = b"") -> pmx.PmxFile:
    """`file` with only `sections` sections after the morphs."""
    names = ("frames", "bodies", "joints", "soft_bodies")
    return dataclasses.replace(file, sections=sections, tail=tail, **dict.fromkeys(names[sections:], ()))


def same(a: pmx.PmxFile, b: pmx.PmxFile) -> bool:
    """Whether two files hold the same records; NaN equals NaN, arrays are compared by their bytes."""
    arrays = [(a.vertices, b.vertices), (a.faces, b.faces)]
    arrays += [(m.offsets, n.offsets) for m, n in zip(a.morphs, b.morphs, strict=True)]
    if not all(m.dtype == n.dtype and m.shape == n.shape and m.tobytes() == n.tobytes() for m, n in arrays):
        return False
    heads = [[(m.name, m.name_en, m.panel, m.kind) for m in file.morphs] for file in (a, b)]
    others = [f.name for f in dataclasses.fields(a) if f.name not in ("vertices", "faces", "morphs")]
    return heads[0] == heads[1] and all(repr(getattr(a, name)) == repr(getattr(b, name)) for name in others)
