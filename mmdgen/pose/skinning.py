"""The slow oracle: every bone of the skeleton evaluated one by one, every vertex skinned in f64, one pose at a time.

Nothing here shares code with the rigid groups or the shaders; tests compare both with it.
"""

from __future__ import annotations

import math

import numpy as np

from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import Model, Skeleton
from mmdgen.pose.binding import PoseBinding


def _rotation_matrix(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula: f64 [3, 3] for a unit axis."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)


def _axis_angle(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    vector = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    length = float(np.linalg.norm(vector))
    angle = math.atan2(length, float(np.trace(matrix)) - 1)
    if length > 1e-12:
        return vector / length, angle
    if angle < 1:
        return np.array([1.0, 0.0, 0.0]), 0.0
    column = matrix + np.eye(3)  # a half turn: the axis spans R + I
    best = column[:, int(np.argmax(np.diag(column)))]
    return best / np.linalg.norm(best), math.pi


def _scaled(matrix: np.ndarray, ratio: float) -> np.ndarray:
    axis, angle = _axis_angle(matrix)
    return _rotation_matrix(axis, angle * ratio)


def _from_quaternion(q: np.ndarray) -> np.ndarray:
    x, y, z, w = (float(v) for v in q)
    length = math.sqrt(x * x + y * y + z * z)
    if length == 0:
        return np.eye(3)
    return _rotation_matrix(np.array([x, y, z]) / length, 2 * math.atan2(length, w))


def skin_matrices(skeleton: Skeleton, rotations: dict[int, np.ndarray], shifts: dict[int, np.ndarray]) -> np.ndarray:
    """Return world * T(-rest) of every bone, f64 [B, 4, 4], for local rotations [3, 3] and shifts [3] by bone."""
    count = len(skeleton.parent)
    world = np.tile(np.eye(4), (count, 1, 1))
    result = np.tile(np.eye(4), (count, 1, 1))
    appended: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for bone in skeleton.order.tolist():
        rest = skeleton.rest[bone].astype(np.float64)
        parent = int(skeleton.parent[bone])
        offset = rest - (skeleton.rest[parent] if parent >= 0 else 0)
        rotation, shift = rotations.get(bone, np.eye(3)), shifts.get(bone, np.zeros(3))
        source = int(skeleton.append_source[bone])
        if source >= 0 and (skeleton.append_rotation[bone] or skeleton.append_translation[bone]):
            ratio = float(skeleton.append_ratio[bone])
            if skeleton.append_local[bone]:
                pivot = skeleton.rest[source].astype(np.float64)
                turn, move = result[source][:3, :3], (result[source] @ np.append(pivot, 1))[:3] - pivot
            elif source in appended:
                turn, move = appended[source]
            else:
                turn, move = rotations.get(source, np.eye(3)), shifts.get(source, np.zeros(3))
            own_turn = _scaled(turn, ratio) if skeleton.append_rotation[bone] else np.eye(3)
            own_move = move * ratio if skeleton.append_translation[bone] else np.zeros(3)
            appended[bone] = (own_turn, own_move)
            rotation, shift = rotation @ own_turn, shift + own_move
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = rotation, offset + shift
        world[bone] = (world[parent] if parent >= 0 else np.eye(4)) @ local
        back = np.eye(4)
        back[:3, 3] = -rest
        result[bone] = world[bone] @ back
    return result


def skin(model: Model, binding: PoseBinding, pose: np.ndarray) -> np.ndarray:
    """Return the positions of all vertices under one pose f32 [K]: f64 [V, 3] MU.

    BDEF (and QDEF, which loading takes as BDEF4) is linear blending. SDEF rotates about C by the slerp of its two
    bones' rotations and blends where the bones take the centres (C + R'i) / 2, R'i = C + Ri - (w0 R0 + w1 R1).
    """
    position, matrices = _morphed_and_matrices(model, binding, pose)
    homogeneous = np.concatenate([position, np.ones((len(position), 1))], axis=1)
    weights = model.bone_weight.astype(np.float64)
    result = np.einsum("vi,vijk,vk->vj", weights, matrices[model.bone_index], homogeneous)[:, :3]
    for row, vertex in enumerate(model.sdef.vertex.tolist()):
        a, b, w0, between = _sdef_frame(model, vertex, matrices)
        c, r0, r1 = (table[row].astype(np.float64) for table in (model.sdef.c, model.sdef.r0, model.sdef.r1))
        mean = r0 * w0 + r1 * (1 - w0)
        centres = ((c + (c + r0 - mean)) / 2, (c + (c + r1 - mean)) / 2)
        result[vertex] = (
            between @ (position[vertex] - c)
            + w0 * (a @ np.append(centres[0], 1))[:3]
            + (1 - w0) * (b @ np.append(centres[1], 1))[:3]
        )
    return result


def skin_normals(model: Model, binding: PoseBinding, pose: np.ndarray) -> np.ndarray:
    """Return the normals of all vertices under one pose f32 [K]: f64 [V, 3].

    Blended ones are shorter than 1, as the shader has them before it normalises or interpolates. Morphs leave normals
    as they are, as in MMD.
    """
    _, matrices = _morphed_and_matrices(model, binding, pose)
    normal = model.normal.astype(np.float64)
    turns = matrices[model.bone_index][..., :3, :3]
    result = np.einsum("vi,vijk,vk->vj", model.bone_weight.astype(np.float64), turns, normal)
    for vertex in model.sdef.vertex.tolist():
        result[vertex] = _sdef_frame(model, vertex, matrices)[3] @ normal[vertex]
    return result


def _sdef_frame(model: Model, vertex: int, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return the skin matrices [4, 4] of an SDEF vertex's two bones, the first's weight, and the rotation between."""
    first, second = (int(bone) for bone in model.bone_index[vertex, :2])
    w0 = float(model.bone_weight[vertex, 0])
    a, b = matrices[first], matrices[second]
    return a, b, w0, a[:3, :3] @ _scaled(a[:3, :3].T @ b[:3, :3], 1 - w0)


def _morphed_and_matrices(model: Model, binding: PoseBinding, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices after morphs f64 [V, 3] and the bones' skin matrices f64 [B, 4, 4]."""
    position = model.position.astype(np.float64)
    rotations: dict[int, np.ndarray] = {}
    shifts: dict[int, np.ndarray] = {}
    euler: dict[int, np.ndarray] = {}
    for value, parameter in zip(np.asarray(pose, np.float64), binding.vocabulary.parameters, strict=True):
        if parameter.kind == "rotation":
            bone = binding.head if parameter.bone == "head" else binding.neck
            euler.setdefault(bone, np.zeros(3))[parameter.axis] = value * parameter.limit
    for bone, (x, y, z) in euler.items():
        rotations[bone] = (
            _rotation_matrix(np.array([0.0, 1, 0]), y)
            @ _rotation_matrix(np.array([1.0, 0, 0]), x)
            @ _rotation_matrix(np.array([0.0, 0, 1]), z)
        )
    for value, parameter in zip(np.asarray(pose, np.float64), binding.vocabulary.parameters, strict=True):
        if parameter.kind != "morph":
            continue
        flat = flatten_terms(model, binding.terms[parameter.name], binding.center_x)
        np.add.at(position, flat.vertex_index, flat.vertex_offset.astype(np.float64) * float(np.float32(value)))
        for row, bone in enumerate(flat.bone_index.tolist()):
            weight = float(value) * float(flat.bone_weight[row])
            turn = _scaled(_from_quaternion(flat.bone_rotation[row]), weight)
            rotations[bone] = rotations.get(bone, np.eye(3)) @ turn
            shifts[bone] = shifts.get(bone, np.zeros(3)) + flat.bone_translation[row].astype(np.float64) * weight
    return position, skin_matrices(model.skeleton, rotations, shifts)
