"""From pose vectors to animated bones: the vocabulary's rotations, and the bone morphs among its terms."""

from __future__ import annotations

import numpy as np

from mmdgen.geometry import IDENTITY, quaternion_about_axis, quaternion_multiply, quaternion_power
from mmdgen.model.morphs import FlatMorph
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.bones import BoneMotion

# MMD turns about z first, then x, then y: R = Ry Rx Rz (yaw, pitch, roll).
_AXIS_ORDER = (1, 0, 2)


def _bone_of(binding: PoseBinding, name: str) -> int:
    return binding.head if name == "head" else binding.neck


def moving_bones(binding: PoseBinding, flat: dict[str, FlatMorph]) -> frozenset[int]:
    """Return the bones that the vocabulary can animate on this model."""
    bones = {
        _bone_of(binding, parameter.bone) for parameter in binding.vocabulary.parameters if parameter.kind == "rotation"
    }
    for item in flat.values():
        bones.update(int(bone) for bone in item.bone_index)
    return frozenset(bones)


def rotation_limits(binding: PoseBinding) -> dict[int, list[tuple[int, float]]]:
    """Return, per rotating bone, its (axis, largest angle in radians) in the order in which they are applied."""
    limits: dict[int, list[tuple[int, float]]] = {}
    for axis in reversed(_AXIS_ORDER):
        for parameter in binding.vocabulary.parameters:
            if parameter.kind == "rotation" and parameter.axis == axis:
                angle = parameter.limit * max(abs(parameter.low), abs(parameter.high))
                limits.setdefault(_bone_of(binding, parameter.bone), []).append((axis, angle))
    return limits


def bone_motion(binding: PoseBinding, flat: dict[str, FlatMorph], poses: np.ndarray) -> BoneMotion:
    """Return the animated bones for poses f32 [N, K].

    A bone morph at weight w turns by slerp(identity, q, w) and shifts by w times its translation; several on one bone
    multiply and add up, after the vocabulary's own rotation.
    """
    poses = np.asarray(poses, np.float64)
    count = len(poses)
    rotation: dict[int, np.ndarray] = {}
    translation: dict[int, np.ndarray] = {}
    for axis in _AXIS_ORDER:
        for column, parameter in enumerate(binding.vocabulary.parameters):
            if parameter.kind == "rotation" and parameter.axis == axis:
                turn = quaternion_about_axis(axis, poses[:, column] * parameter.limit)
                bone = _bone_of(binding, parameter.bone)
                rotation[bone] = quaternion_multiply(rotation[bone], turn) if bone in rotation else turn
    for column, parameter in enumerate(binding.vocabulary.parameters):
        if parameter.kind != "morph":
            continue
        item = flat[parameter.name]
        for row, bone in enumerate(item.bone_index.tolist()):
            weight = poses[:, column] * item.bone_weight[row]
            turn = quaternion_power(np.tile(item.bone_rotation[row], (count, 1)), weight)
            rotation[bone] = quaternion_multiply(rotation.get(bone, np.tile(IDENTITY, (count, 1))), turn)
            shift = weight[:, None] * item.bone_translation[row]
            translation[bone] = translation.get(bone, np.zeros((count, 3))) + shift
    return BoneMotion(count, rotation, translation)
