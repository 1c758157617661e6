"""PMD records -> `Draft`, with the meaning that MMD gives to what PMD expresses in its own ways."""

from __future__ import annotations

import numpy as np

from mmdgen.formats.pmd import records as pmd
from mmdgen.formats.pmd.records import PmdFile, field_text
from mmdgen.model.assemble import Draft, MorphRow
from mmdgen.model.records import Material, MorphKind, SdefTable
from mmdgen.model.skeleton import BoneRow

_SPHERE_MODES = {".sph": 1, ".spa": 2}


def draft_from_pmd(file: PmdFile) -> Draft:
    """Return the draft of a PMD file."""
    vertices = file.vertices
    count = len(vertices)
    weight = np.zeros((count, 4), np.float32)
    weight[:, 0] = vertices["weight"] / np.float32(100)
    weight[:, 1] = (100 - vertices["weight"].astype(np.int32)) / np.float32(100)
    bone = np.full((count, 4), -1, np.int32)
    bone[:, :2] = vertices["bone"]
    textures: dict[str, int] = {}
    none = np.zeros((0, 3), np.float32)
    english = file.english
    return Draft(
        name=field_text(file.name),
        name_en=field_text(english.name) if english else "",
        comment=field_text(file.comment),
        position=np.ascontiguousarray(vertices["position"]),
        normal=np.ascontiguousarray(vertices["normal"]),
        uv=np.ascontiguousarray(vertices["uv"]),
        uv1=None,
        bone_index=bone,
        bone_weight=weight,
        edge_scale=np.where(vertices["no_edge"] == 1, np.float32(0), np.float32(1)),
        sdef=SdefTable(np.zeros(0, np.int32), none, none, none),
        face=file.indices[: len(file.indices) // 3 * 3].reshape(-1, 3).astype(np.int32),
        materials=_materials(file, textures),
        textures=list(textures),
        bones=_bones(file),
        morphs=_morphs(file),
    )


def _materials(file: PmdFile, textures: dict[str, int]) -> list[Material]:
    """The materials; the texture names that they use are collected in `textures` (name: index)."""

    def texture(name: str) -> int:
        return textures.setdefault(name, len(textures)) if name else -1

    toons = [field_text(name) for name in file.toons.tolist()] if file.toons is not None else None
    materials = []
    for number, row in enumerate(file.materials):
        main, sphere, mode = split_texture(field_text(row["texture"]))
        toon = int(row["toon"])
        own = toons[toon] if toons is not None and toon < len(toons) else ""
        alpha = float(row["alpha"])
        materials.append(
            Material(
                name=f"材質{number + 1}",  # PMD has none; PMX Editor numbers them in this way
                name_en="",
                diffuse=(*row["diffuse"].tolist(), alpha),
                specular=tuple(row["specular"].tolist()),
                specular_power=float(row["specular_power"]),
                ambient=tuple(row["ambient"].tolist()),
                double_sided=alpha < 1.0,  # MMD culls no back faces of translucent materials
                edge=bool(row["edge"]),
                edge_color=(0.0, 0.0, 0.0, 1.0),
                edge_size=1.0,
                texture=texture(main),
                sphere_texture=texture(sphere),
                sphere_mode=mode,
                toon_texture=texture(own),
                # Without a toon list the index names MMD's own ramps; one past the list is for `assemble` to refuse.
                toon_shared=toon if (toons is None or toon >= len(toons)) and toon != pmd.NO_TOON else -1,
                first_face=0,
                face_count=int(row["index_count"]),
            )
        )
    return materials


def split_texture(field: str) -> tuple[str, str, int]:
    """Return texture, sphere texture ("" for none) and sphere mode of a field such as ``face.bmp*shine.sph``.

    A part is a sphere texture by its ending: ``.sph`` multiplies (1), ``.spa`` adds (2).
    """
    main, sphere, mode = "", "", 0
    for part in field.split("*"):
        part_mode = _SPHERE_MODES.get(part.strip().lower()[-4:], 0)
        if part_mode and not sphere:
            sphere, mode = part, part_mode
        elif not part_mode and not main:
            main = part
    return main, sphere, mode


def _bones(file: PmdFile) -> list[BoneRow]:
    english = file.english.bones.tolist() if file.english else [b""] * len(file.bones)
    rows = []
    for (name, parent, tail, kind, ik, position), name_en in zip(file.bones.tolist(), english, strict=True):
        source, ratio = -1, 0.0
        if kind == pmd.UNDER_ROTATION and ik not in (0, pmd.NONE):  # 0 is none in this field
            source, ratio = ik, 1.0
        elif kind == pmd.ROTATION_SHARE and tail != pmd.NONE:
            source, ratio = tail, (ik - 0x10000 if ik >= 0x8000 else ik) / 100
        rows.append(
            BoneRow(
                name=field_text(name),
                name_en=field_text(name_en),
                position=tuple(np.asarray(position).tolist()),
                parent=-1 if parent == pmd.NONE else parent,
                append_source=source,
                append_ratio=ratio,
                append_rotation=source >= 0,
            )
        )
    return rows


def _morphs(file: PmdFile) -> list[MorphRow]:
    """All morphs but the base one, whose entries the others refer to; their vertices past its end become -1."""
    base = next((morph.offsets["index"] for morph in file.morphs if morph.kind == pmd.MORPH_BASE), None)
    kept = [morph for morph in file.morphs if morph.kind != pmd.MORPH_BASE]
    english = file.english.morphs.tolist() if file.english else []
    rows = []
    for number, morph in enumerate(kept):
        index = morph.offsets["index"].astype(np.int64)
        if base is not None:
            inside = index < len(base)
            index = np.where(inside, base[np.where(inside, index, 0)] if len(base) else 0, -1).astype(np.int64)
        # Vertex numbers are u4 in the file: those past the range of i4 must not wrap around into it.
        index = np.where(index < len(file.vertices), index, -1).astype(np.int32)
        rows.append(
            MorphRow(
                name=field_text(morph.name),
                name_en=field_text(english[number]) if number < len(english) else "",
                panel=morph.kind,
                kind=MorphKind.VERTEX,
                index=index,
                offset=np.ascontiguousarray(morph.offsets["offset"]),
            )
        )
    return rows
