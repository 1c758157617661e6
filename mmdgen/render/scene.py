"""One uploaded model: draws its rest, expression and posed images.

Materials are drawn in MMD's order, bodies first, then all outlines. Opaque ones are drawn without blending or discard.
With the head at rest the morphs can only change a box of the picture: expression images redraw that box over the rest
image, from the faces that overlap it, with the same program and transforms, hence bit for bit what a full redraw gives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import moderngl
import numpy as np

from mmdgen.errors import RenderError
from mmdgen.geometry import orthographic, quaternion_matrix
from mmdgen.pose.materials import dynamic_materials, material_colors
from mmdgen.pose.rig import DrawRange
from mmdgen.render.context import check_errors
from mmdgen.render.prepare import Prepared, edge_push, srgb_to_linear
from mmdgen.render.target import Box, Target
from mmdgen.render.upload import Upload, dense_groups, dense_morphs

if TYPE_CHECKING:
    from mmdgen.render.renderer import Renderer

# What 8 bits cannot tell from 1: many old models have 0.999, which there only means double-sided.
_OPAQUE = 254.5 / 255
_GL_CLIP_DISTANCE0 = 0x3000
_FULL_WINDOW = (-1.0, 1.0, -1.0, 1.0)
# Poses whose data is uploaded at once, and the alignment of one pose's data: uniform block offsets are multiples of 256
# bytes at most.
_CHUNK = 256
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class _Draw:
    """One draw call: constant uniforms (by name, as bytes) and state."""

    program: moderngl.Program
    array: moderngl.VertexArray
    first: int
    count: int
    texture: moderngl.Texture | None
    blend: bool
    cull: str | None  # the faces that are not drawn
    uniforms: tuple[tuple[moderngl.Uniform, bytes], ...]


class Scene:
    """A model on the GPU. Use it as a context manager, or call `release`."""

    def __init__(self, renderer: Renderer, prepared: Prepared) -> None:
        self._renderer, self._prepared = renderer, prepared
        self._rig, self._view = prepared.rig, prepared.view
        self._upload = Upload(renderer.context, prepared)
        check_errors(renderer.context, "uploading a model")
        self._dynamic = dynamic_materials(self._rig.model, self._rig.flat)
        columns = len(self._rig.columns)
        self._weight_offset = self._rig.groups.count * 4
        self._material_offset = self._weight_offset + (columns + 3) // 4
        used = self._material_offset + 2 * len(self._dynamic)
        self._stride = -(-used // _ALIGNMENT) * _ALIGNMENT
        self._instances = renderer.context.buffer(reserve=self._stride * 16 * _CHUNK)
        view = self._view
        half = view.height / 2
        self._projection = orthographic(
            view.center_x - half, view.center_x + half, view.center_y - half, view.center_y + half, *self._rig.depth
        )
        self._box = self._pixel_box()
        self._lists: dict[tuple[bool, bool], tuple[_Draw, ...]] = {}
        self._rest: np.ndarray | None = None
        self._instances_of: object = None  # whose poses are uploaded

    # Pictures

    def rest(self) -> np.ndarray:
        """Return the rest image, u8 [H, W, 4]."""
        if self._rest is None:
            pose = self._rig.binding.vocabulary.rest[None]
            # By the same program as the expression images, which are pasted into it.
            self._rest = next(self._pictures(pose, expression=False))
        return self._rest.copy()

    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        """Yield one image u8 [H, W, 4] per pose of f32 [N, K]."""
        return self._images(poses, expression=False)

    def expressions(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        """Yield one image u8 [H, W, 4] per pose of f32 [N, K], with the head at rest."""
        poses = np.array(poses, np.float32, ndmin=2)
        rest = self._rig.binding.vocabulary.rest
        for column, parameter in enumerate(self._rig.binding.vocabulary.parameters):
            if parameter.kind == "rotation":
                poses[:, column] = rest[column]
        return self._images(poses, expression=True)

    def posed_vertices(self, pose: np.ndarray) -> np.ndarray:
        """Return the positions f32 [v, 3] MU of the kept vertices (`Rig.vertex`) as the vertex shader computes them."""
        self._write_instances(np.asarray(pose, np.float32)[None])
        program = self._renderer.programs.feedback(self._geometry(tiled=False))
        array = self._upload.array(program, indexed=False)
        count = len(self._rig.vertex)
        result = self._renderer.context.buffer(reserve=count * 12)
        # Without any complete framebuffer bound, nothing is drawn and nothing is written.
        self._renderer.target(self._view.size, self._view.samples, (1, 1)).drawing.use()
        self._bind_data(0, tiled=False)
        self._set_common(program)
        array.transform(result, moderngl.POINTS, vertices=count)
        check_errors(self._renderer.context, "reading vertices back")
        positions = np.frombuffer(result.read(), np.float32).reshape(count, 3).copy()
        result.release()
        return positions

    # Batches

    def _images(self, poses: np.ndarray, expression: bool) -> Iterator[np.ndarray]:
        poses = np.asarray(poses, np.float32)
        if poses.ndim != 2 or poses.shape[1] != len(self._rig.binding.vocabulary.parameters):
            raise RenderError(f"poses must be [N, {len(self._rig.binding.vocabulary.parameters)}], found {poses.shape}")
        return self._pictures(poses, expression)

    def _pictures(self, poses: np.ndarray, expression: bool) -> Iterator[np.ndarray]:
        return (self._single if self._renderer.tiles == (1, 1) else self._atlas)(poses, expression)

    def _single(self, poses: np.ndarray, expression: bool) -> Iterator[np.ndarray]:
        """Yield pictures one by one, so that the caller can compress one while the next is drawn."""
        target = self._renderer.target(self._view.size, self._view.samples, (1, 1))
        box = self._box if expression else None
        base = self.rest() if box is not None else None
        for start in range(0, len(poses), _CHUNK):
            chunk = poses[start : start + _CHUNK]
            owner = object()
            for number in range(len(chunk)):
                if base is not None and box is not None and box[2] == 0:
                    yield base.copy()
                    continue
                if self._instances_of is not owner:  # another picture of this scene was asked for in between
                    self._write_instances(chunk)
                    self._instances_of = owner
                self._draw(target, box is not None, number, 1, box)
                pixels = target.read(box)
                check_errors(self._renderer.context, "drawing")
                if base is not None and box is not None:
                    x, y, width, height = target.read_box(box)
                    image = base.copy()
                    image[y : y + height, x : x + width] = pixels
                    pixels = image
                yield pixels

    def _atlas(self, poses: np.ndarray, expression: bool) -> Iterator[np.ndarray]:
        """Yield pictures from batches. All of a scene's pictures of one call are to be taken before the next call's."""
        target = self._renderer.target(self._view.size, self._view.samples, self._renderer.tiles)
        box = self._box if expression else None
        base = self.rest() if box is not None else None
        pending: deque[tuple[moderngl.Buffer, int]] = deque()
        for start in range(0, len(poses), target.capacity):
            batch = poses[start : start + target.capacity]
            self._write_instances(batch)
            self._draw(target, box is not None, 0, len(batch), box)
            pending.append((target.start_read(), len(batch)))
            check_errors(self._renderer.context, "drawing a batch")
            if len(pending) == target.ring_size:
                yield from self._tiles(target, pending.popleft(), box, base)
        while pending:
            yield from self._tiles(target, pending.popleft(), box, base)

    def _tiles(
        self, target: Target, read: tuple[moderngl.Buffer, int], box: Box | None, base: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        for tile in target.finish_read(*read):
            if box is None or base is None:
                yield tile
            else:
                x, y, width, height = target.read_box(box)
                image = base.copy()
                image[y : y + height, x : x + width] = tile[y : y + height, x : x + width]
                yield image

    # Drawing

    def _draw(self, target: Target, expression: bool, first: int, count: int, box: Box | None) -> None:
        tiled = target.tiles != (1, 1)
        context = self._renderer.context
        target.begin(None if tiled else box)
        context.front_face = "cw"  # PMX faces are clockwise seen from outside, in the same handedness as GL's screen
        context.depth_func = "<="  # later coplanar layers (eye highlights) win, as in Direct3D's default
        context.enable_only(moderngl.DEPTH_TEST)
        context.blend_func = (moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA)
        self._bind_data(first, tiled)
        for plane in range(4 if tiled else 0):  # what leaves its tile must not show in the next one
            context.enable_direct(_GL_CLIP_DISTANCE0 + plane)
        bound: set[int] = set()
        window = self._window(box, target) if tiled else _FULL_WINDOW
        blending, culling = False, None
        for draw in self._draw_list(expression, tiled):
            if id(draw.program) not in bound:
                bound.add(id(draw.program))
                self._set_common(draw.program)
                if tiled:
                    draw.program["u_tiles"] = target.tiles
                    draw.program["u_window"] = window
            if draw.blend != blending:
                (context.enable if draw.blend else context.disable)(moderngl.BLEND)
                blending = draw.blend
            if draw.cull != culling:
                if draw.cull is None:
                    context.disable(moderngl.CULL_FACE)
                else:
                    context.enable(moderngl.CULL_FACE)
                    context.cull_face = draw.cull
                culling = draw.cull
            if draw.texture is not None:
                draw.texture.use(0)
            for uniform, value in draw.uniforms:
                uniform.write(value)
            draw.array.render(moderngl.TRIANGLES, draw.count, first=draw.first, instances=count)
        for plane in range(4 if tiled else 0):
            context.disable_direct(_GL_CLIP_DISTANCE0 + plane)
        program, triangle = self._renderer.resolver(self._view.samples)
        target.resolve(program, triangle, None if tiled else box)

    def _bind_data(self, first: int, tiled: bool) -> None:
        """Bind the pose data from instance `first` on, and the model's tables."""
        if tiled:
            self._instances.bind_to_storage_buffer(0, offset=first * self._stride * 16)
        else:
            self._instances.bind_to_uniform_block(0, offset=first * self._stride * 16, size=self._stride * 16)
        self._upload.morphs.bind_to_storage_buffer(1)
        self._upload.sdef.bind_to_storage_buffer(2)

    def _set_common(self, program: moderngl.Program) -> None:
        """Set the uniforms that all draws of a program share."""
        if "u_light" in program:
            program["u_light"] = (self._view.ambient, self._view.directional)
        projection = program.get("u_projection", None)
        if isinstance(projection, moderngl.Uniform):
            projection.write(np.ascontiguousarray(self._projection.T).tobytes())  # GL wants columns

    def _draw_list(self, expression: bool, tiled: bool) -> tuple[_Draw, ...]:
        key = (expression, tiled)
        if key not in self._lists:
            ranges = self._rig.expression_draws if expression else self._rig.draws
            bodies = [self._body(item, expression, tiled) for item in ranges]
            edges = [self._edge(item, expression, tiled) for item in ranges if self._has_edge(item.material)]
            self._lists[key] = _merged([*bodies, *edges])
        return self._lists[key]

    def _geometry(self, tiled: bool) -> dict[str, int]:
        return {
            "GROUPS": self._rig.groups.count,
            "DENSE_GROUPS": int(dense_groups(self._rig)),
            "INFLUENCES": self._rig.influences,
            "COLUMNS": len(self._rig.columns),
            "DENSE_MORPHS": int(dense_morphs(self._rig)),
            "STRIDE": self._stride,
            "SDEF": int(len(self._rig.sdef) > 0),
            "TILES": int(tiled),
        }

    def _body(self, item: DrawRange, expression: bool, tiled: bool) -> _Draw:
        material = self._rig.model.materials[item.material]
        image = self._prepared.images.get(material.texture)
        dynamic = item.material in self._dynamic
        opaque = material.diffuse[3] > _OPAQUE and not dynamic and not (image is not None and image.alpha)
        specular = self._view.specular > 0 and material.specular_power > 0
        program = self._renderer.programs.phong(
            self._geometry(tiled), opaque=opaque, specular=specular, dynamic=dynamic
        )
        values: dict[str, np.ndarray] = {}
        if dynamic:
            slot = self._material_offset + 2 * self._dynamic.index(item.material)
            values["u_material_offset"] = np.array(slot, np.int32)
        else:
            values["u_diffuse"] = np.clip(np.array(material.diffuse, np.float32), 0, 1)
            values["u_ambient"] = np.clip(np.array(material.ambient, np.float32), 0, 1)
        if specular:
            colour = np.array(material.specular, np.float32) * self._view.specular
            values["u_specular"] = np.append(colour, material.specular_power).astype(np.float32)
        return _Draw(
            program,
            self._upload.array(program, expression),
            item.first,
            item.count,
            self._upload.textures.get(material.texture, self._renderer.white),
            not opaque,
            None if material.double_sided else "back",
            _uniforms(program, values),
        )

    def _has_edge(self, number: int) -> bool:
        material = self._rig.model.materials[number]
        wanted = self._view.outline > 0 and material.edge and material.edge_size > 0
        return wanted and material.edge_color[3] > 0 and material.diffuse[3] > 0

    def _edge(self, item: DrawRange, expression: bool, tiled: bool) -> _Draw:
        material = self._rig.model.materials[item.material]
        program = self._renderer.programs.edge(self._geometry(tiled))
        alpha = min(material.edge_color[3], 1.0)
        colour = srgb_to_linear(np.clip(material.edge_color[:3], 0, 1)) * alpha
        values = {
            "u_edge_color": np.append(colour, alpha).astype(np.float32),
            "u_push": np.array(edge_push(self._view) * material.edge_size, np.float32),
        }
        array = self._upload.array(program, expression)
        return _Draw(program, array, item.first, item.count, None, alpha < 1, "front", _uniforms(program, values))

    # Data

    def _write_instances(self, poses: np.ndarray) -> None:
        """Upload the instance data of up to `_CHUNK` poses."""
        self._instances_of = None
        rig = self._rig
        data = np.zeros((len(poses), self._stride, 4), np.float32)
        rotation, translation = rig.evaluate(poses)
        groups = data[:, : self._weight_offset].reshape(len(poses), rig.groups.count, 4, 4)
        groups[:, :, :3, :3] = quaternion_matrix(rotation)
        groups[:, :, :3, 3] = translation
        groups[:, :, 3] = rotation
        weights = rig.morph_weights(poses)
        flat = data[:, self._weight_offset : self._material_offset].reshape(len(poses), -1)
        flat[:, : weights.shape[1]] = weights
        if self._dynamic:
            colours = material_colors(rig.model, rig.binding, rig.flat, self._dynamic, poses)
            end = self._material_offset + 2 * len(self._dynamic)
            rows = data[:, self._material_offset : end].reshape(len(poses), len(self._dynamic), 2, 4)
            rows[:, :, 0] = colours[:, :, :4]
            rows[:, :, 1, :3] = colours[:, :, 4:]
        self._instances.write(data.tobytes())

    def _pixel_box(self) -> Box | None:
        """Return the expression box in pixels from the bottom left, one pixel wider all round; None for everything."""
        if self._rig.expression_box is None:
            return None
        left, right, bottom, top = self._rig.expression_box
        view = self._view
        scale = view.size / view.height
        x0 = int(np.clip(np.floor((left - view.center_x + view.height / 2) * scale) - 1, 0, view.size))
        x1 = int(np.clip(np.ceil((right - view.center_x + view.height / 2) * scale) + 1, 0, view.size))
        y0 = int(np.clip(np.floor((bottom - view.center_y + view.height / 2) * scale) - 1, 0, view.size))
        y1 = int(np.clip(np.ceil((top - view.center_y + view.height / 2) * scale) + 1, 0, view.size))
        return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else (0, 0, 0, 0)

    def _window(self, box: Box | None, target: Target) -> tuple[float, float, float, float]:
        if box is None:
            return _FULL_WINDOW
        x, y, width, height = (2 * value / target.size for value in box)
        return (x - 1, x + width - 1, y - 1, y + height - 1)

    def release(self) -> None:
        """Free the model's GL objects."""
        self._upload.release()
        self._instances.release()
        self._lists.clear()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _merged(draws: list[_Draw]) -> tuple[_Draw, ...]:
    """Join neighbours that differ in nothing but their adjoining faces: outlines above all."""
    result: list[_Draw] = []
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
