"""Moves a prepared model to the GPU: vertices, indices, morph columns, textures."""

from __future__ import annotations

import moderngl
import numpy as np

from mmdgen.pose.rig import Rig
from mmdgen.render.context import is_software
from mmdgen.render.mipmaps import define_levels, level_definer
from mmdgen.render.prepare import Prepared, TextureImage
from mmdgen.render.view import MMD, PHONG

_SRGB8_ALPHA8, _RGBA8 = 0x8C43, 0x8058

# Up to so many groups and morph parameters come as plain attributes, more through storage buffers.
DENSE_LIMIT = 4


def dense_morphs(rig: Rig) -> bool:
    """Return whether the morph offsets fit into attributes: few parameters and no UV morphs."""
    return len(rig.columns) <= DENSE_LIMIT and not rig.morph_offset[..., 3:].any()


def dense_groups(rig: Rig) -> bool:
    """Return whether each vertex can carry a weight for every group."""
    return rig.groups.count <= DENSE_LIMIT


def vertex_data(rig: Rig, second_uv: bool = False) -> np.ndarray:
    """Return the kept vertices as a structured array [v] whose fields are the vertex shader's inputs."""
    fields = [
        ("in_position", "<f4", 3),
        ("in_normal", "<f4", 3),
        ("in_uv", "<f4", 2),
        ("in_weight", "<f4", 4),
        ("in_group", "u1", 4),
        ("in_edge_scale", "<f4", 1),
    ]
    if dense_groups(rig):
        fields.append(("in_group_weight", "<f4", 4))
    if dense_morphs(rig):
        fields.extend((f"in_morph_{column}", "<f4", 3) for column in range(len(rig.columns)))
    else:
        fields.append(("in_morph_slot", "<i4", 1))
    if len(rig.sdef):
        fields.append(("in_sdef_slot", "<i4", 1))
    if second_uv:
        fields.append(("in_uv1", "<f4", 2))
    model, kept = rig.model, rig.vertex
    data = np.zeros(len(kept), np.dtype([(name, kind, (width,)) for name, kind, width in fields]))
    data["in_position"] = model.position[kept]
    data["in_normal"] = model.normal[kept]
    data["in_uv"] = model.uv[kept]
    data["in_weight"] = rig.group_weight
    data["in_group"] = rig.group_index
    data["in_edge_scale"][:, 0] = model.edge_scale[kept]
    if dense_groups(rig):
        for slot in range(4):
            np.add.at(
                data["in_group_weight"], (np.arange(len(kept)), rig.group_index[:, slot]), rig.group_weight[:, slot]
            )
    if dense_morphs(rig):
        moved = rig.morph_slot >= 0
        for column in range(len(rig.columns)):
            data[f"in_morph_{column}"][moved] = rig.morph_offset[rig.morph_slot[moved], column, :3]
    else:
        data["in_morph_slot"][:, 0] = rig.morph_slot
    if len(rig.sdef):
        data["in_sdef_slot"][:, 0] = rig.sdef_slot
    if second_uv and model.uv1 is not None:
        data["in_uv1"] = model.uv1[kept, :2]
    return data


def vertex_layout(data: np.ndarray, program: moderngl.Program) -> tuple[str, ...]:
    """Return moderngl's format and names for the fields that `program` reads; the others are skipped over."""
    codes, formats, names = {"f": "f", "u": "u1", "i": "i"}, [], []
    for name in data.dtype.names or ():
        kind, shape = data.dtype[name].base, data.dtype[name].shape
        if name in program:
            formats.append(f"{shape[0]}{codes[kind.kind]}")
            names.append(name)
        else:
            formats.append(f"{data.dtype[name].itemsize}x")
    return (" ".join(formats), *names)


class Textures:
    """Texture images on the GPU, each once: several uploads of one model may share them. `release` frees them."""

    def __init__(self, context: moderngl.Context, *, linear: bool) -> None:
        self._context, self._linear = context, linear
        self._define = level_definer(context) if is_software(context) else None
        self._uploaded: dict[TextureImage, moderngl.Texture] = {}

    def get(self, image: TextureImage) -> moderngl.Texture:
        """Return the texture of an image, which is uploaded the first time."""
        if image not in self._uploaded:
            height, width = image.texels.shape[:2]
            kind = _SRGB8_ALPHA8 if self._linear else _RGBA8
            texels = np.ascontiguousarray(image.texels)
            texture = self._context.texture((width, height), 4, texels, internal_format=kind)
            if self._define is None:
                texture.build_mipmaps()
            else:
                define_levels(self._define, texture, texels, kind, self._linear)
            # The nearest level, filtered linearly: a quarter cheaper than trilinear on the software renderer.
            texture.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
            texture.repeat_x = texture.repeat_y = True
            self._uploaded[image] = texture
        return self._uploaded[image]

    def release(self) -> None:
        for texture in self._uploaded.values():
            texture.release()
        self._uploaded.clear()


class Upload:
    """The GL objects of one prepared model. `release` frees all of them, but for `textures` that were given."""

    def __init__(self, context: moderngl.Context, prepared: Prepared, textures: Textures | None = None) -> None:
        rig = prepared.rig
        self._context = context
        data = vertex_data(rig, second_uv=prepared.view.shading == MMD and rig.model.uv1 is not None)
        self.layout = data[:0]  # the fields of `vertices`
        self.vertices = context.buffer(data.tobytes())
        self.index = context.buffer(rig.index.tobytes())
        self.expression_index = context.buffer(rig.expression_index.tobytes() or bytes(4))
        self.morphs = context.buffer(rig.morph_offset.tobytes() or bytes(4))
        self.sdef = context.buffer(rig.sdef.tobytes() or bytes(4))
        self._own = Textures(context, linear=prepared.view.shading == PHONG)
        uploaded = textures or self._own
        self.textures = {number: uploaded.get(image) for number, image in prepared.images.items()}
        self._arrays: dict[tuple[int, bool, bool], moderngl.VertexArray] = {}

    def array(self, program: moderngl.Program, expression: bool = False, indexed: bool = True) -> moderngl.VertexArray:
        """Return the vertex array of a program over all kept faces, those in the expression box, or (not `indexed`) the
        vertices one by one."""
        key = (id(program), expression, indexed)
        if key not in self._arrays:
            index = (self.expression_index if expression else self.index) if indexed else None
            content = [(self.vertices, *vertex_layout(self.layout, program))]
            self._arrays[key] = self._context.vertex_array(program, content, index_buffer=index)
        return self._arrays[key]

    def release(self) -> None:
        for item in self._arrays.values():
            item.release()
        for buffer in (self.vertices, self.index, self.expression_index, self.morphs, self.sdef):
            buffer.release()
        self._own.release()
        self._arrays.clear()
        self.textures.clear()
