"""PMX records -> `Draft`. Nothing is checked here: `assemble` does that for every format."""

from __future__ import annotations

import numpy as np

from mmdgen.formats.pmx import records as pmx
from mmdgen.model.assemble import Draft, MorphRow
from mmdgen.model.records import Material, MorphKind, SdefTable
from mmdgen.model.skeleton import BoneRow

# kind in the file: (kind here, name of the index field, name of the offset field or None for the whole row)
_MORPH_KINDS = {
    pmx.MORPH_GROUP: (MorphKind.GROUP, "morph", "weight"),
    pmx.MORPH_VERTEX: (MorphKind.VERTEX, "vertex", "offset"),
    pmx.MORPH_UV: (MorphKind.UV, "vertex", "offset"),
    pmx.MORPH_MATERIAL: (MorphKind.MATERIAL, "material", None),
}


def draft_from_pmx(file: pmx.PmxFile) -> Draft:
    """Return the draft of a PMX file. QDEF is taken as BDEF4, as MMD does."""
    vertices = file.vertices
    bone_index, bone_weight = _weights(vertices)
    spherical = np.flatnonzero(vertices["deform"] == pmx.SDEF).astype(np.int32)
    return Draft(
        name=file.name,
        name_en=file.name_en,
        comment=file.comment,
        position=np.ascontiguousarray(vertices["position"]),
        normal=np.ascontiguousarray(vertices["normal"]),
        uv=np.ascontiguousarray(vertices["uv"]),
        uv1=np.ascontiguousarray(vertices["additional_uv"][:, 0]) if file.header.additional_uv_count else None,
        bone_index=bone_index,
        bone_weight=bone_weight,
        edge_scale=np.ascontiguousarray(vertices["edge_scale"]),
        sdef=SdefTable(spherical, *(vertices[field][spherical] for field in ("sdef_c", "sdef_r0", "sdef_r1"))),
        face=file.faces,
        materials=[_material(material) for material in file.materials],
        textures=file.textures,
        bones=[_bone(bone) for bone in file.bones],
        morphs=[_morph(morph) for morph in file.morphs],
    )


def _weights(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """i32 [V, 4] and f32 [V, 4] with the weights that the file leaves out: BDEF1 has 1, BDEF2 and SDEF 1 - first."""
    deform = vertices["deform"]
    index = vertices["bone_index"].copy()
    weight = vertices["bone_weight"].copy()
    one = deform == pmx.BDEF1
    two = (deform == pmx.BDEF2) | (deform == pmx.SDEF)
    weight[:, 0] = np.where(one, np.float32(1), weight[:, 0])
    with np.errstate(invalid="ignore"):  # signalling NaN, which `assemble` repairs
        second = 1 - weight[:, 0]
    weight[:, 1] = np.where(two, second, np.where(one, np.float32(0), weight[:, 1]))
    return index, weight


def _material(material: pmx.PmxMaterial) -> Material:
    shared = bool(material.toon_shared)
    return Material(
        name=material.name,
        name_en=material.name_en,
        diffuse=material.diffuse,
        specular=material.specular,
        specular_power=material.specular_power,
        ambient=material.ambient,
        double_sided=bool(material.flags & pmx.DOUBLE_SIDED),
        edge=bool(material.flags & pmx.EDGE),
        edge_color=material.edge_color,
        edge_size=material.edge_size,
        texture=material.texture_index,
        sphere_texture=material.sphere_index,
        sphere_mode=material.sphere_mode,
        toon_texture=-1 if shared else material.toon_index,
        toon_shared=material.toon_index if shared else -1,
        first_face=0,
        face_count=material.index_count,
    )


def _bone(bone: pmx.PmxBone) -> BoneRow:
    return BoneRow(
        name=bone.name,
        name_en=bone.name_en,
        position=bone.position,
        parent=bone.parent_index,
        layer=bone.layer,
        after_physics=bool(bone.flags & pmx.BONE_AFTER_PHYSICS),
        append_source=bone.append_index,
        append_ratio=bone.append_ratio,
        append_rotation=bool(bone.flags & pmx.BONE_APPEND_ROTATION),
        append_translation=bool(bone.flags & pmx.BONE_APPEND_TRANSLATION),
        append_local=bool(bone.flags & pmx.BONE_APPEND_LOCAL),
    )


def _morph(morph: pmx.PmxMorph) -> MorphRow:
    offsets = morph.offsets
    if morph.kind == pmx.MORPH_BONE:
        offset = np.concatenate([offsets["translation"], offsets["rotation"]], axis=1)
        return MorphRow(morph.name, morph.name_en, morph.panel, MorphKind.BONE, offsets["bone"], offset)
    if morph.kind not in _MORPH_KINDS:
        none = np.zeros(0, np.int32), np.zeros((0, 4), np.float32)
        return MorphRow(morph.name, morph.name_en, morph.panel, MorphKind.OTHER, *none)
    kind, index, field = _MORPH_KINDS[morph.kind]
    offset = offsets if field is None else np.ascontiguousarray(offsets[field])
    return MorphRow(morph.name, morph.name_en, morph.panel, kind, np.ascontiguousarray(offsets[index]), offset)
