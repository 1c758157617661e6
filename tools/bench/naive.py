"""The renderer that one writes first: the yardstick of `render.py`.

Every image: evaluate the whole skeleton bone by bone, skin all vertices with numpy, upload them, draw every material
with blending, read back, average the samples with numpy, compress with h5py's gzip. The same light, anti-aliasing,
outlines and culling of back faces as mmdgen, so the pictures agree but for rounding, the edges of transparent textures
and the blend between mip levels, which one leaves on at first.
"""

from __future__ import annotations

import moderngl
import numpy as np

from mmdgen.geometry import orthographic, quaternion_matrix
from mmdgen.model.morphs import FlatMorph, flatten_terms
from mmdgen.model.records import Model
from mmdgen.model.textures import decode_texture
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.motion import bone_motion
from mmdgen.pose.skinning import skin_matrices
from mmdgen.render.prepare import edge_push, linear_to_srgb, srgb_to_linear
from mmdgen.render.view import SAMPLE_GRIDS, View

_VERTEX = """#version 330 core
uniform mat4 u_projection; uniform float u_push;
in vec3 in_position; in vec3 in_normal; in vec2 in_uv; in float in_edge;
out vec3 v_normal; out vec2 v_uv;
void main() {
    v_normal = in_normal; v_uv = in_uv;
    gl_Position = u_projection * vec4(in_position + normalize(in_normal) * u_push * in_edge, 1.0);
}"""

_FRAGMENT = """#version 330 core
uniform sampler2D u_texture; uniform vec4 u_diffuse; uniform vec3 u_ambient; uniform vec2 u_light;
uniform bool u_flat; uniform vec4 u_color;
in vec3 v_normal; in vec2 v_uv; out vec4 f_color;
void main() {
    if (u_flat) { f_color = u_color; return; }
    vec4 texel = texture(u_texture, v_uv);
    float alpha = texel.a * u_diffuse.a;
    if (alpha < 0.5 / 255.0) discard;
    vec3 n = normalize(gl_FrontFacing ? v_normal : -v_normal);
    vec3 color = (u_ambient * u_light.x + u_diffuse.rgb * u_light.y * max(-n.z, 0.0)) * texel.rgb;
    f_color = vec4(min(color, 1.0) * alpha, alpha);
}"""


class NaiveScene:
    """One model, drawn image by image."""

    def __init__(self, context: moderngl.Context, model: Model, binding: PoseBinding, view: View) -> None:
        self._context, self._model, self._binding, self._view = context, model, binding, view
        self._flat = {name: flatten_terms(model, terms, binding.center_x) for name, terms in binding.terms.items()}
        self._program = context.program(_VERTEX, _FRAGMENT)
        side = view.size * SAMPLE_GRIDS[view.samples]
        self._color = context.texture((side, side), 4, dtype="f2")
        self._depth = context.depth_renderbuffer((side, side))
        self._target = context.framebuffer([self._color], self._depth)
        self._vertices = context.buffer(reserve=len(model.position) * 36)
        self._index = context.buffer(model.face.astype("<u4").tobytes())
        layout = [(self._vertices, "3f 3f 2f 1f", "in_position", "in_normal", "in_uv", "in_edge")]
        self._array = context.vertex_array(self._program, layout, index_buffer=self._index)
        self._white = context.texture((1, 1), 4, b"\xff" * 4)
        self._textures = {
            number: self._upload(decode_texture(model.textures[number]))
            for number in {material.texture for material in model.materials}
            if number >= 0 and model.textures[number].path is not None
        }

    def _upload(self, texels: np.ndarray) -> moderngl.Texture:
        texture = self._context.texture(texels.shape[1::-1], 4, texels.tobytes(), internal_format=0x8C43)
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        return texture

    def _skin(self, pose: np.ndarray) -> np.ndarray:
        model = self._model
        posed, normal = posed_vertices(model, self._binding, self._flat, pose)
        return np.concatenate([posed, normal, model.uv, model.edge_scale[:, None]], axis=1).astype(np.float32)

    def image(self, pose: np.ndarray) -> np.ndarray:
        """Return one picture, u8 [H, W, 4]."""
        context, view, program = self._context, self._view, self._program
        vertices = self._skin(np.asarray(pose, np.float32))
        self._vertices.write(vertices.tobytes())
        self._target.use()
        self._target.clear()
        half = view.height / 2
        x, y, z = view.center_x, view.center_y, float(self._model.position[:, 2].mean())
        projection = orthographic(x - half, x + half, y - half, y + half, z - 50, z + 50)
        program["u_projection"].write(np.ascontiguousarray(projection.T).tobytes())  # type: ignore[union-attr]
        program["u_light"] = (view.ambient, view.directional)
        context.enable_only(moderngl.DEPTH_TEST | moderngl.BLEND | moderngl.CULL_FACE)
        context.depth_func, context.front_face = "<=", "cw"
        context.blend_func = (moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA)
        program["u_flat"], program["u_push"] = False, 0.0
        for material in self._model.materials:
            if material.diffuse[3] <= 0:
                continue
            (context.disable if material.double_sided else context.enable)(moderngl.CULL_FACE)
            context.cull_face = "back"
            self._textures.get(material.texture, self._white).use(0)
            program["u_diffuse"] = tuple(min(max(value, 0), 1) for value in material.diffuse)
            program["u_ambient"] = tuple(min(max(value, 0), 1) for value in material.ambient)
            self._array.render(vertices=material.face_count * 3, first=material.first_face * 3)
        program["u_flat"] = True
        context.enable(moderngl.CULL_FACE)
        context.cull_face = "front"
        for material in self._model.materials:
            if material.edge and material.edge_size > 0 and material.diffuse[3] > 0 and view.outline > 0:
                alpha = material.edge_color[3]
                program["u_color"] = (*(srgb_to_linear(np.array(material.edge_color[:3])) * alpha).tolist(), alpha)
                program["u_push"] = edge_push(view, self._model.skeleton.rest) * material.edge_size
                self._array.render(vertices=material.face_count * 3, first=material.first_face * 3)
        grid, size = SAMPLE_GRIDS[view.samples], view.size
        raw = np.frombuffer(self._target.read(components=4, dtype="f2"), np.float16).astype(np.float32)
        linear = raw.reshape(size, grid, size, grid, 4).mean(axis=(1, 3))[::-1]
        alpha = linear[..., 3:]
        color = linear_to_srgb(np.clip(linear[..., :3] / np.maximum(alpha, 1e-6), 0, 1))
        result = np.rint(np.concatenate([color, alpha], axis=2) * 255).astype(np.uint8)
        result[result[..., 3] == 0] = 0
        return result

    def release(self) -> None:
        for item in (self._array, self._index, self._vertices, self._target, self._depth, self._color, self._program):
            item.release()
        for texture in (*self._textures.values(), self._white):
            texture.release()


def posed_vertices(
    model: Model, binding: PoseBinding, flat: dict[str, FlatMorph], pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions MU and normals, f32 [V, 3] each, of a pose f32 [K]: the whole skeleton, all vertices."""
    position = model.position.copy()
    for column, parameter in enumerate(binding.vocabulary.parameters):
        if parameter.kind == "morph":
            moved = flat[parameter.name]
            position[moved.vertex_index] += moved.vertex_offset * pose[column]
    motion = bone_motion(binding, flat, pose[None])
    turns = {bone: quaternion_matrix(turn[0]) for bone, turn in motion.rotation.items()}
    shifts = {bone: shift[0] for bone, shift in motion.translation.items()}
    matrices = skin_matrices(model.skeleton, turns, shifts)[:, :3].astype(np.float32)
    blended = np.einsum("vi,vijk->vjk", model.bone_weight, matrices[model.bone_index])
    posed = np.einsum("vjk,vk->vj", blended[..., :3], position) + blended[..., 3]
    return posed, np.einsum("vjk,vk->vj", blended[..., :3], model.normal)
