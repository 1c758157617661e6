"""How far vertices can get under any pose of a vocabulary: interval arithmetic, always on the safe side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmdgen.model.records import Skeleton
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.bones import RigidGroups
from mmdgen.pose.motion import rotation_limits


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Boxes of points: `low` and `high` f32 or f64 [V, 3] MU, here of the vertices after morphs, before bones."""

    low: np.ndarray
    high: np.ndarray


def _rotate(box: Reach, axis: int, angle: float) -> Reach:
    """Return boxes that hold every rotation of `box` by up to +-`angle` (below pi/2) about a coordinate axis."""
    low, high = box.low.copy(), box.high.copy()
    sine, cosine = math.sin(angle), math.cos(angle)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    size_a = np.maximum(np.abs(box.low[:, a]), np.abs(box.high[:, a])) * sine
    size_b = np.maximum(np.abs(box.low[:, b]), np.abs(box.high[:, b])) * sine
    for one, other in ((a, size_b), (b, size_a)):
        low[:, one] = np.minimum(box.low[:, one], box.low[:, one] * cosine) - other
        high[:, one] = np.maximum(box.high[:, one], box.high[:, one] * cosine) + other
    return Reach(low, high)


def _append_angle(skeleton: Skeleton, bone: int, angles: dict[int, float]) -> float | None:
    """Return a bound for the angle of `bone`'s append rotation, or None where nothing simple is known."""
    scale, seen = 1.0, set()
    while skeleton.append_rotation[bone] or skeleton.append_translation[bone]:
        if bone in seen or skeleton.append_local[bone] or skeleton.append_translation[bone]:
            return None
        seen.add(bone)
        scale *= abs(float(skeleton.append_ratio[bone]))
        bone = int(skeleton.append_source[bone])
    return angles[bone] * scale if bone in angles else None


def _group_reach(
    points: Reach, number: int, skeleton: Skeleton, groups: RigidGroups, limits: dict, morphed: frozenset[int]
) -> Reach | None:
    """Return boxes of `points` under group `number`'s motion, or None where a bone morph or an odd append drives it."""
    if number == 0:
        return points
    bone = groups.leader[number]
    if bone in morphed:
        return None
    pivot = skeleton.rest[bone].astype(np.float64)
    local = Reach(points.low - pivot, points.high - pivot)
    for axis, angle in limits.get(bone, []):
        local = _rotate(local, axis, angle)
    if (skeleton.append_rotation[bone] or skeleton.append_translation[bone]) and skeleton.append_source[bone] >= 0:
        known = {key: sum(a for _, a in value) for key, value in limits.items() if key not in morphed}
        angle = _append_angle(skeleton, bone, known)
        if angle is None:
            return None
        distance = np.linalg.norm(np.maximum(np.abs(local.low), np.abs(local.high)), axis=1, keepdims=True)
        swing = 2 * math.sin(min(angle, math.pi) / 2) * distance
        local = Reach(local.low - swing, local.high + swing)
    elif bone not in limits:
        return None
    outer = Reach(local.low + pivot, local.high + pivot)
    return _group_reach(outer, groups.parent[number], skeleton, groups, limits, morphed)


def group_boxes(
    points: Reach,
    skeleton: Skeleton,
    binding: PoseBinding,
    groups: RigidGroups,
    vertex_group: np.ndarray,
    vertex_weight: np.ndarray,
    unbounded: np.ndarray,
    morphed_bones: frozenset[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the x-y boxes (low, high) f64 [V, 2] MU that hold each vertex under any pose.

    A blend of groups (weights >= 0 that sum to 1) stays in the hull of their boxes. Vertices in `unbounded` (SDEF), and
    those of groups that a bone in `morphed_bones` or an odd append drives, get infinite boxes: they are never dropped.
    """
    count = len(points.low)
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    limits = rotation_limits(binding)
    for number in range(groups.count):
        mine = np.flatnonzero(((vertex_group == number) & (vertex_weight > 0)).any(axis=1))
        if not len(mine):
            continue
        part = Reach(points.low[mine].astype(np.float64), points.high[mine].astype(np.float64))
        reach = _group_reach(part, number, skeleton, groups, limits, morphed_bones)
        if reach is None:
            low[mine], high[mine] = -np.inf, np.inf
        else:
            low[mine] = np.minimum(low[mine], reach.low[:, :2])
            high[mine] = np.maximum(high[mine], reach.high[:, :2])
    low[unbounded], high[unbounded] = -np.inf, np.inf
    return low, high
