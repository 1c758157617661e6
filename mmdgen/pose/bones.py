"""Bones: which ones move together, and how they move, for whole batches of poses.

World = parent's world * T(rest offset + translation + append translation) * R(animation * append), and a vertex follows
a bone by world * T(-rest). Append takes its source's own append result where the source appends, else the source's
animated rotation and translation; ratios may be negative or beyond 1 (the rotation's angle is scaled). IK and physics
are not evaluated: nothing above the chest depends on them at rest. Source: what babylon-mmd and saba (MIT)
do alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.geometry import IDENTITY, quaternion_multiply, quaternion_power, quaternion_rotate
from mmdgen.model.records import Skeleton


@dataclass(frozen=True, slots=True, eq=False)
class BoneMotion:
    """The animated part of a batch of N poses: local rotations and translations by bone index.

    `rotation[b]` f64 [N, 4], `translation[b]` f64 [N, 3] MU; bones that are not keys keep still.
    """

    count: int
    rotation: dict[int, np.ndarray]
    translation: dict[int, np.ndarray]

    @property
    def bones(self) -> frozenset[int]:
        return frozenset(self.rotation) | frozenset(self.translation)


@dataclass(frozen=True, slots=True, eq=False)
class RigidGroups:
    """Bones that always move together. Group 0 never moves.

    `group_of_bone` i32 [B]; `leader[g]` is the bone whose own motion makes group g (-1 for group 0); `parent[g]` the
    group that it moves in.
    """

    group_of_bone: np.ndarray
    leader: tuple[int, ...]
    parent: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.leader)


def appends(skeleton: Skeleton, bone: int) -> bool:
    """Return whether `bone` follows an append source."""
    return (
        bool(skeleton.append_rotation[bone] or skeleton.append_translation[bone]) and skeleton.append_source[bone] >= 0
    )


def rigid_groups(skeleton: Skeleton, moving: frozenset[int]) -> RigidGroups:
    """Return the partition of the bones when only `moving` ones are animated.

    A bone that neither is animated nor appends from something that moves has its parent's skin matrix exactly, because
    W_parent T(rest - rest_parent) T(-rest) = W_parent T(-rest_parent).
    """
    count = len(skeleton.parent)
    group = np.zeros(count, np.int32)
    active = np.zeros(count, bool)  # the append result can differ from identity
    leader, parent_group = [-1], [-1]
    for bone in skeleton.order.tolist():
        source = int(skeleton.append_source[bone])
        if appends(skeleton, bone):
            if skeleton.append_local[bone]:
                active[bone] = group[source] != 0
            else:
                active[bone] = active[source] if appends(skeleton, source) else source in moving
        parent = int(skeleton.parent[bone])
        above = int(group[parent]) if parent >= 0 else 0
        if bone in moving or active[bone]:
            group[bone] = len(leader)
            leader.append(bone)
            parent_group.append(above)
        else:
            group[bone] = above
    return RigidGroups(group, tuple(leader), tuple(parent_group))


def evaluate_groups(skeleton: Skeleton, groups: RigidGroups, motion: BoneMotion) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups' skin transforms p' = R p + t: R as f64 [N, G, 4] xyzw, t f64 [N, G, 3] MU."""
    n = motion.count
    rotation = np.tile(IDENTITY, (n, groups.count, 1))
    translation = np.zeros((n, groups.count, 3))
    append_rotation: dict[int, np.ndarray] = {}
    append_translation: dict[int, np.ndarray] = {}
    still_rotation, still_translation = np.tile(IDENTITY, (n, 1)), np.zeros((n, 3))
    for number in range(1, groups.count):
        bone = groups.leader[number]
        local_rotation = motion.rotation.get(bone, still_rotation)
        local_translation = motion.translation.get(bone, still_translation)
        if appends(skeleton, bone):
            source, ratio = int(skeleton.append_source[bone]), float(skeleton.append_ratio[bone])
            if skeleton.append_local[bone]:
                own = int(groups.group_of_bone[source])
                source_rotation = rotation[:, own]
                pivot = skeleton.rest[source].astype(np.float64)
                source_translation = quaternion_rotate(source_rotation, pivot) + translation[:, own] - pivot
            elif appends(skeleton, source):
                source_rotation = append_rotation.get(source, still_rotation)
                source_translation = append_translation.get(source, still_translation)
            else:
                source_rotation = motion.rotation.get(source, still_rotation)
                source_translation = motion.translation.get(source, still_translation)
            if skeleton.append_rotation[bone]:
                append_rotation[bone] = quaternion_power(source_rotation, ratio)
                local_rotation = quaternion_multiply(local_rotation, append_rotation[bone])
            if skeleton.append_translation[bone]:
                append_translation[bone] = source_translation * ratio
                local_translation = local_translation + append_translation[bone]
        # p' = P (rest + local_translation + L (p - rest)) with P the parent's group: fold into R p + t.
        above = groups.parent[number]
        rest = skeleton.rest[bone].astype(np.float64)
        outer = rotation[:, above]
        rotation[:, number] = quaternion_multiply(outer, local_rotation)
        moved = quaternion_rotate(outer, rest + local_translation) + translation[:, above]
        translation[:, number] = moved - quaternion_rotate(rotation[:, number], rest)
    return rotation, translation
