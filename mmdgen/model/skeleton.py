"""Bones as arrays, with cycles broken and an order in which they can be evaluated.

Both file formats come through here, so that a `Skeleton` always keeps what its record promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdgen.model.diagnostics import Diagnostics
from mmdgen.model.records import Skeleton

POSITION_LIMIT = 1e6  # MU; 80 km. Larger numbers are damage, and products of them overflow f32
KNOT_LIMIT = 128  # bones that all depend on each other; finding the fewest appends to drop takes their number squared


@dataclass(slots=True)
class BoneRow:
    """One bone as a file gives it: indices may be out of range, -1 is none."""

    name: str
    name_en: str
    position: tuple[float, float, float]
    parent: int
    layer: int = 0
    after_physics: bool = False
    append_source: int = -1
    append_ratio: float = 0.0
    append_rotation: bool = False
    append_translation: bool = False
    append_local: bool = False


def build_skeleton(rows: Sequence[BoneRow], diagnostics: Diagnostics) -> Skeleton:
    """Return the `Skeleton` of `rows`.

    Parents and append sources out of range become -1. A cycle of parents is cut at its lowest index. An append whose
    source depends on the bone itself (by parents or other appends) is dropped. `order` follows (after physics, layer,
    index) as MMD does, except that a parent or source that would come later comes first: MMD would use its
    transformation of the frame before, which a still picture does not have. The time taken grows with the number of
    bones, however they hang together.
    """
    count = len(rows)
    parent = _parents(rows, diagnostics)
    rest = _rest(rows, parent, diagnostics)
    rank = sorted(range(count), key=lambda i: (rows[i].after_physics, rows[i].layer, i))

    source = [-1] * count
    ratio = [0.0] * count
    wanted = [
        row.append_source if row.append_source < count and (row.append_rotation or row.append_translation) else -1
        for row in rows
    ]
    knot, knot_size = _knots(parent, wanted)
    for i in rank:
        row = rows[i]
        if row.append_source < 0 or not (row.append_rotation or row.append_translation):
            continue
        if row.append_source >= count:
            diagnostics.add(
                "append_source_out_of_range", "bones", i, f"{row.name}: source {row.append_source} of {count} bones"
            )
            continue
        if not np.isfinite(row.append_ratio) or abs(row.append_ratio) > POSITION_LIMIT:
            diagnostics.add("bone_value_invalid", "bones", i, f"{row.name}: append ratio {row.append_ratio}")
            continue
        # Only bones that depend on each other when every append is there can do so when some are.
        if knot[i] == knot[row.append_source] and (
            knot_size[knot[i]] > KNOT_LIMIT or _depends(row.append_source, i, parent, source, knot)
        ):
            taken = rows[row.append_source].name
            diagnostics.add("append_cycle", "bones", i, f"{row.name} takes from {taken}, which depends on it")
            continue
        source[i] = row.append_source
        ratio[i] = row.append_ratio

    has_source = np.array(source, np.int32).reshape(count) >= 0
    return Skeleton(
        name=tuple(row.name for row in rows),
        name_en=tuple(row.name_en for row in rows),
        rest=rest,
        parent=np.array(parent, np.int32).reshape(count),
        append_source=np.array(source, np.int32).reshape(count),
        append_ratio=np.array(ratio, np.float32).reshape(count),
        append_rotation=np.array([row.append_rotation for row in rows], bool) & has_source,
        append_translation=np.array([row.append_translation for row in rows], bool) & has_source,
        append_local=np.array([row.append_local for row in rows], bool) & has_source,
        order=np.array(_order(rank, parent, source), np.int32).reshape(count),
    )


def _parents(rows: Sequence[BoneRow], diagnostics: Diagnostics) -> list[int]:
    """Parents in range and without cycles."""
    count = len(rows)
    parent = [row.parent if 0 <= row.parent < count else -1 for row in rows]
    for i, row in enumerate(rows):
        if row.parent >= count or row.parent < -1:
            diagnostics.add("bone_parent_out_of_range", "bones", i, f"{row.name}: parent {row.parent} of {count} bones")
    walk = [-1] * count  # the bone whose walk towards the root came by here last
    for start in range(count):
        i = start
        while i >= 0 and walk[i] < 0:
            walk[i] = start
            i = parent[i]
        # Every bone of a cycle has the same `walk`; the lowest index is `start` unless a branch led into the cycle.
        if i >= 0 and walk[i] == start:
            cycle = [i]
            while parent[cycle[-1]] != i:
                cycle.append(parent[cycle[-1]])
            cut = min(cycle)
            diagnostics.add(
                "bone_cycle", "bones", cut, f"{rows[cut].name}: {len(cycle)} bones are each other's parents"
            )
            parent[cut] = -1
    return parent


def _rest(rows: Sequence[BoneRow], parent: list[int], diagnostics: Diagnostics) -> np.ndarray:
    """f32 [B, 3]; a bone without a usable position sits where the nearest ancestor with one does."""
    rest = np.array([row.position for row in rows], np.float64).reshape(len(rows), 3)
    with np.errstate(invalid="ignore"):
        good = np.all(np.abs(rest) <= POSITION_LIMIT, axis=1)
    bad = np.flatnonzero(~good).tolist()
    nearest = dict.fromkeys(bad, -2)  # the nearest ancestor with a usable position; -2 is not looked for yet
    for i in bad:
        diagnostics.add("bone_value_invalid", "bones", i, f"{rows[i].name}: position {rows[i].position}")
        way = [i]
        while nearest.get(parent[way[-1]]) == -2:
            way.append(parent[way[-1]])
        ancestor = nearest.get(parent[way[-1]], parent[way[-1]])
        nearest.update(dict.fromkeys(way, ancestor))
    for i in bad:
        rest[i] = rest[nearest[i]] if nearest[i] >= 0 else 0.0
    return rest.astype(np.float32)


def _knots(parent: list[int], source: list[int]) -> tuple[list[int], list[int]]:
    """The groups of bones that depend on each other: each bone's group, and each group's size.

    Strongly connected components of "is evaluated after", by the algorithm of Tarjan (1972) without recursion.
    """
    count = len(parent)
    knot, sizes = [-1] * count, []
    number, low = [-1] * count, [0] * count
    reached = 0
    waiting: list[int] = []  # bones reached whose group is not complete
    for start in range(count):
        if number[start] >= 0:
            continue
        path = [(start, iter((parent[start], source[start])))]
        number[start] = low[start] = reached
        reached += 1
        waiting.append(start)
        while path:
            bone, needed = path[-1]
            for other in needed:
                if other < 0:
                    continue
                if number[other] < 0:
                    number[other] = low[other] = reached
                    reached += 1
                    waiting.append(other)
                    path.append((other, iter((parent[other], source[other]))))
                    break
                if knot[other] < 0:
                    low[bone] = min(low[bone], number[other])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[bone])
                if low[bone] == number[bone]:
                    size = 0
                    while knot[bone] < 0:
                        knot[waiting.pop()] = len(sizes)
                        size += 1
                    sizes.append(size)
    return knot, sizes


def _depends(bone: int, on: int, parent: list[int], source: list[int], knot: list[int]) -> bool:
    """Whether evaluating `bone` needs `on` of the same knot (which includes bone == on)."""
    seen: set[int] = set()
    todo = [bone]
    while todo:
        i = todo.pop()
        if i == on:
            return True
        if i < 0 or i in seen or knot[i] != knot[on]:
            continue
        seen.add(i)
        todo += (parent[i], source[i])
    return False


def _order(rank: list[int], parent: list[int], source: list[int]) -> list[int]:
    """`rank` with parents and sources moved before their users where needed (the dependencies have no cycle)."""
    order: list[int] = []
    done = [False] * len(rank)
    for start in rank:
        todo = [start]
        while todo:
            i = todo[-1]
            if done[i]:
                todo.pop()
                continue
            waiting = [j for j in (source[i], parent[i]) if j >= 0 and not done[j]]
            if waiting:
                todo += waiting
            else:
                done[i] = True
                order.append(todo.pop())
    return order
