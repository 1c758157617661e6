"""Draw a small picture that is known beforehand, with every GL feature that the renderer relies on.

A driver that starts is not yet one that draws right: each feature is exercised and its pixels are compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import moderngl
import numpy as np

from mmdgen.errors import RenderError

SIZE = 64
_NEEDED_TEXTURE_SIZE = 4096  # an atlas of pictures with several samples a pixel
_NEEDED_VERTEX_BUFFERS = 3  # poses, morph offsets, SDEF centres
_SRGB8_ALPHA8 = 0x8C43
_SRGB_BYTE = 188
_PICTURE = 256  # of the benchmark, with 2 x 2 samples

# Corners come from a storage buffer by gl_VertexID and are moved by the instance, as the renderer does with poses.
_VERTEX = """
#version 430 core
layout(std430, binding = 0) readonly buffer Corners { vec4 corners[]; };
uniform vec2 u_step;
flat out int v_instance;
out float gl_ClipDistance[1];
uniform float u_right;
void main() {
    vec4 corner = corners[gl_VertexID];
    gl_Position = vec4(corner.xy + u_step * float(gl_InstanceID), corner.z, 1.0);
    gl_ClipDistance[0] = u_right - gl_Position.x;
    v_instance = gl_InstanceID;
}
"""
_FRAGMENT = """
#version 430 core
uniform sampler2D u_texture;
uniform vec4 u_colors[2];
uniform bool u_textured;
flat in int v_instance;
out vec4 o_color;
void main() { o_color = u_textured ? texture(u_texture, vec2(0.5)) : u_colors[v_instance]; }
"""

_COVER = """
#version 430 core
void main() { gl_Position = vec4(vec2(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1), 0.0, 1.0); }
"""
_AVERAGE = """
#version 430 core
uniform sampler2D u_samples;
out vec4 o_color;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy) * 2;
    vec4 sum = texelFetch(u_samples, at, 0) + texelFetch(u_samples, at + ivec2(1, 0), 0);
    sum += texelFetch(u_samples, at + ivec2(0, 1), 0) + texelFetch(u_samples, at + ivec2(1, 1), 0);
    o_color = sum / 4.0;
}
"""

Color = tuple[float, float, float, float]
_RED: Color = (1.0, 0.0, 0.0, 1.0)
_GREEN: Color = (0.0, 1.0, 0.0, 1.0)
_NOTHING: Color = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried; if it is not `ok`, `detail` says what was found against what was expected."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The checks in order, what the driver allows, and how many small pictures a second are drawn and read back."""

    checks: tuple[Check, ...]
    limits: dict[str, int]
    pictures_per_s: float

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def run(context: moderngl.Context, *, benchmark_s: float = 0.5) -> SelfTest:
    """Draw the test pictures with `context`, which must be the current one, and compare them with what they must be.

    Wrong pixels and limits are failed checks. Raises `RenderError` where a shader does not compile or GL refuses.
    """
    # The context is current already and stays so: `with context` would leave none behind for whoever comes next.
    try:
        stage = _Stage(context)
        try:
            checks = [stage.half_floats(), stage.depth(), stage.srgb(), stage.instances(), stage.culling()]
            checks.append(stage.clipping())
            speed = stage.speed(benchmark_s)
        finally:
            stage.release()
        error = context.error
    except moderngl.Error as failure:
        raise RenderError(f"the driver cannot draw the test picture: {failure}") from failure
    limits = _limits(context)
    checks += [
        Check("no GL error", error == "GL_NO_ERROR", f"glGetError: {error}"),
        _at_least("texture size", limits["texture_size"], _NEEDED_TEXTURE_SIZE),
        _at_least("storage buffers in the vertex shader", limits["vertex_storage_buffers"], _NEEDED_VERTEX_BUFFERS),
    ]
    return SelfTest(tuple(checks), limits, speed)


def _at_least(name: str, found: int, needed: int) -> Check:
    return Check(name, found >= needed, f"{found}, needed {needed}")


def _limits(context: moderngl.Context) -> dict[str, int]:
    names = {
        "texture_size": "GL_MAX_TEXTURE_SIZE",
        "renderbuffer_size": "GL_MAX_RENDERBUFFER_SIZE",
        "samples": "GL_MAX_SAMPLES",
        "vertex_storage_buffers": "GL_MAX_VERTEX_SHADER_STORAGE_BLOCKS",
        "storage_buffer_bytes": "GL_MAX_SHADER_STORAGE_BLOCK_SIZE",
        "uniform_buffer_bytes": "GL_MAX_UNIFORM_BLOCK_SIZE",
        "vertex_attributes": "GL_MAX_VERTEX_ATTRIBS",
    }
    return {key: int(context.info[name]) for key, name in names.items()}


class _Stage:
    """A half-float target with depth, one program and one quad; each method draws one known picture."""

    def __init__(self, context: moderngl.Context) -> None:
        self._context = context
        self._program = context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._corners = context.buffer(reserve=6 * 16)
        self._quad = context.vertex_array(self._program, [])
        self._target = _target(context, SIZE)
        texel = bytes([_SRGB_BYTE] * 3 + [255])
        self._texture = context.texture((1, 1), 4, texel, internal_format=_SRGB8_ALPHA8)
        context.front_face = "cw"
        context.depth_func = "<"
        self._program["u_texture"] = 0

    def _begin(self, color: Color = _NOTHING) -> None:
        self._target.use()
        self._target.clear(*color, depth=1.0)
        self._context.enable_only(moderngl.DEPTH_TEST)
        self._program["u_textured"] = False
        self._program["u_right"] = 2.0
        self._program["u_step"] = (0.0, 0.0)

    def _draw(
        self,
        colors: Sequence[Color],
        box: tuple[float, float, float, float] = (-1.0, -1.0, 1.0, 1.0),
        depth: float = 0.0,
        clockwise: bool = True,
    ) -> None:
        left, bottom, right, top = box
        around = [(left, bottom), (left, top), (right, top), (right, bottom)]
        order = (0, 1, 2, 0, 2, 3) if clockwise else (2, 1, 0, 3, 2, 0)
        corners = np.array([(*around[index], depth, 1.0) for index in order], "<f4")
        self._corners.write(corners.tobytes())
        self._corners.bind_to_storage_buffer(0)
        self._texture.use(0)
        self._program["u_colors"] = [*colors, *([_NOTHING] * (2 - len(colors)))]
        self._quad.render(moderngl.TRIANGLES, 6, instances=len(colors))

    def _pixels(self) -> np.ndarray:
        """Return what was drawn, f16 [SIZE, SIZE, 4], row 0 at the bottom."""
        data = self._target.read(components=4, dtype="f2", alignment=1)
        return np.frombuffer(data, "<f2").reshape(SIZE, SIZE, 4)

    def _compare(self, name: str, expected: np.ndarray, tolerance: float = 0.0) -> Check:
        found = self._pixels().astype(np.float32)
        wrong = np.argwhere(~(np.abs(found - expected) <= tolerance).all(axis=2))
        if not len(wrong):
            return Check(name, True, "every pixel as expected")
        row, column = wrong[0]
        detail = (
            f"{len(wrong)} of {SIZE * SIZE} pixels differ; at column {column}, row {row}: "
            f"found {found[row, column].tolist()}, expected {expected[row, column].tolist()}"
        )
        return Check(name, False, detail)

    def half_floats(self) -> Check:
        """Values above 1 and below 1/255 come back from the target as they were drawn."""
        color = (2.5, 2.0**-12, 0.25, 1.0)
        self._begin()
        self._draw([color])
        return self._compare("half-float target, shader with a storage buffer", _filled(color))

    def depth(self) -> Check:
        """What is drawn later but farther is hidden."""
        self._begin()
        self._draw([_RED], (-1.0, -1.0, 0.0, 1.0), depth=-0.5)
        self._draw([_GREEN], depth=0.5)
        expected = _filled(_GREEN)
        expected[:, : SIZE // 2] = _RED
        return self._compare("depth test", expected)

    def srgb(self) -> Check:
        """A texture's bytes are decoded from sRGB (IEC 61966-2-1) when it is sampled."""
        self._begin()
        self._program["u_textured"] = True
        self._draw([_RED])
        linear = ((_SRGB_BYTE / 255 + 0.055) / 1.055) ** 2.4
        return self._compare("sRGB textures", _filled((linear, linear, linear, 1.0)), tolerance=3e-3)

    def instances(self) -> Check:
        """One draw makes two pictures side by side, each with its own data."""
        self._begin()
        self._program["u_step"] = (1.0, 0.0)
        self._draw([_RED, _GREEN], (-1.0, -1.0, 0.0, 1.0))
        expected = _filled(_RED)
        expected[:, SIZE // 2 :] = _GREEN
        return self._compare("instanced drawing", expected)

    def culling(self) -> Check:
        """Clockwise faces are front faces, and back faces are not drawn."""
        self._begin(_GREEN)
        self._context.enable_only(moderngl.CULL_FACE)
        self._draw([_RED], (-1.0, -1.0, 1.0, 0.0))
        self._draw([_RED], (-1.0, 0.0, 1.0, 1.0), clockwise=False)
        expected = _filled(_GREEN)
        expected[: SIZE // 2] = _RED
        return self._compare("face culling", expected)

    def clipping(self) -> Check:
        """A clip distance keeps a picture inside its tile."""
        self._begin()
        self._program["u_right"] = 0.0
        self._context.enable_direct(0x3000)  # GL_CLIP_DISTANCE0
        self._draw([_RED])
        self._context.disable_direct(0x3000)
        expected = _filled(_RED)
        expected[:, SIZE // 2 :] = _NOTHING
        return self._compare("clip distances", expected)

    def speed(self, seconds: float) -> float:
        """Return how many pictures a second are cleared, half covered three times, averaged to 8 bits and read back."""
        context = self._context
        samples = context.texture((2 * _PICTURE, 2 * _PICTURE), 4, dtype="f2")
        drawing = context.framebuffer([samples], context.depth_renderbuffer(samples.size))
        resolved = context.simple_framebuffer((_PICTURE, _PICTURE))
        average = context.program(vertex_shader=_COVER, fragment_shader=_AVERAGE)
        cover = context.vertex_array(average, [])
        self._begin()

        def draw() -> None:
            drawing.use()
            drawing.clear(depth=1.0)
            context.enable_only(moderngl.DEPTH_TEST)
            for layer in range(3):
                self._draw([_RED], (-0.7, -0.7, 0.7, 0.7), depth=-layer / 16)
            context.enable_only(0)
            resolved.use()
            samples.use(0)
            cover.render(moderngl.TRIANGLES, 3)
            resolved.read(components=4)

        draw()  # drivers compile on the first use
        count, elapsed, began = 0, 0.0, time.perf_counter()
        while elapsed < seconds:
            draw()
            count += 1
            elapsed = time.perf_counter() - began
        _release_target(drawing)
        _release_target(resolved)
        cover.release()
        average.release()
        return count / max(elapsed, 1e-9)

    def release(self) -> None:
        _release_target(self._target)
        for item in (self._quad, self._program, self._corners, self._texture):
            item.release()


def _target(context: moderngl.Context, size: int) -> moderngl.Framebuffer:
    color = context.texture((size, size), 4, dtype="f2")
    return context.framebuffer([color], context.depth_renderbuffer((size, size)))


def _release_target(target: moderngl.Framebuffer) -> None:
    for item in (*target.color_attachments, target.depth_attachment, target):
        if item is not None:
            item.release()


def _filled(color: Color) -> np.ndarray:
    return np.tile(np.array(color, np.float32), (SIZE, SIZE, 1))
