"""From materials to draw calls: which program, state, textures and uniforms each one takes.

Materials are drawn in MMD's order, bodies first, then all outlines. Opaque ones are drawn without blending or discard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import moderngl
import numpy as np

from mmdgen.model.records import Material
from mmdgen.pose.materials import (
    AMBIENT,
    DIFFUSE,
    EDGE,
    SOLID_ROWS,
    SPECULAR,
    STATE_ROWS,
    base_state,
    dynamic_materials,
)
from mmdgen.pose.rig import DrawRange, Rig
from mmdgen.render.prepare import Prepared, srgb_to_linear
from mmdgen.render.programs import SPHERE_SECOND_UV
from mmdgen.render.upload import Upload, dense_groups, dense_morphs
from mmdgen.render.view import MMD, View

if TYPE_CHECKING:
    from mmdgen.render.renderer import Renderer

# What 8 bits cannot tell from 1: many old models have 0.999, which there only means double-sided.
_OPAQUE = 254.5 / 255
# One pose's data is a multiple of this many vec4: uniform block offsets are multiples of 256 bytes at most.
_ALIGNMENT = 16
_UNIFORM_BLOCK = 1024  # vec4 that every driver takes in a uniform block


@dataclass(frozen=True, slots=True)
class InstanceLayout:
    """Where things are in a pose's data, in vec4: groups from 0, morph weights, then `rows` for each material that
    the pose changes (`dynamic`); `stride` is its length."""

    weight_offset: int
    material_offset: int
    rows: int
    stride: int
    dynamic: tuple[int, ...]

    @classmethod
    def of(cls, rig: Rig, view: View) -> InstanceLayout:
        """Return the layout for a model's pictures."""
        dynamic = dynamic_materials(rig.model, rig.flat)
        weights = rig.groups.count * 4
        materials = weights + (len(rig.columns) + 3) // 4
        rows = STATE_ROWS if view.shading == MMD else SOLID_ROWS
        used = materials + rows * len(dynamic)
        return cls(weights, materials, rows, -(-used // _ALIGNMENT) * _ALIGNMENT, dynamic)

    @property
    def uniform_block(self) -> bool:
        """Whether a single pose's data fits into a uniform block."""
        return self.stride <= _UNIFORM_BLOCK

    def offset(self, material: int) -> np.ndarray:
        """Return where a dynamic material's rows begin, as the uniform that says so."""
        return np.array(self.material_offset + self.rows * self.dynamic.index(material), np.int32)


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw call: constant uniforms (by name, as bytes), textures by unit, and state."""

    program: moderngl.Program
    array: moderngl.VertexArray
    first: int
    count: int
    textures: tuple[moderngl.Texture, ...]
    blend: bool
    cull: str | None  # the faces that are not drawn
    uniforms: tuple[tuple[moderngl.Uniform, bytes], ...]


class DrawLists:
    """The draw calls of one uploaded model, made on first use."""

    def __init__(self, renderer: Renderer, prepared: Prepared, upload: Upload, layout: InstanceLayout) -> None:
        self._renderer, self._prepared, self._upload, self._layout = renderer, prepared, upload, layout
        self._rig, self._view = prepared.rig, prepared.view
        self._expression = prepared.rig.expression_draws
        self._lists: dict[tuple[bool, bool], tuple[Draw, ...]] = {}

    def replace_expression(self, ranges: tuple[DrawRange, ...]) -> None:
        """Take other faces for those in the expression box; the caller has written their indices."""
        self._expression = ranges
        for key in [key for key in self._lists if key[0]]:
            del self._lists[key]

    def get(self, expression: bool, tiled: bool) -> tuple[Draw, ...]:
        """Return the calls that draw all kept faces, or those in the expression box, alone or as a batch."""
        key = (expression, tiled)
        if key not in self._lists:
            ranges = self._expression if expression else self._rig.draws
            body = self._mmd if self._view.shading == MMD else self._phong
            bodies = [body(item, expression, tiled) for item in ranges]
            edges = [self._edge(item, expression, tiled) for item in ranges if self._has_edge(item.material)]
            self._lists[key] = _merged([*bodies, *edges])
        return self._lists[key]

    def geometry(self, tiled: bool) -> dict[str, int]:
        """Return the vertex shader's defines that the model decides."""
        return {
            "GROUPS": self._rig.groups.count,
            "DENSE_GROUPS": int(dense_groups(self._rig)),
            "INFLUENCES": self._rig.influences,
            "COLUMNS": len(self._rig.columns),
            "DENSE_MORPHS": int(dense_morphs(self._rig)),
            "STRIDE": self._layout.stride,
            "STORAGE": int(not self._layout.uniform_block),
            "SDEF": int(len(self._rig.sdef) > 0),
            "TILES": int(tiled),
        }

    def _texture(self, number: int) -> moderngl.Texture:
        return self._upload.textures.get(number, self._renderer.white)

    def _has_alpha(self, number: int) -> bool:
        image = self._prepared.images.get(number)
        return image is not None and image.alpha

    def _phong(self, item: DrawRange, expression: bool, tiled: bool) -> Draw:
        material = self._rig.model.materials[item.material]
        dynamic = item.material in self._layout.dynamic
        opaque = material.diffuse[3] > _OPAQUE and not dynamic and not self._has_alpha(material.texture)
        specular = self._view.specular > 0 and material.specular_power > 0
        program = self._renderer.programs.phong(self.geometry(tiled), opaque=opaque, specular=specular, dynamic=dynamic)
        values = self._solid(item.material, material)
        if specular:
            colour = np.array(material.specular, np.float32) * self._view.specular
            values["u_specular"] = np.append(colour, material.specular_power).astype(np.float32)
        return self._body(item, expression, program, (self._texture(material.texture),), opaque, values)

    def _mmd(self, item: DrawRange, expression: bool, tiled: bool) -> Draw:
        material = self._rig.model.materials[item.material]
        dynamic = item.material in self._layout.dynamic
        sphere = material.sphere_mode if material.sphere_texture in self._upload.textures else 0
        if sphere == SPHERE_SECOND_UV and self._rig.model.uv1 is None:
            sphere = 0
        toon = self._toon(material)
        see_through = self._has_alpha(material.texture) or (sphere > 0 and self._has_alpha(material.sphere_texture))
        opaque = material.diffuse[3] > _OPAQUE and not dynamic and not see_through
        # A morph may bring a highlight where the file has none.
        specular = dynamic or (material.specular_power > 0 and any(value > 0 for value in material.specular))
        program = self._renderer.programs.mmd(
            self.geometry(tiled),
            opaque=opaque,
            dynamic=dynamic,
            sphere=sphere,
            toon=toon is not None,
            specular=specular,
        )
        values = self._solid(item.material, material)
        values["u_specular"] = base_state(material)[SPECULAR]
        textures = (
            self._texture(material.texture),
            self._texture(material.sphere_texture) if sphere else self._renderer.white,
            toon or self._renderer.white,
        )
        return self._body(item, expression, program, textures, opaque, values)

    def _toon(self, material: Material) -> moderngl.Texture | None:
        if material.toon_shared >= 0:
            return self._renderer.toon_ramp(material.toon_shared)
        return self._upload.textures.get(material.toon_texture)

    def _solid(self, number: int, material: Material) -> dict[str, np.ndarray]:
        """Return the uniforms that every body has."""
        if number in self._layout.dynamic:
            return {"u_material_offset": self._layout.offset(number)}
        state = base_state(material)
        return {"u_diffuse": state[DIFFUSE], "u_ambient": state[AMBIENT, :3]}

    def _body(
        self,
        item: DrawRange,
        expression: bool,
        program: moderngl.Program,
        textures: tuple[moderngl.Texture, ...],
        opaque: bool,
        values: dict[str, np.ndarray],
    ) -> Draw:
        cull = None if self._rig.model.materials[item.material].double_sided else "back"
        array = self._upload.array(program, expression)
        return Draw(program, array, item.first, item.count, textures, not opaque, cull, _uniforms(program, values))

    def _has_edge(self, number: int) -> bool:
        material = self._rig.model.materials[number]
        if self._view.outline <= 0 or not material.edge:
            return False
        return number in self._layout.dynamic or (
            material.edge_size > 0 and material.edge_color[3] > 0 and material.diffuse[3] > 0
        )

    def _edge(self, item: DrawRange, expression: bool, tiled: bool) -> Draw:
        material = self._rig.model.materials[item.material]
        dynamic = item.material in self._layout.dynamic
        linear = self._view.shading != MMD
        program = self._renderer.programs.edge(self.geometry(tiled), dynamic=dynamic, linear=linear)
        values: dict[str, np.ndarray] = {}
        blend = True
        if dynamic:
            values["u_material_offset"] = self._layout.offset(item.material)
        else:
            state = base_state(material)
            colour, alpha = state[EDGE, :3], state[EDGE, 3]
            colour = srgb_to_linear(colour) if linear else colour
            values["u_edge_color"] = np.append(colour * alpha, alpha).astype(np.float32)
            values["u_edge_size"] = state[AMBIENT, 3]
            blend = bool(alpha < 1)
        array = self._upload.array(program, expression)
        return Draw(program, array, item.first, item.count, (), blend, "front", _uniforms(program, values))


def _merged(draws: list[Draw]) -> tuple[Draw, ...]:
    """Join neighbours that differ in nothing but their adjoining faces: outlines above all."""
    result: list[Draw] = []
    for draw in draws:
        last = result[-1] if result else None
        if last and replace(last, first=draw.first, count=draw.count) == draw and last.first + last.count == draw.first:
            result[-1] = replace(last, count=last.count + draw.count)
        else:
            result.append(draw)
    return tuple(result)


def _uniforms(program: moderngl.Program, values: dict[str, np.ndarray]) -> tuple[tuple[moderngl.Uniform, bytes], ...]:
    """Pair the uniforms that the compiler kept with their bytes."""
    pairs = ((program.get(name, None), value.tobytes()) for name, value in values.items())
    return tuple((uniform, value) for uniform, value in pairs if isinstance(uniform, moderngl.Uniform))
