"""How far vertices can get under any pose of a vocabulary: interval arithmetic, always on the safe side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmdgen.model.morphs import FlatMorph
from mmdgen.model.records import Skeleton
from mmdgen.pose.bones import RigidGroups, appends


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Boxes of points: `low` and `high` f32 or f64 [V, 3] MU."""

    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class BoneLimits:
    """What can happen to bones: `turns[b]` lists (axis, largest angle) in the order in which they are applied;
    `angle[b]` radians and `shift[b]` MU bound what bone morphs add."""

    turns: dict[int, list[tuple[int, float]]]
    angle: dict[int, float]
    shift: dict[int, float]

    def total_angle(self, bone: int) -> float:
        return sum(angle for _, angle in self.turns.get(bone, [])) + self.angle.get(bone, 0.0)


def bone_limits(turns: dict[int, list[tuple[int, float]]], flat: dict[str, FlatMorph]) -> BoneLimits:
    """Return the limits when every morph parameter lies in [0, 1]."""
    angle: dict[int, float] = {}
    shift: dict[int, float] = {}
    for item in flat.values():
        for row, bone in enumerate(item.bone_index.tolist()):
            weight = abs(float(item.bone_weight[row]))
            half = math.acos(min(1.0, abs(float(item.bone_rotation[row][3]))))
            angle[bone] = angle.get(bone, 0.0) + 2 * half * weight
            shift[bone] = shift.get(bone, 0.0) + float(np.linalg.norm(item.bone_translation[row])) * weight
    return BoneLimits(turns, angle, shift)


def _rotate(box: Reach, axis: int, angle: float) -> Reach:
    """Return boxes that hold every rotation of `box` by up to +-`angle` about a coordinate axis."""
    if angle >= math.pi / 2:  # the cosine's sign changes on the way
        return _swing(box, angle, 0.0)
    low, high = box.low.copy(), box.high.copy()
    sine, cosine = math.sin(angle), math.cos(angle)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    size_a = np.maximum(np.abs(box.low[:, a]), np.abs(box.high[:, a])) * sine
    size_b = np.maximum(np.abs(box.low[:, b]), np.abs(box.high[:, b])) * sine
    for one, other in ((a, size_b), (b, size_a)):
        low[:, one] = np.minimum(box.low[:, one], box.low[:, one] * cosine) - other
        high[:, one] = np.maximum(box.high[:, one], box.high[:, one] * cosine) + other
    return Reach(low, high)


def _swing(box: Reach, angle: float, shift: float) -> Reach:
    """Return boxes that hold `box` turned by up to `angle` about any axis through the origin, then moved by `shift`."""
    distance = np.linalg.norm(np.maximum(np.abs(box.low), np.abs(box.high)), axis=1, keepdims=True)
    far = 2 * math.sin(min(angle, math.pi) / 2) * distance + shift
    return Reach(box.low - far, box.high + far)


def _append_bound(skeleton: Skeleton, bone: int, limits: BoneLimits) -> tuple[float, float] | None:
    """Return bounds for the angle and shift of `bone`'s append, or None where nothing simple is known."""
    if not appends(skeleton, bone):
        return 0.0, 0.0
    turn = move = 1.0
    while appends(skeleton, bone):  # damaged files have chains of thousands: no recursion
        if skeleton.append_local[bone]:
            return None
        ratio = abs(float(skeleton.append_ratio[bone]))
        turn = turn * ratio if ratio and skeleton.append_rotation[bone] else 0.0
        move = move * ratio if ratio and skeleton.append_translation[bone] else 0.0
        bone = int(skeleton.append_source[bone])
    angle, shift = limits.total_angle(bone), limits.shift.get(bone, 0.0)
    # The products may be infinite where nothing moves at all.
    return angle * turn if angle else 0.0, shift * move if shift else 0.0


def moved_groups(skeleton: Skeleton, groups: RigidGroups, limits: BoneLimits) -> np.ndarray:
    """Return which groups can move at all within `limits`, bool [G]."""
    moved = np.zeros(groups.count, bool)
    for number in range(1, groups.count):
        bone = groups.leader[number]
        append = _append_bound(skeleton, bone, limits)
        own = limits.total_angle(bone) > 0 or limits.shift.get(bone, 0.0) > 0
        moved[number] = own or append is None or append != (0.0, 0.0) or moved[groups.parent[number]]
    return moved


def _group_reach(
    points: Reach, number: int, skeleton: Skeleton, groups: RigidGroups, limits: BoneLimits
) -> Reach | None:
    """Return boxes of `points` under group `number`'s motion, or None where nothing simple is known."""
    if number == 0:
        return points
    bone = groups.leader[number]
    append = _append_bound(skeleton, bone, limits)
    if append is None:
        return None
    pivot = skeleton.rest[bone].astype(np.float64)
    local = Reach(points.low - pivot, points.high - pivot)
    angle, shift = append[0] + limits.angle.get(bone, 0.0), append[1] + limits.shift.get(bone, 0.0)
    if angle or shift:
        local = _swing(local, angle, shift)
    for axis, turn in limits.turns.get(bone, []):
        local = _rotate(local, axis, turn)
    outer = Reach(local.low + pivot, local.high + pivot)
    return _group_reach(outer, groups.parent[number], skeleton, groups, limits)


def group_boxes(
    points: Reach,
    skeleton: Skeleton,
    groups: RigidGroups,
    limits: BoneLimits,
    vertex_group: np.ndarray,
    vertex_weight: np.ndarray,
    unbounded: np.ndarray,
) -> Reach:
    """Return boxes f64 [V, 3] MU that hold each vertex under any pose within `limits`; `points` are after morphs.

    `vertex_group` and `vertex_weight` [V, 4] are merged and in falling order of weight, the first above 0.
    A blend of groups (weights >= 0 that sum to 1) stays in the hull of their boxes. Vertices in `unbounded` (SDEF), and
    those of groups that a local append drives, get infinite boxes: they are never dropped.
    """
    count = len(points.low)
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    first, blended = vertex_group[:, 0], np.flatnonzero(vertex_weight[:, 1] > 0)
    others, used = vertex_group[blended, 1:], vertex_weight[blended, 1:] > 0
    for number in range(groups.count):
        mine = np.flatnonzero(first == number)
        if len(blended):
            mine = np.concatenate([mine, blended[((others == number) & used).any(axis=1)]])
        if not len(mine):
            continue
        part = Reach(points.low[mine].astype(np.float64), points.high[mine].astype(np.float64))
        reach = _group_reach(part, number, skeleton, groups, limits)
        if reach is None:
            low[mine], high[mine] = -np.inf, np.inf
        else:
            low[mine] = np.minimum(low[mine], reach.low)
            high[mine] = np.maximum(high[mine], reach.high)
    low[unbounded], high[unbounded] = -np.inf, np.inf
    return Reach(low, high)


def group_slack(skeleton: Skeleton, groups: RigidGroups, limits: BoneLimits, pivot: np.ndarray) -> np.ndarray:
    """Return f64 [G] MU: a point x under group g's motion comes no farther from `pivot` than |x - pivot| + slack[g].

    Whatever the rotations: about a bone at r, |r + shift + R (x - r) - pivot| <= |x - pivot| + 2 |r - pivot| + |shift|.
    """
    slack = np.zeros(groups.count)
    away = np.linalg.norm(skeleton.rest.astype(np.float64) - pivot, axis=1)
    for number in range(1, groups.count):
        bone = groups.leader[number]
        append = _append_bound(skeleton, bone, limits)
        if append is None:  # local: it shifts by as much as its source has gone
            source = int(skeleton.append_source[bone])
            gone = 2 * away[source] + slack[groups.group_of_bone[source]]
            follow = abs(float(skeleton.append_ratio[bone])) * gone
        else:
            follow = append[1]
        slack[number] = slack[groups.parent[number]] + 2 * away[bone] + limits.shift.get(bone, 0.0) + follow
    return slack
