"""A head without its textures is no picture of a head: which missing ones are seen there.

Models drawn without a texture are plain white. On a skirt that does no harm to a dataset of heads; on a face, eyes or
hair it teaches that white faces exist. So what counts is whether the picture of the head shows the surface, which is
measured as the picture will be: 256 x 256 pixels around the head, near surfaces hide far ones, through transparent
texels one sees on. Only models with a texture missing pay for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.annotate.bones import bone_share, vertex_share
from mmdgen.annotate.mesh import FOLLOWS, VISIBLE, face_materials
from mmdgen.annotate.motion import displacement
from mmdgen.annotate.records import Annotation
from mmdgen.annotate.seen import rasterize, visible_share
from mmdgen.errors import ModelError
from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import Model, MorphTerm, Texture
from mmdgen.model.textures import check_texture, decode_texture

SIZE = 256
# Pixels of 256 x 256 in which a missing texture must be seen to count: in eyes and mouth, where a star in an eye
# covers more, and seams that hang on the head bone by mistake cover less; and elsewhere in the head, where a
# white earring (25 to 30 pixels in real models) spoils no picture but a white ribbon (800) does.
FACE_PIXELS = 6.0
HEAD_PIXELS = 48.0


@dataclass(frozen=True, slots=True)
class LostTexture:
    """A texture that cannot be drawn: `index` into `Model.textures`, `code` and `why` of the error that says so.

    `pixels` is what it covers of the head in a picture of `SIZE` x `SIZE` pixels, at least (the measuring ends where it
    counts); `counts` says whether the head cannot do without it.
    """

    index: int
    name: str
    code: str
    why: str
    pixels: float
    counts: bool


def lost_textures(model: Model, annotation: Annotation) -> tuple[LostTexture, ...]:
    """Return the textures of materials (not of spheres and toons) that are missing or damaged, with how much is seen.

    Looked at are the head with eyes open and mouth closed, and the reverse; what turns with the head bone counts as
    head. Materials that are transparent in an expression are not in it.
    """
    broken: dict[int, ModelError] = {}
    for index in sorted({m.texture for m in model.materials if m.texture >= 0 and m.face_count}):
        try:
            check_texture(model.textures[index])
        except ModelError as error:
            broken[index] = error
    if not broken:
        return ()
    pixels = _pixels(model, annotation, frozenset(broken))
    return tuple(
        LostTexture(
            index,
            model.textures[index].name,
            error.code,
            str(error),
            round(pixels[index][0], 2),
            _enough(pixels[index]),
        )
        for index, error in broken.items()
    )


def require_head_textures(model: Model, annotation: Annotation) -> tuple[LostTexture, ...]:
    """Return the lost textures that one can do without.

    Raises `ModelError` ``head_textures_missing``, which names the files, where one is seen in the head.
    """
    lost = lost_textures(model, annotation)
    needed = [item for item in lost if item.counts]
    if needed:
        rows = ", ".join(
            f"{item.name} ({'not found' if item.code == 'texture_missing' else item.why}; "
            f"seen in {item.pixels:.0f} of {SIZE} x {SIZE} pixels or more)"
            for item in sorted(needed, key=lambda item: -item.pixels)
        )
        raise ModelError(
            "head_textures_missing",
            f"{model.path}: parts of the head would be white, as {len(needed)} of its textures cannot be read: {rows}; "
            "put the files beside the model",
        )
    return lost


def _enough(pixels: tuple[float, float]) -> bool:
    """Whether so many pixels of the head, and of its face, are too many to do without."""
    return pixels[0] >= HEAD_PIXELS or pixels[1] >= FACE_PIXELS


def _face_pixels(model: Model, annotation: Annotation, box: tuple[float, float, float]) -> np.ndarray:
    """bool [SIZE * SIZE]: the rectangles in which each eye and the mouth really move (some shake the whole face)."""
    left, top, height = box
    inside = np.zeros((SIZE, SIZE), bool)
    for terms in annotation.parameter_terms().values():
        change = displacement(model, terms, annotation.bounds.center_x)
        length = np.linalg.norm(change.offset, axis=1)
        most = length > 0.2 * length.max(initial=0.0)
        if most.any():
            before = model.position[change.index[most], :2]
            place = np.concatenate([before, before + change.offset[most, :2]])
            at = np.stack([top - place[:, 1], place[:, 0] - left], axis=1) / height * SIZE  # row, column
            first = np.clip(np.floor(at.min(axis=0)), 0, SIZE).astype(int)
            last = np.clip(np.ceil(at.max(axis=0)), 0, SIZE).astype(int)
            inside[first[0] : last[0], first[1] : last[1]] = True
    return inside.ravel()


def _pixels(model: Model, annotation: Annotation, broken: frozenset[int]) -> dict[int, tuple[float, float]]:
    """The pixels of the head and of its face that each `broken` texture covers: the most seen, or enough."""
    bounds = annotation.bounds
    height = 2 * (bounds.top_y - bounds.chin_y)
    box = (bounds.center_x - height / 2, (bounds.chin_y + bounds.top_y) / 2 + height / 2, height)
    material_of_face = face_materials(model)
    texture = np.array([m.texture for m in model.materials], np.int64)
    double_sided = np.array([m.double_sided for m in model.materials], bool)
    share = vertex_share(model, bone_share(model.skeleton, annotation.head))
    of_head = share[model.face].mean(axis=1) >= FOLLOWS
    opacities = _Opacities(model)
    in_face = _face_pixels(model, annotation, box)
    most = dict.fromkeys(broken, (0.0, 0.0))
    expression = tuple(term for part in annotation.parameter_terms().values() for term in part)
    for terms in ((), expression):
        alpha = _material_alpha(model, terms, bounds.center_x)
        position = model.position
        if terms:
            moved = displacement(model, terms, bounds.center_x)
            position = position.copy()
            position[moved.index] += moved.offset
        drawn = np.flatnonzero((material_of_face >= 0) & (alpha[material_of_face] > VISIBLE)).astype(np.int32)
        # Taking every texture that is there as opaque gives the least that is seen; decoding them is for the few cases
        # that this leaves open.
        for exact in (False, True):
            asked = sorted(index for index, seen in most.items() if not _enough(seen))
            wanted = np.isin(texture, asked)
            own = drawn[wanted[material_of_face[drawn]] & of_head[drawn]]
            own = rasterize(model, position, own, double_sided[material_of_face[own]], box, SIZE)
            if len(own.pixel) < FACE_PIXELS:
                break
            far = own.depths(SIZE)
            fragments = rasterize(model, position, drawn, double_sided[material_of_face[drawn]], box, SIZE, far)
            material = material_of_face[fragments.face]
            opacity = alpha[material] * opacities.texels(material, fragments.uv) if exact else alpha[material]
            seen = visible_share(fragments, opacity)
            counts = wanted[material] & of_head[fragments.face]
            index_of, weight = texture[material[counts]], seen[counts]
            covered = np.bincount(index_of, weights=weight, minlength=len(model.textures))
            facial = np.bincount(
                index_of, weights=weight * in_face[fragments.pixel[counts]], minlength=len(model.textures)
            )
            for index in asked:
                head, face = most[index]
                most[index] = (max(head, float(covered[index])), max(face, float(facial[index])))
    return most


def _material_alpha(model: Model, terms: tuple[MorphTerm, ...], center_x: float) -> np.ndarray:
    """f32 [materials]: the materials' opacity with `terms` at weight 1 (multiplications first, as they are drawn)."""
    alpha = np.array([m.diffuse[3] for m in model.materials], np.float64)
    flat = flatten_terms(model, terms, center_x)
    for operation in (0, 1):
        for row, weight in zip(flat.material, flat.material_weight.tolist(), strict=True):
            if row["operation"] != operation:
                continue
            where = slice(None) if row["material"] < 0 else int(row["material"])
            value = float(row["diffuse"][3])
            alpha[where] = (
                alpha[where] * (1 + weight * (value - 1)) if operation == 0 else alpha[where] + weight * value
            )
    return np.clip(np.nan_to_num(alpha), 0, 1).astype(np.float32)


class _Opacities:
    """The opacity of the textures' texels, decoded when first asked for; missing textures are opaque white."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._planes: dict[int, np.ndarray | None] = {}

    def texels(self, material: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """Return f32 [n] in [0, 1] for the texels at `uv` [n, 2] of the textures of `material` i32 [n]."""
        opacity = np.ones(len(uv), np.float32)
        for number in np.unique(material).tolist():
            index = self._model.materials[number].texture
            if index not in self._planes:
                self._planes[index] = _alpha_plane(self._model.textures[index]) if index >= 0 else None
            plane = self._planes[index]
            if plane is not None:
                mine = np.flatnonzero(material == number)
                height, width = plane.shape
                column = np.clip((uv[mine, 0] % 1 * width).astype(np.int64), 0, width - 1)
                row = np.clip((uv[mine, 1] % 1 * height).astype(np.int64), 0, height - 1)
                opacity[mine] = plane[row, column] / np.float32(255)
        return opacity


def _alpha_plane(texture: Texture) -> np.ndarray | None:
    try:
        plane = decode_texture(texture)[..., 3]
    except ModelError:
        return None
    return None if plane.min() == 255 else np.ascontiguousarray(plane)
