"""Does the context still draw? One known picture, compared pixel by pixel.

A driver that was reset, or a GPU that fell off its bus, shows as errors of whatever is drawn next, or without any error
as pictures of zeros. Asked after a model failed, the pulse tells the model's fault from the context's; asked after one
that was drawn, it keeps pictures that a dead context "drew" out of the dataset.

EXT_create_context_robustness would say more (glGetGraphicsResetStatus), but a context has to be made for it, which
glcontext does not offer; drawing is what counts, and costs less than a millisecond.
"""

from __future__ import annotations

import moderngl
import numpy as np

from mmdgen.errors import DeviceLostError

SIZE = 16
_VERTEX = """
#version 430 core
void main() { gl_Position = vec4(vec2(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1), 0.0, 1.0); }
"""
# Different in every pixel and with every beat, so that neither zeros nor the last picture look right.
_FRAGMENT = """
#version 430 core
uniform int u_beat;
out vec4 o_color;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy);
    ivec4 value = ivec4(at.x * 16 + 1, at.y * 16 + 2, (at.x * at.y + u_beat) % 256, 255 - u_beat % 256);
    o_color = vec4(value) / 255.0;
}
"""
_ERRORS = 16  # GL keeps one note of each kind; a lost context may answer with errors for ever


class Pulse:
    """A program and a picture of 16 x 16 pixels in `context`, which must be current. `release` frees them."""

    def __init__(self, context: moderngl.Context) -> None:
        self._context = context
        self._program = context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._triangle = context.vertex_array(self._program, [])
        self._picture = context.texture((SIZE, SIZE), 4)
        self._target = context.framebuffer([self._picture])
        self._beat = 0

    def check(self) -> None:
        """Raise `DeviceLostError` unless the known picture comes out right. Errors noted before are forgotten."""
        for _ in range(_ERRORS):
            if self._context.error == "GL_NO_ERROR":
                break
        self._beat = (self._beat + 1) % 256
        try:
            found, error = self._draw(), self._context.error
        except Exception as failure:  # moderngl raises bare Exceptions, too
            raise DeviceLostError(f"the OpenGL context was lost: {failure}") from failure
        wrong = int((found != self._expected()).any(axis=2).sum())
        if error != "GL_NO_ERROR" or wrong:
            raise DeviceLostError(
                f"the OpenGL context was lost: {wrong} of {SIZE * SIZE} pixels of a known picture are wrong and "
                f"glGetError says {error}; the driver may have been reset"
            )

    def _draw(self) -> np.ndarray:
        self._target.use()
        self._target.scissor = (0, 0, SIZE, SIZE)
        self._context.enable_only(0)
        self._program["u_beat"] = self._beat
        self._triangle.render(moderngl.TRIANGLES, 3)
        return np.frombuffer(self._target.read(components=4, alignment=1), np.uint8).reshape(SIZE, SIZE, 4)

    def _expected(self) -> np.ndarray:
        y, x = np.indices((SIZE, SIZE))
        last = np.full((SIZE, SIZE), 255 - self._beat)
        return np.stack([x * 16 + 1, y * 16 + 2, (x * y + self._beat) % 256, last], axis=2).astype(np.uint8)

    def release(self) -> None:
        for item in (self._triangle, self._target, self._picture, self._program):
            item.release()
