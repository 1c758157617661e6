"""From what a file says to a `Model`: the one place where drafts of any format are checked, repaired or rejected."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmdgen.errors import ModelError
from mmdgen.formats.text import is_clean, printable
from mmdgen.model.diagnostics import Diagnostics
from mmdgen.model.mesh import (
    repair_additional_uv,
    repair_faces,
    repair_normals,
    repair_numbers,
    repair_weights,
)
from mmdgen.model.morphs import drop_nested_groups, make_morph
from mmdgen.model.records import Material, Model, MorphKind, SdefTable, Texture
from mmdgen.model.resolve import resolve
from mmdgen.model.skeleton import POSITION_LIMIT, BoneRow, build_skeleton

# MMD looks for toon textures beside the model and then among its own ten, so files name those without bringing them.
_SHARED_TOON = re.compile(r"toon(0[1-9]|10)\.bmp", re.IGNORECASE)
_WHITE_TOON = "toon0.bmp"
# Looking for a file under all spellings that its name may have takes up to a millisecond. Models have some dozens of
# textures; the names after so many are taken for missing.
MAX_TEXTURES = 1000


@dataclass(slots=True)
class MorphRow:
    """One morph as a file gives it: `index` [n] and `offset` as in `records.Morph`, unchecked."""

    name: str
    name_en: str
    panel: int
    kind: MorphKind
    index: np.ndarray
    offset: np.ndarray


@dataclass(slots=True)
class Draft:
    """A model as a file gives it, in the shapes of `Model`, with nothing checked.

    `materials` hold texture indices into `textures` that may be out of range; their `first_face` is not used and their
    `face_count` counts vertex indices (three a face). Unused slots of `bone_index` are -1.
    """

    name: str
    name_en: str
    comment: str
    position: np.ndarray
    normal: np.ndarray
    uv: np.ndarray
    uv1: np.ndarray | None
    bone_index: np.ndarray
    bone_weight: np.ndarray
    edge_scale: np.ndarray
    sdef: SdefTable
    face: np.ndarray
    materials: Sequence[Material]
    textures: Sequence[str]
    bones: Sequence[BoneRow]
    morphs: Sequence[MorphRow]


def assemble(draft: Draft, *, model_id: str, path: Path, diagnostics: Diagnostics) -> Model:
    """Return the `Model` of a draft; what had to be repaired is in its diagnostics.

    Raises `ModelError` (``no_vertices``, ``no_faces``, ``no_bones``, ``no_materials``) for what cannot be drawn at all.
    """
    vertex_count = len(draft.position)
    for code, count in (
        ("no_vertices", vertex_count),
        ("no_faces", len(draft.face)),
        ("no_bones", len(draft.bones)),
        ("no_materials", len(draft.materials)),
    ):
        if count == 0:
            raise ModelError(code, f"{path}: the model has {code.replace('_', ' ')}, so there is nothing to draw")
    _check_names(draft, diagnostics)

    position, uv, edge_scale, lost = repair_numbers(draft.position, draft.uv, draft.edge_scale, diagnostics)
    uv1 = None if draft.uv1 is None else repair_additional_uv(draft.uv1, diagnostics)
    counts = [material.face_count for material in draft.materials]
    face, ranges = repair_faces(draft.face, counts, vertex_count, lost, diagnostics)
    if len(face) == 0:
        raise ModelError("no_faces", f"{path}: no face of the model can be drawn (see its materials and vertices)")
    sdef = _sdef(draft, diagnostics)
    bone_index, bone_weight = repair_weights(draft.bone_index, draft.bone_weight, len(draft.bones), diagnostics)
    textures = tuple(
        Texture(printable(name), resolve(path.parent, name) if number < MAX_TEXTURES else None)
        for number, name in enumerate(draft.textures)
    )
    materials = tuple(
        replace(_material(material, number, textures, diagnostics), first_face=first, face_count=count)
        for number, (material, (first, count)) in enumerate(zip(draft.materials, ranges, strict=True))
    )
    _check_textures(materials, textures, diagnostics)
    return Model(
        id=model_id,
        path=path,
        name=printable(draft.name),
        name_en=printable(draft.name_en),
        comment=printable(draft.comment),
        position=position,
        normal=repair_normals(draft.normal, position, face, diagnostics),
        uv=uv,
        uv1=uv1,
        bone_index=bone_index,
        bone_weight=bone_weight,
        edge_scale=edge_scale,
        sdef=sdef,
        face=face,
        materials=materials,
        textures=textures,
        skeleton=build_skeleton(draft.bones, diagnostics),
        morphs=_morphs(draft, diagnostics),
        diagnostics=diagnostics.as_tuple(),
    )


def _check_names(draft: Draft, diagnostics: Diagnostics) -> None:
    """Diagnose damaged and duplicate names; write the damaged ones so that every encoder takes them."""
    for section, rows in (("bones", draft.bones), ("morphs", draft.morphs), ("materials", draft.materials)):
        seen: set[str] = set()
        twice: dict[str, int] = {}
        for number, row in enumerate(rows):
            if row.name in seen:
                twice.setdefault(row.name, number)
            seen.add(row.name)
            if not is_clean(row.name):
                diagnostics.add("name_damaged", section, number, printable(row.name))
        if twice:
            names = ", ".join(printable(name) for name in list(twice)[:8])
            diagnostics.add("name_duplicate", section, next(iter(twice.values())), f"{len(twice)} names: {names}")
    for row in (*draft.bones, *draft.morphs):
        row.name, row.name_en = printable(row.name), printable(row.name_en)


def _sdef(draft: Draft, diagnostics: Diagnostics) -> SdefTable:
    """The spherical deforms that can be computed: finite points, two bones that exist."""
    table = draft.sdef
    if len(table.vertex) == 0:
        return table
    pair = draft.bone_index[table.vertex, :2]
    usable = ((pair >= 0) & (pair < len(draft.bones))).all(axis=1)
    for points in (table.c, table.r0, table.r1):
        with np.errstate(invalid="ignore"):
            usable &= np.all(np.abs(points) <= POSITION_LIMIT, axis=1)
    if usable.all():
        return table
    bad = int(table.vertex[np.argmin(usable)])
    diagnostics.add("sdef_invalid", "vertices", bad, f"{np.count_nonzero(~usable)} vertices")
    return SdefTable(*(part[usable] for part in (table.vertex, table.c, table.r0, table.r1)))


def _material(material: Material, number: int, textures: Sequence[Texture], diagnostics: Diagnostics) -> Material:
    """`material` with texture indices in range, sphere mode and texture in agreement, and finite numbers."""

    def texture(index: int, role: str) -> int:
        if index >= len(textures) or index < -1:
            diagnostics.add(
                "texture_index_out_of_range",
                "materials",
                number,
                f"{printable(material.name)}: {role} {index} of {len(textures)} textures",
            )
            return -1
        return index if index >= 0 and textures[index].name else -1

    main, sphere, toon = (
        texture(material.texture, "texture"),
        texture(material.sphere_texture, "sphere texture") if material.sphere_mode else -1,
        texture(material.toon_texture, "toon texture"),
    )
    mode = material.sphere_mode
    if mode not in (0, 1, 2, 3):
        diagnostics.add("sphere_mode_invalid", "materials", number, f"{printable(material.name)}: mode {mode}")
        sphere = -1
    shared = material.toon_shared
    if toon >= 0 and textures[toon].path is None:
        base = re.split(r"[\\/]", textures[toon].name)[-1]
        if match := _SHARED_TOON.fullmatch(base):
            toon, shared = -1, int(match[1]) - 1
        elif base.lower() == _WHITE_TOON:
            toon = -1
    if not -1 <= shared <= 9:
        diagnostics.add(
            "texture_index_out_of_range", "materials", number, f"{printable(material.name)}: shared toon {shared}"
        )
        shared = -1
    numbers = (
        *material.diffuse,
        *material.specular,
        material.specular_power,
        *material.ambient,
        *material.edge_color,
        material.edge_size,
    )
    if not all(map(math.isfinite, numbers)):
        diagnostics.add("material_value_invalid", "materials", number, printable(material.name))
        finite = [value if math.isfinite(value) else 0.0 for value in numbers]
        for alpha in (3, 14):
            finite[alpha] = finite[alpha] if math.isfinite(numbers[alpha]) else 1.0
        material = replace(
            material,
            diffuse=tuple(finite[:4]),
            specular=tuple(finite[4:7]),
            specular_power=finite[7],
            ambient=tuple(finite[8:11]),
            edge_color=tuple(finite[11:15]),
            edge_size=finite[15],
        )
    return replace(
        material,
        name=printable(material.name),
        name_en=printable(material.name_en),
        texture=main,
        sphere_texture=sphere,
        sphere_mode=mode if sphere >= 0 else 0,
        toon_texture=toon,
        toon_shared=shared,
    )


def _check_textures(materials: Sequence[Material], textures: Sequence[Texture], diagnostics: Diagnostics) -> None:
    """Diagnose the files that materials use and that were not found."""
    used = {
        index
        for material in materials
        for index in (material.texture, material.sphere_texture, material.toon_texture)
        if index >= 0
    }
    for index in sorted(used):
        if textures[index].path is None:
            diagnostics.add("texture_missing", "textures", index, textures[index].name)


def _morphs(draft: Draft, diagnostics: Diagnostics):
    limits = {
        MorphKind.GROUP: len(draft.morphs),
        MorphKind.VERTEX: len(draft.position),
        MorphKind.UV: len(draft.position),
        MorphKind.BONE: len(draft.bones),
        MorphKind.MATERIAL: len(draft.materials),
        MorphKind.OTHER: 0,
    }
    return drop_nested_groups(
        [
            make_morph(
                row.name,
                row.name_en,
                row.panel,
                row.kind,
                row.index,
                row.offset,
                number=number,
                limit=limits[row.kind],
                diagnostics=diagnostics,
            )
            for number, row in enumerate(draft.morphs)
        ],
        diagnostics,
    )
