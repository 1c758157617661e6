"""Repairs of vertices, weights and faces: what comes out is what the `Model` record promises.

Functions return their input untouched where nothing is wrong, so a sound model costs a few vectorised checks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdgen.model.diagnostics import Diagnostics
from mmdgen.model.skeleton import POSITION_LIMIT

WEIGHT_TOLERANCE = 1e-2  # sums off by less are rounding (editors work in percent) and are normalised without a word
UNIT_TOLERANCE = 1e-3  # what the interpolation of editors leaves; nothing that shows
ODD_LENGTH = 0.25  # authors scale normals by some percent; more than this is worth telling
_FORWARD = (0.0, 0.0, -1.0)


def _first(bad: np.ndarray) -> int:
    return int(np.argmax(bad))


def repair_numbers(
    position: np.ndarray, uv: np.ndarray, edge_scale: np.ndarray, diagnostics: Diagnostics
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return `position` f32 [V, 3], `uv` f32 [V, 2] and `edge_scale` f32 [V] as finite numbers, and the bad vertices.

    The last value is a mask [V] of vertices that have no usable position (not finite, or beyond `POSITION_LIMIT`), or
    None.
    """
    lost = None
    with np.errstate(invalid="ignore"):
        good = np.abs(position) <= POSITION_LIMIT  # false for NaN
    if not good.all():
        lost = ~np.all(good, axis=1)
        diagnostics.add("position_invalid", "vertices", _first(lost), f"{np.count_nonzero(lost)} vertices")
        position = np.where(lost[:, None], np.float32(0), position)
    with np.errstate(invalid="ignore"):
        good = np.abs(uv) <= POSITION_LIMIT
    if not good.all():
        bad = ~np.all(good, axis=1)
        diagnostics.add("uv_invalid", "vertices", _first(bad), f"{np.count_nonzero(bad)} vertices")
        uv = np.where(good, uv, np.float32(0))
    with np.errstate(invalid="ignore"):
        good = (edge_scale >= 0) & (edge_scale <= POSITION_LIMIT)
    if not good.all():
        diagnostics.add("edge_scale_invalid", "vertices", _first(~good), f"{np.count_nonzero(~good)} vertices")
        negative = np.isfinite(edge_scale) & (edge_scale < 0)
        edge_scale = np.where(good, edge_scale, np.where(negative, np.float32(0), np.float32(1)))
    return position, uv, edge_scale, lost


def repair_additional_uv(uv: np.ndarray, diagnostics: Diagnostics) -> np.ndarray:
    """Return additional texture coordinates f32 [V, 4] as finite numbers."""
    with np.errstate(invalid="ignore"):
        good = np.abs(uv) <= POSITION_LIMIT
    if good.all():
        return uv
    bad = ~np.all(good, axis=1)
    diagnostics.add("uv_invalid", "vertices", _first(bad), f"{np.count_nonzero(bad)} vertices, additional UV")
    return np.where(good, uv, np.float32(0))


def repair_weights(
    bone_index: np.ndarray, bone_weight: np.ndarray, bone_count: int, diagnostics: Diagnostics
) -> tuple[np.ndarray, np.ndarray]:
    """Return i32 [V, 4] in range and f32 [V, 4], not negative, each row with the sum 1.

    Negative weights and weights that are no numbers become 0, as does the weight of a bone that does not exist. Where
    nothing is left, the first slot's bone (or bone 0) takes all. An unused slot names bone 0 or what the file named.
    """
    bad = ~np.isfinite(bone_weight)
    invalid = np.any(bad, axis=1) if bad.any() else np.zeros(len(bone_weight), bool)
    weight = np.where(bad, np.float32(0), bone_weight) if invalid.any() else bone_weight
    if weight.size and weight.min() < 0:
        invalid |= np.any(weight < -WEIGHT_TOLERANCE, axis=1)
        weight = np.maximum(weight, 0)

    index = bone_index
    outside = (index < 0) | (index >= bone_count)
    hanging = np.zeros(len(index), bool)
    if outside.any():
        hanging = np.any(outside & (weight > 0), axis=1)
        if hanging.any():
            diagnostics.add(
                "weight_bone_out_of_range", "vertices", _first(hanging), f"{np.count_nonzero(hanging)} vertices"
            )
        weight = np.where(outside, np.float32(0), weight)
        index = np.where(outside, np.int32(0), index)

    total = weight.astype(np.float64).sum(axis=1)
    none = total < 1e-6
    if none.any():
        diagnostics.add("weight_zero", "vertices", _first(none), f"{np.count_nonzero(none)} vertices")
        weight = np.where(none[:, None], np.array([1, 0, 0, 0], np.float32), weight)
        total = np.where(none, 1.0, total)
    error = np.abs(total - 1.0)
    # A sum that is short because of a bone that does not exist was reported as such already.
    invalid |= (error > WEIGHT_TOLERANCE) & ~hanging
    if invalid.any():
        diagnostics.add("weight_invalid", "vertices", _first(invalid), f"{np.count_nonzero(invalid)} vertices")
    if error.size and error.max() > 1e-7:
        weight = (weight / total[:, None]).astype(np.float32)
    return np.ascontiguousarray(index, np.int32), np.ascontiguousarray(weight, np.float32)


def repair_faces(
    face: np.ndarray,
    index_counts: Sequence[int],
    vertex_count: int,
    lost: np.ndarray | None,
    diagnostics: Diagnostics,
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the faces i32 [F, 3] that can be drawn, and (first face, number of faces) for each material.

    `index_counts` is what the materials say (three a face). Faces past the last material are left out, as MMD never
    draws them; faces with vertices that do not exist, or that are `lost`, are dropped and the ranges follow.
    """
    counts = np.maximum(np.array(index_counts, np.int64).reshape(-1), 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    if total != 3 * len(face) or (counts % 3).any() or min(index_counts, default=0) < 0:
        diagnostics.add(
            "material_face_count", "materials", -1, f"materials: {total} vertex indices, faces: {3 * len(face)}"
        )
    ends = np.minimum(ends // 3, len(face))
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    face = face[: int(ends[-1]) if len(ends) else 0]

    if face.size and (face.min() < 0 or face.max() >= vertex_count or lost is not None):
        inside = (face >= 0) & (face < vertex_count)
        kept = np.all(inside, axis=1)
        if lost is not None:
            kept &= ~lost[np.where(inside, face, 0)].any(axis=1)
        if not kept.all():
            diagnostics.add("face_vertex_invalid", "faces", _first(~kept), f"{np.count_nonzero(~kept)} faces")
            before = np.concatenate([[0], np.cumsum(kept)])
            starts, ends = before[starts], before[ends]
            face = face[kept]
    ranges = [(int(start), int(end - start)) for start, end in zip(starts, ends, strict=True)]
    return np.ascontiguousarray(face, np.int32), ranges


def repair_normals(normal: np.ndarray, position: np.ndarray, face: np.ndarray, diagnostics: Diagnostics) -> np.ndarray:
    """Return unit normals f32 [V, 3]: zero ones and NaN from the faces around (by area), other lengths normalised."""
    with np.errstate(invalid="ignore"):
        length = np.sqrt(np.einsum("ij,ij->i", normal, normal, dtype=np.float64))
        good = (length > 1e-6) & (length < POSITION_LIMIT)
        off = good & (np.abs(length - 1.0) > UNIT_TOLERANCE)
    if good.all() and not off.any():
        return normal
    normal = normal.astype(np.float32)
    if off.any():
        odd = good & (np.abs(length - 1.0) > ODD_LENGTH)
        if odd.any():
            diagnostics.add("normal_length", "vertices", _first(odd), f"{np.count_nonzero(odd)} vertices")
        normal[off] = normal[off] / length[off, None]
    bad = ~good
    if bad.any():
        diagnostics.add("normal_invalid", "vertices", _first(bad), f"{np.count_nonzero(bad)} vertices")
        normal[bad] = face_normals(position, face[bad[face].any(axis=1)], len(position))[bad]
    return normal


def face_normals(position: np.ndarray, face: np.ndarray, vertex_count: int) -> np.ndarray:
    """Area-weighted unit vertex normals f32 [V, 3] of `face`; where there is no area, towards the viewer (-z)."""
    a, b, c = (position[face[:, k]].astype(np.float64) for k in range(3))
    cross = np.cross(b - a, c - a)  # clockwise in a left-handed frame: points outwards
    total = np.stack([np.bincount(face.ravel(), np.repeat(cross[:, k], 3), vertex_count) for k in range(3)], axis=1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), _FORWARD).astype(np.float32)
