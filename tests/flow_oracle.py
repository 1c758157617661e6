"""Flow and visibility of a picture from the numpy rasteriser alone: the oracle of `test_flow`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from rasteriser import EDGE_WIDTH, Posed, Rasteriser, posed

from mmdgen.model.records import Model
from mmdgen.pose.binding import PoseBinding
from mmdgen.render.view import View


@dataclass(frozen=True)
class Surfaces:
    """What a picture's samples show: vertices `face` i64 [n, 3] with `share` f64 [n, 3], `owner` i64 [n] (-1 none)."""

    face: np.ndarray
    share: np.ndarray
    owner: np.ndarray

    def at(self, shapes: dict[int, np.ndarray], count: int) -> np.ndarray:
        """Where these surfaces are in a shape (see `hulls`), f64 [n, 3] MU."""
        result = np.zeros((len(self.owner), 3))
        for owner in np.unique(self.owner[self.owner >= 0]):
            mine = self.owner == owner
            position = shapes[owner if owner >= count else -1]
            result[mine] = np.einsum("nk,nkc->nc", self.share[mine], position[self.face[mine]])
        return result


class SurfaceRasteriser(Rasteriser):
    """Notes which surface the last fragment of at least half opacity showed."""

    def surfaces(self, shape: Posed) -> tuple[Surfaces, np.ndarray]:
        count = self._side**2
        self._seen = Surfaces(np.zeros((count, 3), np.int64), np.zeros((count, 3)), np.full(count, -1))
        raster = self.draw(shape)
        return self._seen, raster.depth

    def _put(self, part, position, color, owner) -> None:
        # One fragment a sample at a time, in order, so that the depth test of the base class tells who is drawn.
        order = np.argsort(part.sample, kind="stable")
        sample = part.sample[order]
        begins = np.flatnonzero(np.r_[True, sample[1:] != sample[:-1]]) if len(sample) else np.zeros(0, np.int64)
        turn = np.arange(len(sample)) - np.repeat(begins, np.diff(np.r_[begins, len(sample)]))
        for k in range(int(turn.max(initial=-1)) + 1):
            chosen = order[turn == k]
            one = dataclasses.replace(
                part,
                sample=part.sample[chosen],
                face=part.face[chosen],
                share=part.share[chosen],
                front=part.front[chosen],
            )
            before = self._owner[one.sample].copy()
            self._owner[one.sample] = -2
            super()._put(one, position, color[chosen], owner)
            drawn = self._owner[one.sample] == owner
            self._owner[one.sample[~drawn]] = before[~drawn]
            strong = drawn & (color[chosen, 3] >= 0.5)
            place = one.sample[strong]
            self._seen.face[place], self._seen.share[place] = one.face[strong], one.share[strong]
            self._seen.owner[place] = owner


def hulls(model: Model, view: View, shape: Posed) -> dict[int, np.ndarray]:
    """Positions f64 [V, 3] of the bodies (-1) and of each outline (by its owner number)."""
    unit = shape.normal / np.maximum(np.linalg.norm(shape.normal, axis=1, keepdims=True), 1e-30)
    result = {-1: shape.position}
    for number, material in enumerate(model.materials):
        width = material.edge_size * EDGE_WIDTH * view.height * view.outline
        result[number + len(model.materials)] = shape.position + unit * (width * model.edge_scale[:, None])
    return result


def expected_flow(model: Model, binding: PoseBinding, pose: np.ndarray, view: View, fine: int = 4):
    """Return flow f64 [S, S, 2], surface bool [S, S] and visibility bool [S, S], from the oracle alone.

    Visible: the surface that the expression picture, sampled `fine` times finer, shows at the place lies within a pixel
    in depth of the one looked for, or within what its own slope makes of a quarter pixel.
    """
    count, size = len(model.materials), view.size
    calm = np.array(pose, np.float32)
    calm[:3] = 0
    turned, still = posed(model, binding, pose), posed(model, binding, calm)
    coarse = dataclasses.replace(view, samples=1)
    shown, _ = SurfaceRasteriser(model, coarse).surfaces(turned)
    to = hulls(model, view, still)
    a, b = shown.at(hulls(model, view, turned), count), shown.at(to, count)
    scale = size / view.height
    flow = np.stack([b[:, 0] - a[:, 0], a[:, 1] - b[:, 1]], axis=1).reshape(size, size, 2) * scale
    surface = (shown.owner >= 0).reshape(size, size)
    sharp = dataclasses.replace(view, samples=fine**2)
    there, _ = SurfaceRasteriser(model, sharp).surfaces(still)
    depth = there.at(to, count)[:, 2].reshape(size * fine, size * fine)
    kind = np.where(there.owner < 0, -1, there.owner >= count).reshape(depth.shape)
    rows, columns = np.indices((size, size)) + 0.5
    x, y = ((columns + flow[..., 0]) * fine).astype(int), ((rows + flow[..., 1]) * fine).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < size * fine) & (y < size * fine)
    x, y = np.clip(x, 0, size * fine - 1), np.clip(y, 0, size * fine - 1)
    own = (shown.owner >= count).reshape(size, size)
    wide = np.pad(depth, 1, mode="edge")
    slope = np.maximum(np.abs(wide[1:-1, 2:] - wide[1:-1, :-2]), np.abs(wide[2:, 1:-1] - wide[:-2, 1:-1])) / 2
    near = np.abs(depth[y, x] - b[:, 2].reshape(size, size)) <= 1 / scale + np.minimum(slope[y, x], 2 / scale)
    return flow * surface[..., None], surface, surface & inside & near & (kind[y, x] == own)
