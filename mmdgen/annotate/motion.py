"""What a morph does to the vertices: its offsets, and what its bone movements carry along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import Model, Morph, MorphKind, MorphTerm
from mmdgen.pose.bones import BoneMotion, evaluate_groups, rigid_groups
from mmdgen.pose.rig import MAX_GROUPS

# Offsets below this are what exporters leave of zero (MU; a head is about 2.5).
STILL = 1e-4
# What a morph of bones moves takes a walk over all bones. No character has as many of both as this product allows.
_WALKS = 1_000_000
_MOVING = (MorphKind.VERTEX, MorphKind.GROUP, MorphKind.BONE, MorphKind.MATERIAL)
# Of alpha: a material that changes by so much is shown or hidden.
_SHOWN = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """`index` i32 [n] of the vertices that move, `offset` f32 [n, 3] MU at weight 1."""

    index: np.ndarray
    offset: np.ndarray

    @property
    def empty(self) -> bool:
        return len(self.index) == 0


def moving_morphs(model: Model) -> Iterator[tuple[int, Morph]]:
    """Yield (number, morph) of those that can move vertices or show and hide materials; of those by bones only so many
    as do not take seconds."""
    left = _WALKS // (len(model.skeleton.name) + 1000)
    for number, morph in enumerate(model.morphs):
        if morph.kind not in _MOVING or len(morph.index) == 0:
            continue
        if morph.kind in (MorphKind.GROUP, MorphKind.BONE):
            left -= 1
            if left < 0:
                continue
        yield number, morph


def displacement(model: Model, terms: Sequence[MorphTerm], center_x: float) -> Displacement:
    """Return what `terms` do to the rest position at weight 1: vertex offsets, then linear blend skinning.

    UV and material changes move nothing. Nothing moves either where more bones do than can be drawn (`MAX_GROUPS`).
    Raises `ModelError` for terms that do not fit the model.
    """
    flat = flatten_terms(model, terms, center_x)
    index, offset = flat.vertex_index, flat.vertex_offset
    if len(flat.bone_index):
        rotation: dict[int, np.ndarray] = {}
        translation: dict[int, np.ndarray] = {}
        for row, bone in enumerate(flat.bone_index.tolist()):
            weight = float(flat.bone_weight[row])
            rotation[bone] = _scaled(flat.bone_rotation[row], weight)[None]
            translation[bone] = translation.get(bone, np.zeros((1, 3))) + weight * flat.bone_translation[row]
        index, offset = _with_bones(model, index, offset, BoneMotion(1, rotation, translation))
    moved = np.abs(offset).max(axis=1, initial=0) > STILL
    return Displacement(index[moved], offset[moved])


def effect(model: Model, terms: Sequence[MorphTerm], center_x: float) -> Displacement:
    """Return what `displacement` does, with materials that `terms` show or hide as if pushed forward by their height.

    Flat eyes and mouths are often exchanged so: the open one fades out while a closed one appears.
    """
    moved = displacement(model, terms, center_x)
    faded = swapped_materials(model, terms)
    parts = [moved]
    for number in faded:
        item = model.materials[number]
        index = np.unique(model.face[item.first_face : item.first_face + item.face_count])
        if len(index) == 0:
            continue
        offset = np.zeros((len(index), 3), np.float32)
        offset[:, 2] = -np.ptp(model.position[index, 1])
        parts.append(Displacement(index.astype(np.int32), offset))
    if len(parts) == 1:
        return moved
    total = np.zeros((len(model.position), 3), np.float32)
    for part in reversed(parts):  # real motion wins
        total[part.index] = part.offset
    index = np.flatnonzero(np.abs(total).max(axis=1) > STILL).astype(np.int32)
    return Displacement(index, total[index])


def swapped_materials(model: Model, terms: Sequence[MorphTerm]) -> tuple[int, ...]:
    """Return the materials that `terms` show or hide (their alpha changes by half or more), ascending."""
    flat = flatten_terms(model, [MorphTerm(term.morph, term.weight) for term in terms], 0.0)
    alpha: dict[int, float] = {}
    for operation in (0, 1):
        for row, weight in zip(flat.material, flat.material_weight.tolist(), strict=True):
            number = int(row["material"])
            if number < 0 or row["operation"] != operation:
                continue
            value = alpha.get(number, model.materials[number].diffuse[3])
            change = float(row["diffuse"][3])
            alpha[number] = value * (1 + weight * (change - 1)) if operation == 0 else value + weight * change
    return tuple(
        number
        for number, value in sorted(alpha.items())
        if abs(min(max(value, 0.0), 1.0) - min(model.materials[number].diffuse[3], 1.0)) >= _SHOWN
    )


def _scaled(quaternion: np.ndarray, weight: float) -> np.ndarray:
    q = quaternion.astype(np.float64)
    if weight == 1.0:
        return q
    if q[3] < 0:
        q = -q
    half = np.arctan2(np.linalg.norm(q[:3]), q[3])
    sine = np.sin(half)
    if sine < 1e-9:
        return np.array([0.0, 0.0, 0.0, 1.0])
    return np.append(q[:3] * (np.sin(half * weight) / sine), np.cos(half * weight))


def _with_bones(model: Model, index: np.ndarray, offset: np.ndarray, motion: BoneMotion):
    groups = rigid_groups(model.skeleton, motion.bones)
    if groups.count > MAX_GROUPS:
        return np.zeros(0, np.int32), np.zeros((0, 3), np.float32)
    quaternions, translations = evaluate_groups(model.skeleton, groups, motion)
    group = groups.group_of_bone[model.bone_index]
    carried = np.flatnonzero(((group > 0) & (model.bone_weight > 0)).any(axis=1))
    vertices = np.union1d(carried, index)
    base = model.position[vertices].astype(np.float64)
    base[np.searchsorted(vertices, index)] += offset
    # p' - p = sum_g w_g ((R_g - 1) p + t_g)
    x, y, z, w = quaternions[0].T
    matrix = np.empty((groups.count, 3, 3))
    matrix[:, 0] = np.stack([-2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    matrix[:, 1] = np.stack([2 * (x * y + z * w), -2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    matrix[:, 2] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), -2 * (x * x + y * y)], axis=1)
    move = base - model.position[vertices]
    for slot in range(4):
        g = group[vertices, slot]
        weight = model.bone_weight[vertices, slot][:, None]
        move += weight * (np.einsum("nij,nj->ni", matrix[g], base) + translations[0][g])
    return vertices.astype(np.int32), move.astype(np.float32)
