"""`--shading mmd` against its formulas, worked out in numpy here: base, texture, sphere maps, toon, highlight, morphs.

A quad with chosen normals fills the picture, so that every pixel can be told in advance (docs/shading.md).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from toy import ToyBuilder

from mmdgen.cli.draw import command
from mmdgen.errors import ConfigError
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.generate.options import RenderOptions
from mmdgen.model.load import load_model
from mmdgen.model.records import MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import STILL, PoseParameter, PoseVocabulary
from mmdgen.render.prepare import edge_push, prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.toon import COUNT, shared_ramp
from mmdgen.render.view import MMD, Camera, View

pytestmark = pytest.mark.gl

LIGHT = 0.6
TO_LIGHT = np.array([0.5, 1.0, -0.5]) / np.sqrt(1.5)
SIZE = 64
STEP = 1.2 / 255  # a rounding, and what half floats lose
ONE_MORPH = PoseVocabulary("one", (PoseParameter("blush", 0, 1, 0, "how much", "morph"),))


@pytest.fixture(scope="module")
def renderer():
    with Renderer(tiles=(1, 1)) as one:
        yield one


class Wall:
    """A quad at z = 0 from (-1, -1) to (1, 1) that looks at -z, with textures made by code beside it."""

    def __init__(self, folder: Path, **material) -> None:
        self.folder, self.material, self.toy = folder, material, ToyBuilder()
        self.normals = np.tile([0.0, 0.0, -1.0], (4, 1))
        self.uv1: np.ndarray | None = None

    def texture(self, texels: np.ndarray) -> int:
        """Add a texture u8 [H, W, 3 or 4] and return its index."""
        number = len(self.toy.textures)
        Image.fromarray(np.asarray(texels, np.uint8)).save(self.folder / f"{number}.png")
        self.toy.textures.append(f"{number}.png")
        return number

    def draw(self, renderer: Renderer, binding=None, pose=(), view: View | None = None) -> np.ndarray:
        """Return the picture f64 [H, W, 4] in [0, 1], straight alpha."""
        self.toy.quad((0, 0, 0), (1, 0, 0), (0, 1, 0))
        self.toy.normals[-4:] = list(self.normals)
        colors = {"color": (0.5, 0.25, 0.75), "ambient": (0.25, 0.5, 0.125), "toon_shared": 0, "toon_index": -1}
        self.toy.material("wall", **{**colors, **self.material})
        file = self.toy.file()
        if self.uv1 is not None:
            file.vertices["additional_uv"][:, 0, :2] = self.uv1
            file = dataclasses.replace(file, header=dataclasses.replace(file.header, additional_uv_count=1))
        path = self.folder / "wall.pmx"
        path.write_bytes(write_pmx(file))
        view = view or View(0, 0, 2, size=SIZE, samples=1, shading=MMD)
        prepared = prepare_model(load_model(path), binding or PoseBinding(STILL, 0, 0, {}), view)
        with renderer.scene(prepared) as scene:
            return next(iter(scene.posed(np.array([pose], np.float32)))) / 255


def interpolated(corners: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Values [4, n] of the quad's corners (top left, top right, bottom right, bottom left) at all pixels [H, W, n].

    Two triangles share the diagonal from the top left to the bottom right.
    """
    along = (np.arange(size) + 0.5) / size
    x, y = along[None, :, None], along[:, None, None]
    a, b, c, d = corners
    upper = a + x * (b - a) + y * (c - b)
    lower = a + y * (d - a) + x * (c - d)
    return np.where(x >= y, upper, lower)


def base(diffuse=(0.5, 0.25, 0.75), ambient=(0.25, 0.5, 0.125)) -> np.ndarray:
    return np.clip(np.array(diffuse) * LIGHT + ambient, 0, 1)


def sampled(ramp: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Bilinear, clamped samples of texels [n, 3] at `place` in [0, 1]."""
    at = np.clip(place * len(ramp) - 0.5, 0, len(ramp) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(ramp) - 1)
    return ramp[low] + (at - low)[..., None] * (ramp[high] - ramp[low])


CORNERS = np.array([[-0.6, 0.6, -0.53], [0.6, 0.6, -0.53], [0.7, -0.5, -0.51], [-0.7, -0.5, -0.51]])
CORNERS = CORNERS / np.linalg.norm(CORNERS, axis=1, keepdims=True)


def test_base_colour_has_no_lambert_term(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path)
    wall.normals = CORNERS
    picture = wall.draw(renderer)
    assert np.abs(picture[..., :3] - base()).max() < STEP
    assert (picture[..., 3] == 1).all()


def test_a_bright_base_is_clamped_before_the_texture(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path, color=(1.0, 1.0, 1.0), ambient=(0.9, 0.9, 0.9))
    wall.material["texture_index"] = wall.texture(np.full((2, 2, 3), 100))
    assert np.abs(wall.draw(renderer)[..., :3] - 100 / 255).max() < STEP


def test_texture_colours_are_used_as_they_are_and_alpha_multiplies(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path, alpha=0.5)
    wall.material["texture_index"] = wall.texture(np.tile(np.array([200, 100, 50, 128], np.uint8), (2, 2, 1)))
    picture = wall.draw(renderer)
    assert np.abs(picture[..., :3] - base() * np.array([200, 100, 50]) / 255).max() < 3 * STEP
    assert np.abs(picture[..., 3] - 0.5 * 128 / 255).max() < STEP


def test_layers_blend_in_encoded_values(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path, alpha=0.5, color=(0.0, 0.0, 0.0), ambient=(0.0, 0.0, 0.0))
    wall.toy.quad((0, 0, 1), (1, 0, 0), (0, 1, 0))
    wall.toy.material("behind", (0.0, 0.0, 0.0), ambient=(1.0, 1.0, 1.0), toon_shared=0, toon_index=-1)
    assert np.abs(wall.draw(renderer)[..., :3] - 0.5).max() < STEP  # in linear light it would be 0.735


@pytest.mark.parametrize("mode", [1, 2])
def test_sphere_maps_take_normals_that_are_not_made_unit_again(renderer: Renderer, tmp_path: Path, mode: int) -> None:
    size = 256
    across = (np.arange(size) + 0.5) / size
    texels = np.zeros((size, size, 3))
    texels[..., 0], texels[..., 1], texels[..., 2] = across[None, :], across[:, None], 0.3
    wall = Wall(tmp_path, sphere_mode=mode)
    wall.material["sphere_index"] = wall.texture(np.rint(texels * 255))
    wall.normals = CORNERS
    normal = interpolated(CORNERS)
    sphere = np.stack([0.5 + 0.5 * normal[..., 0], 0.5 - 0.5 * normal[..., 1], np.full((SIZE, SIZE), 0.3)], axis=-1)
    expected = base() * sphere if mode == 1 else np.clip(base() + sphere, 0, 1)
    assert np.abs(wall.draw(renderer)[..., :3] - expected).max() < 2 * STEP
    unit = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    assert np.abs(unit - normal).max() > 0.1, "the normals of this test must tell the two apart"


def test_a_sphere_map_with_alpha_makes_the_part_transparent(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path, sphere_mode=1)
    wall.material["sphere_index"] = wall.texture(np.tile(np.array([255, 255, 255, 51], np.uint8), (2, 2, 1)))
    assert np.abs(wall.draw(renderer)[..., 3] - 0.2).max() < STEP


@pytest.mark.parametrize("with_uv", [True, False])
def test_a_second_texture_by_the_additional_uv(renderer: Renderer, tmp_path: Path, with_uv: bool) -> None:
    wall = Wall(tmp_path, sphere_mode=3)
    wall.material["sphere_index"] = wall.texture(np.array([[[255, 255, 255]] * 8, [[51, 51, 51]] * 8]))
    if with_uv:
        wall.uv1 = np.tile([0.5, 0.99], (4, 1))
    expected = base() * (0.2 if with_uv else 1.0)  # a file without that UV has nothing to look it up with
    assert np.abs(wall.draw(renderer)[..., :3] - expected).max() < STEP


def test_toon_ramp(renderer: Renderer, tmp_path: Path) -> None:
    ramp = np.array([[255, 255, 255], [240, 200, 180], [200, 120, 90], [90, 40, 20]], float)
    wall = Wall(tmp_path)
    texels = np.repeat(ramp[:, None], 4, axis=1)
    texels[:, 2:] = 0  # only the first column is looked at
    wall.material["toon_index"] = wall.texture(texels)
    wall.normals = CORNERS
    place = 0.5 - 0.5 * (interpolated(CORNERS) @ TO_LIGHT)
    expected = base() * sampled(ramp / 255, place)
    assert np.ptp(place) > 0.4
    assert np.abs(wall.draw(renderer)[..., :3] - expected).max() < 2 * STEP


@pytest.mark.parametrize("number", [0, 2, 9])
def test_shared_toon_ramps(renderer: Renderer, tmp_path: Path, number: int) -> None:
    wall = Wall(tmp_path, toon_shared=1, toon_index=number)
    wall.normals = np.tile(-TO_LIGHT, (4, 1))
    assert np.abs(wall.draw(renderer)[..., :3] - base() * shared_ramp(number)[-1, 0, :3] / 255).max() < STEP


def test_shared_ramps_begin_white_and_only_darken() -> None:
    for number in range(COUNT):
        ramp = shared_ramp(number)
        assert (ramp[0] == 255).all()
        assert (ramp[..., 3] == 255).all()
        assert (np.diff(ramp[:, 0, :3].astype(int), axis=0) <= 0).all()


def test_no_toon_where_the_file_has_none(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path)
    wall.normals = np.tile(-TO_LIGHT, (4, 1))
    assert np.abs(wall.draw(renderer)[..., :3] - base()).max() < STEP


@pytest.mark.parametrize("power", [8.0, 0.0])
def test_highlights_are_worked_out_at_vertices(renderer: Renderer, tmp_path: Path, power: float) -> None:
    specular = np.array([0.3, 0.2, 0.1])
    wall = Wall(tmp_path, specular=tuple(specular), specular_power=power)
    wall.normals = CORNERS
    half = TO_LIGHT + np.array([0, 0, -1])
    half = half / np.linalg.norm(half)
    shine = np.maximum(CORNERS @ half, 0) ** 8 if power else np.zeros(4)  # power 0 would light everything up
    expected = base() + interpolated(shine[:, None] * specular * LIGHT)
    assert np.abs(wall.draw(renderer)[..., :3] - np.clip(expected, 0, 1)).max() < STEP


def test_alpha_zero_lets_what_lies_behind_show(renderer: Renderer, tmp_path: Path) -> None:
    """MikuMikuDance writes depth for everything but texels of alpha 0."""
    texels = np.zeros((2, 8, 4), np.uint8)
    texels[:, 4:] = (255, 255, 255, 3)
    wall = Wall(tmp_path)
    wall.material["texture_index"] = wall.texture(texels)
    wall.toy.quad((0, 0, -1), (1, 0, 0), (0, 1, 0))
    texture = wall.material.pop("texture_index")
    wall.toy.material("in front", (1.0, 1.0, 1.0), texture_index=texture, toon_shared=0, toon_index=-1)
    wall.material = {"color": (0.0, 0.0, 0.0), "ambient": (0.0, 1.0, 0.0)}
    picture = wall.draw(renderer)
    left, right = picture[SIZE // 2, SIZE // 4], picture[SIZE // 2, 3 * SIZE // 4]
    assert left == pytest.approx([0, 1, 0, 1], abs=STEP)
    assert right[3] < 0.05, "the part with alpha 3/255 hides what is drawn later behind it"


def test_material_morphs_reach_texels_and_highlights(renderer: Renderer, tmp_path: Path) -> None:
    row = np.zeros(2, pmx.MATERIAL_OFFSET)
    row["operation"] = (0, 1)
    for name in ("diffuse", "ambient", "specular", "specular_power", "edge_color", "edge_size"):
        row[name][0] = 1
    row["texture"][0], row["sphere"][0], row["toon"][0] = (0.5, 1, 1, 1), (1, 1, 1, 0.25), (1, 0.4, 1, 1)
    row["texture"][1], row["sphere"][1], row["toon"][1] = (0, 0, 0.2, 0), (0.1, 0, 0, -0.5), (0, 0, 0, 1)
    row["specular"][1], row["specular_power"][1] = (0.2, 0.2, 0.2), 4
    wall = Wall(tmp_path, sphere_mode=1)
    texture, sphere, toon = np.array([200, 150, 100]), np.array([250, 200, 150]), np.array([240, 220, 200])
    for name, colour in (("texture_index", texture), ("sphere_index", sphere), ("toon_index", toon)):
        wall.material[name] = wall.texture(np.tile(colour, (2, 2, 1)))
    wall.toy.morphs.append(pmx.PmxMorph("blush", "", 4, pmx.MORPH_MATERIAL, row))
    binding = PoseBinding(ONE_MORPH, 0, 0, {"blush": (MorphTerm(0),)})
    weight = 0.75

    def morphed(texel, factor, added):
        factor = 1 + weight * (np.array(factor) - 1)
        added = weight * np.array(added)
        color = 1 + factor[3] * (texel / 255 * factor[:3] - 1)
        return np.clip(color + (color - 1) * added[3], 0, 1) + added[:3]

    expected = base() * morphed(texture, row["texture"][0], row["texture"][1])
    expected = expected * morphed(sphere, row["sphere"][0], row["sphere"][1])
    expected = expected * morphed(toon, row["toon"][0], row["toon"][1])
    half = TO_LIGHT + np.array([0, 0, -1])
    shine = (-half[2] / np.linalg.norm(half)) ** (5 + weight * 4)  # the file has power 5
    expected = np.clip(expected + weight * 0.2 * LIGHT * shine, 0, 1)
    assert np.abs(wall.draw(renderer, binding, (weight,))[..., :3] - expected).max() < 2 * STEP


def edge_shift(renderer: Renderer, folder: Path, camera: Camera | None, scale: float = 1.0, size: int = 128) -> float:
    """Return how many pixels an edge of size 10 is moved along normals that point up.

    The quad looks away from the camera, so that nothing but its outline is seen.
    """
    toy = ToyBuilder()
    toy.quad((0, 0, 0), (-0.25, 0, 0), (0, 0.25, 0))
    toy.normals = [np.array([0.0, 1.0, 0.0])] * 4
    toy.material("away", (1.0, 1.0, 1.0), flags=pmx.EDGE, edge_color=(0.0, 0.0, 0.0, 1.0), edge_size=10.0)
    file = toy.file()
    file.vertices["edge_scale"] = scale
    path = folder / "away.pmx"
    path.write_bytes(write_pmx(file))
    settings = {"size": size, "samples": 16, "shading": MMD}
    view = View(0, 0, 1, **settings) if camera is None else View.through(camera, **settings)
    with renderer.scene(prepare_model(load_model(path), PoseBinding(STILL, 0, 0, {}), view)) as scene:
        alpha = next(iter(scene.posed(np.zeros((1, 0), np.float32))))[..., 3].astype(float)
    middle = size / 2 + (0.5 if camera is not None else 0.0)
    return middle - float(alpha.sum(1) @ (np.arange(size) + 0.5) / alpha.sum())


def test_edges_are_pushed_by_size_vertex_scale_and_height(renderer: Renderer, tmp_path: Path) -> None:
    assert edge_shift(renderer, tmp_path, None) == pytest.approx(10 * 0.0015 * 128, abs=0.1)
    assert edge_shift(renderer, tmp_path, None, scale=0.5) == pytest.approx(5 * 0.0015 * 128, abs=0.1)


@pytest.mark.parametrize(("fov", "factor"), [(20, 20 / 30), (30, 1), (60, 1)])
def test_edges_in_perspective_follow_the_distance_of_the_second_bone(
    renderer: Renderer, tmp_path: Path, fov: float, factor: float
) -> None:
    camera = Camera((0, 0, -3), (0, 0, 0), 0.1, 50, fov_deg=fov)
    push = 10 * 0.0008 * np.hypot(16, 3.2) * factor  # the toy's second bone lies at (0, 16, 0.2)
    pixels = 64 / (3 * np.tan(np.radians(fov / 2)))  # a MU at the quad
    assert edge_shift(renderer, tmp_path, camera) == pytest.approx(push * pixels, abs=0.1)
    lone = edge_push(View.through(camera), np.array([[0.0, 4.0, 0.0]]))
    assert lone == pytest.approx(0.0008 * 5 * factor), "a model of one bone is measured to that one"


def test_perspective_puts_points_where_the_formula_says(renderer: Renderer, tmp_path: Path) -> None:
    """x_pixel = (1 + x / (z tan(fov / 2))) size / 2, and half a pixel to the right and down as Direct3D 9 has it."""
    toy = ToyBuilder()
    toy.quad((0.5, 0.25, 0), (0.1, 0, 0), (0, 0.1, 0))
    toy.material("mark", (1.0, 1.0, 1.0), ambient=(1.0, 1.0, 1.0))
    path = tmp_path / "mark.pmx"
    path.write_bytes(write_pmx(toy.file()))
    camera = Camera((0.2, 0.1, -4), (0.2, 0.1, 0), 0.1, 10, fov_deg=30)
    size = 200
    binding = PoseBinding(STILL, 0, 0, {})
    places = {}
    for shading in ("phong", MMD):
        view = View.through(camera, size=size, samples=16, shading=shading)
        with renderer.scene(prepare_model(load_model(path), binding, view)) as scene:
            alpha = next(iter(scene.posed(np.zeros((1, 0), np.float32))))[..., 3] / 255
        middle = np.arange(size) + 0.5
        places[shading] = np.array([alpha.sum(0) @ middle, alpha.sum(1) @ middle]) / alpha.sum()
    scale = size / 2 / (4 * np.tan(np.radians(15)))
    expected = np.array([size / 2 + 0.3 * scale, size / 2 - 0.15 * scale])
    assert places["phong"] == pytest.approx(expected, abs=0.05)
    assert places[MMD] == pytest.approx(expected + 0.5, abs=0.05)


def test_an_orthographic_camera_in_front_is_the_plain_view(renderer: Renderer, tmp_path: Path) -> None:
    wall = Wall(tmp_path)
    wall.texture(np.zeros((2, 2, 3)))
    pattern = np.arange(16 * 16 * 3).reshape(16, 16, 3) % 251
    wall.material["texture_index"] = wall.texture(pattern)
    plain = wall.draw(renderer, view=View(0.25, 0.5, 1, size=SIZE, samples=1))
    camera = Camera.from_json({"position": [0.25, 0.5, 5], "target": [0.25, 0.5, 0], "height": 1, "near": 1, "far": 10})
    other = Wall(tmp_path)
    other.toy.textures = ["0.png", "1.png"]
    other.material["texture_index"] = 1
    looked = other.draw(renderer, view=View.through(camera, size=SIZE, samples=1))
    assert np.abs(plain - looked).max() <= 1 / 255


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "JSON object"),
        ({"position": [0, 0], "target": [0, 0, 0], "fov": 30}, "position"),
        ({"position": [0, 0, 1], "target": [0, 0, "x"], "fov": 30}, "target"),
        ({"position": [0, 0, 1], "target": [0, 0, 0]}, "either fov"),
        ({"position": [0, 0, 1], "target": [0, 0, 0], "fov": 30, "height": 2}, "either fov"),
        ({"position": [0, 0, 1], "target": [0, 0, 0], "fov": 190}, "between 0 and 180"),
        ({"position": [0, 0, 1], "target": [0, 0, 0], "fov": 30, "near": 5, "far": 1}, "near"),
        ({"position": [0, 0, 1], "target": [0, 0, 1], "fov": 30}, "own position"),
        ({"position": [0, 9, 0], "target": [0, 0, 0], "fov": 30}, "straight"),
        ({"position": [0, 0, float("nan")], "target": [0, 0, 0], "fov": 30}, "numbers"),
        ({"position": [0, 0, 1], "target": [0, 0, 0], "fov": True}, "fov must be a number"),
        ({"position": [0, 0, 1], "target": [0, 0, 0], "fov": 30, "zoom": 2}, "'zoom'"),
    ],
)
def test_cameras_that_make_no_picture(value, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Camera.from_json(value)


def test_the_axes_of_a_camera_are_left_handed() -> None:
    right, up, forward = Camera((1, 2, -3), (0, 1, 5), 0.1, 10, fov_deg=30).axes()
    assert np.cross(right, up) == pytest.approx(forward)  # as +x, +y, +z are in a left-handed frame
    assert np.dot(up, [0, 1, 0]) > 0
    assert forward == pytest.approx(np.array([-1, -1, 8]) / np.sqrt(66))


@pytest.mark.parametrize("light", [{"ambient": 0.7}, {"directional": 0.4}, {"specular": 1.0}])
def test_another_light_is_refused_and_not_ignored(light: dict[str, Any], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"ambient": (0.5, 0.7)} if "ambient" in light else light
    with pytest.raises(ConfigError, match="belong to phong"):
        View(0, 0, 1, shading=MMD, **light)
    View(0, 0, 1, **light)
    with pytest.raises(ConfigError, match="belong to phong"):
        RenderOptions(poses={"train": 1}, shading=MMD, **asked)


def test_the_command_refuses_another_light_as_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "x.pmx").write_bytes(b"")
    arguments = [str(tmp_path / "x.pmx"), "--shading", "mmd", "--ambient", "0.7", "--out", str(tmp_path / "x.png")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "belong to phong" in result.output
