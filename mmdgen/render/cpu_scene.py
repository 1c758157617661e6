"""Draws a prepared model on the CPU, without OpenGL: the rest, expression and posed images of `Scene`.

What is drawn is the same, up to rounding; see docs/render.md for the differences. The pictures are the same bytes on
every machine. Orthographic front views only: a `View.camera` and `flows` need `Scene`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numba
import numpy as np

from mmdgen.errors import RenderError
from mmdgen.geometry import quaternion_matrix
from mmdgen.pose.materials import material_states
from mmdgen.render import cpu_kernels as kernels
from mmdgen.render.cpu_draws import DrawTable, Faces
from mmdgen.render.cpu_simd import ROWS
from mmdgen.render.cpu_vertices import hull_places, pose_vertices
from mmdgen.render.prepare import Prepared, checked_poses, edge_push, expression_poses
from mmdgen.render.view import MMD, SAMPLE_GRIDS

VERSION = 1  # of the pictures: goes up whenever any byte of any of them changes
# Against the way in which MikuMikuDance's light travels, (-0.5, -1, 0.5).
_TO_LIGHT = np.array([0.5, 1.0, -0.5]) / np.sqrt(1.5)
_TO_EYE = np.array([0.0, 0.0, -1.0])
_DEPTH_STEPS = (1 << 24) - 1
_PADDING = 8  # samples that a vector instruction may touch beyond the last one
_CHUNK = 256  # poses evaluated at once

Window = tuple[int, int, int, int]  # first column, first row, end column, end row, from the top left


def describe() -> dict[str, Any]:
    """Return what draws the pictures, for reports and manifests: vendor, renderer, version, software."""
    return {
        "vendor": "mmdgen",
        "renderer": f"mmdgen CPU rasteriser {VERSION}",
        "version": f"numba {numba.__version__}",
        "software": True,
    }


class CpuScene:
    """A model ready to be drawn by the CPU. Use it as a context manager, or call `release`.

    Raises `RenderError` where the view has a camera of its own.
    """

    def __init__(self, prepared: Prepared) -> None:
        if prepared.view.camera is not None:
            raise RenderError("the CPU rasteriser draws front views only; pictures through a camera need OpenGL")
        self._prepared, self._rig, self._view = prepared, prepared.rig, prepared.view
        self._grid = SAMPLE_GRIDS[self._view.samples]
        self._groups = (self._grid, *_groups(self._grid))
        self._table = DrawTable(prepared)
        self._lists: dict[bool, Faces] = {}
        self._vertices = _vertices(prepared)
        self._frame = _frame(prepared)
        self._light = np.concatenate([_TO_LIGHT, _half(_TO_LIGHT + _TO_EYE)])
        count, side = len(self._rig.vertex), self._view.size * self._grid
        self._posed, self._normals, self._hulls = (np.zeros((count, 3), np.float32) for _ in range(3))
        self._uvs = np.zeros((count, 2), np.float32)
        self._places = np.zeros((count + len(self._table.hull_vertex), 3), np.float64)
        uv1 = self._rig.model.uv1
        self._uv1 = np.zeros((1, 2), np.float32)
        if self._view.shading == MMD and uv1 is not None:
            self._uv1 = np.ascontiguousarray(uv1[self._rig.vertex, :2], np.float32)
        shape = (side, side + _PADDING)
        self._depths, self._owners = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self._colors = np.zeros((side, side, 4), np.float32)
        most = len(self._faces(False).corners)
        self._numbers = np.zeros((most, kernels.NUMBERS), np.int32)
        self._planes = np.zeros((most, kernels.PLANES), np.float32)
        self._ends = np.zeros((2, ROWS), np.int32)
        self._box = self._pixel_box()
        self._rest: np.ndarray | None = None

    # Pictures

    def rest(self) -> np.ndarray:
        """Return the rest image, u8 [H, W, 4]."""
        if self._rest is None:
            self._rest = next(self._pictures(self._rig.binding.vocabulary.rest[None], expression=False))
        return self._rest.copy()

    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        """Yield one image u8 [H, W, 4] per pose of f32 [N, K]."""
        return self._pictures(checked_poses(self._rig.binding.vocabulary, poses), expression=False)

    def expressions(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        """Yield one image u8 [H, W, 4] per pose of f32 [N, K], with the head at rest."""
        return self._pictures(expression_poses(self._rig.binding.vocabulary, poses), expression=True)

    def flows(self, poses: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Raise `RenderError`: flows are drawn with OpenGL."""
        raise RenderError("the CPU rasteriser draws no flow; use --renderer gl")

    def _pictures(self, poses: np.ndarray, expression: bool) -> Iterator[np.ndarray]:
        size = self._view.size
        whole: Window = (0, 0, size, size)
        partial = expression and self._box is not None
        window = self._box if partial and self._box is not None else whole
        rest = self.rest() if partial else None
        for start in range(0, len(poses), _CHUNK):
            data = _PoseData(self._prepared, self._table, poses[start : start + _CHUNK])
            for number in range(data.count):
                picture = np.empty((size, size, 4), np.uint8) if rest is None else rest.copy()
                if window[0] < window[2]:
                    self._draw(data, number, self._faces(partial), window, picture)
                yield picture

    # Drawing

    def _draw(self, data: _PoseData, number: int, faces: Faces, window: Window, picture: np.ndarray) -> None:
        """Draw pose `number` of `data` into `window` (pixels) of `picture`."""
        table, grid = self._table, self._grid
        if table.dynamic:
            table.set_pose(data.states[number])
        self._move(data, number)
        textures = table.textures
        codes, borders = textures.tables[2:]
        mesh = (self._normals, self._uvs, self._places, self._uv1)
        buffers = (self._depths, self._owners, self._colors, self._numbers, self._planes, self._ends)
        samples = tuple(value * grid for value in window)
        while True:
            wanted = np.zeros(len(textures.texels), np.uint8)
            tables = (table.ints, table.values, textures.sizes, textures.texels)
            kernels.draw_faces(
                faces.corners,
                faces.draw,
                faces.solid,
                faces.clear,
                mesh,
                self._light,
                samples,
                tables,
                buffers,
                wanted,
            )
            kernels.resolve(
                faces.corners,
                mesh,
                self._light,
                window,
                self._groups,
                tables,
                buffers,
                wanted,
                codes,
                borders,
                picture,
            )
            missing = np.flatnonzero(wanted)
            if not len(missing):
                return
            # Drawn with other levels of these textures than it should be: make them, and draw it once more.
            for row in missing.tolist():
                textures.build(row)

    def _move(self, data: _PoseData, number: int) -> None:
        groups = (data.matrices[number], data.quaternions[number])
        results = (self._posed, self._normals, self._uvs, self._places, self._hulls)
        pose_vertices(self._vertices, groups, data.weights[number], self._frame, *results)
        table, size = self._table, (kernels.EDGE_SIZE, self._table.values)
        args = (table.hull_vertex, table.hull_draw, size, self._frame, self._places, len(self._posed))
        hull_places(self._posed, self._hulls, *args)

    def posed_vertices(self, pose: np.ndarray) -> np.ndarray:
        """Return the positions f32 [v, 3] MU of the kept vertices (`Rig.vertex`) under a pose f32 [K]."""
        poses = checked_poses(self._rig.binding.vocabulary, np.asarray(pose)[None])
        self._move(_PoseData(self._prepared, self._table, poses), 0)
        return self._posed.copy()

    def _faces(self, expression: bool) -> Faces:
        if expression not in self._lists:
            rig = self._rig
            ranges = rig.expression_draws if expression else rig.draws
            self._lists[expression] = self._table.faces(rig.expression_index if expression else rig.index, ranges)
        return self._lists[expression]

    def _pixel_box(self) -> Window | None:
        """Return the expression box in pixels, one pixel wider all round; None for everything."""
        if self._rig.expression_box is None:
            return None
        left, right, bottom, top = self._rig.expression_box
        view = self._view
        scale, size = view.size / view.height, view.size
        x, y = view.center_x - view.height / 2, view.center_y + view.height / 2
        x0 = int(np.clip(np.floor((left - x) * scale) - 1, 0, size))
        x1 = int(np.clip(np.ceil((right - x) * scale) + 1, 0, size))
        y0 = int(np.clip(np.floor((y - top) * scale) - 1, 0, size))
        y1 = int(np.clip(np.ceil((y - bottom) * scale) + 1, 0, size))
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else (0, 0, 0, 0)

    def release(self) -> None:
        """Nothing to free that Python would not; the picture of the rest pose and the texels go with the object."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _PoseData:
    """What poses f32 [N, K] make of bones, morphs and materials."""

    def __init__(self, prepared: Prepared, table: DrawTable, poses: np.ndarray) -> None:
        rig = prepared.rig
        rotation, translation = rig.evaluate(poses)
        self.count = len(poses)
        self.matrices = np.zeros((*rotation.shape[:2], 3, 4), np.float32)
        self.matrices[..., :3] = quaternion_matrix(rotation)
        self.matrices[..., 3] = translation
        self.quaternions = np.ascontiguousarray(rotation, np.float32)
        self.weights = rig.morph_weights(poses)
        self.states = np.zeros(0)
        if table.dynamic:
            self.states = material_states(rig.model, rig.binding, rig.flat, table.dynamic, poses)


def _groups(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of a pixel in groups of four, the last one filled up with its first: columns and rows i64
    [g, 4, 2], and the same plus 1/2, f32 [g, 2, 4]."""
    number = np.arange(-(-side * side // 4) * 4)
    number = np.where(number < side * side, number, number // 4 * 4).reshape(-1, 4)
    cells = np.stack([number % side, number // side], axis=-1).astype(np.int64)
    return cells, np.ascontiguousarray(cells.transpose(0, 2, 1) + 0.5, np.float32)


def _half(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _vertices(prepared: Prepared) -> tuple[np.ndarray, ...]:
    """Return the kept vertices as `pose_vertices` takes them."""
    rig = prepared.rig
    model, kept = rig.model, rig.vertex
    morphs = rig.morph_offset if rig.morph_offset.size else np.zeros((1, max(1, len(rig.columns)), 5), np.float32)
    return (
        np.ascontiguousarray(model.position[kept], np.float32),
        np.ascontiguousarray(model.normal[kept], np.float32),
        np.ascontiguousarray(model.uv[kept], np.float32),
        np.ascontiguousarray(rig.group_index, np.uint8),
        np.ascontiguousarray(rig.group_weight, np.float32),
        np.ascontiguousarray(model.edge_scale[kept], np.float32),
        np.ascontiguousarray(rig.morph_slot, np.int32),
        np.ascontiguousarray(morphs, np.float32),
        np.ascontiguousarray(rig.sdef_slot, np.int32),
        np.ascontiguousarray(rig.sdef if len(rig.sdef) else np.zeros((1, 3, 3)), np.float32),
    )


def _frame(prepared: Prepared) -> np.ndarray:
    """Return the picture's frame as `pose_vertices` takes it, f64 [6]."""
    rig, view = prepared.rig, prepared.view
    near, far = rig.depth
    push = edge_push(view, rig.model.skeleton.rest)
    left, top = view.center_x - view.height / 2, view.center_y + view.height / 2
    scale = view.size * SAMPLE_GRIDS[view.samples] / view.height
    return np.array([left, top, scale, near, _DEPTH_STEPS / (far - near), push], np.float64)
