"""Models changed in ways that leave the truth about their heads known: more heads than there are files to score on.

A hat glued on hides the skull but does not move it; a stretched cranium moves its top by a known amount. Names are
exchanged for nonsense wherever something is glued on, so that only geometry can tell what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmdgen import rng
from mmdgen.annotate.records import HeadBounds
from mmdgen.model.records import Model, Morph, MorphKind
from mmdgen.model.skeleton import POSITION_LIMIT

replace = dataclasses.replace
Points = tuple[np.ndarray, np.ndarray]
AROUND = 32  # corners of a turned surface


@dataclass(frozen=True, slots=True)
class Variant:
    """A changed model with its true bounds; `kind` says what was done."""

    kind: str
    model: Model
    bounds: HeadBounds


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a head is, in MU: `size` is its height, `half` its half width and `middle_z`, `depth` its extent in z."""

    head: int
    chin: float
    top: float
    x: float
    middle_z: float
    half: float
    depth: float

    @property
    def size(self) -> float:
        return self.top - self.chin


def make_variant(model: Model, bounds: HeadBounds, head: int, share: np.ndarray, seed: int) -> Variant:
    """Return `model`, whose true bounds and head bone are given, changed at random.

    `share` f32 [V] is how much each vertex follows the head. The same arguments give the same variant.
    """
    draw = rng.generator(seed, "variant", model.id)
    kinds = sorted(_CHANGES)
    kind = kinds[int(draw.integers(len(kinds)))]
    place = _place(model, bounds, head, share)
    changed, found = _CHANGES[kind](model, bounds, place, share, draw)
    if kind in _WORN and draw.random() < 0.25:
        changed = _one_look(changed, place, share)
        kind += ", hair's texture"
    if kind in _WORN or draw.random() < 0.3:
        changed = nameless(changed, head)
        kind += ", nameless"
    return Variant(kind, changed, found)


def _place(model: Model, bounds: HeadBounds, head: int, share: np.ndarray) -> _Place:
    height = bounds.top_y - bounds.chin_y
    part = (model.position[:, 1] - bounds.chin_y) / height
    on = (share > 0.5) & (part > 0.6) & (part < 0.95) & (np.abs(model.position[:, 0] - bounds.center_x) < 0.55 * height)
    points = model.position[on].astype(np.float64) if on.sum() > 20 else model.position[share > 0.5].astype(np.float64)
    front, back = np.quantile(points[:, 2], (0.03, 0.90))
    half = float(np.quantile(np.abs(points[:, 0] - bounds.center_x), 0.95))
    depth = min(float(back - front), 1.15 * height)
    return _Place(
        head, bounds.chin_y, bounds.top_y, bounds.center_x, float(front + depth / 2), min(half, 0.55 * height), depth
    )


def nameless(model: Model, head: int) -> Model:
    """Return `model` with nonsense for the names of its materials and of the bones that hang on the head."""
    skeleton = model.skeleton
    under = np.zeros(len(skeleton.name), bool)
    for bone in skeleton.order.tolist():
        parent = skeleton.parent[bone]
        under[bone] = parent >= 0 and (parent == head or under[parent])
    keep = ("目", "眼", "eye", "Eye")
    bones = tuple(
        f"b{i}" if under[i] and not any(word in name for word in keep) else name for i, name in enumerate(skeleton.name)
    )
    english = tuple(
        "" if new != old else en for new, old, en in zip(bones, skeleton.name, skeleton.name_en, strict=True)
    )
    materials = tuple(replace(item, name=f"m{i}", name_en="") for i, item in enumerate(model.materials))
    return replace(model, materials=materials, skeleton=replace(skeleton, name=bones, name_en=english))


def _one_look(model: Model, place: _Place, share: np.ndarray) -> Model:
    """Return `model` with what was glued on in the texture and colour of what lies on top of the skull."""
    low = place.chin + 0.8 * place.size
    corner = model.face[:, 0]
    on_top = (corner < len(share)) & (model.position[corner, 1] > low)
    on_top[on_top] = share[corner[on_top]] > 0.5
    count = [int(on_top[m.first_face : m.first_face + m.face_count].sum()) for m in model.materials]
    hair = model.materials[int(np.argmax(count))]
    look = {"texture": hair.texture, "diffuse": hair.diffuse}
    return replace(model, materials=tuple(replace(m, **look) if m.name == "zz" else m for m in model.materials))


def mapped(model: Model, matrix: np.ndarray, shift: np.ndarray) -> Model:
    """Return `model` with everything under p -> matrix p + shift: vertices, bones and what morphs do."""

    def morph(item: Morph) -> Morph:
        if item.kind is MorphKind.VERTEX:
            return replace(item, offset=(item.offset @ matrix.T).astype(np.float32))
        if item.kind is MorphKind.BONE:
            moved = item.offset.copy()
            moved[:, :3] = moved[:, :3] @ matrix.T
            return replace(item, offset=moved)
        return item

    def moved(points: np.ndarray) -> np.ndarray:
        return np.clip(points @ matrix.T + shift, -POSITION_LIMIT, POSITION_LIMIT).astype(np.float32)

    return replace(
        model,
        position=moved(model.position),
        skeleton=replace(model.skeleton, rest=moved(model.skeleton.rest)),
        morphs=tuple(morph(item) for item in model.morphs),
    )


def with_mesh(model: Model, bone: int, points: np.ndarray, faces: np.ndarray, name: str = "zz") -> Model:
    """Return `model` with another part f64 [n, 3], i32 [m, 3] that hangs on `bone`, in a material `name` of its own."""
    count = len(points)
    material = replace(
        model.materials[0],
        name=name,
        name_en="",
        diffuse=(0.31, 0.2, 0.1, 1.0),
        texture=-1,
        first_face=len(model.face),
        face_count=len(faces),
    )

    def join(array: np.ndarray, more: np.ndarray | float | tuple[float, ...]) -> np.ndarray:
        return np.concatenate([array, np.broadcast_to(more, (count, *array.shape[1:]))]).astype(array.dtype)

    return replace(
        model,
        position=join(model.position, points),
        normal=join(model.normal, (0.0, 1.0, 0.0)),
        uv=join(model.uv, 0),
        uv1=None if model.uv1 is None else join(model.uv1, 0),
        bone_index=join(model.bone_index, (bone, 0, 0, 0)),
        bone_weight=join(model.bone_weight, (1, 0, 0, 0)),
        edge_scale=join(model.edge_scale, 1),
        face=np.concatenate([model.face, faces + len(model.position)]).astype(np.int32),
        materials=(*model.materials, material),
    )


def without_faces(model: Model, gone: np.ndarray) -> Model:
    """Return `model` without the faces of a mask bool [F]."""
    materials, first = [], 0
    for item in model.materials:
        kept = int(np.count_nonzero(~gone[item.first_face : item.first_face + item.face_count]))
        materials.append(replace(item, first_face=first, face_count=kept))
        first += kept
    return replace(model, face=model.face[~gone], materials=tuple(materials))


def turned(radius: np.ndarray, height: np.ndarray, depth: float = 1.0) -> Points:
    """Points f64 [n, 3] and faces of a surface turned around x = z = 0; its z is multiplied by `depth`."""
    angle = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
    points = np.stack(
        [
            np.outer(radius, np.cos(angle)),
            np.repeat(height[:, None], AROUND, axis=1),
            np.outer(radius, np.sin(angle)) * depth,
        ],
        axis=-1,
    )
    i, j = np.meshgrid(np.arange(len(radius) - 1), np.arange(AROUND), indexing="ij")
    a, b = i * AROUND + j, i * AROUND + (j + 1) % AROUND
    faces = np.concatenate([np.stack([a, b, a + AROUND], -1), np.stack([b, b + AROUND, a + AROUND], -1)])
    return points.reshape(-1, 3), faces.reshape(-1, 3).astype(np.int32)


def _tilted(points: np.ndarray, angle: float, forward: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    points = points @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
    c, s = np.cos(forward), np.sin(forward)
    return points @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T


# -- changes of the head itself ------------------------------------------------------------------------------------


def _stretched(model, bounds, place, share, draw):
    """Another build: the head scaled about its bone, wider or narrower, higher or lower, chibi or long."""
    scale = np.array([draw.uniform(0.8, 1.4), draw.uniform(0.8, 1.2), draw.uniform(0.85, 1.25)])
    pivot = model.skeleton.rest[place.head].astype(np.float64)
    matrix = np.diag(scale)
    shift = pivot - matrix @ pivot
    y = [scale[1] * value + shift[1] for value in (bounds.chin_y, bounds.top_y)]
    found = replace(bounds, chin_y=y[0], top_y=y[1], center_x=scale[0] * bounds.center_x + shift[0])
    return mapped(model, matrix, shift), found


def _moved(model, bounds, place, share, draw):
    """Off centre and of another size, as models in other units are."""
    factor = float(np.exp(draw.uniform(-2.3, 2.3)))
    shift = draw.uniform(-1, 1, 3) * place.size * factor
    found = replace(
        bounds,
        chin_y=factor * bounds.chin_y + shift[1],
        top_y=factor * bounds.top_y + shift[1],
        center_x=factor * bounds.center_x + shift[0],
    )
    return mapped(model, np.eye(3) * factor, shift), found


def _cranium(model, bounds, place, share, draw):
    """A higher or lower cranium over the same face: what lies above the brows is stretched."""
    factor, brows = draw.uniform(0.85, 1.22), place.chin + 0.55 * place.size
    position = model.position.astype(np.float64)
    above = (position[:, 1] > brows) & (share > 0.3)
    position[above, 1] = brows + factor * (position[above, 1] - brows)
    return replace(model, position=position.astype(np.float32)), replace(
        bounds, top_y=brows + factor * (place.top - brows)
    )


def _plain(model, bounds, place, share, draw):
    """Nothing but the names may change."""
    return model, bounds


# -- what is worn ---------------------------------------------------------------------------------------------------


def _dome(place: _Place, rim: float, rise: float, puff: float) -> Points:
    """A round cap: its rim at `rim` of the head's height, its top `rise` head heights over the skull."""
    part = np.linspace(0, np.pi / 2, 12)
    low = place.chin + rim * place.size
    height = low + (place.top + rise * place.size - low) * np.sin(part)
    return turned((place.half + puff * place.size) * np.cos(part), height, place.depth / 2 / place.half)


def _at(place: _Place, points: np.ndarray, draw, *, lean: float) -> np.ndarray:
    """Around the head's axis, leaning by up to `lean` radians about the skull's middle."""
    middle = np.array([0.0, place.chin + 0.7 * place.size, 0.0])
    points = _tilted(points - middle, draw.uniform(-lean, lean), draw.uniform(-lean, lean)) + middle
    return points + np.array([place.x, 0.0, place.middle_z])


def _cap(model, bounds, place, share, draw):
    """A cap over the hair, sometimes with a brim."""
    points, faces = _dome(place, draw.uniform(0.58, 0.8), draw.uniform(0.04, 0.25), draw.uniform(0.02, 0.1))
    points = _at(place, points, draw, lean=0.1)
    changed = with_mesh(model, place.head, points, faces)
    if draw.random() < 0.5:
        wide = place.half * np.linspace(1.0, draw.uniform(1.3, 2.0), 4)
        brim, faces = turned(wide, np.full(4, place.chin + draw.uniform(0.66, 0.8) * place.size), 1.1)
        changed = with_mesh(changed, place.head, _at(place, brim, draw, lean=0.05), faces)
    return changed, bounds


def _cap_without_hair(model, bounds, place, share, draw):
    """A cap whose maker has cut away the hair under it."""
    rim = draw.uniform(0.62, 0.75)
    corners = model.position[model.face]
    gone = (corners[:, :, 1].min(axis=1) > place.chin + rim * place.size) & (share[model.face].min(axis=1) > 0.3)
    points, faces = _dome(place, rim - 0.03, draw.uniform(0.03, 0.12), draw.uniform(0.02, 0.06))
    return with_mesh(without_faces(model, gone), place.head, _at(place, points, draw, lean=0.03), faces), bounds


def _tall_hat(model, bounds, place, share, draw):
    """A cylinder or cone that stands on the hair, with a brim."""
    foot = place.chin + draw.uniform(0.8, 0.95) * place.size
    height = draw.uniform(0.3, 0.8) * place.size
    wide = place.half * draw.uniform(0.6, 1.0)
    end = wide * draw.uniform(0.05, 1.1)
    radius = np.concatenate([[1.7 * place.half], np.linspace(wide, end, 8), [0.0]])
    levels = np.concatenate([[foot], np.linspace(foot, foot + height, 8), [foot + height]])
    points, faces = turned(radius, levels, 1.1)
    return with_mesh(model, place.head, _at(place, points, draw, lean=0.2), faces), bounds


def _beret(model, bounds, place, share, draw):
    """A flat cap that hangs to one side."""
    part = np.linspace(-np.pi / 2, np.pi / 2, 14)
    level = place.chin + draw.uniform(0.92, 1.05) * place.size
    points, faces = turned(
        1.1 * place.half * np.cos(part) + 1e-3, level + draw.uniform(0.08, 0.14) * place.size * np.sin(part), 1.1
    )
    points[:, 0] += draw.uniform(-0.25, 0.25) * place.size
    return with_mesh(model, place.head, _at(place, points, draw, lean=0.2), faces), bounds


def _spikes(model, place, places, radius, tall, draw):
    for x, z in places:
        part = np.linspace(0, 1, 9)
        points, faces = turned(radius * place.size * np.minimum(1.0, 2.5 * (1 - part)), tall * place.size * part)
        points = _tilted(points, -0.4 * x / place.half, draw.uniform(-0.2, 0.2))
        foot = place.top - 0.1 * place.size - 0.25 * abs(x)
        model = with_mesh(model, place.head, points + np.array([place.x + x, foot, place.middle_z + z]), faces)
    return model


def _ears(model, bounds, place, share, draw):
    """Two ears or horns."""
    x = draw.uniform(0.3, 0.8) * place.half
    radius, z = draw.uniform(0.04, 0.15), draw.uniform(-0.2, 0.1) * place.depth
    return _spikes(model, place, [(x, z), (-x, z)], radius, draw.uniform(0.2, 0.7), draw), bounds


def _tuft(model, bounds, place, share, draw):
    """One or some tufts that stand up."""
    places = [
        (draw.uniform(-0.15, 0.15) * place.half, draw.uniform(-0.25, 0.2) * place.depth)
        for _ in range(int(draw.integers(1, 4)))
    ]
    return _spikes(model, place, places, draw.uniform(0.01, 0.05), draw.uniform(0.2, 0.5), draw), bounds


def _bun(model, bounds, place, share, draw):
    """A bun, a pompon or a bow on top."""
    part = np.linspace(-np.pi / 2, np.pi / 2, 12)
    radius = draw.uniform(0.12, 0.25) * place.size
    points, faces = turned(radius * np.cos(part) + 1e-3, radius * np.sin(part) * draw.uniform(0.6, 1.1))
    at = [
        place.x + draw.choice((0.0, 0.5, -0.5)) * place.half,
        place.top + 0.4 * radius,
        place.middle_z + draw.uniform(-0.1, 0.35) * place.depth,
    ]
    return with_mesh(model, place.head, points + at, faces), bounds


def _band(model, bounds, place, share, draw):
    """A band from ear to ear over the hair: headphones, a hairband."""
    width, thick = draw.uniform(0.02, 0.08) * place.size, draw.uniform(0.01, 0.05) * place.size
    angle = np.linspace(0, np.pi, 24)
    z = place.middle_z + draw.uniform(-0.25, 0.1) * place.depth
    low = place.chin + 0.5 * place.size
    rows = []
    for side in (-width, width):
        rows.append(
            np.stack(
                [
                    place.x + 1.03 * place.half * np.cos(angle),
                    low + (place.top + thick - low) * np.sin(angle),
                    np.full(24, z + side),
                ],
                axis=-1,
            )
        )
    k = np.arange(23)
    faces = np.concatenate([np.stack([k, k + 1, k + 24], -1), np.stack([k + 1, k + 25, k + 24], -1)]).astype(np.int32)
    return with_mesh(model, place.head, np.concatenate(rows), faces), bounds


def _muffler(model, bounds, place, share, draw):
    """A scarf around the neck, up to the chin or over it, that turns with the head."""
    part = np.linspace(0, 2 * np.pi, 12)
    level = place.chin + draw.uniform(-0.2, 0.02) * place.size
    thick = draw.uniform(0.05, 0.12) * place.size
    points, faces = turned(
        draw.uniform(0.3, 0.45) * place.size + thick * np.cos(part), level + thick * np.sin(part), 1.1
    )
    return with_mesh(model, place.head, points + np.array([place.x, 0.0, place.middle_z]), faces), bounds


def _mask(model, bounds, place, share, draw):
    """A mask or a microphone before mouth and chin."""
    part = np.linspace(-np.pi / 2, np.pi / 2, 12)
    radius = draw.uniform(0.05, 0.22) * place.size
    points, faces = turned(radius * np.cos(part) + 1e-3, radius * np.sin(part), 0.5)
    near = (np.abs(model.position[:, 0] - place.x) < 0.1 * place.size) & (share > 0.5)
    near &= np.abs(model.position[:, 1] - place.chin - 0.1 * place.size) < 0.1 * place.size
    front = model.position[near, 2].min() if near.any() else place.middle_z - place.depth / 2
    at = [place.x, place.chin + draw.uniform(-0.02, 0.15) * place.size, front + draw.uniform(-0.08, 0.02) * place.size]
    return with_mesh(model, place.head, points + at, faces), bounds


_WORN: dict[str, Callable] = {
    "muffler": _muffler,
    "mask": _mask,
    "cap": _cap,
    "cap instead of hair": _cap_without_hair,
    "tall hat": _tall_hat,
    "beret": _beret,
    "ears": _ears,
    "tufts": _tuft,
    "bun": _bun,
    "band": _band,
}
_CHANGES: dict[str, Callable] = {
    **_WORN,
    "stretched": _stretched,
    "moved": _moved,
    "cranium": _cranium,
    "as it is": _plain,
}
KINDS = tuple(sorted(_CHANGES))
