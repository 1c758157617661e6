"""What is drawn into: an atlas of tiles with several samples a pixel, and their resolved 8-bit pictures.

The samples' tiles lie side by side and on top of each other; the pictures one after the other, so that each is read
back as one piece of memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import moderngl
import numpy as np

from mmdgen.render.readback import Copy, Readback

Box = tuple[int, int, int, int]  # x, y (from the bottom of a tile), width, height in pixels


class Target:
    """`tiles` (columns, rows) pictures of `size` pixels square with `grid` x `grid` samples each."""

    def __init__(self, context: moderngl.Context, size: int, grid: int, tiles: tuple[int, int]) -> None:
        self.size, self.grid, self.tiles = size, grid, tiles
        whole = (size * grid * tiles[0], size * grid * tiles[1])
        self._samples = context.texture(whole, 4, dtype="f2")
        self._samples.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._samples.repeat_x = self._samples.repeat_y = False
        self._depth = context.depth_renderbuffer(whole)
        self._pixels = context.texture((size, size * self.capacity), 4)
        self.drawing = context.framebuffer([self._samples], self._depth)
        self.resolved = context.framebuffer([self._pixels])
        self._context = context
        self._readback: Readback | None = None

    @property
    def capacity(self) -> int:
        return self.tiles[0] * self.tiles[1]

    def begin(self, box: Box | None) -> None:
        """Make this the target and clear it, or only `box` of its single tile."""
        self.drawing.use()
        columns, rows = self.tiles
        x, y, width, height = box or (0, 0, self.size * columns, self.size * rows)
        scissor = (x * self.grid, y * self.grid, width * self.grid, height * self.grid)
        self.drawing.scissor = scissor
        self.drawing.clear(0.0, 0.0, 0.0, 0.0, depth=1.0, viewport=scissor)

    def resolve(self, program: moderngl.Program, triangle: moderngl.VertexArray, box: Box | None) -> None:
        """Average the samples into 8-bit pixels, everywhere or in `box` (whose rows count from the bottom)."""
        context = self._context
        self.resolved.use()
        self.resolved.scissor = self.read_box(box)
        context.disable(moderngl.DEPTH_TEST | moderngl.CULL_FACE | moderngl.BLEND)
        self._samples.use(0)
        program["u_samples"] = 0
        program["u_size"], program["u_columns"] = self.size, self.tiles[0]
        triangle.render(moderngl.TRIANGLES, 3)

    def read_box(self, box: Box | None) -> Box:
        """Return `box`, or everything, in rows from the top, as the resolved pictures have them."""
        if box is None:
            return (0, 0, self.size, self.size * self.capacity)
        x, y, width, height = box
        return (x, self.size - y - height, width, height)

    def read(self, box: Box | None = None) -> np.ndarray:
        """Return the resolved pixels at once: u8 [rows, columns, 4], row 0 on top."""
        view = self.read_box(box)
        pixels = np.empty((view[3], view[2], 4), np.uint8)
        self.resolved.read_into(pixels, viewport=view, components=4, alignment=1)
        return pixels

    def start_read(self, count: int) -> Copy:
        """Begin to copy the first `count` resolved pictures; the GPU goes on meanwhile."""
        if self._readback is None:
            self._readback = Readback(self._context, self.size * self.size * self.capacity * 4)
        return self._readback.start(self.resolved, self.size, self.size * count)

    def finish_read(self, copy: Copy, count: int) -> Iterator[np.ndarray]:
        """Yield the `count` pictures of a copy, each u8 [size, size, 4], which share a batch's memory."""
        yield from copy.take(self.size * self.size * count * 4).reshape(count, self.size, self.size, 4)

    def release(self) -> None:
        for item in (self.drawing, self.resolved, self._samples, self._depth, self._pixels):
            item.release()
        if self._readback is not None:
            self._readback.release()
