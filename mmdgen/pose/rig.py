"""The model reduced for one vocabulary and one frame: rigid groups, morph columns, visible faces. Exactly.

Only a few joints and morphs move. Bones fall into rigid groups (`bones.rigid_groups`); a vertex's bone weights merge
into group weights; morphs become sparse columns; faces that no pose can bring into the frame are dropped, with the
vertices that only they used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.errors import ModelError
from mmdgen.model.morphs import FlatMorph, flatten_terms
from mmdgen.model.records import Model
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.bones import BoneMotion, RigidGroups, evaluate_groups, rigid_groups
from mmdgen.pose.motion import bone_motion, moving_bones, rotation_limits
from mmdgen.pose.reach import Reach, bone_limits, group_boxes, group_slack, moved_groups

MAX_GROUPS = 255  # they are numbered in a byte


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle of the x-y plane that is seen, in MU, and the width of a pixel in MU."""

    left: float
    right: float
    bottom: float
    top: float
    pixel: float


@dataclass(frozen=True, slots=True, eq=False)
class DrawRange:
    """Faces of one material, in drawing order: `count` indices of `Rig.index` from `first`."""

    material: int
    first: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """v kept vertices, f kept faces, S morphed vertices, C morph parameters, D SDEF vertices, G groups.

    `vertex` i32 [v] indices of the model's vertices; `group_index` u8 [v, 4] and `group_weight` f32 [v, 4] in falling
    order of weight; `influences` the largest number of groups of a vertex; `morph_slot` i32 [v] a row of
    `morph_offset` f32 [S, C, 5] (position MU, uv) or -1; `sdef_slot` i32 [v] a row of `sdef` f32 [D, 3, 3] MU (c and
    the two rotation centres) or -1; `index` u32 [3 f] into the kept vertices, grouped by `draws`.

    `expression_index` and `expression_draws` are the faces that come within 3 pixels of `expression_box` (left, right,
    bottom, top in MU), the only part of the picture that the morph parameters can change with the head at rest; None
    where they can change anything. `columns` are the pose columns of the C morph parameters.
    `depth` bounds z over all poses, and `reach` each kept vertex (infinitely where SDEF bends it), MU.
    """

    model: Model
    binding: PoseBinding
    groups: RigidGroups
    flat: dict[str, FlatMorph]
    columns: tuple[int, ...]
    vertex: np.ndarray
    group_index: np.ndarray
    group_weight: np.ndarray
    influences: int
    morph_slot: np.ndarray
    morph_offset: np.ndarray
    sdef_slot: np.ndarray
    sdef: np.ndarray
    index: np.ndarray
    draws: tuple[DrawRange, ...]
    expression_box: tuple[float, float, float, float] | None
    expression_index: np.ndarray
    expression_draws: tuple[DrawRange, ...]
    depth: tuple[float, float]
    reach: Reach

    def evaluate(self, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the groups' rotations f64 [N, G, 4] and translations f64 [N, G, 3] for poses f32 [N, K]."""
        return evaluate_groups(self.model.skeleton, self.groups, self.motion(poses))

    def motion(self, poses: np.ndarray) -> BoneMotion:
        """Return the animated bones for poses f32 [N, K]."""
        return bone_motion(self.binding, self.flat, poses)

    def morph_weights(self, poses: np.ndarray) -> np.ndarray:
        """Return the weights of the C morph parameters, f32 [N, C]."""
        return np.ascontiguousarray(np.asarray(poses, np.float32)[:, list(self.columns)])


def build_rig(model: Model, binding: PoseBinding, frame: Frame | None, outline: float = 0.0) -> Rig:
    """Reduce `model` for what `frame` can show under any pose of the vocabulary; without a frame all faces are kept.

    `outline` is the largest displacement of an edge along the normal, MU per unit of (edge size x vertex scale).
    Materials that are invisible in every pose keep no faces. Raises `ModelError`: ``bad_term`` where a term is out of
    range, ``too_many_groups`` where more bones move on their own than `MAX_GROUPS`.
    """
    flat = {name: flatten_terms(model, terms, binding.center_x) for name, terms in binding.terms.items()}
    groups = rigid_groups(model.skeleton, moving_bones(binding, flat))
    if groups.count > MAX_GROUPS:
        raise ModelError(
            "too_many_groups",
            f"{model.path}: the morphs and joints of a pose move {groups.count - 1} bones on their own; at most "
            f"{MAX_GROUPS - 1} can be drawn",
        )
    vertex_group, vertex_weight = _group_weights(groups.group_of_bone[model.bone_index], model.bone_weight)
    names = [parameter.name for parameter in binding.vocabulary.parameters if parameter.kind == "morph"]
    sdef_row = _sdef_rows(model, vertex_group, vertex_weight)

    low, high = _morph_extent(model, [flat[name] for name in names])
    morphed = Reach(model.position + low, model.position + high)
    unbounded = sdef_row >= 0
    limits = bone_limits(rotation_limits(binding), flat)
    reach = group_boxes(morphed, model.skeleton, groups, limits, vertex_group, vertex_weight, unbounded)
    push = outline * model.edge_scale * _largest_edge(model, list(flat.values()))
    in_frame = np.ones(len(model.face), bool)
    if frame is not None:
        in_frame = _faces_in(model.face, reach, push, (frame.left, frame.right, frame.bottom, frame.top))
    visible = _visible_materials(model, [flat[name] for name in names])
    material_of_face = np.repeat(np.arange(len(model.materials)), [material.face_count for material in model.materials])
    keep = in_frame & visible[material_of_face]
    kept_face, kept_material = model.face[keep], material_of_face[keep]

    vertex, index = _compact(kept_face, len(model.position))
    reach, push, sdef_row = Reach(reach.low[vertex], reach.high[vertex]), push[vertex], sdef_row[vertex]
    group_index, group_weight = vertex_group[vertex], vertex_weight[vertex]
    points = Reach(morphed.low[vertex], morphed.high[vertex])
    # With the head at rest, only the morphs' own effects are left.
    still = bone_limits({}, flat)
    driven = moved_groups(model.skeleton, groups, still)
    by_bones = np.any((group_weight > 0) & driven[group_index], axis=1)
    near = group_boxes(points, model.skeleton, groups, still, group_index, group_weight, (sdef_row >= 0) & by_bones)
    morph_slot, morph_offset = _morph_columns(model, [flat[name] for name in names], vertex)
    box = None
    if frame is not None and not any(len(flat[name].material) for name in names):
        box = _expression_box(index, near, by_bones | (morph_slot >= 0), push)
    if box is None or frame is None:
        inside = np.ones(len(kept_face), bool)
    else:
        # Whole pixels are redrawn: up to two more on each side than the box itself.
        wide = (box[0] - 3 * frame.pixel, box[1] + 3 * frame.pixel, box[2] - 3 * frame.pixel, box[3] + 3 * frame.pixel)
        inside = _faces_in(index, near, push, wide)

    with_sdef = np.flatnonzero(sdef_row >= 0)
    sdef_slot = np.full(len(vertex), -1, np.int32)
    sdef_slot[with_sdef] = np.arange(len(with_sdef))
    centres = _sdef_centres(model, sdef_row[with_sdef], vertex[with_sdef])
    pivot = model.skeleton.rest[binding.neck].astype(np.float64)
    free = ~np.isfinite(reach.low[:, 2])
    radius = np.zeros(len(vertex))
    if free.any():
        slack = group_slack(model.skeleton, groups, limits, pivot)
        radius = _radius(pivot, points, slack, group_index, with_sdef, centres)
    return Rig(
        model=model,
        binding=binding,
        groups=groups,
        flat=flat,
        columns=tuple(binding.vocabulary.index(name) for name in names),
        vertex=vertex.astype(np.int32),
        group_index=group_index.astype(np.uint8),
        group_weight=group_weight.astype(np.float32),
        influences=max(1, int(np.count_nonzero(group_weight, axis=1).max(initial=1))),
        morph_slot=morph_slot,
        morph_offset=morph_offset,
        sdef_slot=sdef_slot,
        sdef=centres,
        index=index.astype(np.uint32).reshape(-1),
        draws=draw_ranges(kept_material),
        expression_box=box,
        expression_index=index[inside].astype(np.uint32).reshape(-1),
        expression_draws=draw_ranges(kept_material[inside]),
        depth=_depth(reach, push, float(pivot[2]), radius),
        reach=reach,
    )


def _compact(face: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted vertices i64 [v] that faces i32 [f, 3] use, of `count`, and the faces in their numbers."""
    used = np.zeros(count, bool)
    used[face] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[face]


def _group_weights(group: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal groups of each vertex: group i32 [V, 4], weight f32 [V, 4] -> the same, sorted by falling weight."""
    weight = weight.astype(np.float64)
    one = np.ones(len(group), bool)
    for slot in range(1, 4):
        one &= (group[:, slot] == group[:, 0]) | (weight[:, slot] == 0)
    # Most vertices follow one group alone.
    merged_group, merged_weight = np.zeros(group.shape, np.int32), np.zeros(weight.shape)
    merged_weight[:, 0] = weight[:, 0] + weight[:, 1] + weight[:, 2] + weight[:, 3]
    merged_group[:, 0] = np.where(merged_weight[:, 0] == 0, 0, group[:, 0])
    several = np.flatnonzero(~one)
    group, weight = group[several].astype(np.int32), weight[several]
    for i in range(1, 4):
        for j in range(i):
            same = group[:, i] == group[:, j]
            weight[:, j] += np.where(same, weight[:, i], 0)
            weight[:, i] = np.where(same, 0, weight[:, i])
    order = np.argsort(-weight, axis=1, kind="stable")
    group, weight = np.take_along_axis(group, order, 1), np.take_along_axis(weight, order, 1)
    group[weight == 0] = 0
    merged_group[several], merged_weight[several] = group, weight
    return merged_group, merged_weight


def _sdef_rows(model: Model, vertex_group: np.ndarray, vertex_weight: np.ndarray) -> np.ndarray:
    """Return each vertex's row in the SDEF table, -1 where SDEF is plain rigid motion (both bones in one group)."""
    row = np.full(len(model.position), -1, np.int32)
    if len(model.sdef.vertex):
        two = vertex_weight[model.sdef.vertex, 1] > 0
        row[model.sdef.vertex[two]] = np.flatnonzero(two)
    return row


def sdef_centres(c: np.ndarray, r0: np.ndarray, r1: np.ndarray, w0: np.ndarray) -> np.ndarray:
    """Return f64 [n, 3, 3]: C and the two centres (C + R'i) / 2 with R'i = C + Ri - (w0 R0 + w1 R1).

    Source: the SDEF formula as documented for MikuMikuDance and used by saba and babylon-mmd (MIT).
    """
    c, r0, r1, w0 = (np.asarray(value, np.float64) for value in (c, r0, r1, w0))
    mean = r0 * w0[:, None] + r1 * (1 - w0[:, None])
    return np.stack([c, c + (r0 - mean) / 2, c + (r1 - mean) / 2], axis=1)


def _sdef_centres(model: Model, rows: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Return f32 [D, 3, 3] in the order of the group weights (the heavier group first)."""
    table, first = model.sdef, model.bone_weight[vertices, 0]
    centres = sdef_centres(table.c[rows], table.r0[rows], table.r1[rows], first)
    swapped = first < 0.5  # _group_weights sorted them; at one half the sort is stable
    centres[swapped] = centres[swapped][:, [0, 2, 1]]
    return centres.astype(np.float32)


def _morph_extent(model: Model, flats: list[FlatMorph]) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest total vertex offset f32 [V, 3] over weights in [0, 1]."""
    low, high = np.zeros_like(model.position), np.zeros_like(model.position)
    for flat in flats:
        low[flat.vertex_index] += np.minimum(flat.vertex_offset, 0)
        high[flat.vertex_index] += np.maximum(flat.vertex_offset, 0)
    return low, high


def _largest_edge(model: Model, flats: list[FlatMorph]) -> float:
    """Return a bound of the edge sizes of all materials, whatever material morphs make of them."""
    largest = max((material.edge_size for material in model.materials if material.edge), default=0.0)
    factor, more = 1.0, 0.0
    for flat in flats:
        for row, weight in zip(flat.material, flat.material_weight, strict=True):
            if row["operation"] == 0:
                factor *= max(1.0, abs(1 + float(weight) * (float(row["edge_size"]) - 1)))
            else:
                more += max(0.0, float(weight) * float(row["edge_size"]))
    return max(0.0, largest) * factor + more


def _faces_in(face: np.ndarray, boxes: Reach, push: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return which faces' bounds (of vertex boxes widened by `push`) overlap `box` (left, right, bottom, top)."""
    left, right, bottom, top = box
    # A bit for each side of the box that the vertex reaches beyond: bounds overlap it where the corners' bits are all.
    reached = (boxes.low[:, 0] - push <= right).astype(np.uint8)
    reached |= (boxes.high[:, 0] + push >= left).view(np.uint8) << 1
    reached |= (boxes.low[:, 1] - push <= top).view(np.uint8) << 2
    reached |= (boxes.high[:, 1] + push >= bottom).view(np.uint8) << 3
    corners = reached[face]
    return (corners[:, 0] | corners[:, 1] | corners[:, 2]) == 15


def _depth(reach: Reach, push: np.ndarray, center: float, radius: np.ndarray) -> tuple[float, float]:
    """Return bounds of z MU for the kept vertices [v]; those without bounds lie within `radius` [v] of `center`."""
    if not len(push):
        return -1.0, 1.0
    free = ~np.isfinite(reach.low[:, 2])
    low, high = np.where(free, center - radius, reach.low[:, 2]), np.where(free, center + radius, reach.high[:, 2])
    return float((low - push).min()) - 0.1, float((high + push).max()) + 0.1


def _radius(
    pivot: np.ndarray, points: Reach, slack: np.ndarray, group: np.ndarray, vertices: np.ndarray, centres: np.ndarray
) -> np.ndarray:
    """Return f64 [v] MU: how far from `pivot` each vertex can get under any rotations (see `reach.group_slack`).

    `points` are the vertices after morphs, `group` [v, 4]. SDEF turns p - C and adds the centres, wherever its bones
    take them: `centres` [D, 3, 3] of `vertices` [D].
    """
    radius = np.linalg.norm(np.maximum(np.abs(points.low - pivot), np.abs(points.high - pivot)), axis=1)
    radius += slack[group].max(axis=1)
    if len(vertices):
        centres = centres.astype(np.float64)
        c, away = centres[:, 0], np.linalg.norm(centres[:, 1:] - pivot, axis=2)
        arm = np.linalg.norm(np.maximum(np.abs(points.low[vertices] - c), np.abs(points.high[vertices] - c)), axis=1)
        radius[vertices] = arm + (away + slack[group[vertices, :2]]).max(axis=1)
    return radius


def _visible_materials(model: Model, flats: list[FlatMorph]) -> np.ndarray:
    """Return bool [materials]: its alpha is above 0, or a used material morph may raise it."""
    visible = np.array([material.diffuse[3] > 0 for material in model.materials], bool)
    for flat in flats:
        for row, weight in zip(flat.material, flat.material_weight, strict=True):
            if row["operation"] == 1 and row["diffuse"][3] * weight > 0:
                visible[slice(None) if row["material"] < 0 else row["material"]] = True
    return visible


def _morph_columns(model: Model, flats: list[FlatMorph], vertex: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `morph_slot` i32 [v] and `morph_offset` f32 [S, C, 5] for the kept vertices."""
    count = len(model.position)
    touched = np.zeros(count, bool)
    for flat in flats:
        touched[flat.vertex_index] = True
        touched[flat.uv_index] = True
    kept = touched[vertex]
    slot = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    row = np.full(count, -1, np.int32)
    row[vertex] = slot
    offset = np.zeros((int(kept.sum()), len(flats), 5), np.float32)
    for column, flat in enumerate(flats):
        target = row[flat.vertex_index]
        offset[target[target >= 0], column, :3] = flat.vertex_offset[target >= 0]
        target = row[flat.uv_index]
        offset[target[target >= 0], column, 3:] = flat.uv_offset[target >= 0, :2]
    return slot, offset


def _expression_box(
    face: np.ndarray, near: Reach, moved: np.ndarray, push: np.ndarray
) -> tuple[float, float, float, float] | None:
    """Return the box (left, right, bottom, top) MU outside which the morph parameters change nothing at rest.

    `near` holds the kept vertices' boxes with the head at rest, `moved` bool [v] says which ones morphs can change.
    None where a moved vertex, or one that shares a face with it, has no bounds. Empty (left > right) where none moves.
    """
    used = np.zeros(len(moved), bool)
    corners = moved[face]
    used[face[corners[:, 0] | corners[:, 1] | corners[:, 2]]] = True
    if not used.any():
        return (1.0, 0.0, 1.0, 0.0)
    least = (near.low[used, :2] - push[used, None]).min(axis=0)
    most = (near.high[used, :2] + push[used, None]).max(axis=0)
    if not (np.isfinite(least).all() and np.isfinite(most).all()):
        return None
    return (float(least[0]), float(most[0]), float(least[1]), float(most[1]))


def draw_ranges(material: np.ndarray) -> tuple[DrawRange, ...]:
    """Return the runs of equal materials; faces are in material order already."""
    if not len(material):
        return ()
    starts = np.flatnonzero(np.r_[True, material[1:] != material[:-1]])
    ends = np.r_[starts[1:], len(material)]
    return tuple(
        DrawRange(int(material[start]), int(start) * 3, int(end - start) * 3)
        for start, end in zip(starts, ends, strict=True)
    )
