"""A model made ready for live pictures: reduced to its head, its textures decoded, its scenes as they are needed."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from mmdgen.errors import MmdgenError
from mmdgen.model.textures import decode_texture, has_alpha
from mmdgen.pose.rig import Rig
from mmdgen.render.live import LiveScene, Needs, live_rig
from mmdgen.render.prepare import TextureImage, premultiply, used_textures
from mmdgen.render.upload import Textures
from mmdgen.render.view import PHONG, Camera, View
from mmdgen.web.protocol import FRONT, Framing
from mmdgen.web.subject import Subject

LARGEST_SIDE = 2048  # texels: finer ones cannot be seen in pictures of at most 1024 pixels, but cost seconds
SAMPLES = 4  # a pixel, of pictures that are looked at in peace


@dataclass(slots=True)
class Ready:
    """What drawing a subject needs: made by a loader, then used by the drawing thread alone.

    `rig` holds what lies between the subject's heights, `images` its textures, by number (`missing`: the names of those
    that cannot be decoded). `depth` is the model's middle (x, z) and how far it reaches from there, MU. `size` is about
    how many bytes all that takes. `dropped` ones are released after every picture.
    """

    subject: Subject
    rig: Rig
    images: dict[int, TextureImage]
    missing: tuple[str, ...]
    depth: tuple[float, float, float]
    size: int
    textures: Textures | None = None
    scenes: OrderedDict[tuple[Needs, bool], LiveScene] = field(default_factory=OrderedDict)
    dropped: bool = False

    def release(self) -> None:
        for scene in self.scenes.values():
            scene.release()
        self.scenes.clear()
        if self.textures:
            self.textures.release()
            self.textures = None


def live_view(framing: Framing, size: int, depth: tuple[float, float, float], samples: int = SAMPLES) -> View:
    """Return the view of a framing. `depth` is the middle (x, z) of the model and how far it reaches from there, MU."""
    x, z, reach = depth
    stand = 2 * reach + 1.0
    if framing.source == FRONT:
        place, target = (framing.across, framing.y, z - stand), (framing.across, framing.y, z)
    else:  # from the character's left, so that z grows to the right
        place, target = (x + stand, framing.y, framing.across), (x, framing.y, framing.across)
    return View.through(Camera(place, target, 0.5, 2 * stand, None, framing.height), size=size, samples=samples)


def prepare(subject: Subject) -> Ready:
    """Reduce a model to what is seen around its head and decode those textures."""
    model, finding = subject.model, subject.finding
    rig = live_rig(model, finding.neck, finding.head, (), subject.bounds.center_x, subject.heights)
    low, high = model.position.min(axis=0), model.position.max(axis=0)
    middle = (low + high) / 2
    reach = float(np.linalg.norm(high - low)) + 1.0
    ready = Ready(subject, rig, {}, (), (float(middle[0]), float(middle[2]), reach), subject.size)
    decode(ready, rig)
    return ready


def decode(ready: Ready, rig: Rig) -> None:
    """Add the textures that `rig` needs; one that cannot be decoded is drawn white and listed."""
    model = ready.subject.model
    known = {model.textures[number].path: image for number, image in ready.images.items()}
    missing = list(ready.missing)
    for number in used_textures(rig, PHONG):
        texture = model.textures[number]
        if number in ready.images:
            continue
        if texture.path not in known:
            try:
                texels = decode_texture(texture)
            except MmdgenError:
                missing.append(texture.name)
                continue
            alpha = has_alpha(texels)
            texels = smaller(premultiply(texels) if alpha else texels, LARGEST_SIDE)
            known[texture.path] = TextureImage(texels, alpha)
            ready.size += 2 * texels.nbytes  # here and, with its mip maps, on the GPU
        ready.images[number] = known[texture.path]
    ready.missing = tuple(dict.fromkeys(missing))


def smaller(texels: np.ndarray, side: int) -> np.ndarray:
    """Return u8 [H, W, 4] halved until no side is longer than `side`: means of 2 x 2 texels, as sRGB values."""
    while max(texels.shape[:2]) > side:
        height, width = (length - length % 2 if length > 1 else 1 for length in texels.shape[:2])
        down, right = min(2, height), min(2, width)
        total = np.zeros((height // down, width // right, 4), np.uint16)
        for row, column in itertools.product(range(down), range(right)):
            total += texels[row:height:down, column:width:right]
        texels = ((total + down * right // 2) // (down * right)).astype(np.uint8)
    return texels
