"""The `Model` and its parts. V vertices, F faces, B bones, M morphs.

Frame: MMD's own (left-handed, +y up, the character looks along -z, its left is +x); lengths in MMD units (MU).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something that was repaired while loading. `code` is stable, `section` and `index` say where in the file."""

    code: str
    section: str
    index: int
    message: str


class MorphKind(StrEnum):
    GROUP = "group"
    VERTEX = "vertex"
    BONE = "bone"
    UV = "uv"
    MATERIAL = "material"
    OTHER = "other"  # additional UVs, flip, impulse: kept by name, without effect on pictures


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """Bones as arrays [B]. `order` lists every bone after its parent and its append source (cycles are broken).

    `rest` f32 [B, 3] MU world position; `parent`, `append_source` i32, -1 for none; `append_ratio` f32, often negative;
    `append_rotation`, `append_translation`, `append_local` bool.
    """

    name: tuple[str, ...]
    name_en: tuple[str, ...]
    rest: np.ndarray
    parent: np.ndarray
    append_source: np.ndarray
    append_ratio: np.ndarray
    append_rotation: np.ndarray
    append_translation: np.ndarray
    append_local: np.ndarray
    order: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Morph:
    """One morph. Which arrays are there follows from `kind`; the others are empty.

    `index` i32 [n] names vertices, bones, materials (-1: all) or morphs. `offset` is f32 [n, 3] MU for vertices,
    [n, 4] for UVs, [n] weights for groups, [n, 7] for bones (translation MU, quaternion xyzw), and the structured
    `MATERIAL_OFFSET` rows of the file for materials. Indices are all in range.
    """

    name: str
    name_en: str
    panel: int
    kind: MorphKind
    index: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True, slots=True)
class MorphTerm:
    """A morph at a weight, on one side of the face or both.

    `side` is ``both``, ``left`` or ``right`` of the face's middle (the character's: left is x > centre): only vertices
    and bones whose rest position lies there are moved.
    """

    morph: int
    weight: float = 1.0
    side: str = "both"


@dataclass(frozen=True, slots=True)
class Texture:
    """A texture reference: `name` as the file says it, `path` of the file found or None, kept inside the folder."""

    name: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class Material:
    """`first_face` and `face_count` give its range of faces; texture indices are into `Model.textures`, -1 for none.

    Colours are the file's numbers. `sphere_mode` 0 none, 1 multiply, 2 add, 3 sub-texture. `toon_shared` is 0-9 for one
    of the ten shared ramps, else -1 (then `toon_texture`, or none).
    """

    name: str
    name_en: str
    diffuse: tuple[float, float, float, float]
    specular: tuple[float, float, float]
    specular_power: float
    ambient: tuple[float, float, float]
    double_sided: bool
    edge: bool
    edge_color: tuple[float, float, float, float]
    edge_size: float
    texture: int
    sphere_texture: int
    sphere_mode: int
    toon_texture: int
    toon_shared: int
    first_face: int
    face_count: int


@dataclass(frozen=True, slots=True, eq=False)
class SdefTable:
    """Spherical deform (SDEF): `vertex` i32 [S] and, per entry, `c`, `r0`, `r1` f32 [S, 3] MU as the file says."""

    vertex: np.ndarray
    c: np.ndarray
    r0: np.ndarray
    r1: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A character model, whatever file it came from. All indices are in range and all weights sum to 1.

    `id` sha256 of the file; `position`, `normal` f32 [V, 3]; `uv` f32 [V, 2], v = 0 at the top row; `uv1` f32 [V, 4] or
    None; `bone_index` i32 [V, 4], `bone_weight` f32 [V, 4] (>= 0); `edge_scale` f32 [V]; `face` i32 [F, 3], clockwise
    seen from outside in MMD's frame; `sdef` may be empty.
    """

    id: str
    path: Path
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
    materials: tuple[Material, ...]
    textures: tuple[Texture, ...]
    skeleton: Skeleton
    morphs: tuple[Morph, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
