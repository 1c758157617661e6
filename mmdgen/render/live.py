"""A model that is looked at while somebody changes it: any camera, size and face with every picture, uploaded once.

What a face does to vertices and UVs is added on the CPU and only those vertices are written again, so a list of terms
costs nothing to set up, however many morphs a model has. What moves bones or changes materials is decided when the
scene is made, as it decides rigid groups and blending; `needs` says what that is, and `fits` whether a scene has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mmdgen.errors import RenderError
from mmdgen.model.morphs import FlatMorph
from mmdgen.model.records import Model, MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.materials import dynamic_materials
from mmdgen.pose.rig import Frame, Rig, build_rig, draw_ranges
from mmdgen.pose.vocabulary import THA1, PoseParameter, PoseVocabulary
from mmdgen.render.context import check_errors
from mmdgen.render.prepare import Prepared, edge_push
from mmdgen.render.scene import Scene, common_uniforms
from mmdgen.render.target import Box
from mmdgen.render.upload import Textures, vertex_data
from mmdgen.render.view import View

if TYPE_CHECKING:
    from mmdgen.render.renderer import Renderer

FACE = "face"
_MOST_SHOWN = 8  # pictures kept for the next one of the same view
_MOST_REDRAWN = 0.85  # of a picture: above that, it is drawn as a whole
# The head's joints as in `tha1`, and whatever the face does as one parameter.
LIVE = PoseVocabulary(
    "live",
    (
        *(parameter for parameter in THA1.parameters if parameter.kind == "rotation"),
        PoseParameter(FACE, 0, 1, 0, "1: the terms of the moment are applied", "morph"),
    ),
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a scene must have been made for: `bones` that morphs move, `materials` that they change."""

    bones: frozenset[int] = frozenset()
    materials: frozenset[int] = frozenset()

    @classmethod
    def of(cls, model: Model, flat: FlatMorph) -> Needs:
        """Return what `flat` (see `flatten_terms`) needs."""
        return cls(frozenset(flat.bone_index.tolist()), frozenset(dynamic_materials(model, {FACE: flat})))


def live_rig(
    model: Model, neck: int, head: int, terms: Sequence[MorphTerm], center_x: float, heights: tuple[float, float] | None
) -> Rig:
    """Reduce `model` to what can come between `heights` (least and greatest y in MU), seen from anywhere around it.

    `terms` are those that the scene must be able to show, as far as bones and materials are concerned. Everything is
    kept where `heights` is None. Raises `ModelError` as `build_rig`.
    """
    frame = Frame(-np.inf, np.inf, *heights, pixel=1.0) if heights else None
    rig = build_rig(model, PoseBinding(LIVE, neck, head, {FACE: tuple(terms)}, center_x), frame)
    nothing = np.zeros((0, 0, 5), np.float32)
    return replace(
        rig,
        columns=(),
        morph_slot=np.full(len(rig.vertex), -1, np.int32),
        morph_offset=nothing,
        expression_index=rig.index,  # room for the faces of any box
        expression_draws=rig.draws,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """A picture, and what it shows. `place` f32 [v, 3] MU are the kept vertices without the head's turn."""

    view: View
    turn: tuple[float, float, float]
    flat: FlatMorph
    place: np.ndarray
    pixels: np.ndarray


class LiveScene(Scene):
    """A model on the GPU, made from a rig by `live_rig`. `textures` are shared and outlive it.

    Where a picture differs from the one before only by what vertices do, the head not turned, only the box around the
    faces that move is drawn again, from the faces that overlap it: bit for bit what a full picture would be.
    """

    def __init__(self, renderer: Renderer, prepared: Prepared, textures: Textures) -> None:
        super().__init__(renderer, prepared, textures)
        rig = self._rig
        self._rest_data = vertex_data(rig)
        self._row = np.full(len(rig.model.position), -1, np.int32)
        self._row[rig.vertex] = np.arange(len(rig.vertex), dtype=np.int32)
        self._changed = np.zeros(0, np.int32)  # rows that are not as in the rest data
        self._needs = Needs.of(rig.model, rig.flat[FACE])
        self._faces = rig.index.reshape(-1, 3)
        self._material = np.repeat([draw.material for draw in rig.draws], [draw.count // 3 for draw in rig.draws])
        materials = rig.model.materials
        push = rig.model.edge_scale[rig.vertex] * max((item.edge_size for item in materials if item.edge), default=0.0)
        self._edge = np.abs(push.astype(np.float32))
        self._shown: dict[tuple[View, tuple[float, float, float]], _Shown] = {}
        self._inside: tuple[View, Box, np.ndarray] | None = None  # the faces in the expression index buffer

    def fits(self, needs: Needs) -> bool:
        """Return whether this scene can show a face that needs that much."""
        return needs.bones <= self._needs.bones and needs.materials <= self._needs.materials

    def picture(self, view: View, flat: FlatMorph, turn: tuple[float, float, float]) -> np.ndarray:
        """Return a picture u8 [H, W, 4] through the camera of `view` with the face `flat` and the head turned.

        `turn` is head_x, head_y, neck_z in [-1, 1]. Shading and outlines are those that the scene was made with. Raises
        `RenderError` for a face that does not fit or a view without a camera.
        """
        if view.camera is None or view.shading != self._prepared.view.shading:
            raise RenderError("a live picture needs a camera, and the shading that its scene was made with")
        needs = Needs.of(self._rig.model, flat)
        if not self.fits(needs):
            raise RenderError("the scene was not made for the bones or materials of this face")
        self._view, self._common = view, common_uniforms(self._rig, view)
        self._rig = replace(self._rig, flat={FACE: flat})
        self._reshape(flat)
        place = self._place(flat)
        before = self._shown.pop((view, turn), None)
        box = None
        if before is not None and needs == Needs() and not any(turn):
            box = self._changed_box(before, flat, place)
            if box == (0, 0, 0, 0):
                self._remember(before)
                return before.pixels.copy()
        self._write_instances(np.array([[*turn, 1.0]], np.float32))
        target = self._renderer.target(view.size, view.samples, (1, 1))
        self._draw(target, box is not None, 0, 1, box)
        pixels = target.read(box)
        check_errors(self._renderer.context, "drawing")
        if box is not None and before is not None:
            x, y, width, height = target.read_box(box)
            whole = before.pixels.copy()
            whole[y : y + height, x : x + width] = pixels
            pixels = whole
        if needs == Needs() and not any(turn):
            self._remember(_Shown(view, turn, flat, place, pixels))
            return pixels.copy()
        return pixels

    def _remember(self, shown: _Shown) -> None:
        self._shown[shown.view, shown.turn] = shown
        while len(self._shown) > _MOST_SHOWN:
            del self._shown[next(iter(self._shown))]

    # What changes

    def _place(self, flat: FlatMorph) -> np.ndarray:
        """The kept vertices' places with the face, f32 [v, 3] MU."""
        place = self._rest_data["in_position"].copy()
        rows = self._row[flat.vertex_index]
        place[rows[rows >= 0]] += flat.vertex_offset[rows >= 0]
        return place

    def _changed_box(self, before: _Shown, flat: FlatMorph, place: np.ndarray) -> Box | None:
        """Return the pixels that can differ from the picture `before`, from the bottom left; None: draw everything."""
        changed = (before.place != place).any(axis=1)
        for one in (before.flat, flat):  # UVs change nothing in shape, but the pixels of their faces
            rows = self._row[one.uv_index]
            changed[rows[rows >= 0]] = True
        touched = changed[self._faces].any(axis=1)
        if not touched.any():
            return (0, 0, 0, 0)
        corners = np.unique(self._faces[touched])
        view = before.view
        low, high = self._extent(view, np.stack([before.place[corners], place[corners]]), self._edge[corners])
        x, y = (max(0, int(value) - 1) for value in low.min(axis=(0, 1)))
        right, top = (min(view.size, int(value) + 2) for value in high.max(axis=(0, 1)))
        if right <= x or top <= y:
            return (0, 0, 0, 0)
        needed = (x, y, right - x, top - y)
        if needed[2] * needed[3] > _MOST_REDRAWN * view.size**2:
            return None
        return self._window(view, needed, touched, before.place, place)

    def _window(self, view: View, needed: Box, touched: np.ndarray, before: np.ndarray, place: np.ndarray) -> Box:
        """Return a box around `needed` whose faces are in the expression index buffer: the last one, if it will do."""
        x, y, width, height = needed
        if self._inside is not None:
            seen, box, faces = self._inside
            within = box[0] <= x and box[1] <= y and box[0] + box[2] >= x + width and box[1] + box[3] >= y + height
            # Not much larger than needed, and no face moves that was left out.
            if seen == view and within and box[2] * box[3] < 3 * width * height and not (touched & ~faces).any():
                return box
        margin = max(4, view.size // 32)  # so that the next step of a drag needs no other one
        left, bottom = max(0, x - margin), max(0, y - margin)
        right, top = min(view.size, x + width + margin), min(view.size, y + height + margin)
        box = (left, bottom, right - left, top - bottom)
        low, high = self._extent(view, np.stack([before, place, self._rest_data["in_position"]]), self._edge)
        low, high = low.min(axis=0) - 1, high.max(axis=0) + 1
        a, b, c = self._faces.T
        least = np.minimum(np.minimum(low[a], low[b]), low[c])
        most = np.maximum(np.maximum(high[a], high[b]), high[c])
        faces = (least <= (right, top)).all(axis=1) & (most >= (left, bottom)).all(axis=1) | touched
        self._upload.expression_index.write(np.ascontiguousarray(self._faces[faces]).tobytes())
        self._lists.replace_expression(draw_ranges(self._material[faces]))
        self._inside = (view, box, faces)
        return box

    @staticmethod
    def _extent(view: View, place: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return f64 [..., v, 2] twice: the least and greatest x and y in pixels of vertices with their edges."""
        camera = view.camera
        if camera is None or camera.height is None:
            raise RenderError("a live picture needs an orthographic camera")
        scale = view.size / camera.height
        at = (place - np.array(camera.target)) @ camera.axes()[:2].T * scale + view.size / 2
        reach = (edge * edge_push(view, np.zeros((1, 3))) * scale)[:, None]
        return at - reach, at + reach

    def _reshape(self, flat: FlatMorph) -> None:
        """Write the vertices whose place or UV `flat` changes, and those that are to be at rest again."""
        moved, turned = self._row[flat.vertex_index], self._row[flat.uv_index]
        now = np.union1d(moved[moved >= 0], turned[turned >= 0])
        rows = np.union1d(self._changed, now)
        if not len(rows):
            return
        # One write of the span: rows of a face lie close together, and single rows cost a call each.
        first, last = int(rows[0]), int(rows[-1]) + 1
        data = self._rest_data[first:last].copy()
        data["in_position"][moved[moved >= 0] - first] += flat.vertex_offset[moved >= 0]
        data["in_uv"][turned[turned >= 0] - first] += flat.uv_offset[turned >= 0]
        self._upload.vertices.write(data.tobytes(), offset=first * data.dtype.itemsize)
        self._changed = now
