"""The CPU rasteriser's golden pictures: what they show. For the test and tools/regen_goldens.py.

Everything comes from small whole numbers: models and textures are the same on every machine, and so must be the bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from toy import GREY, RED, YELLOW, ToyBuilder, toy_binding, toy_builder, toy_view

from mmdgen.formats.pmx import records as pmx
from mmdgen.model.records import Model, MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.cpu_scene import CpuScene
from mmdgen.render.prepare import prepare_model
from mmdgen.render.view import SHADINGS

POSES = (
    THA1.rest,
    THA1.pose(head_x=0.8, head_y=-0.9, neck_z=0.6, left_eye=1.0, right_eye=0.3, mouth=0.2),
    THA1.pose(head_x=-0.7, head_y=0.8, neck_z=-0.5, right_eye=1.0, left_eye=1.0, mouth=0.6),
)


def pattern(width: int, height: int, alpha: bool) -> np.ndarray:
    """Return a picture u8 [height, width, 4] with edges and slopes; `alpha`: a third of it clear, a third opaque."""
    y, x = np.mgrid[:height, :width]
    texels = np.full((height, width, 4), 255, np.uint8)
    texels[..., 0] = (x * 255 // max(width - 1, 1)).astype(np.uint8)
    texels[..., 1] = (y * 255 // max(height - 1, 1)).astype(np.uint8)
    texels[..., 2] = np.where((x // 3 + y // 2) % 2 == 0, 230, 25)
    if alpha:
        texels[..., 3] = np.clip((x * 3 - width) * 255 // width, 0, 255)
    return texels


def rich_toy() -> ToyBuilder:
    """The toy head with textures (odd sides, alpha, repeated), sphere maps, toons, highlights, SDEF, BDEF4, translucent
    layers, edges of both kinds, UV and material morphs of the mouth. Textures: see `save_textures`.

    No two faces lie in one plane: once turned, rounding alone decides which of them shows.
    """
    toy = toy_builder()
    for vertex in range(len(toy.positions) - 24, len(toy.positions)):  # the crown's top lies in the skull's plane
        toy.positions[vertex] = toy.positions[vertex] + (0, 0.01, 0)
    toy.textures += ["plain.png", "odd.png", "alpha.png"]
    edge = {"flags": pmx.EDGE, "edge_size": 4.0, "edge_color": (0.3, 0.1, 0.6, 1.0)}
    soft = {"flags": pmx.EDGE | pmx.DOUBLE_SIDED, "edge_size": 6.0, "edge_color": (0.8, 0.5, 0.1, 0.5)}
    sdef = (pmx.SDEF, (2, 1), (0.6,), ((0, 17, 0), (0, 17.5, 0.2), (0, 16.5, -0.1)))
    mixed = (pmx.BDEF4, (0, 1, 2, 1), (0.1, 0.3, 0.5, 0.1), None)
    toy.box((-1.6, 16.6, -0.4), (-1.1, 18.4, 0.6), sdef)
    toy.material("left", (0.9, 0.7, 0.8), texture_index=0, specular=(0.4, 0.3, 0.2), specular_power=7.0, **edge)
    toy.box((1.1, 16.8, -0.6), (1.7, 18.2, 0.2), mixed)
    toy.material("right", (0.8, 0.9, 0.6), texture_index=1, sphere_index=0, sphere_mode=2, toon_shared=0, toon_index=0)
    picture = toy.quad((-0.2, 18.4, -1.5), (0.7, 0.1, 0.1), (-0.1, 0.4, 0.1))
    toy.material("veil", (1, 1, 1), texture_index=2, sphere_index=1, sphere_mode=1, **soft)
    for number, alpha in enumerate((0.5, 1.0, 0.3)):
        toy.quad((0.2, 17.4, -1.6 - 0.02 * number), (0.6 - 0.15 * number, 0, 0), (0, 0.25, 0))
        toy.material(f"layer {number}", (YELLOW, GREY, RED)[number], alpha)
    for vertex in range(len(toy.uvs) - 100, len(toy.uvs)):
        u, v = toy.uvs[vertex]
        toy.uvs[vertex] = (2.5 * u - 1.2, 0.3 - 1.7 * v)
    slide = np.zeros(4, pmx.UV_OFFSET)
    slide["vertex"], slide["offset"] = picture, (0.4, 0.1, 0, 0)
    toy.morphs.append(pmx.PmxMorph("uv", "", 4, pmx.MORPH_UV, slide))
    tint = np.zeros(1, pmx.MATERIAL_OFFSET)
    tint["material"], tint["operation"], tint["diffuse"] = 7, 1, (-0.3, 0.1, 0.2, 0)
    toy.morphs.append(pmx.PmxMorph("tint", "", 4, pmx.MORPH_MATERIAL, tint))
    return toy


def save_textures(folder: Path) -> None:
    for name, texels in (
        ("plain.png", pattern(64, 32, False)),
        ("odd.png", pattern(45, 77, False)),
        ("alpha.png", pattern(96, 64, True)),
    ):
        Image.fromarray(texels).save(folder / name)


def rich_model(folder: Path) -> Model:
    save_textures(folder)
    return rich_toy().model(folder / "toy.pmx")


def rich_binding(material: bool) -> PoseBinding:
    """The mouth also slides a texture and, with `material`, changes a material: then there is no expression box."""
    terms = (MorphTerm(2), MorphTerm(3), MorphTerm(4)) if material else (MorphTerm(2), MorphTerm(3))
    binding = toy_binding()
    return dataclasses.replace(binding, terms={**binding.terms, "mouth": terms})


def draw_cases(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, picture u8 [H, 3 W, 4]): three poses side by side, by shading and samples a pixel."""
    model = rich_model(folder)
    for shading in SHADINGS:
        for samples in (1, 4, 9):
            view = toy_view(size=64, samples=samples, shading=shading, outline=1.0)
            if shading == "phong" and samples == 9:
                view = dataclasses.replace(view, specular=0.8)
            with CpuScene(prepare_model(model, rich_binding(material=samples == 4), view)) as scene:
                yield f"{shading}-{samples}", np.concatenate(list(scene.posed(np.array(POSES))), axis=1)
