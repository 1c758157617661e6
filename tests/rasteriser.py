"""A plain rasteriser in numpy: what a picture with `--shading phong` is by its definition, slowly and in f64.

It shares no code with the renderer. From the formulas alone (design of the pictures in mmdgen/DESIGN.md, "Drawing"):

* An orthographic view along +z; a pixel is a grid of samples, each the point in the middle of its cell. Vertices lie on
  a grid of 1/256 sample, as GPUs and llvmpipe place them; a sample on an edge belongs to one of its two triangles.
* Materials in file order, then all outlines. Depth test "not farther", depth written by all. Front faces are clockwise.
* Linear light: colour = min((ambient La + diffuse max(n.l, 0) Ld) texture + specular max(n.l, 0)^power Ld, 1) with
  l = -z and the normal turned to the seen side; alpha = diffuse alpha x texture alpha; drawn over what is there.
* Textures: sRGB, multiplied by alpha in linear light before any filtering, REPEAT, bilinear on the nearest mip level
  (OpenGL 4.3 core, section 8.14), each level half the one before.
* Outlines: back faces moved out along the unit normal by edge size x vertex scale x 0.0015 of the view's height.
* A pixel is the mean of its premultiplied samples, made straight, then sRGB; 0 where alpha rounds to 0.

Positions come from the CPU oracle of `mmdgen.pose.skinning`.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import Material, Model, MorphKind
from mmdgen.model.textures import decode_image
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.skinning import skin
from mmdgen.render.view import View

EDGE_WIDTH = 0.0015  # of the view's height
_SUBPIXEL = 256
_DEPTH_STEPS = 2**24 - 1
_CANDIDATES = 400_000  # samples looked at together
_INVISIBLE = 0.5 / 255


def decode(value: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] -> linear light (IEC 61966-2-1)."""
    value = np.asarray(value, np.float64)
    result = value / 12.92
    upper = value > 0.04045
    result[upper] = np.power((value[upper] + 0.055) / 1.055, 2.4)
    return result


def encode(value: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] -> sRGB (IEC 61966-2-1)."""
    value = np.asarray(value, np.float64)
    result = value * 12.92
    upper = value > 0.0031308
    result[upper] = 1.055 * np.power(value[upper], 1 / 2.4) - 0.055
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """A model under one pose: `position`, `normal` (shorter than 1 where bones blend) f64 [V, 3], `uv` f64 [V, 2]."""

    position: np.ndarray
    normal: np.ndarray
    uv: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """`image` u8 [H, W, 4], straight sRGB; `samples` f64 [H g, W g, 4], premultiplied linear light; `owner` i32
    [H g, W g], which draw was the last to show there (materials, then outlines from the number of materials on; -1 for
    none); `depth` f64 [H g, W g] MU, infinite where there is nothing; row 0 on top."""

    image: np.ndarray
    samples: np.ndarray
    owner: np.ndarray
    depth: np.ndarray

    def interior(self, depth_step: float = np.inf) -> np.ndarray:
        """Return bool [H, W]: all samples of the pixel and its eight neighbours show one and the same draw, and are not
        farther apart in depth than `depth_step` MU."""
        size = len(self.image)
        grid = len(self.owner) // size

        def extreme(values: np.ndarray, ufunc: np.ufunc) -> np.ndarray:
            cell = ufunc.reduce(values.reshape(size, grid, size, grid), axis=(1, 3))
            wide = np.pad(cell, 1, mode="edge")
            rows = ufunc(ufunc(wide[:-2], wide[1:-1]), wide[2:])
            return ufunc(ufunc(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])

        same = extreme(self.owner, np.minimum) == extreme(self.owner, np.maximum)
        depth = np.where(np.isfinite(self.depth), self.depth, 1e6)
        return same & (extreme(depth, np.maximum) - extreme(depth, np.minimum) <= depth_step)


def posed(model: Model, binding: PoseBinding, pose: np.ndarray) -> Posed:
    """Return `model` under one pose f32 [K] by the CPU oracle."""
    # The oracle moves points. A normal is the difference of two of them, once morphs of vertices are left out.
    still = [
        dataclasses.replace(item, offset=np.zeros_like(item.offset)) if item.kind == MorphKind.VERTEX else item
        for item in model.morphs
    ]
    foot = dataclasses.replace(model, morphs=tuple(still))
    tip = dataclasses.replace(foot, position=model.position.astype(np.float64) + model.normal)
    uv = model.uv.astype(np.float64)
    for value, parameter in zip(np.asarray(pose, np.float64), binding.vocabulary.parameters, strict=True):
        if parameter.kind == "morph":
            flat = flatten_terms(model, binding.terms[parameter.name], binding.center_x)
            np.add.at(uv, flat.uv_index, flat.uv_offset[:, :2] * value)
    normal = skin(tip, binding, pose) - skin(foot, binding, pose)
    return Posed(skin(model, binding, pose), normal, uv)


class Texture:
    """Premultiplied linear light, f64 [H, W, 4] a level down to one texel, each rounded to 8 bits of sRGB as stored."""

    def __init__(self, texels: np.ndarray) -> None:
        level = texels / 255.0
        self.alpha = bool((texels[..., 3] < 255).any())
        level[..., :3] = decode(level[..., :3]) * level[..., 3:]
        self.levels = [_stored(level)]
        while max(self.levels[-1].shape[:2]) > 1:
            self.levels.append(_stored(_halved(self.levels[-1])))

    def fetch(self, uv: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return texels f64 [n, 4] at uv f64 [n, 2] from mip levels i64 [n]."""
        result = np.empty((len(uv), 4))
        for number in np.unique(level):
            chosen = level == number
            result[chosen] = _bilinear(self.levels[number], uv[chosen])
        return result

    def level(self, gradient: np.ndarray) -> np.ndarray:
        """Return the nearest mip level, i64 [n], for d(uv)/d(xy) f64 [n, 2, 2] per sample."""
        height, width = self.levels[0].shape[:2]
        scale = np.linalg.norm(gradient * np.array([width, height])[None, :, None], axis=1).max(axis=1)
        level = np.ceil(np.log2(np.maximum(scale, 1e-30)) + 0.5) - 1
        return np.clip(level, 0, len(self.levels) - 1).astype(np.int64)


@functools.lru_cache(maxsize=64)
def _load(data: bytes) -> Texture:
    return Texture(decode_image(data))


def _stored(level: np.ndarray) -> np.ndarray:
    result = np.rint(np.concatenate([encode(level[..., :3]), level[..., 3:]], axis=-1) * 255) / 255
    result[..., :3] = decode(result[..., :3])
    return result


def _halved(level: np.ndarray) -> np.ndarray:
    """The next level: each texel the mean of the four under it (of odd sides, bilinear in its middle)."""
    height, width = (max(1, side // 2) for side in level.shape[:2])
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return _bilinear(level, np.stack([u.ravel(), v.ravel()], axis=1)).reshape(height, width, 4)


def _bilinear(level: np.ndarray, uv: np.ndarray) -> np.ndarray:
    height, width = level.shape[:2]
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    left, right = (np.mod(x0 + k, width).astype(np.int64) for k in (0, 1))
    top, bottom = (np.mod(y0 + k, height).astype(np.int64) for k in (0, 1))
    upper = level[top, left] * (1 - fx) + level[top, right] * fx
    lower = level[bottom, left] * (1 - fx) + level[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


@dataclass(slots=True)
class _Fragments:
    """n samples hit by triangles, in drawing order.

    `sample` i64 [n] row by row from the top; `face` i32 [n, 3] vertices, `share` f64 [n, 3] of each; `front` bool [n].
    """

    sample: np.ndarray
    face: np.ndarray
    share: np.ndarray
    front: np.ndarray


class Rasteriser:
    """Draws pictures of one model; textures are decoded once."""

    def __init__(self, model: Model, view: View) -> None:
        self._model, self._view = model, view
        self._grid = {1: 1, 4: 2, 9: 3, 16: 4}[view.samples]
        self._side = view.size * self._grid
        self._textures: dict[int, Texture | None] = {-1: None}

    def draw(self, shape: Posed) -> Raster:
        model, count = self._model, self._side**2
        self._color, self._depth = np.zeros((count, 4)), np.full(count, np.inf)
        self._owner = np.full(count, -1, np.int32)
        self._range = (shape.position[:, 2].min() - 10, shape.position[:, 2].max() + 10)
        for number, material in enumerate(model.materials):
            if material.diffuse[3] > 0:
                for part in self._covered(self._faces(material), shape.position, (True, material.double_sided)):
                    self._put(part, shape.position, self._body(material, shape, part), number)
        if self._view.outline > 0:
            for number, material in enumerate(model.materials):
                if material.edge and material.diffuse[3] > 0 and material.edge_color[3] > 0:
                    self._outline(material, shape, number + len(model.materials))
        return self._resolved()

    def _faces(self, material: Material) -> np.ndarray:
        return self._model.face[material.first_face : material.first_face + material.face_count]

    def _covered(self, faces: np.ndarray, position: np.ndarray, shown: tuple[bool, bool]):
        """Yield fragments of `faces` in order; `shown`: whether fronts and backs are drawn."""
        view, side = self._view, self._side
        corner = position[faces]
        x = (corner[..., 0] - (view.center_x - view.height / 2)) / view.height * side
        y = ((view.center_y + view.height / 2) - corner[..., 1]) / view.height * side  # down
        x, y = (np.rint(value * _SUBPIXEL) / _SUBPIXEL for value in (x, y))
        area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
        x0, y0 = (np.clip(np.ceil(value.min(axis=1) - 0.5), 0, side).astype(np.int64) for value in (x, y))
        x1, y1 = (np.clip(np.floor(value.max(axis=1) - 0.5) + 1, 0, side).astype(np.int64) for value in (x, y))
        wide, high = np.maximum(x1 - x0, 0), np.maximum(y1 - y0, 0)
        seen = ((area > 0) & shown[0]) | ((area < 0) & shown[1])  # y counts down: clockwise is positive
        cells = np.where(seen, wide * high, 0)
        start = 0
        while start < len(faces):
            total = np.cumsum(cells[start:])
            stop = start + max(1, int(np.searchsorted(total, _CANDIDATES, "right")))
            rows = np.arange(start, stop)
            face = np.repeat(rows, cells[rows])
            first = np.repeat(np.cumsum(cells[rows]) - cells[rows], cells[rows])
            place = np.arange(len(face)) - first
            column, row = x0[face] + place % np.maximum(wide[face], 1), y0[face] + place // np.maximum(wide[face], 1)
            share, inside = self._shares(x[face], y[face], area[face], column + 0.5, row + 0.5)
            face, share = face[inside], share[inside]
            yield _Fragments((row * side + column)[inside], faces[face], share, area[face] > 0)
            start = stop

    @staticmethod
    def _shares(x: np.ndarray, y: np.ndarray, area: np.ndarray, px: np.ndarray, py: np.ndarray):
        """Return barycentric coordinates f64 [n, 3] of points and whether they lie inside; all products are exact."""
        sign = np.sign(area)[:, None]
        share, inside = np.empty((len(px), 3)), np.ones(len(px), bool)
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            dx, dy = x[:, j] - x[:, i], y[:, j] - y[:, i]
            value = (dx * (py - y[:, i]) - dy * (px - x[:, i])) * sign[:, 0]
            share[:, k] = value / np.abs(area)
            dx, dy = dx * sign[:, 0], dy * sign[:, 0]
            inside &= (value > 0) | ((value == 0) & ((dy < 0) | ((dy == 0) & (dx > 0))))  # top and left edges
        return share, inside

    def _body(self, material: Material, shape: Posed, part: _Fragments) -> np.ndarray:
        """Return premultiplied linear colours f64 [n, 4]; alpha below the visible means nothing is drawn."""
        view, texture = self._view, self._texture(material.texture)
        texel = np.ones((len(part.sample), 4))
        if texture is not None:
            uv = np.einsum("nk,nkc->nc", part.share, shape.uv[part.face])
            texel = texture.fetch(uv, texture.level(self._gradient(shape, part.face)))
        normal = np.einsum("nk,nkc->nc", part.share, shape.normal[part.face])
        facing = -normal[:, 2] / np.maximum(np.linalg.norm(normal, axis=1), 1e-10)
        lambert = np.maximum(np.where(part.front, facing, -facing), 0)[:, None]
        diffuse, ambient = (np.clip(value, 0, 1) for value in (material.diffuse, material.ambient))
        alpha = texel[:, 3:] * diffuse[3]
        if diffuse[3] > 254.5 / 255 and not (texture is not None and texture.alpha):
            alpha = np.ones_like(alpha)
        light = ambient * view.ambient + diffuse[:3] * view.directional * lambert
        color = light * texel[:, :3] * (alpha / np.maximum(texel[:, 3:], 1e-12))
        if view.specular > 0 and material.specular_power > 0:
            shine = np.where(lambert > 0, np.maximum(lambert, 1e-300) ** material.specular_power, 0)
            color = color + np.array(material.specular) * view.specular * view.directional * shine * alpha
        return np.concatenate([np.minimum(color, alpha), alpha], axis=1)

    def _gradient(self, shape: Posed, face: np.ndarray) -> np.ndarray:
        """Return d(u, v) / d(x, y) f64 [n, 2, 2] per sample."""
        scale = self._side / self._view.height
        a, b, c = (shape.position[face[:, k], :2] * scale for k in range(3))
        ta, tb, tc = (shape.uv[face[:, k]] for k in range(3))
        (bx, by), (cx, cy) = (b - a).T, (c - a).T
        inverse = np.stack([np.stack([cy, -cx], axis=1), np.stack([-by, bx], axis=1)], axis=1)  # times the determinant
        edges = np.stack([tb - ta, tc - ta], axis=2)  # [n, uv, edge]
        determinant = bx * cy - by * cx
        return np.einsum("nte,nex->ntx", edges, inverse) / determinant[:, None, None]

    def _texture(self, number: int) -> Texture | None:
        if number not in self._textures:
            reference = self._model.textures[number]
            self._textures[number] = _load(reference.path.read_bytes()) if reference.path else None
        return self._textures[number]

    def _outline(self, material: Material, shape: Posed, owner: int) -> None:
        width = material.edge_size * EDGE_WIDTH * self._view.height * self._view.outline
        unit = shape.normal / np.maximum(np.linalg.norm(shape.normal, axis=1, keepdims=True), 1e-30)
        hull = shape.position + unit * (width * self._model.edge_scale[:, None])
        alpha = min(material.edge_color[3], 1.0)
        color = np.append(decode(np.clip(np.array(material.edge_color[:3]), 0, 1)) * alpha, alpha)
        for part in self._covered(self._faces(material), hull, (False, True)):
            self._put(part, hull, np.tile(color, (len(part.sample), 1)), owner)

    def _put(self, part: _Fragments, position: np.ndarray, color: np.ndarray, owner: int) -> None:
        """Test, blend and write fragments one after another at each sample, all samples at once."""
        z = np.einsum("nk,nk->n", part.share, position[part.face, 2])
        low, high = self._range
        z = np.rint((z - low) / (high - low) * _DEPTH_STEPS) / _DEPTH_STEPS * (high - low) + low
        drawn = np.flatnonzero(color[:, 3] >= _INVISIBLE)
        order = drawn[np.argsort(part.sample[drawn], kind="stable")]
        sample = part.sample[order]
        begins = np.flatnonzero(np.r_[True, sample[1:] != sample[:-1]]) if len(sample) else np.zeros(0, np.int64)
        turn = np.arange(len(sample)) - np.repeat(begins, np.diff(np.r_[begins, len(sample)]))
        for k in range(int(turn.max(initial=-1)) + 1):
            chosen = order[turn == k]
            chosen = chosen[z[chosen] <= self._depth[part.sample[chosen]]]
            place = part.sample[chosen]
            self._color[place] = color[chosen] + self._color[place] * (1 - color[chosen, 3:])
            self._depth[place] = z[chosen]
            self._owner[place] = owner

    def _resolved(self) -> Raster:
        side, size, grid = self._side, self._view.size, self._grid
        mean = self._color.reshape(size, grid, size, grid, 4).mean(axis=(1, 3))
        alpha = mean[..., 3:]
        straight = encode(np.clip(mean[..., :3] / np.maximum(alpha, 1e-12), 0, 1))
        image = np.rint(np.concatenate([straight, alpha], axis=-1) * 255)
        image[alpha[..., 0] < _INVISIBLE] = 0
        square = (side, side)
        return Raster(
            image.astype(np.uint8),
            self._color.reshape(*square, 4),
            self._owner.reshape(square),
            self._depth.reshape(square),
        )


def rasterise(model: Model, binding: PoseBinding, pose: np.ndarray, view: View) -> Raster:
    """Return the picture of `model` under one pose f32 [K]."""
    return Rasteriser(model, view).draw(posed(model, binding, pose))
