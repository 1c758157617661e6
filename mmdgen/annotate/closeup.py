"""Close-ups of a face under the morphs that close eyes and open mouths, in true and in false colours.

False colours tell surfaces apart where true ones cannot: what belongs to the eyes is red, the materials that lids and
lips belong to are green, the rest is blue; see-through parts mix. Hair and whatever else hangs before the eyes is left
out: eyes under a fringe are to be judged like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mmdgen.annotate import names
from mmdgen.annotate.bones import HeadBones
from mmdgen.annotate.lids import EyeBox
from mmdgen.annotate.mesh import VISIBLE, face_materials
from mmdgen.annotate.motion import Displacement
from mmdgen.errors import ModelError
from mmdgen.model.records import Material, Model, MorphKind, MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.rig import Frame, build_rig
from mmdgen.pose.vocabulary import PoseParameter, PoseVocabulary
from mmdgen.render.prepare import Prepared, TextureImage, decode_images, used_textures
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import PHONG, View

SIZE = 160  # pixels; an eye is 20 to 40 of them high
LARGEST_TEXTURE = 512  # texels a side: about what 160 pixels can show of a face's texture
EYE, FACE, OTHER = 0, 1, 2  # channels of the false colours
_COLOURS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class Closeups:
    """Pictures by name (``rest`` is the face as the file has it): `true` and `false` u8 [H, W, 4] each.

    `left`, `top` (MU) is the picture's corner, `scale` pixels per MU; `eyes` says whether the model's eyes are known as
    surfaces, so that red means something.
    """

    true: dict[str, np.ndarray]
    false: dict[str, np.ndarray]
    left: float
    top: float
    scale: float
    eyes: bool

    def column(self, x: float) -> float:
        """Return the column of `x` MU, in pixels from the left edge."""
        return (x - self.left) * self.scale

    def row(self, y: float) -> float:
        """Return the row of `y` MU, in pixels from the top edge."""
        return (self.top - y) * self.scale


def draw_closeups(
    model: Model,
    bones: HeadBones,
    boxes: Mapping[str, EyeBox],
    center_x: float,
    chin_y: float,
    terms: Mapping[str, tuple[MorphTerm, ...]],
    moved: Mapping[str, Displacement],
    renderer: Renderer,
    images: dict[int, TextureImage] | None = None,
) -> Closeups:
    """Draw the face at rest and under each of the named `terms` at weight 1.

    `moved` is what those terms do to the vertices. `images` holds decoded textures by number; those that are
    missing in it are decoded and added. Raises `ModelError` or `RenderError` where the model cannot be drawn.
    """
    apart = boxes["left"].x - boxes["right"].x
    eye_y = (boxes["left"].y + boxes["right"].y) / 2
    top, bottom = eye_y + 0.8 * apart, min(chin_y, eye_y - 0.8 * apart) - 0.1 * apart
    height = max(top - bottom, 2.3 * apart)
    view = View(center_x, (top + bottom) / 2, height, size=SIZE, samples=4, outline=0.0)
    eye_face, whole = _surfaces(model, bones, boxes, moved, terms)
    material = face_materials(model)
    kept = whole[material]
    touched = np.zeros(len(model.position), bool)
    for item in moved.values():
        touched[item.index] = True
    face_material = np.bincount(material[touched[model.face].any(axis=1) & ~eye_face], minlength=len(whole)) > 0
    kind = np.where(eye_face, EYE, np.where(face_material[material], FACE, OTHER))

    parameters = tuple(PoseParameter(name, 0, 1, 0, "", "morph") for name in terms)
    binding = PoseBinding(PoseVocabulary("closeup", parameters), bones.neck, bones.head, dict(terms), center_x)
    poses = np.concatenate([np.zeros((1, len(terms))), np.eye(len(terms))]).astype(np.float32)
    order = ["rest", *terms]

    half = height / 2
    frame = Frame(center_x - half, center_x + half, view.center_y - half, view.center_y + half, height / SIZE)
    drawn = build_rig(_repainted(model, np.where(kept, 0, -1), None), binding, frame)
    if not drawn.draws:
        raise ModelError("nothing_in_view", f"{model.path}: no face lies in the view of the eyes")
    images = {} if images is None else images
    used = used_textures(drawn, PHONG)
    images.update(decode_images(model, [number for number in used if number not in images], PHONG)[0])
    reduced = {number: _smaller(images[number]) for number in used if number in images}
    with renderer.scene(Prepared(drawn, view, reduced, ())) as scene:
        true = dict(zip(order, list(scene.expressions(poses)), strict=True))

    flat_view = replace(view, samples=1, ambient=1.0, directional=0.0)
    flat = _repainted(model, np.where(kept, kind, -1), _COLOURS)
    masks = {number: _mask(image) for number, image in reduced.items() if image.alpha}
    with renderer.scene(Prepared(build_rig(flat, binding, frame), flat_view, masks, ())) as scene:
        false = dict(zip(order, list(scene.expressions(poses)), strict=True))
    return Closeups(true, false, center_x - half, view.center_y + half, SIZE / height, bool(eye_face.any()))


def _surfaces(model: Model, bones: HeadBones, boxes, moved, terms) -> tuple[np.ndarray, np.ndarray]:
    """Return bool [F], what belongs to the eyes, and bool [materials], what is drawn."""
    material = face_materials(model)
    count = len(model.materials)
    centre = model.position[model.face].mean(axis=1)
    eye_face = _on_eye_bones(model, bones)
    touched = np.zeros(len(model.position), bool)
    for item in moved.values():
        touched[item.index] = True
    moving = touched[model.face].any(axis=1)
    near = np.zeros(len(model.face), bool)
    front = np.inf
    for box in boxes.values():
        # The box is where the upper lid is at rest: the eye lies below it, the brow above.
        tall = max(box.opening, 0.4 * box.half_width)
        here = (
            (np.abs(centre[:, 0] - box.x) < 1.25 * box.half_width)
            & (centre[:, 1] < box.y + 0.5 * tall)
            & (centre[:, 1] > box.y - 1.5 * tall)
        )
        near |= here
        if (here & moving).any():
            front = min(front, float(np.quantile(centre[here & moving, 2], 0.5)))
    relevant = np.bincount(material[moving | eye_face], minlength=count) > 0
    for number in _faded(model, terms):
        relevant[number] = True
    faces = np.maximum(np.bincount(material, minlength=count), 1)
    inside = np.bincount(material[near], minlength=count) / faces
    seen = np.array([item.diffuse[3] > VISIBLE for item in model.materials])
    # What lies in the eyes alone and no lid morph moves is part of them: highlights, irises on no bone of their own.
    part = (inside > 0.9) & seen
    still_part = part[material] & ~moving
    eye_face = (eye_face | still_part) & seen[material]
    before = np.bincount(material[near & (centre[:, 2] < front + 0.02)], minlength=count) > 0
    named = np.array([names.is_hair(item.name) or names.is_accessory(item.name) for item in model.materials])
    hides = ~relevant & ~part & (before | named)
    return eye_face, ~hides


def _on_eye_bones(model: Model, bones: HeadBones) -> np.ndarray:
    """Return bool [F]: the faces that turn with the eyes' bones."""
    skeleton = model.skeleton
    turning = np.zeros(len(skeleton.name), bool)
    for bone in (bones.left_eye, bones.right_eye):
        if bone >= 0:
            turning[bone] = True
    for bone in skeleton.order.tolist():
        parent = int(skeleton.parent[bone])
        if parent >= 0 and turning[parent]:
            turning[bone] = True
    share = np.einsum("vk,vk->v", model.bone_weight, turning[model.bone_index].astype(np.float32))
    return (share > 0.5)[model.face].all(axis=1)


def _faded(model: Model, terms: Mapping[str, tuple[MorphTerm, ...]]) -> set[int]:
    """The materials that the terms' material morphs change."""
    found: set[int] = set()
    for items in terms.values():
        for term in items:
            morph = model.morphs[term.morph]
            members = [model.morphs[i] for i in morph.index.tolist()] if morph.kind is MorphKind.GROUP else [morph]
            for member in members:
                if member.kind is MorphKind.MATERIAL:
                    numbers = member.offset["material"].tolist()
                    found.update(number for number in numbers if number >= 0)
    return found


def _repainted(model: Model, kind: np.ndarray, colours: tuple[tuple[float, float, float], ...] | None) -> Model:
    """Return `model` with the faces whose `kind` i32 [F] is not -1, those of one kind a material; in `colours`."""
    faces, materials, origin = [], [], []
    first = 0
    for number, item in enumerate(model.materials):
        own = np.arange(item.first_face, item.first_face + item.face_count)
        for value in np.unique(kind[own]).tolist():
            if value < 0:
                continue
            chosen = own[kind[own] == value]
            faces.append(model.face[chosen])
            materials.append(_painted(item, first, len(chosen), colours[value] if colours else None))
            origin.append(number)
            first += len(chosen)
    from_origin = np.array(origin, np.int32)
    morphs = []
    for morph in model.morphs:
        if morph.kind is MorphKind.MATERIAL and len(morph.index):
            rows = []
            for row in morph.offset:
                where = [-1] if row["material"] < 0 else np.flatnonzero(from_origin == row["material"]).tolist()
                for place in where:
                    new = row.copy()
                    new["material"] = place
                    if colours is not None:
                        neutral = 1.0 if row["operation"] == 0 else 0.0
                        new["diffuse"][:3] = neutral
                        new["ambient"] = neutral
                    rows.append(new)
            offset = np.array(rows, morph.offset.dtype) if rows else morph.offset[:0]
            morph = replace(morph, index=offset["material"].astype(np.int32), offset=offset)
        morphs.append(morph)
    face = np.concatenate(faces).astype(np.int32) if faces else np.zeros((0, 3), np.int32)
    return replace(model, face=face, materials=tuple(materials), morphs=tuple(morphs))


def _painted(item: Material, first: int, count: int, colour: tuple[float, float, float] | None) -> Material:
    if colour is None:
        return replace(item, first_face=first, face_count=count)
    diffuse = (*colour, item.diffuse[3])
    return replace(item, first_face=first, face_count=count, diffuse=diffuse, ambient=colour)


def _smaller(image: TextureImage) -> TextureImage:
    """Every n-th texel of a large texture: decoding is done, but uploads and mip maps cost too."""
    step = -(-max(image.texels.shape[:2]) // LARGEST_TEXTURE)
    if step <= 1:
        return image
    return TextureImage(np.ascontiguousarray(image.texels[::step, ::step]), image.alpha)


def _mask(image: TextureImage) -> TextureImage:
    """White where `image` is opaque, premultiplied."""
    texels = np.repeat(image.texels[..., 3:], 4, axis=2)
    return TextureImage(texels, True)
