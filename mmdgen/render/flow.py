"""Where what the posed image shows is in the expression image: displacement and visibility of every pixel.

The posed model is drawn once more, one sample at every pixel's centre, by the very draw calls of the picture: same
order, depth rules, culling and alpha. Vertices are skinned twice by the picture's own vertex shader, which writes them
into buffers: as posed, and with the head at rest. What is interpolated between them is exact. A map of the expression
image, drawn in the same way, says which of these surfaces can be seen there (see `flow_resolve.frag`).

Outlines are surfaces like others: their hull has a displacement of its own, and is seen where the other picture shows
that part of the hull.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import moderngl
import numpy as np

from mmdgen.errors import RenderError
from mmdgen.render.context import check_errors
from mmdgen.render.draws import Draw, DrawLists, InstanceLayout
from mmdgen.render.prepare import Prepared
from mmdgen.render.target import Box
from mmdgen.render.upload import Upload, vertex_layout

if TYPE_CHECKING:
    from mmdgen.render.renderer import Renderer

STEPS = 64  # a pixel: displacements are rounded to that
_SMALL = 512  # pixels a side: up to here a displacement that 16 bits cannot hold leads out of the picture
_CLIP_DISTANCE0 = 0x3000
_CHUNK = 256  # poses whose data is uploaded at once
_FIELDS = (("", 3), ("_normal", 3), ("_uv", 2))  # what is written of a vertex, f32
_VERTEX_BYTES = 4 * sum(width for _, width in _FIELDS)

FlowPicture = tuple[np.ndarray, np.ndarray]


class FlowTarget:
    """What a batch of flows is drawn into: `places` of the posed surfaces, a `map` of the expression image, results."""

    def __init__(self, context: moderngl.Context, size: int, tiles: tuple[int, int]) -> None:
        self.size, self.tiles = size, tiles
        whole = (size * tiles[0], size * tiles[1])
        self.kind = "i2" if size <= _SMALL else "i4"
        self._depth = context.depth_renderbuffer(whole)
        self._textures = [context.texture(whole, 4, dtype="f4") for _ in range(2)]
        for texture in self._textures:
            texture.filter = (moderngl.NEAREST, moderngl.NEAREST)
        self.places, self.map = (context.framebuffer([texture], self._depth) for texture in self._textures)
        self._result = context.texture(whole, 4, dtype=self.kind)
        self.result = context.framebuffer([self._result])
        self.map_of: object = None  # whose rest image the map shows, outside the expression box at least

    def begin(self, buffer: moderngl.Framebuffer, box: Box | None) -> None:
        """Draw into `places` or `map` from now on, and clear it, or only `box`."""
        buffer.use()
        box = box or (0, 0, *self._result.size)
        buffer.scissor = box
        buffer.clear(0.0, 0.0, 0.0, 0.0, depth=1.0, viewport=box)

    def resolve(self, program: moderngl.Program, triangle: moderngl.VertexArray) -> None:
        """Turn places and map into results."""
        self.result.use()
        for unit, (name, texture) in enumerate(zip(("u_places", "u_map"), self._textures, strict=True), start=3):
            texture.use(unit)
            program[name] = unit
        program["u_size"], program["u_steps"] = self.size, float(STEPS)
        program["u_most"] = float(np.iinfo(self.kind).max if self.kind == "i2" else 2**24)
        triangle.render(moderngl.TRIANGLES, 3)

    def read(self, count: int) -> Iterator[FlowPicture]:
        """Yield the first `count` tiles' flows f32 [S, S, 2] in pixels and visibilities u8 [S, S]."""
        columns, rows = self.tiles
        data = self.result.read(components=4, alignment=1, dtype=self.kind)
        atlas = np.frombuffer(data, self.kind).reshape(rows, self.size, columns, self.size, 4)
        for number in range(count):
            tile = atlas[number // columns, :, number % columns]
            yield tile[..., :2].astype(np.float32) / np.float32(STEPS), tile[..., 2].astype(np.uint8)

    def release(self) -> None:
        for item in (self.places, self.map, self.result, *self._textures, self._result, self._depth):
            item.release()


class FlowDrawer:
    """Draws the flows of one uploaded model. `instances` gives the pose data of poses, as the picture has it.

    Raises `RenderError` for a view with a camera: flow is of front views.
    """

    def __init__(
        self,
        renderer: Renderer,
        prepared: Prepared,
        upload: Upload,
        layout: InstanceLayout,
        lists: DrawLists,
        common: dict[str, np.ndarray],
        box: Box | None,
        instances: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        if prepared.view.camera is not None:
            raise RenderError("flow is drawn for the front view of a head, not through a camera")
        self._renderer, self._prepared, self._upload = renderer, prepared, upload
        self._layout, self._lists, self._box, self._instances = layout, lists, box, instances
        self._tiles = renderer.tiles_for(prepared.view.size, 1)
        self._count = len(prepared.rig.vertex)
        view, context = prepared.view, renderer.context
        scale = view.size / view.height
        self._common = {**common, "u_depth": np.array([scale, prepared.rig.depth[0]], np.float32)}
        capacity = self._tiles[0] * self._tiles[1]
        self._data = [context.buffer(reserve=layout.stride * 16 * max(_CHUNK, capacity)) for _ in range(2)]
        self._vertices = [context.buffer(reserve=self._count * _VERTEX_BYTES * capacity) for _ in range(2)]
        self._data_of: object = None  # whose poses are uploaded
        self._arrays: dict[tuple[int, bool], moderngl.VertexArray] = {}
        self._passes: dict[tuple[bool, bool], tuple[Draw, ...]] = {}

    def flows(self, poses: np.ndarray) -> Iterator[FlowPicture]:
        """Yield (flow f32 [S, S, 2] in pixels, visibility u8 [S, S]) per pose of f32 [N, K].

        posed(x, y) shows the surface point of expression(x + dx, y + dy), x right, y down, between pixels' centres.
        Visibility: 0 nothing half opaque is at the pixel's centre (flow 0), 1 what is there is hidden in the expression
        image or outside its frame, 2 it is seen there. Both of a picture are to be taken before the next is asked for.
        """
        poses = np.asarray(poses, np.float32)
        target = self._renderer.flow_target(self._prepared.view.size, self._tiles)
        single = self._tiles == (1, 1)
        capacity = self._tiles[0] * self._tiles[1]
        upload = _CHUNK if single else capacity
        for start in range(0, len(poses), upload):
            chunk = poses[start : start + upload]
            data = [self._instances(chunk), self._instances(self._still(chunk))]
            owner = object()
            for first in range(0, len(chunk), capacity):
                count = min(capacity, len(chunk) - first)
                if self._data_of is not owner:  # other flows of this model were asked for in between
                    for buffer, content in zip(self._data, data, strict=True):
                        buffer.write(content.tobytes())
                    self._data_of = owner
                self._draw(target, first, count)
                check_errors(self._renderer.context, "drawing a flow")
                yield from target.read(count)

    def _still(self, poses: np.ndarray) -> np.ndarray:
        vocabulary = self._prepared.rig.binding.vocabulary
        still = poses.copy()
        for column, parameter in enumerate(vocabulary.parameters):
            if parameter.kind == "rotation":
                still[:, column] = vocabulary.rest[column]
        return still

    # Drawing

    def _draw(self, target: FlowTarget, first: int, count: int) -> None:
        """Draw the flows of `count` uploaded poses from `first` on into `target`."""
        context, tiled = self._renderer.context, self._tiles != (1, 1)
        target.places.use()  # without any complete framebuffer bound nothing is written, vertices neither
        for data, vertices in zip(self._data, self._vertices, strict=True):
            self._skin(data, vertices, first, count)
        context.front_face, context.depth_func = "cw", "<="
        context.blend_func = (moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA)
        self._bind(self._data[0], first)  # materials are the same in both images: the head's turn changes none
        if tiled:
            for number, vertices in enumerate(self._vertices, start=3):
                vertices.bind_to_storage_buffer(number)
            for plane in range(4):
                context.enable_direct(_CLIP_DISTANCE0 + plane)
        # Outside the expression box every expression image is the same: there the map stays as it was.
        box = None if tiled or target.map_of is not self else self._box
        if box is None or box[2]:
            context.enable_only(moderngl.DEPTH_TEST)
            target.begin(target.map, box)
            self._run(self._pass(mapped=True, boxed=box is not None), count)
        target.map_of = None if tiled else self
        context.enable_only(moderngl.DEPTH_TEST)
        target.begin(target.places, None)
        self._run(self._pass(mapped=False, boxed=False), count)
        for plane in range(4 if tiled else 0):
            context.disable_direct(_CLIP_DISTANCE0 + plane)
        context.enable_only(moderngl.NOTHING)
        target.resolve(*self._renderer.flow_resolver())

    def _run(self, draws: tuple[Draw, ...], count: int) -> None:
        context = self._renderer.context
        bound: set[int] = set()
        for draw in draws:
            if id(draw.program) not in bound:
                bound.add(id(draw.program))
                self._set_common(draw.program)
            (context.enable if draw.blend else context.disable)(moderngl.BLEND)
            if draw.cull is None:
                context.disable(moderngl.CULL_FACE)
            else:
                context.enable(moderngl.CULL_FACE)
                context.cull_face = draw.cull
            for unit, texture in enumerate(draw.textures):
                texture.use(unit)
            for uniform, value in draw.uniforms:
                uniform.write(value)
            draw.array.render(moderngl.TRIANGLES, draw.count, first=draw.first, instances=count)

    def _skin(self, data: moderngl.Buffer, vertices: moderngl.Buffer, first: int, count: int) -> None:
        """Write the kept vertices of `count` poses: position, normal and uv as 8 f32."""
        program = self._renderer.programs.surface(self._lists.geometry(tiled=self._tiles != (1, 1)))
        self._bind(data, first)
        self._set_common(program)
        array = self._upload.array(program, indexed=False)
        array.transform(vertices, moderngl.POINTS, vertices=self._count, instances=count)

    def _bind(self, data: moderngl.Buffer, first: int) -> None:
        length = self._layout.stride * 16
        if self._tiles != (1, 1) or not self._layout.uniform_block:
            data.bind_to_storage_buffer(0, offset=first * length)
        else:
            data.bind_to_uniform_block(0, offset=first * length, size=length)
        self._upload.morphs.bind_to_storage_buffer(1)
        self._upload.sdef.bind_to_storage_buffer(2)

    def _set_common(self, program: moderngl.Program) -> None:
        tiles = {"u_tiles": np.array(self._tiles, np.int32), "u_vertices": np.array(self._count, np.int32)}
        for name, value in {**self._common, **tiles}.items():
            uniform = program.get(name, None)
            if isinstance(uniform, moderngl.Uniform):
                uniform.write(value.tobytes())

    # From the picture's draw calls to those of flow

    def _pass(self, *, mapped: bool, boxed: bool) -> tuple[Draw, ...]:
        key = (mapped, boxed)
        if key not in self._passes:
            calls = self._lists.get(boxed, self._tiles != (1, 1))
            self._passes[key] = tuple(self._call(call, mapped, boxed) for call in calls)
        return self._passes[key]

    def _call(self, call: Draw, mapped: bool, boxed: bool) -> Draw:
        """Return the call that draws the surface that `call` paints."""
        given = {uniform.name: value for uniform, value in call.uniforms}
        edge = call.cull == "front"
        dynamic = "u_material_offset" in given
        program = self._renderer.programs.flow(
            {
                "MAP": int(mapped),
                "EDGE": int(edge),
                "OPAQUE": int(not call.blend),
                "DYNAMIC": int(dynamic),
                "SECOND_UV": int("in_uv1" in call.program),
                "TILES": int(self._tiles != (1, 1)),
                "STRIDE": self._layout.stride,
                "STORAGE": int(not self._layout.uniform_block),
            }
        )
        values = {name: given[name] for name in ("u_material_offset", "u_edge_size") if name in given}
        color = given.get("u_edge_color" if edge else "u_diffuse")
        if color is not None:
            values["u_alpha"] = color[12:16]
        pairs = ((program.get(name, None), value) for name, value in values.items())
        uniforms = tuple((uniform, value) for uniform, value in pairs if isinstance(uniform, moderngl.Uniform))
        textures = (*call.textures, self._renderer.white, self._renderer.white)[:2]
        array = self._array(program, boxed)
        return Draw(program, array, call.first, call.count, textures, call.blend, call.cull, uniforms)

    def _array(self, program: moderngl.Program, boxed: bool) -> moderngl.VertexArray:
        key = (id(program), boxed)
        if key not in self._arrays:
            buffers = [(self._upload.vertices, vertex_layout(self._upload.layout, program))]
            if self._tiles == (1, 1):
                for buffer, name in zip(self._vertices, ("turned", "still"), strict=True):
                    shape = np.dtype([(f"in_{name}{end}", "<f4", (width,)) for end, width in _FIELDS])
                    buffers.append((buffer, vertex_layout(np.zeros(0, shape), program)))
            content = [(buffer, *layout) for buffer, layout in buffers if len(layout) > 1]
            index = self._upload.expression_index if boxed else self._upload.index
            self._arrays[key] = self._renderer.context.vertex_array(program, content, index_buffer=index)
        return self._arrays[key]

    def release(self) -> None:
        for item in (*self._arrays.values(), *self._data, *self._vertices):
            item.release()
        self._arrays.clear()
        self._passes.clear()
