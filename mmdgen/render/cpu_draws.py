"""From materials to what the CPU rasteriser's kernels read. The same decisions as `draws.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.model.records import Material
from mmdgen.pose import materials as states
from mmdgen.pose.rig import DrawRange
from mmdgen.render import cpu_kernels as k
from mmdgen.render.cpu_textures import NEVER, CpuTextures
from mmdgen.render.prepare import Prepared, TextureImage, srgb_to_linear
from mmdgen.render.toon import shared_ramp
from mmdgen.render.view import MMD, MMD_LIGHT

# What 8 bits cannot tell from 1: many old models have 0.999, which there only means double-sided.
_OPAQUE = 254.5 / 255
_SECOND_UV = 3  # the sphere mode that is no sphere but a texture with its own UV


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Triangles in drawing order: `corners` u32 [m, 3] rows of the vertices' places, `draw` i32 [m] rows of the table,
    and up to which mip level they hide what is behind them (`solid`) or show nothing (`clear`), i8 [m]."""

    corners: np.ndarray
    draw: np.ndarray
    solid: np.ndarray
    clear: np.ndarray


class DrawTable:
    """What is drawn and how, one row a material's body and one an outline: `ints` i32 [n, INTS + 1] and `values`
    f32 [n, VALUES], of which `set_pose` writes those that a pose changes."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, self._rig, self._view = prepared, prepared.rig, prepared.view
        self._mmd = self._view.shading == MMD
        self.textures = CpuTextures(linear=not self._mmd)
        self.dynamic = states.dynamic_materials(self._rig.model, self._rig.flat)
        self._numbers = {number: self.textures.add(image) for number, image in prepared.images.items()}
        self._ramps: dict[int, TextureImage] = {}
        self._rows: dict[tuple[int, bool], int] = {}
        ints: list[list[int]] = []
        values: list[np.ndarray] = []
        used = sorted({item.material for item in self._rig.draws})
        for edge in (False, True):
            for number in used:
                if edge and not self._has_edge(number):
                    continue
                self._rows[number, edge] = len(ints)
                material = self._rig.model.materials[number]
                ints.append(self._edge_ints(number, material) if edge else self._body_ints(number, material))
                values.append(self._row(number, edge, states.base_state(material)))
        self.hull_vertex, self.hull_draw = self._hulls()
        self.ints = np.array(ints, np.int32).reshape(-1, k.INTS + 1)
        self.values = np.array(values, np.float32).reshape(-1, k.VALUES)

    def faces(self, index: np.ndarray, ranges: tuple[DrawRange, ...]) -> Faces:
        """Return all that is drawn for `ranges` of `index`: bodies, then outlines."""
        corners, rows = [], []
        for edge in (False, True):
            for item in ranges:
                row = self._rows.get((item.material, edge))
                if row is not None:
                    corner = index[item.first : item.first + item.count].reshape(-1, 3)
                    if edge:
                        first, vertices = self._hull[row]
                        corner = first + np.searchsorted(vertices, corner)
                    corners.append(corner)
                    rows.append(np.full(item.count // 3, row, np.int32))
        corner = np.ascontiguousarray(np.concatenate(corners), np.uint32) if corners else np.zeros((0, 3), np.uint32)
        row = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return Faces(corner, row, *self._hiding(corner, row))

    def _hulls(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the outlines' vertices, each once an outline: u32 [h] and its row of the table i32 [h].

        Their places come after those of the rig's vertices.
        """
        self._hull: dict[int, tuple[int, np.ndarray]] = {}
        used: dict[int, list[np.ndarray]] = {}
        for item in self._rig.draws:
            row = self._rows.get((item.material, True))
            if row is not None:
                used.setdefault(row, []).append(self._rig.index[item.first : item.first + item.count])
        first = len(self._rig.vertex)
        for row, parts in used.items():
            vertices = np.unique(np.concatenate(parts))
            self._hull[row] = (first, vertices)
            first += len(vertices)
        vertex = [vertices for _, vertices in self._hull.values()]
        row = [np.full(len(vertices), row, np.int32) for row, (_, vertices) in self._hull.items()]
        if not vertex:
            return np.zeros(0, np.uint32), np.zeros(0, np.int32)
        return np.concatenate(vertex).astype(np.uint32), np.concatenate(row)

    def set_pose(self, pose_states: np.ndarray) -> None:
        """Take the dynamic materials' `material_states` [dynamic, 10, 4] for the next picture."""
        for number, state in zip(self.dynamic, pose_states, strict=True):
            for edge in (False, True):
                row = self._rows.get((number, edge))
                if row is not None:
                    self.values[row] = self._row(number, edge, state)

    # One row

    def _row(self, number: int, edge: bool, state: np.ndarray) -> np.ndarray:
        """Return the values of one draw for a material's state f32 [10, 4], all light and scales already in them."""
        state = state.astype(np.float32, copy=True)
        view, material = self._view, self._rig.model.materials[number]
        if edge:
            colour = state[states.EDGE, :3]
            colour = srgb_to_linear(colour) if not self._mmd else colour
            state[states.EDGE, :3] = colour * state[states.EDGE, 3]
        elif self._mmd:
            lit = state[states.DIFFUSE, :3] * np.float32(MMD_LIGHT) + state[states.AMBIENT, :3]
            state[states.DIFFUSE, :3] = np.clip(lit, 0, 1)
            state[states.SPECULAR, :3] *= np.float32(MMD_LIGHT)
        else:
            state[states.DIFFUSE, :3] *= np.float32(view.directional)
            state[states.AMBIENT, :3] *= np.float32(view.ambient)
            shine = np.array(material.specular, np.float32) * np.float32(view.specular * view.directional)
            state[states.SPECULAR] = np.append(shine, np.float32(material.specular_power))
        return state.reshape(-1)

    def _body_ints(self, number: int, material: Material) -> list[int]:
        row = [0] * (k.INTS + 1)
        dynamic = number in self.dynamic
        row[k.KIND] = k.MMD_BODY if self._mmd else k.PHONG_BODY
        row[k.CULL] = 0 if material.double_sided else k.CULL_BACK
        row[k.TEXTURE] = self._numbers.get(material.texture, -1)
        row[k.SPHERE], row[k.TOON], row[k.MORPHED] = -1, -1, int(dynamic)
        see_through = self._has_alpha(material.texture)
        if self._mmd:
            sphere = material.sphere_mode if material.sphere_texture in self._numbers else 0
            if sphere == _SECOND_UV and self._rig.model.uv1 is None:
                sphere = 0
            row[k.SPHERE_MODE], row[k.SPHERE] = sphere, self._numbers.get(material.sphere_texture, -1)
            row[k.HIDES] = int(sphere > 0 and self._has_alpha(material.sphere_texture))
            see_through = see_through or bool(row[k.HIDES])
            row[k.TOON] = self._toon(material)
            # A morph may bring a highlight where the file has none.
            shiny = material.specular_power > 0 and any(value > 0 for value in material.specular)
            row[k.SPECULAR] = int(dynamic or shiny)
        else:
            row[k.SPECULAR] = int(self._view.specular > 0 and material.specular_power > 0)
        row[k.BLEND] = int(not (material.diffuse[3] > _OPAQUE and not dynamic and not see_through))
        return row

    def _edge_ints(self, number: int, material: Material) -> list[int]:
        row = [0] * (k.INTS + 1)
        dynamic = number in self.dynamic
        row[k.KIND], row[k.CULL] = k.OUTLINE, k.CULL_FRONT
        row[k.TEXTURE] = row[k.SPHERE] = row[k.TOON] = -1
        row[k.MORPHED] = int(dynamic)
        row[k.BLEND] = int(dynamic or states.base_state(material)[states.EDGE, 3] < 1)
        return row

    def _has_edge(self, number: int) -> bool:
        material = self._rig.model.materials[number]
        if self._view.outline <= 0 or not material.edge:
            return False
        return number in self.dynamic or (
            material.edge_size > 0 and material.edge_color[3] > 0 and material.diffuse[3] > 0
        )

    def _has_alpha(self, number: int) -> bool:
        image = self._prepared.images.get(number)
        return image is not None and image.alpha

    def _toon(self, material: Material) -> int:
        if material.toon_shared < 0:
            return self._built(self._numbers.get(material.toon_texture, -1))
        if material.toon_shared not in self._ramps:
            self._ramps[material.toon_shared] = TextureImage(shared_ramp(material.toon_shared), False)
        return self._built(self.textures.add(self._ramps[material.toon_shared]))

    def _built(self, number: int) -> int:
        """Toon ramps are read at their finest level only."""
        if number >= 0:
            self.textures.build(number * k.LEVELS)
        return number

    # Texels

    def _hiding(self, corners: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `Faces.solid` and `Faces.clear`."""
        rig = self._rig
        solid, clear = np.full(len(rows), NEVER, np.int8), np.full(len(rows), NEVER, np.int8)
        uv = rig.model.uv[rig.vertex].astype(np.float32)
        slides = np.zeros(len(uv), bool)  # by a UV morph
        if rig.morph_offset.size:
            moved = rig.morph_slot >= 0
            shifts = np.abs(rig.morph_offset[..., 3:]).max(axis=(1, 2)) > 0
            slides[moved] = shifts[rig.morph_slot[moved]]
        blended = np.logical_and(self.ints[rows, k.BLEND] != 0, self.ints[rows, k.KIND] != k.OUTLINE)
        texture = self.ints[rows, k.TEXTURE]
        for number in np.unique(texture[blended]).tolist():
            chosen = np.flatnonzero(blended & (texture == number))
            if number >= 0:
                chosen = chosen[~slides[corners[chosen]].any(axis=1)]
            solid[chosen], clear[chosen] = self.textures.hiding(number, uv[corners[chosen]])
        return solid, clear
