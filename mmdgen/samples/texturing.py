"""All textures of one character, as files."""

from __future__ import annotations

from dataclasses import dataclass

from mmdgen.samples.assemble import MATERIALS
from mmdgen.samples.clothespaint import paint_clothes
from mmdgen.samples.conventions import Conventions
from mmdgen.samples.eyeshape import EyeShape
from mmdgen.samples.facepaint import (
    paint_blush,
    paint_brow,
    paint_highlight,
    paint_iris,
    paint_lash,
    paint_mouth,
    paint_sclera,
    paint_skin,
)
from mmdgen.samples.hairpaint import paint_hair, paint_sphere, paint_toon
from mmdgen.samples.mouthshape import MouthShape
from mmdgen.samples.paint import bmp_bytes
from mmdgen.samples.traits import Traits


@dataclass(frozen=True, slots=True)
class TextureFile:
    """A file name without folder, and what is in it."""

    file: str
    content: bytes


def paint_textures(
    traits: Traits, habits: Conventions, shape: EyeShape, mouth: MouthShape, used: set[str]
) -> dict[str, TextureFile]:
    """Return the textures by key, in the file's order: those of the materials `used`, sphere map and toon ramps.

    The sphere map is a PNG, or as in older models a BMP whose name says how it is mixed (.sph multiplied, .spa added).
    """
    pictures = {
        "face": paint_skin(traits, shape.center_y, mouth.y),
        "sclera": paint_sclera(traits),
        "iris": paint_iris(traits),
        "highlight": paint_highlight(traits),
        "mouth": paint_mouth(traits),
        "lash": paint_lash(traits),
        "brow": paint_brow(traits),
        "hair": paint_hair(traits),
        "hair_inside": paint_hair(traits, inside=True),
        **paint_clothes(traits),
    }
    if habits.hidden_blush:
        pictures["blush"] = paint_blush(traits)
    needed = {MATERIALS[material][2] for material in used}
    textures = {key: TextureFile(f"{key}.png", content) for key, content in pictures.items() if key in needed}
    if habits.sphere:
        picture = paint_sphere(traits, habits.sphere)
        if habits.legacy_sphere:
            textures["sphere"] = TextureFile("sphere.spa" if habits.sphere == 2 else "sphere.sph", bmp_bytes(picture))
        else:
            textures["sphere"] = TextureFile("sphere.png", picture.png())
    if habits.toon == "own":
        textures["toon_skin"] = TextureFile("toon_skin.png", paint_toon(traits, True))
        textures["toon"] = TextureFile("toon.png", paint_toon(traits, False))
    return textures
