"""Draws prepared models: the rest image, expression images, posed images.

One `Renderer` owns the process's GL context; everything here is called from the thread that made it. Pictures are u8
[H, W, 4], sRGB, straight alpha, row 0 on top, RGB 0 where alpha is 0.
"""

from __future__ import annotations

from typing import Any, ClassVar

import moderngl

from mmdgen.errors import RenderError
from mmdgen.render.context import create_context, describe, is_software
from mmdgen.render.devices import AUTO, Choice, resolve
from mmdgen.render.flow import FlowTarget
from mmdgen.render.prepare import Prepared
from mmdgen.render.programs import Programs
from mmdgen.render.scene import Scene
from mmdgen.render.target import Target
from mmdgen.render.toon import shared_ramp
from mmdgen.render.view import SAMPLE_GRIDS

# Tiles of an atlas. The software renderer gains nothing from batches; a GPU needs them against the cost of draw calls.
GPU_TILES = (8, 4)
SOFTWARE_TILES = (1, 1)
# The largest atlas: sides that every driver takes, and samples of 12 bytes (400 MB).
_MOST_SIDE, _MOST_SAMPLES = 16384, 1 << 25


class Renderer:
    """The context with its programs and targets. Use it as a context manager, or call `release`.

    There is one at a time in a process: GL objects made while another context is current read back zeros without any
    error. `device` is an EGL device index or another choice of `devices`, of which the first is taken; `tiles` the
    columns and rows of the atlas (None: what suits the device).
    Raises `RenderError` where no context can be made.
    """

    _live: ClassVar[bool] = False

    def __init__(self, device: Choice = AUTO, tiles: tuple[int, int] | None = None) -> None:
        if Renderer._live:
            raise RenderError("this process has a renderer already; release it before making another one")
        self.context = create_context(resolve(device)[0])
        Renderer._live = True
        self.programs = Programs(self.context)
        self.tiles = tiles or (SOFTWARE_TILES if is_software(self.context) else GPU_TILES)
        self._targets: dict[tuple, Target] = {}
        self._flow_targets: dict[tuple, FlowTarget] = {}
        self._flow_resolver: tuple[moderngl.Program, moderngl.VertexArray] | None = None
        self._ramps: dict[int, moderngl.Texture] = {}
        self._resolves: dict[tuple[int, bool], tuple[moderngl.Program, moderngl.VertexArray]] = {}
        self._white = self.context.texture((1, 1), 4, b"\xff\xff\xff\xff")
        # Sphere maps and toon ramps end at their borders, unlike other textures.
        self._clamps = [
            self.context.sampler(repeat_x=False, repeat_y=False, filter=(minify, moderngl.LINEAR))
            for minify in (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        ]
        for unit, sampler in enumerate(self._clamps, start=1):
            sampler.use(unit)

    def report(self) -> dict[str, Any]:
        """Return what draws, for manifests: vendor, renderer, version, software."""
        return describe(self.context)

    def scene(self, prepared: Prepared) -> Scene:
        """Upload a model. Release the scene (or leave its `with` block) before the next one to keep memory flat."""
        return Scene(self, prepared)

    @property
    def white(self) -> moderngl.Texture:
        return self._white

    def tiles_for(self, size: int, samples: int) -> tuple[int, int]:
        """Return the atlas (columns, rows) for pictures of `size` pixels, `samples` a pixel: fewer for large ones."""
        columns, rows = self.tiles
        side = size * SAMPLE_GRIDS[samples]
        while columns * rows > 1 and (
            columns * rows * side * side > _MOST_SAMPLES
            or max(columns, rows) * side > _MOST_SIDE
            or columns * rows * size > _MOST_SIDE  # the pictures lie one after the other
        ):
            columns, rows = (columns // 2, rows) if columns > rows else (columns, rows // 2)
            columns, rows = max(columns, 1), max(rows, 1)
        return columns, rows

    def target(self, size: int, samples: int, tiles: tuple[int, int]) -> Target:
        """Return the (kept) target for pictures of `size` pixels with `samples` a pixel."""
        key = (size, samples, tiles)
        target = self._targets.pop(key, None) or Target(self.context, size, SAMPLE_GRIDS[samples], tiles)
        self._targets[key] = target  # the last one used comes last
        return target

    def flow_target(self, size: int, tiles: tuple[int, int]) -> FlowTarget:
        """Return the (kept) target for flows of `size` pixels."""
        if (size, tiles) not in self._flow_targets:
            self._flow_targets[size, tiles] = FlowTarget(self.context, size, tiles)
        return self._flow_targets[size, tiles]

    def flow_resolver(self) -> tuple[moderngl.Program, moderngl.VertexArray]:
        """Return the program that makes flows of what `FlowDrawer` has drawn, and its triangle."""
        if self._flow_resolver is None:
            program = self.programs.flow_resolve()
            self._flow_resolver = (program, self.context.vertex_array(program, []))
        return self._flow_resolver

    def trim(self, count: int) -> None:
        """Free all but the `count` targets used last. No generator of pictures may be under way."""
        for key in list(self._targets)[: max(0, len(self._targets) - count)]:
            self._targets.pop(key).release()

    def resolver(self, samples: int, *, linear: bool) -> tuple[moderngl.Program, moderngl.VertexArray]:
        """Return the program that averages `samples` (linear light, or sRGB as it is) and its triangle."""
        key = (samples, linear)
        if key not in self._resolves:
            program = self.programs.resolve(SAMPLE_GRIDS[samples], linear=linear)
            self._resolves[key] = (program, self.context.vertex_array(program, []))
        return self._resolves[key]

    def toon_ramp(self, number: int) -> moderngl.Texture:
        """Return shared toon ramp 0 to 9."""
        if number not in self._ramps:
            texels = shared_ramp(number)
            self._ramps[number] = self.context.texture((texels.shape[1], texels.shape[0]), 4, texels.tobytes())
        return self._ramps[number]

    def release(self) -> None:
        """Free everything, the context last."""
        for target in (*self._targets.values(), *self._flow_targets.values()):
            target.release()
        if self._flow_resolver is not None:
            self._flow_resolver[1].release()
        for _, triangle in self._resolves.values():
            triangle.release()
        for item in (*self._ramps.values(), *self._clamps):
            item.release()
        self._ramps.clear()
        self._targets.clear()
        self._flow_targets.clear()
        self._resolves.clear()
        self._white.release()
        self.programs.release()
        self.context.release()
        Renderer._live = False

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
