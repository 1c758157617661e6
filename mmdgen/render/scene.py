"""One uploaded model: draws its rest, expression and posed images.

Materials are drawn in MMD's order, bodies first, then all outlines. Opaque ones are drawn without blending or discard.
With the head at rest the morphs can only change a box of the picture: expression images redraw that box over the rest
image, from the faces that overlap it, with the same program and transforms, hence bit for bit what a full redraw gives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

import moderngl
import numpy as np

from mmdgen.errors import RenderError
from mmdgen.geometry import orthographic, quaternion_matrix
from mmdgen.pose.materials import material_states
from mmdgen.pose.rig import Rig
from mmdgen.render.context import check_errors
from mmdgen.render.draws import DrawLists, InstanceLayout
from mmdgen.render.flow import FlowDrawer, FlowPicture
from mmdgen.render.prepare import Prepared, checked_poses, edge_push, expression_poses
from mmdgen.render.readback import Copy
from mmdgen.render.target import Box, Target
from mmdgen.render.upload import Textures, Upload
from mmdgen.render.view import MMD, MMD_LIGHT, PHONG, View

if TYPE_CHECKING:
    from mmdgen.render.renderer import Renderer

# Against the way in which MikuMikuDance's light travels, (-0.5, -1, 0.5).
MMD_TO_LIGHT = np.array([0.5, 1.0, -0.5]) / np.sqrt(1.5)
_GL_CLIP_DISTANCE0 = 0x3000
_FULL_WINDOW = (-1.0, 1.0, -1.0, 1.0)
_CHUNK = 256  # poses whose data is uploaded at once
_AHEAD = 3  # batches whose pictures are drawn or read back while earlier ones are taken


class Scene:
    """A model on the GPU. Use it as a context manager, or call `release`."""

    def __init__(self, renderer: Renderer, prepared: Prepared, textures: Textures | None = None) -> None:
        self._renderer, self._prepared = renderer, prepared
        self._rig, self._view = prepared.rig, prepared.view
        self._upload = Upload(renderer.context, prepared, textures)
        try:
            check_errors(renderer.context, "uploading a model")
        except RenderError:
            self._upload.release()  # nobody else will: a model that does not fit must not take the next one's memory
            raise
        self._layout = InstanceLayout.of(self._rig, self._view)
        self._stride = self._layout.stride
        self._instances = renderer.context.buffer(reserve=self._stride * 16 * _CHUNK)
        self._common = common_uniforms(self._rig, self._view)
        self._box = self._pixel_box()
        self._lists = DrawLists(renderer, prepared, self._upload, self._layout)
        self._rest: np.ndarray | None = None
        self._instances_of: object = None  # whose poses are uploaded
        self._flow: FlowDrawer | None = None

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
        return self._pictures(checked_poses(self._rig.binding.vocabulary, poses), expression=False)

    def expressions(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        """Yield one image u8 [H, W, 4] per pose of f32 [N, K], with the head at rest."""
        return self._pictures(expression_poses(self._rig.binding.vocabulary, poses), expression=True)

    def flows(self, poses: np.ndarray) -> Iterator[FlowPicture]:
        """Yield where what `posed` shows is in `expressions`, per pose of f32 [N, K]; see `FlowDrawer.flows`."""
        if self._flow is None:
            self._flow = FlowDrawer(
                self._renderer,
                self._prepared,
                self._upload,
                self._layout,
                self._lists,
                self._common,
                self._box,
                self._instance_data,
            )
        return self._flow.flows(checked_poses(self._rig.binding.vocabulary, poses))

    def posed_vertices(self, pose: np.ndarray) -> np.ndarray:
        """Return the positions f32 [v, 3] MU of the kept vertices (`Rig.vertex`) as the vertex shader computes them."""
        self._write_instances(np.asarray(pose, np.float32)[None])
        program = self._renderer.programs.feedback(self._lists.geometry(tiled=False))
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

    def _pictures(self, poses: np.ndarray, expression: bool) -> Iterator[np.ndarray]:
        tiles = self._renderer.tiles_for(self._view.size, self._view.samples)
        return self._single(poses, expression) if tiles == (1, 1) else self._atlas(poses, expression, tiles)

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

    def _atlas(self, poses: np.ndarray, expression: bool, tiles: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield pictures from batches, `_AHEAD` of which are under way while the first one's are taken."""
        target = self._renderer.target(self._view.size, self._view.samples, tiles)
        box = self._box if expression else None
        base = self.rest() if box is not None else None
        pending: deque[tuple[Copy, int]] = deque()
        try:
            for start in range(0, len(poses), target.capacity):
                batch = poses[start : start + target.capacity]
                self._write_instances(batch)
                self._draw(target, box is not None, 0, len(batch), box)
                pending.append((target.start_read(len(batch)), len(batch)))
                check_errors(self._renderer.context, "drawing a batch")
                if len(pending) == _AHEAD:
                    yield from self._tiles(target, pending, box, base)
            while pending:
                yield from self._tiles(target, pending, box, base)
        finally:
            for copy, _ in pending:
                copy.done()

    def _tiles(
        self, target: Target, pending: deque[tuple[Copy, int]], box: Box | None, base: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """Yield the pictures of the first copy that is pending."""
        copy, count = pending[0]
        tiles = list(target.finish_read(copy, count))
        copy.done()
        pending.popleft()
        for tile in tiles:
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
        for draw in self._lists.get(expression, tiled):
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
            for unit, texture in enumerate(draw.textures):
                texture.use(unit)
            for uniform, value in draw.uniforms:
                uniform.write(value)
            draw.array.render(moderngl.TRIANGLES, draw.count, first=draw.first, instances=count)
        for plane in range(4 if tiled else 0):
            context.disable_direct(_GL_CLIP_DISTANCE0 + plane)
        program, triangle = self._renderer.resolver(self._view.samples, linear=self._view.shading == PHONG)
        target.resolve(program, triangle, None if tiled else box)

    def _bind_data(self, first: int, tiled: bool) -> None:
        """Bind the pose data from instance `first` on, and the model's tables."""
        if tiled or not self._layout.uniform_block:
            self._instances.bind_to_storage_buffer(0, offset=first * self._stride * 16)
        else:
            self._instances.bind_to_uniform_block(0, offset=first * self._stride * 16, size=self._stride * 16)
        self._upload.morphs.bind_to_storage_buffer(1)
        self._upload.sdef.bind_to_storage_buffer(2)

    def _set_common(self, program: moderngl.Program) -> None:
        """Set the uniforms that all draws of a program share."""
        for name, value in self._common.items():
            uniform = program.get(name, None)
            if isinstance(uniform, moderngl.Uniform):
                uniform.write(value.tobytes())

    # Data

    def _write_instances(self, poses: np.ndarray) -> None:
        """Upload the instance data of up to `_CHUNK` poses."""
        self._instances_of = None
        self._instances.write(self._instance_data(poses).tobytes())

    def _instance_data(self, poses: np.ndarray) -> np.ndarray:
        """Return the instance data of poses f32 [N, K], f32 [N, stride, 4]."""
        rig = self._rig
        data = np.zeros((len(poses), self._stride, 4), np.float32)
        rotation, translation = rig.evaluate(poses)
        layout = self._layout
        groups = data[:, : layout.weight_offset].reshape(len(poses), rig.groups.count, 4, 4)
        groups[:, :, :3, :3] = quaternion_matrix(rotation)
        groups[:, :, :3, 3] = translation
        groups[:, :, 3] = rotation
        weights = rig.morph_weights(poses)
        flat = data[:, layout.weight_offset : layout.material_offset].reshape(len(poses), -1)
        flat[:, : weights.shape[1]] = weights
        if layout.dynamic:
            states = material_states(rig.model, rig.binding, rig.flat, layout.dynamic, poses)[:, :, : layout.rows]
            end = layout.material_offset + layout.rows * len(layout.dynamic)
            data[:, layout.material_offset : end] = states.reshape(len(poses), -1, 4)
        return data

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
        if self._flow is not None:
            self._flow.release()
        self._upload.release()
        self._instances.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def common_uniforms(rig: Rig, view: View) -> dict[str, np.ndarray]:
    """Return the uniforms that do not depend on the material: camera, light and the width of edges."""
    if view.camera is not None:
        projection, (right, up, forward) = view.camera.transform(), view.camera.axes()
        if view.shading == MMD:
            # Direct3D 9 has pixels' centres on whole coordinates: half a pixel to the right and down.
            projection = projection + np.outer([1 / view.size, -1 / view.size, 0, 0], projection[3])
        eye = np.append(view.camera.position, 1.0) if view.camera.fov_deg is not None else np.append(-forward, 0.0)
    else:
        half, x, y = view.height / 2, view.center_x, view.center_y
        projection, (right, up, forward) = orthographic(x - half, x + half, y - half, y + half, *rig.depth), np.eye(3)
        eye = np.append(-forward, 0.0)
    values = {
        "u_projection": np.ascontiguousarray(projection.T),  # GL wants columns
        "u_light": np.array([view.ambient, view.directional]),
        "u_light_color": np.full(3, MMD_LIGHT),
        "u_to_light": MMD_TO_LIGHT,
        "u_right": right,
        "u_up": up,
        "u_eye": eye,
        "u_push": np.array(edge_push(view, rig.model.skeleton.rest)),
        "u_texture": np.array(0, np.int32),
        "u_sphere": np.array(1, np.int32),
        "u_toon": np.array(2, np.int32),
    }
    return {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in values.items()}
