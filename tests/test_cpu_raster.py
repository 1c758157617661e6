"""The CPU rasteriser: the same bytes always and everywhere, the same picture as OpenGL's, and when it is taken.

What pictures must show is tested in test_cpu_raster_oracles.py. Bounds are in steps of 1/255.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import subprocess
import sys
from pathlib import Path

import click
import cpu_cases
import numpy as np
import pytest
from PIL import Image
from test_deform import CENTRES, bind, sdef_toy, wide, wide_poses
from toy import GREY, RED, YELLOW, ToyBuilder, toy_binding, toy_builder, toy_view

from mmdgen import jit
from mmdgen.cli.renderer import chosen_backend
from mmdgen.errors import ConfigError, RenderError
from mmdgen.generate import backend as backends
from mmdgen.generate import cpu_backend
from mmdgen.model.load import load_model
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.skinning import skin, skin_normals
from mmdgen.pose.vocabulary import THA1
from mmdgen.render import cpu_jit, cpu_kernels
from mmdgen.render.cpu_scene import CpuScene
from mmdgen.render.cpu_textures import ALWAYS, NEVER, CpuTextures, curves
from mmdgen.render.prepare import TextureImage, linear_to_srgb, prepare_model, srgb_to_linear
from mmdgen.render.view import MMD, PHONG, SHADINGS, Camera, View

GOLDENS = Path(__file__).parent / "goldens" / "cpu"


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    return cpu_cases.rich_model(tmp_path_factory.mktemp("rich"))


# The same bytes


def test_goldens_are_the_same_bytes_on_every_machine(tmp_path):
    for name, picture in cpu_cases.draw_cases(tmp_path):
        stored = np.asarray(Image.open(GOLDENS / f"{name}.png").convert("RGBA"))
        np.testing.assert_array_equal(picture, stored, err_msg=f"{name}: what changes a byte must change VERSION, too")


def test_goldens_show_what_they_should(tmp_path):
    """All cases differ, have translucent pixels, and change with the pose."""
    pictures = dict(cpu_cases.draw_cases(tmp_path))
    for name, picture in pictures.items():
        rest, turned, other = np.split(picture, 3, axis=1)
        assert (rest != turned).any(axis=2).mean() > 0.2, name
        assert (other != turned).any(axis=2).mean() > 0.2, name
        assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 1000, name
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)


@pytest.mark.parametrize("shading", SHADINGS)
@pytest.mark.parametrize("samples", [1, 4, 9])
def test_expression_boxes_are_full_redraws_bit_for_bit(rich, shading, samples):
    view = toy_view(size=96, samples=samples, shading=shading, outline=1.0)
    prepared = prepare_model(rich, cpu_cases.rich_binding(material=False), view)
    assert prepared.rig.expression_box is not None
    assert 0 < len(prepared.rig.expression_index) < len(prepared.rig.index)
    poses = sample_poses(THA1, 5, "toy", 0, 6)
    still = poses.copy()
    still[:, :3] = 0
    with CpuScene(prepared) as scene:
        quick = list(scene.expressions(poses))
    with CpuScene(prepared) as scene:  # textures' levels are made in another order
        full = list(scene.posed(still))
    assert len({image.tobytes() for image in full}) == len(full)
    for fast, slow in zip(quick, full, strict=True):
        np.testing.assert_array_equal(fast, slow)


def test_without_a_box_everything_is_redrawn(rich):
    view = toy_view(size=64, outline=1.0)
    prepared = prepare_model(rich, cpu_cases.rich_binding(material=True), view)
    assert prepared.rig.expression_box is None
    pose = THA1.pose(mouth=0.5)
    with CpuScene(prepared) as scene:
        np.testing.assert_array_equal(next(scene.expressions(pose[None])), next(scene.posed(pose[None])))


def test_scenes_leave_nothing_behind(rich):
    """The same bytes whatever was drawn before, by this scene or another one."""
    view = toy_view(size=64, outline=1.0)
    prepared = prepare_model(rich, cpu_cases.rich_binding(material=True), view)
    poses = sample_poses(THA1, 3, "order", 0, 4)
    with CpuScene(prepared) as scene:
        forwards = list(scene.posed(poses))
        scene.rest()
        list(scene.expressions(poses))
        backwards = list(scene.posed(poses[::-1]))[::-1]
    for pose, first, second in zip(poses, forwards, backwards, strict=True):
        with CpuScene(prepared) as scene:
            alone = next(scene.posed(pose[None]))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, alone)


# Vertices


@pytest.mark.parametrize("limit", [15, 120])
@pytest.mark.parametrize("centres", CENTRES.values(), ids=CENTRES)
def test_spherical_deforms_are_the_oracle_s(limit, centres):
    toy, _ = sdef_toy(centres)
    model, vocabulary = toy.model(), wide(limit)
    prepared = prepare_model(model, bind(vocabulary), toy_view(size=32))
    assert len(prepared.rig.sdef)
    with CpuScene(prepared) as scene:
        for pose in wide_poses(vocabulary)[::4]:
            kept = prepared.rig.vertex
            position, normal = scene.posed_vertices(pose), scene._normals
            np.testing.assert_allclose(position, skin(model, bind(vocabulary), pose)[kept], atol=2e-5)
            np.testing.assert_allclose(normal, skin_normals(model, bind(vocabulary), pose)[kept], atol=2e-6)


# Fragments, in order


def sheets(*layers: tuple[tuple[float, float, float], float, float]) -> ToyBuilder:
    """The toy with quads (colour, alpha, z) one after the other in front of the face, where the picture's middle is."""
    toy = toy_builder()
    for color, alpha, z in layers:
        toy.quad((0, 17.9, z), (1.0, 0, 0), (0, 1.0, 0))
        toy.material("sheet", color, alpha)
    return toy


def middle(toy: ToyBuilder) -> np.ndarray:
    """The linear light of the middle pixel: faces that look at the viewer have their own colours."""
    with CpuScene(prepare_model(toy.model(), toy_binding(), toy_view(size=64, samples=4))) as scene:
        return srgb_to_linear(scene.rest()[32, 32, :3] / 255)


ORDERS = {
    "over": ([(YELLOW, 1.0, -2.0), (RED, 0.5, -3.0)], (1.0, 0.5, 0.0)),
    "over what a later one hid": ([(RED, 0.5, -2.0), (YELLOW, 1.0, -3.0)], YELLOW),
    "drawn first, a translucent one hides what comes behind": (
        [(RED, 0.5, -3.0), (YELLOW, 1.0, -2.0)],
        (0.75, 0.25, 0.25),
    ),
    "in one plane the later": ([(YELLOW, 1.0, -2.0), (GREY, 1.0, -2.0)], GREY),
    "in one plane translucent": ([(YELLOW, 1.0, -2.0), (RED, 0.5, -2.0)], (1.0, 0.5, 0.0)),
    "twice": ([(RED, 0.5, -2.0), (YELLOW, 0.5, -3.0)], (0.875, 0.625, 0.125)),
    "invisible": ([(RED, 1.0, -2.0), (YELLOW, 0.001, -3.0)], RED),
}


@pytest.mark.parametrize(("layers", "expected"), ORDERS.values(), ids=ORDERS)
def test_order_and_depth(layers, expected):
    # Behind all of them is the skull, grey.
    np.testing.assert_allclose(middle(sheets(*layers)), expected, atol=0.01)


def test_of_the_same_face_twice_the_later_shows_everywhere():
    """Whichever its first corner is and however it is turned."""
    toy = toy_builder()
    for color, order in ((RED, (0, 1, 2)), ((0.0, 1.0, 0.0), (1, 2, 0))):
        corners = toy.quad((0.05, 17.9, -3.0), (1.3, 0.2, 0.7), (-0.1, 1.2, 0.5))
        toy.faces[-2:] = [tuple(face[k] for k in order) for face in toy.faces[-2:]]
        assert len(corners) == 4
        toy.material("sheet", color)
    with CpuScene(prepare_model(toy.model(), toy_binding(), toy_view(size=128, samples=4))) as scene:
        for image in scene.posed(sample_poses(THA1, 2, "tilt", 0, 6)):
            assert (image[..., 1] > image[..., 0]).sum() > 1000
            assert not ((image[..., 0] > 100) & (image[..., 1] < 60)).any()


# Textures


@pytest.mark.parametrize("linear", [True, False])
def test_codes_are_the_nearest_ones(linear):
    curve, unit, codes, borders = curves(linear)
    light = np.concatenate([np.linspace(0, 1, 20001), curve / 65535]).astype(np.float32)
    cell = (light * np.float32(len(codes) - 1)).astype(int)
    found = codes[cell] + (light >= borders[cell])
    exact = (linear_to_srgb(light) if linear else light.astype(float)) * 255
    assert np.abs(found - exact).max() < 0.5001
    assert found[-256:].tolist() == list(range(256))
    assert unit[[0, 255]].tolist() == [0, 65535]


@pytest.mark.parametrize("size", [(64, 32), (45, 77), (7, 1), (1, 1)])
def test_levels_are_means_of_light(size):
    width, height = size
    rng = np.random.default_rng(3)
    texels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    textures = CpuTextures(linear=True)
    number = textures.add(TextureImage(texels, True))
    light = np.concatenate([srgb_to_linear(texels[..., :3] / 255), texels[..., 3:] / 255], axis=2) * 65535
    levels = int(textures.sizes[number, 2])
    assert levels == int(max(width, height)).bit_length()
    for level in range(levels):
        row = 16 * number + level
        found = textures.build(row)
        assert textures.texels[row, 0] == found.ctypes.data
        assert found.shape[:2] == (max(1, height >> level), max(1, width >> level))
        if level:
            above = textures.build(row - 1).astype(float)
            rows, columns = np.meshgrid(*(np.arange(side) for side in found.shape[:2]), indexing="ij")
            y = np.clip((rows + 0.5) * above.shape[0] / found.shape[0] - 0.5, 0, None)
            x = np.clip((columns + 0.5) * above.shape[1] / found.shape[1] - 0.5, 0, None)
            y0, x0 = y.astype(int), x.astype(int)
            y1, x1 = np.minimum(y0 + 1, above.shape[0] - 1), np.minimum(x0 + 1, above.shape[1] - 1)
            fy, fx = (y - y0)[..., None], (x - x0)[..., None]
            light = (above[y0, x0] * (1 - fx) + above[y0, x1] * fx) * (1 - fy)
            light += (above[y1, x0] * (1 - fx) + above[y1, x1] * fx) * fy
        assert np.abs(found - light).max() <= 1.01


def test_levels_are_made_when_they_are_needed(tmp_path):
    Image.fromarray(cpu_cases.pattern(256, 256, False)).save(tmp_path / "wall.png")
    toy = toy_builder()
    toy.textures.append("wall.png")
    toy.quad((0, 17.9, -2), (2.1, 0, 0), (0, 2.1, 0))
    toy.material("wall", (1, 1, 1), texture_index=0)
    model = toy.model(tmp_path / "t.pmx")
    for size, expected in ((256, 0), (64, 2)):
        with CpuScene(prepare_model(model, toy_binding(), toy_view(size=size, samples=1))) as scene:
            scene.rest()
            made = np.flatnonzero(scene._table.textures.texels[:, 0]) - 16
            assert made[made >= 0].tolist() in ([expected], list(range(1, expected + 1)))


def test_triangles_that_see_only_opaque_or_clear_texels_are_known():
    texels = np.full((64, 64, 4), 255, np.uint8)
    texels[:, 32:, 3] = 0  # the right half is clear
    texels[40:48, 4:8, 3] = 128
    textures = CpuTextures(linear=True)
    number = textures.add(TextureImage(texels, True))

    def corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
        return np.array([[[left, top], [right, top], [left, bottom]]], np.float32) / 64

    cases = {
        "opaque": (corners(14, 4, 18, 20), (1, NEVER)),
        "opaque, one turn further": (corners(14 + 64, 4 - 128, 18 + 64, 20 - 128), (1, NEVER)),
        "clear": (corners(44, 4, 50, 20), (NEVER, 1)),
        "both": (corners(20, 4, 40, 20), (NEVER, NEVER)),
        "through the border": (corners(-10, 4, 10, 20), (NEVER, NEVER)),
        "half transparent": (corners(2, 36, 20, 50), (NEVER, NEVER)),
        "all of it": (corners(0, 0, 64, 64), (NEVER, NEVER)),
        "nonsense": (np.full((1, 3, 2), np.nan, np.float32), (NEVER, NEVER)),
    }
    for name, (corner, (solid, clear)) in cases.items():
        found = textures.hiding(number, corner)
        assert (found[0][0] >= solid) == (solid >= 0) or found[0][0] == NEVER, name
        assert (int(found[0][0]) >= 0, int(found[1][0]) >= 0) == (solid >= 0, clear >= 0), name
    plain = textures.add(TextureImage(np.full((4, 4, 4), 255, np.uint8), False))
    assert [value.tolist() for value in textures.hiding(plain, cases["both"][0])] == [[ALWAYS], [NEVER]]
    assert [value.tolist() for value in textures.hiding(-1, cases["both"][0])] == [[ALWAYS], [NEVER]]


def test_known_triangles_change_no_pixel(rich, monkeypatch):
    """Where all triangles with alpha are drawn one fragment after the other, the picture is the same to rounding."""
    prepared = prepare_model(rich, cpu_cases.rich_binding(material=False), toy_view(size=96, outline=1.0))
    poses = sample_poses(THA1, 4, "hiding", 0, 3)
    with CpuScene(prepared) as scene:
        quick = list(scene.posed(poses))
    monkeypatch.setattr(
        CpuTextures, "hiding", lambda self, number, corners: (np.full(len(corners), NEVER, np.int8),) * 2
    )
    with CpuScene(prepared) as scene:
        slow = list(scene.posed(poses))
    for a, b in zip(quick, slow, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


# Against OpenGL


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return the mean difference and the share of pixels with one above 8."""
    apart = np.abs(a.astype(int) - b)
    return float(apart.mean()), float((apart.max(axis=2) > 8).mean())


@pytest.mark.gl
@pytest.mark.parametrize("shading", SHADINGS)
def test_pictures_are_those_of_opengl(rich, shading, tmp_path):
    from mmdgen.generate.characters import exact_annotation
    from mmdgen.render.renderer import Renderer
    from mmdgen.samples.library import write_characters

    prepared = [
        prepare_model(
            rich,
            cpu_cases.rich_binding(material=True),
            toy_view(size=96, samples=samples, shading=shading, outline=1.0),
        )
        for samples in (1, 4, 16)
    ]
    for seed in (0, 5, 11):
        (path,) = write_characters(tmp_path, 1, first_seed=seed)
        model = load_model(path)
        found = exact_annotation(model)
        bounds = found.bounds
        binding = PoseBinding(THA1, found.neck, found.head, found.parameter_terms(), bounds.center_x)
        view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=128, shading=shading)
        prepared.append(prepare_model(model, binding, view))
    with Renderer(tiles=(1, 1)) as renderer:
        for number, each in enumerate(prepared):
            mean, wrong = (0.1, 0.001) if number < 3 else (0.3, 0.005)
            with renderer.scene(each) as theirs, CpuScene(each) as ours:
                for kind in ("posed", "expressions"):
                    pairs = zip(
                        getattr(theirs, kind)(np.array(cpu_cases.POSES)),
                        getattr(ours, kind)(np.array(cpu_cases.POSES)),
                        strict=True,
                    )
                    for a, b in pairs:
                        found = difference(a, b)
                        assert found[0] < mean, (number, kind, found)
                        assert found[1] < wrong, (number, kind, found)
    gc.collect()


@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.corpus
def test_real_models_look_as_with_opengl(corpus):
    """All models that can be annotated, both shadings, two extreme poses. What was measured: docs/performance.md."""
    from mmdgen.annotate.auto import annotate
    from mmdgen.errors import MmdgenError
    from mmdgen.render.renderer import Renderer

    count = 0
    with Renderer(tiles=(1, 1)) as renderer:
        for path in sorted(path for path in corpus.rglob("*") if path.suffix.lower() in (".pmx", ".pmd")):
            try:
                model = load_model(path)
                found = annotate(model)
            except MmdgenError:
                continue
            bounds = found.bounds
            binding = PoseBinding(THA1, found.neck, found.head, found.parameter_terms(), bounds.center_x)
            for shading in (PHONG, MMD):
                view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, shading=shading)
                prepared = prepare_model(model, binding, view)
                with renderer.scene(prepared) as theirs, CpuScene(prepared) as ours:
                    poses = np.array(cpu_cases.POSES[1:])
                    for a, b in zip(theirs.posed(poses), ours.posed(poses), strict=True):
                        mean, wrong = difference(a, b)
                        assert mean < 0.3, (path.name, shading, mean)
                        assert wrong < 0.005, (path.name, shading, wrong)
            count += 1
    assert count


# What it does not do, and when it is taken


def test_cameras_and_flows_are_refused(rich):
    camera = Camera((0, 18, -30), (0, 18, 0), 1, 100, fov_deg=20)
    through = prepare_model(rich, toy_binding(), View.through(camera, size=32))
    with pytest.raises(RenderError, match="front views only"):
        CpuScene(through)
    with (
        CpuScene(prepare_model(rich, toy_binding(), toy_view(size=32))) as scene,
        pytest.raises(RenderError, match="--renderer gl"),
    ):
        scene.flows(THA1.rest[None])


def test_backends_by_name():
    assert backends.backend_named("gl", flow=False) == backends.DEFAULT_BACKEND
    assert backends.backend_named("cpu", flow=False) == backends.CPU_BACKEND
    assert backends.backend_named("auto", flow=False) == backends.AUTO_BACKEND
    assert backends.backend_named("auto", flow=True) == backends.DEFAULT_BACKEND
    assert backends.backend_named("gl", flow=True) == backends.DEFAULT_BACKEND
    with pytest.raises(ConfigError, match="OpenGL only"):
        backends.backend_named("cpu", flow=True)
    with pytest.raises(ConfigError, match="auto, gl, cpu"):
        backends.backend_named("vulkan", flow=False)
    with pytest.raises(click.UsageError, match="--flow"):
        chosen_backend("cpu", "auto", flow=True)
    with pytest.raises(click.UsageError, match="--device"):
        chosen_backend("cpu", 0, flow=False)
    assert chosen_backend("cpu", "auto", flow=False) == backends.CPU_BACKEND
    for name in backends.RENDERERS.values():
        assert callable(backends.resolve(name))


class Gpu:
    """Stands for `GlBackend`: `software` or not, or no OpenGL at all."""

    software: bool = False
    problem: str = ""
    closed: int = 0

    def __init__(self, device=None) -> None:
        if self.problem:
            raise RenderError(self.problem)

    def report(self) -> dict:
        return {"renderer": "a GPU", "software": self.software}

    def close(self) -> None:
        type(self).closed += 1


@pytest.mark.parametrize(
    ("files", "software", "problem", "device", "expected"),
    [
        (False, False, "", None, "mmdgen"),  # no GPU's driver: OpenGL is not even asked
        (False, False, "", 0, "a GPU"),
        (True, False, "", None, "a GPU"),
        (True, False, "", "auto", "a GPU"),
        (True, True, "", None, "mmdgen"),
        (True, True, "", 1, "mmdgen"),
        (True, False, "no libEGL", None, "mmdgen"),
        (True, False, "no libEGL", 1, "error"),
    ],
)
def test_auto_takes_a_gpu_where_one_draws(monkeypatch, files, software, problem, device, expected):
    kind = type("Kind", (Gpu,), {"software": software, "problem": problem, "closed": 0})
    monkeypatch.setattr(cpu_backend, "GlBackend", kind)
    monkeypatch.setattr(cpu_backend, "gpu_files", lambda: files)
    if expected == "error":
        with pytest.raises(RenderError, match="libEGL"):
            cpu_backend.AutoBackend(device)
        return
    chosen = cpu_backend.AutoBackend(device)
    assert chosen.report()["renderer"].startswith(expected)
    assert chosen.report()["software"] == (expected == "mmdgen")
    assert kind.closed == int(software and (files or device is not None))


def test_devices_are_asked_for_where_they_matter(monkeypatch):
    said: list[str] = []

    def broken(choice, say):
        raise RenderError("OpenGL does not work")

    monkeypatch.setattr(backends.devices, "resolve", broken)
    assert backends.devices_for(backends.CPU_BACKEND, "auto", said.append) == (None,)
    assert not said
    assert backends.devices_for(backends.AUTO_BACKEND, "auto", said.append) == (None,)
    assert "does not work" in said[0]
    for backend, choice in ((backends.AUTO_BACKEND, 1), (backends.DEFAULT_BACKEND, "auto")):
        with pytest.raises(RenderError, match="does not work"):
            backends.devices_for(backend, choice, said.append)
    monkeypatch.setattr(backends.devices, "resolve", lambda choice, say: (2,))
    assert backends.devices_for(backends.AUTO_BACKEND, "auto", said.append) == (2,)


def test_the_cpu_backend_says_what_it_is_and_loads_no_opengl_library():
    code = (
        "from mmdgen.generate.cpu_backend import CpuBackend; import json\n"
        "backend = CpuBackend(); print(json.dumps(backend.report()))\n"
        "assert not any('libGL.' in line or 'libEGL.' in line for line in open('/proc/self/maps'))"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("which libraries are loaded is looked up in /proc")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert '"renderer": "mmdgen CPU rasteriser 1"' in found.stdout
    assert '"software": true' in found.stdout


def test_kernels_compile_without_a_cache_where_nothing_can_be_written(monkeypatch):
    asked: list[bool] = []

    def njit(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(jit, "njit", njit)
    assert cpu_jit.kernel(abs) is abs
    assert asked == [True, False]


def test_views_keep_their_own_samples(rich):
    """Sixteen samples are close to nine, and coverage has as many steps as there are samples."""
    pictures = {}
    for samples in (9, 16):
        prepared = prepare_model(rich, toy_binding(), dataclasses.replace(toy_view(size=64), samples=samples))
        with CpuScene(prepared) as scene:
            pictures[samples] = scene.rest().astype(int)
    assert np.abs(pictures[9] - pictures[16]).mean() < 2


def test_compiled_code_is_not_kept_longer_than_what_it_calls():
    """numba looks at a kernel's own file alone: one that calls functions of others must change with them."""
    folder = Path(cpu_kernels.__file__).parent
    sources = b"".join((folder / name).read_bytes() for name in ("cpu_jit.py", "cpu_simd.py"))
    assert hashlib.sha256(sources).hexdigest()[:16] == cpu_kernels.CALLED
