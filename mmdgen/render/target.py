"""What is drawn into: an atlas of tiles with several samples a pixel, and its resolved 8-bit picture."""

from __future__ import annotations

from collections.abc import Iterator

import moderngl
import numpy as np

Box = tuple[int, int, int, int]  # x, y (from the bottom of a tile), width, height in pixels

_RING = 3


class Target:
    """`tiles` (columns, rows) pictures of `size` pixels square with `grid` x `grid` samples each."""

    def __init__(self, context: moderngl.Context, size: int, grid: int, tiles: tuple[int, int]) -> None:
        self.size, self.grid, self.tiles = size, grid, tiles
        width, height = size * tiles[0], size * tiles[1]
        self._samples = context.texture((width * grid, height * grid), 4, dtype="f2")
        self._samples.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._samples.repeat_x = self._samples.repeat_y = False
        self._depth = context.depth_renderbuffer((width * grid, height * grid))
        self._pixels = context.texture((width, height), 4)
        self.drawing = context.framebuffer([self._samples], self._depth)
        self.resolved = context.framebuffer([self._pixels])
        self._context = context
        self._ring: list[moderngl.Buffer] = []
        self._next = 0

    @property
    def capacity(self) -> int:
        return self.tiles[0] * self.tiles[1]

    def begin(self, box: Box | None) -> None:
        """Make this the target and clear it, or only `box` of its single tile."""
        self.drawing.use()
        x, y, width, height = box or (0, 0, self.size * self.tiles[0], self.size * self.tiles[1])
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
        program["u_size"] = self.size
        triangle.render(moderngl.TRIANGLES, 3)

    def read_box(self, box: Box | None) -> Box:
        """Return `box`, or everything, in rows from the top, as the resolved picture has them."""
        if box is None:
            return (0, 0, self.size * self.tiles[0], self.size * self.tiles[1])
        x, y, width, height = box
        return (x, self.size - y - height, width, height)

    def read(self, box: Box | None = None) -> np.ndarray:
        """Return the resolved pixels at once: u8 [rows, columns, 4], row 0 on top."""
        view = self.read_box(box)
        pixels = np.empty((view[3], view[2], 4), np.uint8)
        self.resolved.read_into(pixels, viewport=view, components=4, alignment=1)
        return pixels

    def start_read(self) -> moderngl.Buffer:
        """Begin to copy the resolved atlas into the next pixel buffer of the ring; the GPU goes on meanwhile."""
        if not self._ring:
            length = self.size * self.size * self.capacity * 4
            self._ring = [self._context.buffer(reserve=length) for _ in range(_RING)]
        buffer = self._ring[self._next]
        self._next = (self._next + 1) % _RING
        self.resolved.read_into(buffer, components=4, alignment=1)
        return buffer

    def finish_read(self, buffer: moderngl.Buffer, count: int) -> Iterator[np.ndarray]:
        """Yield the first `count` tiles of a finished copy, each u8 [size, size, 4]."""
        columns, rows = self.tiles
        atlas = np.frombuffer(buffer.read(), np.uint8).reshape(rows, self.size, columns, self.size, 4)
        for number in range(count):
            yield np.ascontiguousarray(atlas[number // columns, :, number % columns])

    @property
    def ring_size(self) -> int:
        return _RING

    def release(self) -> None:
        items = (self.drawing, self.resolved, self._samples, self._depth, self._pixels, *self._ring)
        for item in items:
            item.release()
        self._ring.clear()
