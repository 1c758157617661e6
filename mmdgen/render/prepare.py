"""The part of drawing that needs no GL context: reduce the model, decode the textures that are seen. Thread-safe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdgen.errors import ModelError, RenderError
from mmdgen.model.records import Model
from mmdgen.model.textures import decode_texture, has_alpha
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.rig import Frame, Rig, build_rig
from mmdgen.pose.vocabulary import PoseVocabulary
from mmdgen.render.view import MMD, PHONG, SAMPLE_GRIDS, View

# Measured against MikuMikuDance 9.32 (docs/shading.md): an edge of size 1 is pushed out by 0.0008 of the camera's
# distance, less where the field of view is narrower than 30 degrees. In its pictures that is 0.0015 of the height.
EDGE_PER_DISTANCE, EDGE_FOV_DEG = 0.0008, 30.0
EDGE_FRACTION = 0.0015


# What one model may keep: 50 megapixels, 200 MB. The CPU renderer takes three times as much again for them as light and
# mip levels, and with the next models a process stays below 1.5 GB. No real model that was tried needs as many.
MAX_TEXELS = 48 << 20

Spare = Callable[[set[int], int, int], int]  # (numbers, width, height) -> levels


@dataclass(slots=True, eq=False)
class TextureImage:
    """Texels u8 [H, W, 4] sRGB, row 0 at v = 0. `alpha`: some are not opaque.

    For `phong`, colours are then premultiplied in linear light; for `mmd` they are as the file has them. Levels of the
    file's picture that are never read are left out, so it may be smaller.
    """

    texels: np.ndarray
    alpha: bool


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A model ready for upload. `images` by texture index; `missing` lists textures not found (drawn white)."""

    rig: Rig
    view: View
    images: dict[int, TextureImage]
    missing: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """How much memory the texels take."""
        return sum(image.texels.nbytes for image in set(self.images.values()))

    def forget_texels(self) -> None:
        """Free the texels, after they were uploaded: nothing can be uploaded from here again."""
        for image in self.images.values():
            image.texels = image.texels[:0, :0].copy()


def edge_push(view: View, rest: np.ndarray) -> float:
    """Return how far an edge of size 1 is pushed out along the normal, MU. `rest` f32 [B, 3] MU are the bones' places.

    A perspective camera's distance is that of the model's second bone (the one called centre, in most), as in nanoem.
    """
    camera = view.camera
    if camera is None or camera.fov_deg is None:
        return view.outline * EDGE_FRACTION * view.height
    distance = math.dist(camera.position, rest[min(1, len(rest) - 1)].tolist())
    return view.outline * EDGE_PER_DISTANCE * distance * min(camera.fov_deg / EDGE_FOV_DEG, 1.0)


def checked_poses(vocabulary: PoseVocabulary, poses: np.ndarray) -> np.ndarray:
    """Return `poses` as f32 [N, K]. Raises `RenderError` where their shape is another."""
    poses, width = np.asarray(poses, np.float32), len(vocabulary.parameters)
    if poses.ndim != 2 or poses.shape[1] != width:
        raise RenderError(f"poses must be [N, {width}], found {poses.shape}")
    return poses


def expression_poses(vocabulary: PoseVocabulary, poses: np.ndarray) -> np.ndarray:
    """Return poses f32 [N, K] whose rotations are at rest. Raises `RenderError` as `checked_poses` does."""
    poses = checked_poses(vocabulary, poses).copy()
    turns = [column for column, parameter in enumerate(vocabulary.parameters) if parameter.kind == "rotation"]
    poses[:, turns] = vocabulary.rest[turns]
    return poses


def prepare_model(model: Model, binding: PoseBinding, view: View) -> Prepared:
    """Reduce `model` to what `view` shows and decode its textures.

    Textures that are missing or damaged are listed in `missing` and drawn white, as MMD does. Raises `ModelError`
    ``nothing_in_view`` where no face can be seen.
    """
    frame = None
    if view.camera is None:  # what another camera sees is not worked out: everything is kept
        half, x, y = view.height / 2, view.center_x, view.center_y
        frame = Frame(x - half, x + half, y - half, y + half, view.height / view.size)
    rig = build_rig(model, binding, frame, edge_push(view, model.skeleton.rest))
    if not rig.draws:
        raise ModelError("nothing_in_view", f"{model.path}: no face lies in the view around the head")
    spare = None if frame is None else _spare(rig, view.shading, frame.pixel / SAMPLE_GRIDS[view.samples])
    images, missing = decode_images(model, used_textures(rig, view.shading), view.shading, spare)
    return Prepared(rig, view, images, missing)


def _spare(rig: Rig, shading: str, step: float) -> Spare:
    """Return what `decode_images` asks for a front view whose samples lie `step` MU apart."""
    from mmdgen.render.sharpness import level_finder  # here: its compiler takes 0.2 s to load

    otherwise: set[int] = set()  # read at places that the vertices' uv do not tell
    if shading == MMD:
        otherwise = {texture for item in rig.model.materials for texture in (item.sphere_texture, item.toon_texture)}

    find = level_finder(rig, step)
    return lambda numbers, width, height: 0 if numbers & otherwise else find(numbers, width, height)


def decode_images(
    model: Model, numbers: list[int], shading: str, spare: Spare | None = None
) -> tuple[dict[int, TextureImage], tuple[str, ...]]:
    """Return the pictures of the textures `numbers` of `model`, and the names of those that cannot be decoded.

    `spare` says how many of the finest mip levels of a picture need not be kept. Pictures with more than `MAX_TEXELS`
    texels in all lose further levels, the largest first.
    """
    from mmdgen.render.texels import halved, premultiply_own  # here: their compiler takes 0.2 s to load

    linear = shading == PHONG
    same: dict[Path | None, list[int]] = {}  # entries may lead to one file under several spellings
    for number in numbers:
        same.setdefault(model.textures[number].path, []).append(number)
    kept: dict[int, tuple[np.ndarray, bool]] = {}
    lost: list[int] = []
    for files in same.values():
        try:
            texels = decode_texture(model.textures[files[0]])
        except ModelError:
            lost += files
            continue
        transparent = has_alpha(texels)
        if transparent and linear:  # MMD filters straight alpha
            texels = texels if texels.flags.writeable else texels.copy()
            premultiply_own(texels)
        for _ in range(spare(set(files), texels.shape[1], texels.shape[0]) if spare else 0):
            if max(texels.shape[:2]) > 1:
                texels = halved(texels, linear)
        kept[files[0]] = (texels, transparent)
        while sum(pixels.size for pixels, _ in kept.values()) > 4 * MAX_TEXELS:
            largest = max(kept, key=lambda number: (kept[number][0].size, -number))
            kept[largest] = (halved(kept[largest][0], linear), kept[largest][1])
    made = {first: TextureImage(*found) for first, found in kept.items()}
    images = {number: made[files[0]] for files in same.values() if files[0] in made for number in files}
    return dict(sorted(images.items())), tuple(model.textures[number].name for number in sorted(lost))


def used_textures(rig: Rig, shading: str) -> list[int]:
    """Return the indices of the textures that the kept faces use."""
    used: set[int] = set()
    for draw in rig.draws:
        material = rig.model.materials[draw.material]
        used.add(material.texture)
        if shading == MMD:
            used.add(material.sphere_texture if material.sphere_mode else -1)
            used.add(material.toon_texture if material.toon_shared < 0 else -1)
    return sorted(used - {-1})


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Return linear light for sRGB values in [0, 1] (IEC 61966-2-1)."""
    value = np.asarray(value, np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """Return sRGB values for linear light in [0, 1] (IEC 61966-2-1)."""
    value = np.asarray(value, np.float64)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 0.0031308) ** (1 / 2.4) - 0.055)


def premultiply(texels: np.ndarray) -> np.ndarray:
    """Return u8 [H, W, 4] texels whose colours are multiplied by alpha in linear light, sRGB-encoded again.

    So that filtering and mip maps mix no colour of transparent texels into the edges.
    """
    from mmdgen.render.texels import premultiply_own  # here: its compiler takes 0.2 s to load

    result = texels.copy()
    premultiply_own(result)
    return result
