"""`PmxFile` -> PMX bytes, the exact inverse of the reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from mmdgen.formats.cursor import Buffer
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.layouts import Layouts, layouts_of
from mmdgen.formats.pmx.reader import ENCODINGS
from mmdgen.formats.pmx.records import (
    OFFSET_DTYPES,
    PmxBone,
    PmxDisplayFrame,
    PmxFile,
    PmxHeader,
    PmxIk,
    PmxJoint,
    PmxMaterial,
    PmxMorph,
    PmxRigidBody,
    PmxSoftBody,
)
from mmdgen.formats.pmx.vertices import write_vertices

_T = TypeVar("_T")
_Named = PmxMaterial | PmxBone | PmxMorph | PmxDisplayFrame | PmxRigidBody | PmxJoint | PmxSoftBody


def write_pmx(file: PmxFile) -> bytes:
    """The bytes of `file`; reading them gives the same records, and ``write_pmx(read_pmx(data)) == data``.

    FormatError, with the field path, for what PMX cannot hold: an index or a text that does not fit the header's index
    sizes or encoding, an unknown kind, or a field that contradicts the flags which say whether it is there.
    """
    return _Writer(file).write()


class _Writer:
    def __init__(self, file: PmxFile) -> None:
        self.file = file
        self.buffer = Buffer()
        self.layouts: Layouts = layouts_of(file.header)

    def write(self) -> bytes:
        file, buffer = self.file, self.buffer
        self._header(file.header)
        for field in ("name", "name_en", "comment", "comment_en"):
            self._text(getattr(file, field), field)
        write_vertices(buffer, file.vertices, self.layouts)
        self._faces()
        self._records("textures", file.textures, lambda texture: self._text(texture, ""))
        self._records("materials", file.materials, self._material)
        self._records("bones", file.bones, self._bone)
        self._records("morphs", file.morphs, self._morph)
        sections: list[tuple[str, Sequence, Callable]] = [
            ("frames", file.frames, self._frame),
            ("bodies", file.bodies, self._body),
            ("joints", file.joints, self._joint),
            ("soft_bodies", file.soft_bodies, self._soft_body),
        ]
        possible = 4 if file.header.version > 2.0 else 3
        present = possible if file.sections is None else file.sections
        if not 0 <= present <= possible:
            buffer.fail(f"{present} sections, 0 to {possible} are possible", "sections")
        for number, (name, items, write) in enumerate(sections):
            if number < present:
                self._records(name, items, write)
            elif items:
                why = "PMX 2.0 has none" if number == possible else f"only {present} sections are to be written"
                buffer.fail(f"there are {len(items)} records, but {why}", name)
        buffer.raw(file.tail)
        return buffer.getvalue()

    # -- shared pieces ------------------------------------------------------------------------------------------------

    def _header(self, header: PmxHeader) -> None:
        buffer = self.buffer
        if len(header.signature) != 4 or header.signature[:3] != b"PMX":
            buffer.fail(f"a signature PMX and one more byte is needed, not {header.signature!r}", "header.signature")
        if header.version not in (2.0, 2.1):
            buffer.fail(f"version 2.0 or 2.1 is needed, not {header.version}", "header.version")
        if header.encoding not in ENCODINGS:
            buffer.fail(f"one of {ENCODINGS} is needed, not {header.encoding!r}", "header.encoding")
        buffer.raw(header.signature)
        buffer.put("f", header.version, "header.version")
        buffer.put("B", 8 + len(header.extra_globals), "header.count")
        settings = (
            ENCODINGS.index(header.encoding),
            header.additional_uv_count,
            header.vertex_index_size,
            header.texture_index_size,
            header.material_index_size,
            header.bone_index_size,
            header.morph_index_size,
            header.body_index_size,
        )
        buffer.raw(bytes(settings) + header.extra_globals)

    def _text(self, text: str, field: str) -> None:
        self.buffer.text(text, self.file.header.encoding, field)

    def _names(self, record: _Named) -> None:
        self._text(record.name, "name")
        self._text(record.name_en, "name_en")

    def _records(self, name: str, items: Sequence[_T], write: Callable[[_T], None]) -> None:
        self.buffer.put("i", len(items), f"{name}.count")
        for index in self.buffer.items(name, len(items)):
            write(items[index])

    def _array(self, items: np.ndarray, stored: np.dtype, field: str) -> None:
        """`items` with its first field (or itself, where it has none) as the index type of `stored`."""
        narrow = np.empty(items.shape, stored)
        pairs = [(narrow[name], items[name], name) for name in stored.names or ()] or [(narrow, items, "")]
        index, wide, name = pairs[0]
        index[...] = wide
        if (index != wide).any():
            row = int(np.flatnonzero(index != wide)[0])
            self.buffer.fail(
                f"the index {wide.flat[row]} does not fit {index.dtype}", f"{field}[{row}].{name}".rstrip(".")
            )
        for target, values, _ in pairs[1:]:
            target[...] = values
        self.buffer.array(narrow)

    def _flag(self, flags: int, bits: int, present: bool, field: str) -> bool:
        """Whether a field that `bits` announce is there; FormatError where the flags say otherwise."""
        if bool(flags & bits) != present:
            self.buffer.fail(f"flags {flags:#06x} and the field contradict each other", field)
        return present

    # -- sections -----------------------------------------------------------------------------------------------------

    def _faces(self) -> None:
        faces = self.file.faces
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
            self.buffer.fail(f"integers [F, 3] are needed, not {faces.shape} of {faces.dtype}", "faces")
        self.buffer.put("i", faces.size, "faces.count")
        self._array(faces.reshape(-1), self.layouts.vertex_index, "faces")

    def _material(self, material: PmxMaterial) -> None:
        buffer, layouts = self.buffer, self.layouts
        self._names(material)
        if material.toon_shared not in (0, 1):
            buffer.fail(f"unknown toon kind {material.toon_shared}, expected 0 or 1", "toon_shared")
        values = (
            *material.diffuse,
            *material.specular,
            material.specular_power,
            *material.ambient,
            material.flags,
            *material.edge_color,
            material.edge_size,
            material.texture_index,
            material.sphere_index,
            material.sphere_mode,
            material.toon_shared,
        )
        buffer.pack(layouts.material, values, "values")
        toon = layouts.toon_shared if material.toon_shared else layouts.toon_texture
        buffer.pack(toon, (material.toon_index,), "toon_index")
        self._text(material.memo, "memo")
        if material.index_count < 0:
            buffer.fail(f"the count is negative: {material.index_count}", "index_count")
        buffer.put("i", material.index_count, "index_count")

    def _bone(self, bone: PmxBone) -> None:
        buffer, layouts, flags = self.buffer, self.layouts, bone.flags
        self._names(bone)
        buffer.pack(layouts.bone, (*bone.position, bone.parent_index, bone.layer, flags), "values")
        self._flag(flags, pmx.BONE_TAIL_IS_BONE, not isinstance(bone.tail, tuple), "tail")
        if isinstance(bone.tail, tuple):
            buffer.floats(bone.tail, 3, "tail")
        else:
            buffer.pack(layouts.bone_reference, (bone.tail,), "tail")
        if flags & (pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION):
            buffer.pack(layouts.append, (bone.append_index, bone.append_ratio), "append")
        elif bone.append_index != -1:
            buffer.fail(f"flags {flags:#06x} and the field contradict each other", "append_index")
        if self._flag(flags, pmx.BONE_FIXED_AXIS, bone.fixed_axis is not None, "fixed_axis"):
            buffer.floats(bone.fixed_axis or (), 3, "fixed_axis")
        if self._flag(flags, pmx.BONE_LOCAL_AXES, bone.local_axes is not None, "local_axes"):
            buffer.floats([value for axis in bone.local_axes or () for value in axis], 6, "local_axes")
        if self._flag(flags, pmx.BONE_EXTERNAL_PARENT, bone.external_key is not None, "external_key"):
            buffer.put("i", bone.external_key or 0, "external_key")
        self._flag(flags, pmx.BONE_IK, bone.ik is not None, "ik")
        if bone.ik is not None:
            self._ik(bone.ik)

    def _ik(self, ik: PmxIk) -> None:
        buffer, layouts = self.buffer, self.layouts
        with buffer.at("ik"):
            buffer.pack(layouts.ik, (ik.target_index, ik.loop_count, ik.limit_angle), "values")
            buffer.put("i", len(ik.links), "links.count")
            for number in buffer.items("links", len(ik.links)):
                link = ik.links[number]
                buffer.pack(layouts.ik_link, (link.bone_index, int(link.limits is not None)), "values")
                if link.limits is not None:
                    buffer.floats([angle for limit in link.limits for angle in limit], 6, "limits")

    def _morph(self, morph: PmxMorph) -> None:
        buffer = self.buffer
        self._names(morph)
        stored = self.layouts.offsets.get(morph.kind)
        if stored is None:
            buffer.fail(f"unknown morph kind {morph.kind}, expected 0 to {max(self.layouts.offsets)}", "kind")
        if morph.offsets.dtype != OFFSET_DTYPES[morph.kind] or morph.offsets.ndim != 1:
            expected = OFFSET_DTYPES[morph.kind]
            buffer.fail(f"an array [N] of {expected} is needed, not of {morph.offsets.dtype}", "offsets")
        buffer.pack(self.layouts.morph, (morph.panel, morph.kind), "kind")
        buffer.put("i", len(morph.offsets), "offsets.count")
        self._array(morph.offsets, stored, "offsets")

    def _frame(self, frame: PmxDisplayFrame) -> None:
        self._names(frame)
        self.buffer.put("B", frame.special, "special")
        self._records("elements", frame.elements, self._frame_element)

    def _frame_element(self, element: tuple[int, int]) -> None:
        kind, number = element
        index = self.layouts.frame_element.get(kind)
        if index is None:
            self.buffer.fail(f"unknown element kind {kind}, expected 0 or 1", "kind")
        self.buffer.put("B", kind, "kind")
        self.buffer.pack(index, (number,), "index")

    def _body(self, body: PmxRigidBody) -> None:
        self._names(body)
        values = (
            body.bone_index,
            body.group,
            body.mask,
            body.shape,
            *body.size,
            *body.position,
            *body.rotation,
            body.mass,
            body.linear_damping,
            body.angular_damping,
            body.restitution,
            body.friction,
            body.mode,
        )
        self.buffer.pack(self.layouts.body, values, "values")

    def _joint(self, joint: PmxJoint) -> None:
        self._names(joint)
        values = (
            joint.kind,
            joint.body_a,
            joint.body_b,
            *joint.position,
            *joint.rotation,
            *(value for limit in joint.limits for value in limit),
            *joint.spring_translation,
            *joint.spring_rotation,
        )
        self.buffer.pack(self.layouts.joint, values, "values")

    def _soft_body(self, body: PmxSoftBody) -> None:
        buffer, layouts = self.buffer, self.layouts
        self._names(body)
        values = (
            body.shape,
            body.material_index,
            body.group,
            body.mask,
            body.flags,
            body.link_distance,
            body.cluster_count,
            body.total_mass,
            body.collision_margin,
            body.aero_model,
            *body.config,
            *body.cluster,
            *body.iterations,
            *body.stiffness,
        )
        buffer.pack(layouts.soft_body, values, "values")
        self._records("anchors", body.anchors, lambda anchor: buffer.pack(layouts.anchor, anchor, "values"))
        self._records("pins", body.pins, lambda pin: buffer.pack(layouts.pin, (pin,), "index"))
