"""Heads with known truth, made from procedural characters: renamed, reshaped, covered, turned or robbed of parts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from mmdgen.annotate.auto import annotate
from mmdgen.annotate.motion import displacement
from mmdgen.annotate.records import Annotation
from mmdgen.annotate.variants import with_mesh
from mmdgen.errors import AnnotationError
from mmdgen.model.load import model_from_bytes
from mmdgen.model.records import Model, Morph, MorphKind, MorphTerm
from mmdgen.samples.character import Truth, build_character

replace = dataclasses.replace


@functools.cache
def character(seed: int) -> tuple[Model, Truth]:
    """The model of a seed, as it is loaded from its PMX file, and what is known about it."""
    built = build_character(seed)
    name = next(name for name in built.files if name.endswith(".pmx"))
    return model_from_bytes(built.files[name], Path(f"/characters/{seed}/{name}")), built.truth


def terms(items: Iterable[tuple[int, float, str]]) -> tuple[MorphTerm, ...]:
    return tuple(MorphTerm(morph, weight, side) for morph, weight, side in items)


def motion(model: Model, parts: Iterable[MorphTerm], center_x: float) -> np.ndarray:
    """f64 [V, 3]: how far each vertex moves at weight 1."""
    found = displacement(model, tuple(parts), center_x)
    full = np.zeros((len(model.position), 3))
    full[found.index] = found.offset
    return full


def with_morphs(model: Model, change: Callable[[int, Morph], Morph]) -> Model:
    return replace(model, morphs=tuple(change(number, morph) for number, morph in enumerate(model.morphs)))


def renamed(model: Model, names: dict[int, str]) -> Model:
    return with_morphs(model, lambda i, m: replace(m, name=names[i], name_en="") if i in names else m)


def without_morphs(model: Model, numbers: Iterable[int]) -> Model:
    """The morphs stay in the file but do nothing, as separators and dummies in real files."""
    gone = set(numbers)
    nothing = {"index": np.zeros(0, np.int32), "offset": np.zeros((0, 3), np.float32), "kind": MorphKind.VERTEX}
    return with_morphs(model, lambda i, m: replace(m, name=f"-----{i}", name_en="", **nothing) if i in gone else m)


def with_bones(model: Model, names: dict[str, str]) -> Model:
    skeleton = model.skeleton
    own = tuple(names.get(name, name) for name in skeleton.name)
    english = tuple("" if name in names else other for name, other in zip(skeleton.name, skeleton.name_en, strict=True))
    return replace(model, skeleton=replace(skeleton, name=own, name_en=english))


def mapped(model: Model, matrix: np.ndarray, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Model:
    """Everything of `model` under p -> matrix p + shift (vertices, bones and what morphs do)."""
    matrix = np.asarray(matrix, np.float32)

    def morph(_: int, item: Morph) -> Morph:
        if item.kind is MorphKind.VERTEX:
            return replace(item, offset=item.offset @ matrix.T)
        if item.kind is MorphKind.BONE:
            moved = item.offset.copy()
            moved[:, :3] = moved[:, :3] @ matrix.T
            return replace(item, offset=moved)
        return item

    offset = np.array(shift, np.float32)
    return replace(
        with_morphs(model, morph),
        position=model.position @ matrix.T + offset,
        skeleton=replace(model.skeleton, rest=model.skeleton.rest @ matrix.T + offset),
    )


def with_bone(skeleton, name: str, rest: np.ndarray, parent: int):
    def more(array: np.ndarray, value) -> np.ndarray:
        return np.concatenate([array, np.array([value]).astype(array.dtype)])

    return replace(
        skeleton,
        name=(*skeleton.name, name),
        name_en=(*skeleton.name_en, ""),
        rest=more(skeleton.rest, rest),
        parent=more(skeleton.parent, parent),
        append_source=more(skeleton.append_source, -1),
        append_ratio=more(skeleton.append_ratio, 0),
        append_rotation=more(skeleton.append_rotation, False),
        append_translation=more(skeleton.append_translation, False),
        append_local=more(skeleton.append_local, False),
        order=more(skeleton.order, len(skeleton.name)),
    )


def revolved(profile: Callable[[float], tuple[float, float]], center: tuple[float, float], rings: int = 12):
    """Points f64 [n, 3] and faces of a surface around a vertical axis at `center` (x, z).

    `profile` maps [0, 1] to (radius, y).
    """
    around = 24
    angle = np.linspace(0, 2 * np.pi, around)
    points = []
    for part in np.linspace(0, 1, rings):
        radius, y = profile(float(part))
        x, z = center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)
        points.append(np.stack([x, np.full(around, y), z], axis=1))
    faces = []
    for ring in range(rings - 1):
        for i in range(around - 1):
            a = ring * around + i
            faces += [(a, a + 1, a + around), (a + 1, a + around + 1, a + around)]
    return np.concatenate(points), np.array(faces, np.int32)


def capped(model: Model, truth: Truth, rise: float) -> Model:
    """`model` in a round cap whose top is `rise` head heights over the skull's."""
    height = truth.top_y - truth.chin_y
    rim = truth.chin_y + 0.62 * height
    z = float(model.skeleton.rest[truth.head, 2])

    def profile(part: float) -> tuple[float, float]:
        angle = part * np.pi / 2
        return 0.62 * height * np.cos(angle), rim + (truth.top_y - rim + rise * height) * np.sin(angle)

    points, faces = revolved(profile, (truth.center_x, z))
    return with_mesh(model, truth.head, points, faces, "zz")


def bounds_errors(found: Annotation, chin_y: float, top_y: float) -> tuple[float, float]:
    """Chin and top errors in head heights."""
    height = top_y - chin_y
    return abs(found.bounds.chin_y - chin_y) / height, abs(found.bounds.top_y - top_y) / height


def code_of(model: Model) -> str:
    with pytest.raises(AnnotationError) as caught:
        annotate(model)
    assert str(model.path) in str(caught.value)
    return caught.value.code
