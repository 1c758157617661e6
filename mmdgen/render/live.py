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
from mmdgen.pose.rig import Frame, Rig, build_rig
from mmdgen.pose.vocabulary import THA1, PoseParameter, PoseVocabulary
from mmdgen.render.prepare import Prepared
from mmdgen.render.scene import Scene, common_uniforms
from mmdgen.render.upload import Textures, vertex_data
from mmdgen.render.view import View

if TYPE_CHECKING:
    from mmdgen.render.renderer import Renderer

FACE = "face"
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
    return replace(rig, columns=(), morph_slot=np.full(len(rig.vertex), -1, np.int32), morph_offset=nothing)


class LiveScene(Scene):
    """A model on the GPU, made from a rig by `live_rig`. `textures` are shared and outlive it."""

    def __init__(self, renderer: Renderer, prepared: Prepared, textures: Textures) -> None:
        super().__init__(renderer, prepared, textures)
        self._rest_data = vertex_data(self._rig)
        self._row = np.full(len(self._rig.model.position), -1, np.int32)
        self._row[self._rig.vertex] = np.arange(len(self._rig.vertex), dtype=np.int32)
        self._changed = np.zeros(0, np.int32)  # rows that are not as in the rest data
        self._needs = Needs.of(self._rig.model, self._rig.flat[FACE])

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
        if not self.fits(Needs.of(self._rig.model, flat)):
            raise RenderError("the scene was not made for the bones or materials of this face")
        self._view, self._common = view, common_uniforms(self._rig, view)
        self._rig = replace(self._rig, flat={FACE: flat})
        self._reshape(flat)
        poses = np.array([[*turn, 1.0]], np.float32)
        return next(self._single(poses, expression=False))

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
