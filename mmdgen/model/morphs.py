"""Morphs made usable: checked tables while loading, and sums of morphs as one sparse effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdgen.errors import ModelError
from mmdgen.formats.pmx.records import MATERIAL_OFFSET
from mmdgen.model.diagnostics import Diagnostics
from mmdgen.model.records import Model, Morph, MorphKind, MorphTerm
from mmdgen.model.skeleton import POSITION_LIMIT

SIDES = ("both", "left", "right")
# MU. Vertices nearer than this to the face's middle belong to both sides, half to each: seams are modelled at x = 0
# with rounding noise of about 1e-6.
MIDDLE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class FlatMorph:
    """What a list of terms does at weight 1, without groups and sides.

    Vertices and UVs are sums: `vertex_index` i32 [n] and `uv_index` i32 [m] are sorted and unique, `vertex_offset` f32
    [n, 3] MU, `uv_offset` f32 [m, 2]; for a weight w they are multiplied by w.

    Rotations do not add up, so bones have one row per morph: at weight w, row k of bone `bone_index[k]` translates by
    ``w * bone_weight[k] * bone_translation[k]`` (f32 [k, 3] MU) and rotates by the slerp from identity to
    `bone_rotation[k]` (unit quaternion xyzw, f32 [k, 4]) at ``w * bone_weight[k]``; rows of one bone are multiplied in
    order. Likewise `material` keeps rows of `MATERIAL_OFFSET` (material -1: all), row k to be applied at weight
    ``w * material_weight[k]``.
    """

    vertex_index: np.ndarray
    vertex_offset: np.ndarray
    uv_index: np.ndarray
    uv_offset: np.ndarray
    bone_index: np.ndarray
    bone_translation: np.ndarray
    bone_rotation: np.ndarray
    bone_weight: np.ndarray
    material: np.ndarray
    material_weight: np.ndarray

    @property
    def empty(self) -> bool:
        """Whether nothing at all is moved or changed."""
        return not (len(self.vertex_index) or len(self.uv_index) or len(self.bone_index) or len(self.material))


def flatten_terms(model: Model, terms: Sequence[MorphTerm], center_x: float) -> FlatMorph:
    """Return the summed effect of `terms` (morph, weight, side) on `model`.

    Groups are flattened one level with weights multiplied, as MMD does (groups inside groups were dropped on loading).
    A one-sided term moves what lies on that side of ``x = center_x`` (MU) in the rest position: left is x > center_x.
    What lies within `MIDDLE` of it, and material changes, which have no side, take half of it, so that left + right is
    the whole.

    Raises `ModelError` (``bad_term``) for a morph that the model does not have, an unknown side or a weight that is no
    number.
    """
    count = len(model.morphs)
    flat: list[tuple[Morph, float, str]] = []
    for term in terms:
        if not 0 <= term.morph < count or term.side not in SIDES or not np.isfinite(term.weight):
            raise ModelError("bad_term", f"{model.path}: {term} does not fit a model with {count} morphs")
        morph = model.morphs[term.morph]
        if morph.kind is not MorphKind.GROUP:
            flat.append((morph, float(term.weight), term.side))
            continue
        for index, weight in zip(morph.index.tolist(), morph.offset.tolist(), strict=True):
            if model.morphs[index].kind is not MorphKind.GROUP:
                flat.append((model.morphs[index], term.weight * weight, term.side))

    parts: dict[MorphKind, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {kind: [] for kind in MorphKind}
    for morph, weight, side in flat:
        if morph.kind is MorphKind.MATERIAL:
            share = np.full(len(morph.index), 1.0 if side == "both" else 0.5)
        elif side == "both":
            share = np.ones(len(morph.index))
        else:
            rest = model.skeleton.rest if morph.kind is MorphKind.BONE else model.position
            share = side_share(rest[morph.index, 0], side, center_x) if len(morph.index) else np.zeros(0)
        share = share * weight
        used = share != 0.0
        if used.any():
            parts[morph.kind].append((morph.index[used], morph.offset[used], share[used]))

    vertex_index, vertex_offset = _sum(parts[MorphKind.VERTEX], 3)
    uv_index, uv_offset = _sum(parts[MorphKind.UV], 2)
    bones = parts[MorphKind.BONE]
    bone_offset = _joined([offset for _, offset, _ in bones], (7,), np.float32)
    materials = parts[MorphKind.MATERIAL]
    return FlatMorph(
        vertex_index=vertex_index,
        vertex_offset=vertex_offset,
        uv_index=uv_index,
        uv_offset=uv_offset,
        bone_index=_joined([index for index, _, _ in bones], (), np.int32),
        bone_translation=np.ascontiguousarray(bone_offset[:, :3]),
        bone_rotation=np.ascontiguousarray(bone_offset[:, 3:]),
        bone_weight=_joined([share for _, _, share in bones], (), np.float32),
        material=_joined([offset for _, offset, _ in materials], (), MATERIAL_OFFSET),
        material_weight=_joined([share for _, _, share in materials], (), np.float32),
    )


def side_share(x: np.ndarray, side: str, center_x: float) -> np.ndarray:
    """f64 [n]: how much of what lies at rest position `x` (MU) belongs to `side` (``both``, ``left``, ``right``)."""
    if side == "both":
        return np.ones(len(x))
    distance = x.astype(np.float64) - center_x
    if side == "right":
        distance = -distance
    return np.where(np.abs(distance) <= MIDDLE, 0.5, (distance > 0).astype(np.float64))


def _joined(parts: list[np.ndarray], shape: tuple[int, ...], dtype) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros((0, *shape), dtype)


def _sum(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted unique indices and the weighted sums of their offsets' first `width` numbers, without rows that are 0."""
    if not parts:
        return np.zeros(0, np.int32), np.zeros((0, width), np.float32)
    index = np.concatenate([index for index, _, _ in parts])
    offset = np.concatenate([offset[:, :width] * share[:, None] for _, offset, share in parts])
    unique, inverse = np.unique(index, return_inverse=True)
    total = np.stack([np.bincount(inverse, offset[:, k], len(unique)) for k in range(width)], axis=1).astype(np.float32)
    moved = total.any(axis=1)
    return unique[moved].astype(np.int32), total[moved]


def make_morph(
    name: str,
    name_en: str,
    panel: int,
    kind: MorphKind,
    index: np.ndarray,
    offset: np.ndarray,
    *,
    number: int,
    limit: int,
    diagnostics: Diagnostics,
) -> Morph:
    """Return a `Morph` with only usable entries. `limit` is how many elements of its kind the model has.

    Entries whose index is out of range (material -1 is in range) or whose offset is no usable number are dropped with a
    diagnostic for morph `number`; bone rotations are normalised, a zero quaternion becomes the identity. A group that
    names a morph more than once names it once, with the sum of the weights: flattened, it stays as small as the file.
    """
    index = index.astype(np.int32)
    lowest = -1 if kind is MorphKind.MATERIAL else 0
    if len(index) and (index.min() < lowest or index.max() >= limit):
        kept = (index >= lowest) & (index < limit)
        diagnostics.add(
            "morph_index_out_of_range", "morphs", number, f"{name}: {np.count_nonzero(~kept)} of {len(index)} entries"
        )
        index, offset = index[kept], offset[kept]
    if len(index) == 0:
        numbers = np.zeros((0, 1), np.float32)
    elif kind is MorphKind.MATERIAL:
        numbers = np.concatenate(
            [
                offset[field].reshape(len(offset), -1)
                for field in MATERIAL_OFFSET.names or ()
                if field not in ("material", "operation")
            ],
            axis=1,
        )
    else:
        numbers = offset
    with np.errstate(invalid="ignore"):
        # False for NaN. Products of lengths beyond the limit overflow f32; material changes are clamped when used, and
        # authors write large numbers there on purpose.
        good = np.isfinite(numbers) if kind is MorphKind.MATERIAL else np.abs(numbers) <= POSITION_LIMIT
    if kind is MorphKind.MATERIAL and len(index):
        good &= np.isin(offset["operation"], (0, 1))[:, None]  # multiply, add; nothing else has a meaning
    if not good.all():
        kept = np.all(good.reshape(len(good), -1), axis=1)
        diagnostics.add(
            "morph_value_invalid", "morphs", number, f"{name}: {np.count_nonzero(~kept)} of {len(index)} entries"
        )
        index, offset = index[kept], offset[kept]
    if kind is MorphKind.GROUP and len(np.unique(index)) < len(index):
        unique, first, inverse = np.unique(index, return_index=True, return_inverse=True)
        total = np.bincount(inverse, offset, len(unique)).clip(-POSITION_LIMIT, POSITION_LIMIT)
        in_order = np.argsort(first)
        index, offset = unique[in_order].astype(np.int32), total[in_order].astype(np.float32)
    if kind is MorphKind.BONE and len(index):
        offset = offset.copy()
        length = np.linalg.norm(offset[:, 3:].astype(np.float64), axis=1, keepdims=True)
        none = length[:, 0] < 1e-6
        offset[:, 3:] = np.where(none[:, None], (0.0, 0.0, 0.0, 1.0), offset[:, 3:] / np.where(length == 0, 1, length))
    return Morph(name, name_en, panel, kind, index, offset)


def drop_nested_groups(morphs: Sequence[Morph], diagnostics: Diagnostics) -> tuple[Morph, ...]:
    """Return `morphs` without groups inside groups (or inside themselves), which MMD ignores; each is diagnosed."""
    checked = []
    for number, morph in enumerate(morphs):
        if morph.kind is MorphKind.GROUP and len(morph.index):
            kept = np.array([morphs[i].kind is not MorphKind.GROUP for i in morph.index.tolist()], bool)
            if not kept.all():
                inner = ", ".join(dict.fromkeys(morphs[i].name for i in morph.index[~kept].tolist()))
                diagnostics.add("morph_group_nested", "morphs", number, f"{morph.name} holds the groups {inner}")
                morph = Morph(morph.name, morph.name_en, morph.panel, morph.kind, morph.index[kept], morph.offset[kept])
        checked.append(morph)
    return tuple(checked)
