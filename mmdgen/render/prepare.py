"""The part of drawing that needs no GL context: reduce the model, decode the textures that are seen. Thread-safe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmdgen.errors import ModelError
from mmdgen.model.records import Model
from mmdgen.model.textures import decode_texture, has_alpha
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.rig import Frame, Rig, build_rig
from mmdgen.render.view import MMD, PHONG, View

# Measured against MikuMikuDance 9.32 (docs/shading.md): an edge of size 1 is pushed out by 0.0008 of the camera's
# distance, less where the field of view is narrower than 30 degrees. In its pictures that is 0.0015 of the height.
EDGE_PER_DISTANCE, EDGE_FOV_DEG = 0.0008, 30.0
EDGE_FRACTION = 0.0015


@dataclass(frozen=True, slots=True, eq=False)
class TextureImage:
    """Texels u8 [H, W, 4] sRGB, row 0 at v = 0. `alpha`: some are not opaque.

    For `phong`, colours are then premultiplied in linear light; for `mmd` they are as the file has them.
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


def edge_push(view: View, rest: np.ndarray) -> float:
    """Return how far an edge of size 1 is pushed out along the normal, MU. `rest` f32 [B, 3] MU are the bones' places.

    A perspective camera's distance is that of the model's second bone (the one called centre, in most), as in nanoem.
    """
    camera = view.camera
    if camera is None or camera.fov_deg is None:
        return view.outline * EDGE_FRACTION * view.height
    distance = math.dist(camera.position, rest[min(1, len(rest) - 1)].tolist())
    return view.outline * EDGE_PER_DISTANCE * distance * min(camera.fov_deg / EDGE_FOV_DEG, 1.0)


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
    images, missing = decode_images(model, used_textures(rig, view.shading), view.shading)
    return Prepared(rig, view, images, missing)


def decode_images(model: Model, numbers: list[int], shading: str) -> tuple[dict[int, TextureImage], tuple[str, ...]]:
    """Return the pictures of the textures `numbers` of `model`, and the names of those that cannot be decoded."""
    images: dict[int, TextureImage] = {}
    missing: list[str] = []
    decoded: dict[Path | None, TextureImage] = {}  # entries may lead to one file under several spellings
    for number in numbers:
        texture = model.textures[number]
        if texture.path not in decoded:
            try:
                texels = decode_texture(texture)
            except ModelError:
                missing.append(texture.name)
                continue
            transparent = has_alpha(texels)
            premultiplied = transparent and shading == PHONG  # MMD filters straight alpha
            decoded[texture.path] = TextureImage(premultiply(texels) if premultiplied else texels, transparent)
        images[number] = decoded[texture.path]
    return images, tuple(missing)


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


@lru_cache(maxsize=1)
def _premultiply_table() -> np.ndarray:
    level = np.arange(256) / 255
    product = srgb_to_linear(level)[None, :] * level[:, None]  # [alpha, value]
    return np.rint(linear_to_srgb(product) * 255).astype(np.uint8)


def premultiply(texels: np.ndarray) -> np.ndarray:
    """Return u8 [H, W, 4] texels whose colours are multiplied by alpha in linear light, sRGB-encoded again.

    So that filtering and mip maps mix no colour of transparent texels into the edges.
    """
    from mmdgen.render.texels import multiply_alpha  # here: its compiler takes 0.2 s to load

    result = texels.copy()
    multiply_alpha(result, _premultiply_table())
    return result
