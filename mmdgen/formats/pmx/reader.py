"""PMX bytes -> `PmxFile`, for PMX 2.0 and 2.1.

The file holds, in this order: signature, version, settings; four texts; vertices, faces, textures, materials, bones,
morphs, display frames, rigid bodies, joints and (2.1 only) soft bodies, each with its count before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from mmdgen.formats.cursor import Cursor, TruncatedError
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.layouts import SIGNED, Layouts, layouts_of
from mmdgen.formats.pmx.records import (
    OFFSET_DTYPES,
    PmxBone,
    PmxDisplayFrame,
    PmxFile,
    PmxHeader,
    PmxIk,
    PmxIkLink,
    PmxJoint,
    PmxMaterial,
    PmxMorph,
    PmxRigidBody,
    PmxSoftBody,
)
from mmdgen.formats.pmx.vertices import read_vertices

_T = TypeVar("_T")

ENCODINGS = ("utf-16-le", "utf-8")  # as the header numbers them
_SETTINGS = (
    "encoding",
    "additional_uv_count",
    "vertex_index_size",
    "texture_index_size",
    "material_index_size",
    "bone_index_size",
    "morph_index_size",
    "body_index_size",
)
_TWO_TEXTS = 8  # the bytes of two empty texts, which start every named record


def read_pmx(data: bytes, file: str = "<bytes>") -> PmxFile:
    """Everything that the PMX file `data` says; `file` names it in errors.

    FormatError where the file is damaged, with the byte offset and the field path. Not an error: text that does not
    decode (see `mmdgen.formats.text`), bytes after the last section (`PmxFile.tail`), and a file that ends right after
    its morphs or anywhere behind its display frames (`PmxFile.sections`): such files are in circulation, MMD opens
    them, and nothing that is drawn is missing. ``write_pmx(read_pmx(data)) == data`` always holds.
    """
    return _Reader(Cursor(data, file)).read()


class _Reader:
    """One reading of one file: the cursor, and what the header decides for all records."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.header = self._header()
        self.encoding = self.header.encoding
        self.layouts: Layouts = layouts_of(self.header)

    def read(self) -> PmxFile:
        cursor, layouts = self.cursor, self.layouts
        name, name_en, comment, comment_en = (
            self._text(field) for field in ("name", "name_en", "comment", "comment_en")
        )
        vertices = read_vertices(cursor, layouts)
        faces = self._faces()
        textures = self._records("textures", 4, lambda: self._text(""))
        materials = self._records("materials", _TWO_TEXTS + layouts.material.size + 9, self._material)
        bones = self._records("bones", _TWO_TEXTS + layouts.bone.size + layouts.bone_reference.size, self._bone)
        morphs = self._records("morphs", _TWO_TEXTS + layouts.morph.size + 4, self._morph)
        sections: int | None = 0
        frames: tuple[PmxDisplayFrame, ...] = ()
        bodies: tuple[PmxRigidBody, ...] = ()
        joints: tuple[PmxJoint, ...] = ()
        soft_bodies: tuple[PmxSoftBody, ...] = ()
        if cursor.remaining:
            frames = self._records("frames", _TWO_TEXTS + 5, self._frame)
            sections = 1
            mark = cursor.mark()
            try:
                bodies = self._records("bodies", _TWO_TEXTS + layouts.body.size, self._body)
                sections, mark = 2, cursor.mark()
                joints = self._records("joints", _TWO_TEXTS + layouts.joint.size, self._joint)
                sections, mark = 3, cursor.mark()
                if self.header.version > 2.0:
                    soft_bodies = self._records("soft_bodies", _TWO_TEXTS + layouts.soft_body.size + 8, self._soft_body)
                sections = None
            except TruncatedError:
                cursor.rewind(mark)
        return PmxFile(
            header=self.header,
            name=name,
            name_en=name_en,
            comment=comment,
            comment_en=comment_en,
            vertices=vertices,
            faces=faces,
            textures=textures,
            materials=materials,
            bones=bones,
            morphs=morphs,
            frames=frames,
            bodies=bodies,
            joints=joints,
            soft_bodies=soft_bodies,
            tail=cursor.rest(),
            sections=sections,
        )

    # -- shared pieces ------------------------------------------------------------------------------------------------

    def _header(self) -> PmxHeader:
        cursor = self.cursor
        signature = cursor.take(4, "header.signature")
        if signature[:3] != b"PMX":
            cursor.fail(f"no PMX file: it begins with {signature!r}", "header.signature", back=4)
        number = cursor.f32("header.version")
        version = next((v for v in (2.0, 2.1) if np.float32(v) == number), None)
        if version is None:
            cursor.fail(f"unknown version {number:g}, expected 2.0 or 2.1", "header.version", back=4)
        count = cursor.count("header.count", 1, "B")
        if count < len(_SETTINGS):
            cursor.fail(f"{count} settings, at least {len(_SETTINGS)} are needed", "header.count", back=1)
        values = {}
        for name in _SETTINGS:
            value = cursor.u8(f"header.{name}")
            if name == "encoding":
                if value >= len(ENCODINGS):
                    cursor.fail(f"unknown encoding {value}, expected 0 or 1", "header.encoding", back=1)
                values[name] = ENCODINGS[value]
                continue
            if name == "additional_uv_count":
                if value > 4:
                    cursor.fail(f"{value} additional uvs, at most 4 are possible", f"header.{name}", back=1)
            elif value not in SIGNED:
                cursor.fail(f"an index of {value} bytes, expected 1, 2 or 4", f"header.{name}", back=1)
            values[name] = value
        extra = cursor.take(count - len(_SETTINGS), "header.extra_globals")
        return PmxHeader(version=version, signature=signature, extra_globals=extra, **values)

    def _text(self, field: str) -> str:
        return self.cursor.text(self.encoding, field)

    def _records(self, name: str, minimum: int, read: Callable[[], _T]) -> tuple[_T, ...]:
        """A section: a count, then that many records of at least `minimum` bytes."""
        count = self.cursor.count(f"{name}.count", minimum)
        return tuple([read() for _ in self.cursor.items(name, count)])

    def _reference(self, field: str) -> int:
        return self.cursor.unpack(self.layouts.bone_reference, field)[0]

    # -- sections -----------------------------------------------------------------------------------------------------

    def _faces(self) -> np.ndarray:
        cursor, index = self.cursor, self.layouts.vertex_index
        count = cursor.count("faces.count", index.itemsize)
        if count % 3:
            cursor.fail(f"{count} vertex indices are no whole number of triangles", "faces.count", back=4)
        return cursor.array(index, count, "faces").astype("<i4").reshape(-1, 3)

    def _material(self) -> PmxMaterial:
        cursor, layouts = self.cursor, self.layouts
        name, name_en = self._text("name"), self._text("name_en")
        v = cursor.unpack(layouts.material, "values")
        toon_shared = v[20]
        if toon_shared > 1:
            cursor.fail(f"unknown toon kind {toon_shared}, expected 0 or 1", "toon_shared", back=1)
        (toon_index,) = cursor.unpack(layouts.toon_shared if toon_shared else layouts.toon_texture, "toon_index")
        memo = self._text("memo")
        index_count = cursor.i32("index_count")
        if index_count < 0:
            cursor.fail(f"the count is negative: {index_count}", "index_count", back=4)
        return PmxMaterial(
            name=name,
            name_en=name_en,
            diffuse=v[0:4],
            specular=v[4:7],
            specular_power=v[7],
            ambient=v[8:11],
            flags=v[11],
            edge_color=v[12:16],
            edge_size=v[16],
            texture_index=v[17],
            sphere_index=v[18],
            sphere_mode=v[19],
            toon_shared=toon_shared,
            toon_index=toon_index,
            memo=memo,
            index_count=index_count,
        )

    def _bone(self) -> PmxBone:
        cursor, layouts = self.cursor, self.layouts
        name, name_en = self._text("name"), self._text("name_en")
        x, y, z, parent_index, layer, flags = cursor.unpack(layouts.bone, "values")
        tail = self._reference("tail") if flags & pmx.BONE_TAIL_IS_BONE else cursor.floats(3, "tail")
        append_index, append_ratio = -1, 0.0
        if flags & (pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION):
            append_index, append_ratio = cursor.unpack(layouts.append, "append")
        fixed_axis = cursor.floats(3, "fixed_axis") if flags & pmx.BONE_FIXED_AXIS else None
        local_axes = None
        if flags & pmx.BONE_LOCAL_AXES:
            axes = cursor.floats(6, "local_axes")
            local_axes = (axes[:3], axes[3:])
        external_key = cursor.i32("external_key") if flags & pmx.BONE_EXTERNAL_PARENT else None
        ik = self._ik() if flags & pmx.BONE_IK else None
        return PmxBone(
            name=name,
            name_en=name_en,
            position=(x, y, z),
            parent_index=parent_index,
            layer=layer,
            flags=flags,
            tail=tail,
            append_index=append_index,
            append_ratio=append_ratio,
            fixed_axis=fixed_axis,
            local_axes=local_axes,
            external_key=external_key,
            ik=ik,
        )

    def _ik(self) -> PmxIk:
        cursor, layouts = self.cursor, self.layouts
        with cursor.at("ik"):
            target_index, loop_count, limit_angle = cursor.unpack(layouts.ik, "values")
            links = self._records("links", layouts.ik_link.size, self._ik_link)
        return PmxIk(target_index=target_index, loop_count=loop_count, limit_angle=limit_angle, links=links)

    def _ik_link(self) -> PmxIkLink:
        bone_index, has_limits = self.cursor.unpack(self.layouts.ik_link, "values")
        if not has_limits:
            return PmxIkLink(bone_index)
        if has_limits > 1:
            self.cursor.fail(f"unknown value {has_limits}, expected 0 or 1", "has_limits", back=1)
        angles = self.cursor.floats(6, "limits")
        return PmxIkLink(bone_index, (angles[:3], angles[3:]))

    def _morph(self) -> PmxMorph:
        cursor = self.cursor
        name, name_en = self._text("name"), self._text("name_en")
        panel, kind = cursor.unpack(self.layouts.morph, "kind")
        stored = self.layouts.offsets.get(kind)
        if stored is None:
            cursor.fail(f"unknown morph kind {kind}, expected 0 to {max(self.layouts.offsets)}", "kind", back=1)
        count = cursor.count("offsets.count", stored.itemsize)
        return PmxMorph(name, name_en, panel, kind, widen(cursor.array(stored, count, "offsets"), OFFSET_DTYPES[kind]))

    def _frame(self) -> PmxDisplayFrame:
        cursor, layouts = self.cursor, self.layouts
        name, name_en = self._text("name"), self._text("name_en")
        special = cursor.u8("special")
        smallest = 1 + min(index.size for index in layouts.frame_element.values())
        elements = self._records("elements", smallest, self._frame_element)
        return PmxDisplayFrame(name, name_en, special, elements)

    def _frame_element(self) -> tuple[int, int]:
        kind = self.cursor.u8("kind")
        index = self.layouts.frame_element.get(kind)
        if index is None:
            self.cursor.fail(f"unknown element kind {kind}, expected 0 or 1", "kind", back=1)
        return kind, self.cursor.unpack(index, "index")[0]

    def _body(self) -> PmxRigidBody:
        name, name_en = self._text("name"), self._text("name_en")
        v = self.cursor.unpack(self.layouts.body, "values")
        bone_index, group, mask, shape = v[:4]
        mass, linear, angular, restitution, friction, mode = v[13:]
        return PmxRigidBody(
            name=name,
            name_en=name_en,
            bone_index=bone_index,
            group=group,
            mask=mask,
            shape=shape,
            size=v[4:7],
            position=v[7:10],
            rotation=v[10:13],
            mass=mass,
            linear_damping=linear,
            angular_damping=angular,
            restitution=restitution,
            friction=friction,
            mode=mode,
        )

    def _joint(self) -> PmxJoint:
        name, name_en = self._text("name"), self._text("name_en")
        v = self.cursor.unpack(self.layouts.joint, "values")
        kind, body_a, body_b = v[:3]
        limits = (v[9:12], v[12:15], v[15:18], v[18:21])
        return PmxJoint(name, name_en, kind, body_a, body_b, v[3:6], v[6:9], limits, v[21:24], v[24:27])

    def _soft_body(self) -> PmxSoftBody:
        cursor, layouts = self.cursor, self.layouts
        name, name_en = self._text("name"), self._text("name_en")
        v = cursor.unpack(layouts.soft_body, "values")
        anchors = self._records("anchors", layouts.anchor.size, lambda: cursor.unpack(layouts.anchor, "values"))
        pins = self._records("pins", layouts.pin.size, lambda: cursor.unpack(layouts.pin, "index")[0])
        return PmxSoftBody(
            name,
            name_en,
            *v[:10],
            config=v[10:22],
            cluster=v[22:28],
            iterations=v[28:32],
            stiffness=v[32:35],
            anchors=anchors,
            pins=pins,
        )


def widen(stored: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`stored` as `dtype`, which has the same fields but a wider index; the bits of floats stay as they are."""
    if stored.dtype == dtype:
        return stored
    wide = np.empty(stored.shape, dtype)
    for name in dtype.names or ():
        wide[name] = stored[name]
    return wide
