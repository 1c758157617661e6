"""What is drawn and how: camera, framing, size, anti-aliasing, light, shading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmdgen.errors import ConfigError
from mmdgen.geometry import look_at, orthographic, perspective

SAMPLE_GRIDS = {1: 1, 4: 2, 9: 3, 16: 4}
PHONG, MMD = "phong", "mmd"
SHADINGS = (PHONG, MMD)
# MikuMikuDance's light as it is when the program starts, measured against its pictures (docs/shading.md).
MMD_LIGHT = 0.6
PHONG_LIGHT = (0.5, 0.5, 0.0)  # ambient, directional and specular where nobody chose

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera anywhere, in MMD's frame (left-handed, +y up); all lengths in MU.

    It stands at `position` and looks at `target`, with +y upwards in the picture. Perspective with the vertical field
    of view `fov_deg`, or orthographic with the picture's `height`: exactly one of them is given. Nothing nearer than
    `near` or farther than `far` is seen. Raises `ConfigError` for values that make no picture.
    """

    position: Vector
    target: Vector
    near: float
    far: float
    fov_deg: float | None = None
    height: float | None = None

    def __post_init__(self) -> None:
        numbers = (*self.position, *self.target, self.near, self.far, self.fov_deg or 0, self.height or 0)
        if len(self.position) != 3 or len(self.target) != 3 or not all(math.isfinite(value) for value in numbers):
            raise ConfigError(f"a camera's position and target are three numbers each, found {self}")
        if (self.fov_deg is None) == (self.height is None):
            raise ConfigError("a camera has either fov (perspective) or height (orthographic)")
        if self.fov_deg is not None and not 0 < self.fov_deg < 180:
            raise ConfigError(f"a camera's fov must be between 0 and 180 degrees, found {self.fov_deg:g}")
        if self.height is not None and not self.height > 0:
            raise ConfigError(f"a camera's height must be positive, found {self.height:g}")
        if not self.near < self.far or (self.fov_deg is not None and not self.near > 0):
            raise ConfigError(f"a camera needs 0 < near < far, found near {self.near:g} and far {self.far:g}")
        across = math.hypot(self.target[0] - self.position[0], self.target[2] - self.position[2])
        if across < 1e-6 * max(1.0, self.distance):
            raise ConfigError("a camera must not look straight up or down, nor at its own position")

    @classmethod
    def from_json(cls, value: object) -> Camera:
        """Return the camera in a JSON object: `position`, `target`, `near`, `far` and `fov` (degrees) or `height`.

        Its frame is right-handed, as in glTF and three.js: z is negated against MMD's. An object that holds such a one
        as `camera` is taken too. Raises `ConfigError`.
        """
        if isinstance(value, dict) and isinstance(value.get("camera"), dict):
            value = value["camera"]
        if not isinstance(value, dict):
            raise ConfigError("a camera is a JSON object with position, target, near, far and fov or height")
        known = {"position", "target", "near", "far", "fov", "height"}
        if unknown := sorted(set(value) - known):
            raise ConfigError(f"a camera has no {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}")
        points = [_point(value, name) for name in ("position", "target")]
        near, far = (_number(value, name, default) for name, default in (("near", 0.1), ("far", 10_000.0)))
        fov, height = (_number(value, name) if value.get(name) is not None else None for name in ("fov", "height"))
        return cls(points[0], points[1], near, far, fov, height)

    @property
    def distance(self) -> float:
        """From the camera to its target, MU."""
        return math.dist(self.position, self.target)

    def transform(self) -> np.ndarray:
        """Return the f32 [4, 4] matrix from MMD's frame to clip coordinates."""
        if self.fov_deg is not None:
            lens = perspective(self.fov_deg, self.near, self.far)
        else:
            half = (self.height or 0) / 2
            lens = orthographic(-half, half, -half, half, self.near, self.far)
        return (lens.astype(np.float64) @ look_at(self.position, self.target)).astype(np.float32)

    def axes(self) -> np.ndarray:
        """Return f64 [3, 3]: what is right, up and forward in the picture, as unit rows in MMD's frame."""
        return look_at(self.position, self.target)[:3, :3]


def _number(value: dict, name: str, default: float | None = None) -> float:
    found = value.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ConfigError(f"a camera's {name} must be a number, found {found!r}")
    return float(found)


def _point(value: dict, name: str) -> Vector:
    found = value.get(name)
    if not isinstance(found, list) or len(found) != 3:
        raise ConfigError(f"a camera's {name} must be a list of three numbers, found {found!r}")
    x, y, z = (_number({name: part}, name) for part in found)
    return (x, y, -z)


@dataclass(frozen=True, slots=True)
class View:
    """An orthographic front view. `center_x`, `center_y`, `height` (of the whole image) are in MU.

    `size` pixels square; `samples` 1, 4, 9 or 16 a pixel (supersampling). `shading` is ``phong`` or ``mmd``. For
    `phong`, `ambient` and `directional` are the white lights' magnitudes (the directional one shines along +z, as the
    front view looks, article section 5.3) and `specular` scales the highlight (0: none, as in the article); `mmd` has
    MikuMikuDance's own light, and refuses others. `outline` scales the edges (0: none). With a `camera`, that is looked
    through instead of the framing.
    """

    center_x: float
    center_y: float
    height: float
    size: int = 256
    samples: int = 4
    ambient: float = PHONG_LIGHT[0]
    directional: float = PHONG_LIGHT[1]
    specular: float = PHONG_LIGHT[2]
    outline: float = 1.0
    shading: str = PHONG
    camera: Camera | None = None

    def __post_init__(self) -> None:
        if self.samples not in SAMPLE_GRIDS:
            raise ConfigError(f"samples must be one of {sorted(SAMPLE_GRIDS)}, found {self.samples}")
        if not self.height > 0:
            raise ConfigError(f"the view's height must be positive, found {self.height}")
        if self.shading not in SHADINGS:
            raise ConfigError(f"unknown shading {self.shading!r}; there is {', '.join(SHADINGS)}")
        if self.shading == MMD and (self.ambient, self.directional, self.specular) != PHONG_LIGHT:
            raise ConfigError("ambient, directional and specular light belong to phong; mmd has MikuMikuDance's own")

    @classmethod
    def of_head(cls, chin_y: float, top_y: float, center_x: float, **settings) -> View:
        """Frame a head: the chin falls on row 3H/4 and the skull's top on row H/4 (article section 4)."""
        if not top_y > chin_y:
            raise ConfigError(f"the skull's top ({top_y:g}) must be above the chin ({chin_y:g})")
        return cls(center_x, (chin_y + top_y) / 2, 2 * (top_y - chin_y), **settings)

    @classmethod
    def through(cls, camera: Camera, **settings) -> View:
        """Look through `camera`."""
        height = camera.height or 2 * camera.distance * math.tan(math.radians(camera.fov_deg or 0) / 2)
        return cls(camera.target[0], camera.target[1], height, camera=camera, **settings)
