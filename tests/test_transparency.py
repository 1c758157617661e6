"""Edges of transparency: composited over white, black and green, pictures are what drawing there would have given.

Pictures are straight alpha in sRGB, made from premultiplied linear light. Each scene is drawn twice: alone, and in
front of a wall of the ground's colour. Compositing the first over that colour in linear light must give the second, up
to what 8 bits of alpha and colour can hold: half a step of each. A halo is any colour outside that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasteriser import Raster, decode, encode, rasterise
from toy import ToyBuilder, toy_view

from mmdgen.formats.pmx import records as pmx
from mmdgen.model.records import Model, MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.vocabulary import THA1
from mmdgen.render import texels
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import View

pytestmark = pytest.mark.gl

STEP = 1 / 255
# Steps of sRGB allowed: the rounding of what is stored and of what it is compared with; and that of premultiplied
# texels and of the driver's mip maps.
PLAIN, TEXTURED = 1.05, 1.5
WHITE, BLACK, GREEN, MAGENTA = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)
GROUNDS = {"white": WHITE, "black": BLACK, "green": GREEN}
NO_TERMS = PoseBinding(THA1, 1, 2, {"left_eye": (), "right_eye": (), "mouth": ()})
SKIN, HAIR, BLUSH = (0.85, 0.6, 0.5), (0.02, 0.015, 0.03), (0.9, 0.25, 0.3)  # linear light

Color = tuple[float, float, float]
Build = Callable[[ToyBuilder], None]


@pytest.fixture(scope="module")
def renderer():
    """One renderer for this module: a process has one context at a time."""
    with Renderer(tiles=(1, 1)) as one:
        yield one


def flat_view(**changes) -> View:
    """A view whose light shows each material's ambient colour as it is."""
    return toy_view(**{"size": 64, "samples": 4, "ambient": 1.0, "directional": 0.0, **changes})


def scene_model(build: Build, folder: Path, ground: Color | None = None) -> Model:
    toy = ToyBuilder()
    if ground is not None:
        toy.quad((0, 17.9, 5), (9, 0, 0), (0, 9, 0))
        toy.material("ground", ground)
    build(toy)
    return toy.model(folder / "scene.pmx")


def draw(renderer: Renderer, model: Model, view: View) -> np.ndarray:
    with renderer.scene(prepare_model(model, NO_TERMS, view)) as scene:
        return scene.rest()


def over(picture: np.ndarray, ground: Color) -> np.ndarray:
    """Composite u8 [H, W, 4] over a ground in linear light: f64 [H, W, 3], linear."""
    alpha = picture[..., 3:] / 255
    return decode(picture[..., :3] / 255) * alpha + np.array(ground) * (1 - alpha)


def check_over_grounds(picture: np.ndarray, direct: Callable[[Color], np.ndarray], slack: float = PLAIN) -> None:
    """`direct(ground)` returns what drawing over that ground gives, linear f64 [H, W, 3], good to 8 bits of sRGB.

    Alpha is stored to half a step: the result may be off by that part of what lies between colour and ground. Beyond it
    `slack` steps of sRGB are allowed.
    """
    for ground in GROUNDS.values():
        expected, found = direct(ground), over(picture, ground)
        foreground = decode(picture[..., :3] / 255)
        by_alpha = 0.5 * STEP * np.where(picture[..., 3:] > 0, np.abs(foreground - np.array(ground)), 1.0)
        low, high = np.maximum(expected - by_alpha, 0), np.minimum(expected + by_alpha, 1)
        codes = encode(found) * 255
        assert np.all(codes >= encode(low) * 255 - slack), "darker than drawing over the ground: a dark halo"
        assert np.all(codes <= encode(high) * 255 + slack), "lighter than drawing over the ground: a light halo"
        # A step of bright sRGB is 2.3 steps of light, the half step of alpha at most half of one.
        assert np.abs(found - expected).max() < (2.3 * slack + 0.5) * STEP


def check_against_walls(renderer: Renderer, build: Build, folder: Path, view: View) -> np.ndarray:
    """Draw alone and in front of walls, compare, and return the picture drawn alone."""
    picture = draw(renderer, scene_model(build, folder), view)
    assert ((picture[..., 3] > 0) & (picture[..., 3] < 255)).sum() > 10, "no edge to look at"
    check_stored(picture)

    def direct(ground: Color) -> np.ndarray:
        walled = draw(renderer, scene_model(build, folder, ground), view)
        assert (walled[..., 3] == 255).all()
        return decode(walled[..., :3] / 255)

    check_over_grounds(picture, direct)
    return picture


def check_stored(picture: np.ndarray) -> None:
    """RGB is 0 where alpha is 0."""
    assert not picture[picture[..., 3] == 0].any()


def check_monotone(picture: np.ndarray, color: Color) -> None:
    """An object of one colour: composited in sRGB itself, as most programs do, its edge runs straight from the colour
    to the ground: between the two everywhere, and nearer to the colour the more it covers."""
    code = encode(np.array(color)) * 255
    shown = picture[..., 3] > 0
    alpha = picture[shown][:, 3:] / 255
    for ground in GROUNDS.values():
        base = np.array(ground) * 255
        mixed = picture[shown][:, :3] * alpha + base * (1 - alpha)
        assert np.abs(mixed - (base + (code - base) * alpha)).max() <= 1.01
        order = np.argsort(alpha[:, 0], kind="stable")
        along = (mixed[order] - base) * np.sign(code - base)
        assert (np.diff(along, axis=0) >= -1.01).all()


def tilted(color: Color, turn: float = 0.3, alpha: float = 1.0, half: float = 0.8, z: float = 0.0) -> Build:
    """A square of one colour, turned in the picture by `turn` radians."""

    def build(toy: ToyBuilder) -> None:
        c, s = half * np.cos(turn), half * np.sin(turn)
        toy.quad((0.03, 17.91, z), (c, s, 0), (-s, c, 0))
        toy.material("square", color, alpha)

    return build


# Hard edges


@pytest.mark.parametrize("samples", [1, 4, 9, 16])
@pytest.mark.parametrize("color", [(0.95, 0.9, 0.85), HAIR, WHITE, BLACK], ids=["bright", "dark", "white", "black"])
def test_a_hard_edge_keeps_its_colour_and_its_coverage(renderer, tmp_path, color, samples):
    """The strongest that can be said: one stored colour everywhere, alpha the exact share of samples."""
    view = flat_view(samples=samples)
    model = scene_model(tilted(color), tmp_path)
    picture, expected = draw(renderer, model, view), rasterise(model, NO_TERMS, THA1.rest, view)
    shown = picture[..., 3] > 0
    code = encode(np.array(color)) * 255
    np.testing.assert_allclose(picture[shown][:, :3], np.tile(code, (shown.sum(), 1)), atol=0.51)
    levels = {round(255 * k / samples) for k in range(samples + 1)}
    assert set(np.unique(picture[..., 3]).tolist()) <= levels
    same = picture[..., 3] == expected.image[..., 3]
    assert same.mean() > 0.999
    check_stored(picture)
    check_monotone(picture, color)

    grid = view.size, view.samples
    covered = (expected.owner >= 0).reshape(grid[0], int(grid[1] ** 0.5), grid[0], -1).mean(axis=(1, 3))[..., None]
    covered = np.where(same[..., None], covered, picture[..., 3:] / 255)
    check_over_grounds(picture, lambda ground: covered * np.array(color) + (1 - covered) * np.array(ground))
    area = (2 * 0.8 / view.height * view.size) ** 2
    assert picture[..., 3].sum() / 255 == pytest.approx(area, rel=0.01)


@settings(max_examples=12)
@given(
    color=st.tuples(*[st.floats(0, 1)] * 3),
    alpha=st.floats(0.05, 1.0),
    turn=st.floats(0, 1.57),
    size=st.sampled_from([16, 37, 64]),
    samples=st.sampled_from([1, 4, 9, 16]),
)
def test_any_square_over_any_ground(renderer, tmp_path_factory, color, alpha, turn, size, samples):
    folder = tmp_path_factory.getbasetemp()
    view = flat_view(size=size, samples=samples)
    picture = check_against_walls(renderer, with_veil(tilted(color, turn, alpha)), folder, view)
    check_stored(picture)


def with_veil(build: Build) -> Build:
    """Another translucent square in front, so that there are edges whatever the samples."""

    def both(toy: ToyBuilder) -> None:
        build(toy)
        tilted((0.3, 0.8, 0.6), 0.1, 0.35, 0.5, z=-1.0)(toy)

    return both


def test_wrong_edges_are_found(renderer, tmp_path):
    """The checks themselves: premultiplied storage, samples averaged in sRGB, and colour under alpha 0 all fail."""
    color, view = (0.95, 0.9, 0.85), flat_view(samples=16)
    model = scene_model(tilted(color), tmp_path)
    picture, raster = draw(renderer, model, view), rasterise(model, NO_TERMS, THA1.rest, view)
    cells = raster.samples.reshape(64, 4, 64, 4, 4)
    exact = cells.mean(axis=(1, 3))

    def direct(ground: Color) -> np.ndarray:
        return exact[..., :3] + (1 - exact[..., 3:]) * np.array(ground)

    check_over_grounds(picture, direct)
    dark = picture.copy()
    dark[..., :3] = np.rint(picture[..., :3] * (picture[..., 3:] / 255.0))
    with pytest.raises(AssertionError, match="dark halo"):
        check_over_grounds(dark, direct)
    with pytest.raises(AssertionError):
        check_monotone(dark, color)
    light = picture.copy()
    light[..., :3][(picture[..., 3] > 0) & (picture[..., 3] < 255)] = 255
    with pytest.raises(AssertionError, match="light halo"):
        check_over_grounds(light, direct)
    # The mean of sRGB codes over black, as a renderer without linear light would have it.
    gamma = picture.copy()
    gamma[..., 3] = np.rint(encode(exact[..., 3]) * 255)
    with pytest.raises(AssertionError, match="halo"):
        check_over_grounds(gamma, direct)
    coloured = picture.copy()
    coloured[0, 0] = (255, 255, 255, 0)
    with pytest.raises(AssertionError):
        check_stored(coloured)


# Textures with alpha


def disc(folder: Path, name: str, color: Color, hidden: str, side: int = 64, soft: float = 3.0) -> str:
    """Write a disc of one colour (linear light) with an edge `soft` texels wide; `hidden` fills what is transparent."""
    y, x = np.mgrid[:side, :side] + 0.5
    texels = np.zeros((side, side, 4), np.uint8)
    texels[..., :3] = np.rint(encode(np.array(color)) * 255)
    distance = np.hypot(x - side / 2, y - side / 2)
    texels[..., 3] = np.rint(255 * np.clip((0.38 * side - distance) / soft + 0.5, 0, 1))
    noise = np.random.default_rng(3).integers(0, 256, (side, side, 3))
    fill = {"white": 255, "black": 0, "magenta": (255, 0, 255), "noise": noise, "same": texels[..., :3]}[hidden]
    texels[..., :3] = np.where(texels[..., 3:] == 0, fill, texels[..., :3])
    Image.fromarray(texels).save(folder / name)
    return name


def poster(name: str, half: float, color: Color = WHITE, alpha: float = 1.0) -> Build:
    """A slightly turned square that shows the texture `name` on the middle of the picture."""

    def build(toy: ToyBuilder) -> None:
        toy.textures.append(name)
        toy.quad((0.02, 17.9, 0), (half, 0.1 * half, 0), (-0.1 * half, half, 0))
        toy.material("poster", color, alpha, texture_index=0)

    return build


def disc_pictures(renderer, folder, color, half, side, soft=3.0) -> list[np.ndarray]:
    view = flat_view()
    pictures = []
    for hidden in ("same", "white", "black", "magenta", "noise"):
        name = disc(folder, f"{hidden}{side}.png", color, hidden, side, soft)
        pictures.append(draw(renderer, scene_model(poster(name, half), folder), view))
    return pictures


@pytest.mark.parametrize(("half", "side"), [(1.6, 16), (1.2, 64), (0.9, 512), (0.25, 256)], ids=str)
@pytest.mark.parametrize("color", [(0.9, 0.7, 0.6), HAIR], ids=["bright", "dark"])
def test_colours_of_transparent_texels_never_show(renderer, tmp_path, color, half, side):
    """Magnified, as it is, minified, far away: bit for bit the same whatever the transparent texels hold."""
    first, *others = disc_pictures(renderer, tmp_path, color, half, side)
    for other in others:
        np.testing.assert_array_equal(first, other)
    shown = first[..., 3] > 0
    assert shown.sum() > 20
    assert (first[..., 3] < 255)[shown].any()
    # The stored colour is the disc's; 8 bits of a premultiplied texel leave less of it where it is nearly transparent.
    code = encode(np.array(color)) * 255
    solid = first[..., 3] >= 64
    assert np.abs(first[solid][:, :3] - code).max() <= 2.5
    # So composited in sRGB itself, too, the edge runs straight from the colour to any ground.
    assert (np.abs(first[shown][:, :3] - code) * (first[shown][:, 3:] / 255)).max() <= TEXTURED
    check_over_grounds(first, lambda ground: stored_alpha_over(first, color, ground), TEXTURED)


def stored_alpha_over(picture: np.ndarray, color: Color, ground: Color) -> np.ndarray:
    alpha = picture[..., 3:] / 255
    return alpha * np.array(color) + (1 - alpha) * np.array(ground)


@pytest.mark.parametrize(("half", "side"), [(1.6, 16), (0.9, 512)], ids=["magnified", "minified"])
def test_without_premultiplication_they_would_show(renderer, tmp_path, monkeypatch, half, side):
    """The test of the test above."""
    monkeypatch.setattr(texels, "premultiply_own", lambda texels: None)
    color = (0.9, 0.7, 0.6)
    first, *others = disc_pictures(renderer, tmp_path, color, half, side, soft=1.0)
    for picture in others:
        assert (np.abs(first.astype(int) - picture) > 4).any()
        with pytest.raises(AssertionError, match="halo"):
            check_over_grounds(picture, lambda ground, it=picture: stored_alpha_over(it, color, ground), TEXTURED)


@pytest.mark.parametrize("hidden", ["white", "black", "magenta"])
@pytest.mark.parametrize(("half", "side", "samples"), [(1.6, 16, 1), (1.2, 64, 4), (0.9, 256, 9)], ids=str)
def test_textures_with_alpha_over_every_ground(renderer, tmp_path, hidden, half, side, samples):
    """Against walls drawn by the renderer itself, and against the numpy rasteriser's samples over the ground."""
    view = flat_view(samples=samples)
    for color in ((0.9, 0.7, 0.6), HAIR):
        build = poster(disc(tmp_path, "disc.png", color, hidden, side, soft=5.0), half)
        picture = check_against_walls(renderer, build, tmp_path, view)
        raster = rasterise(scene_model(build, tmp_path), NO_TERMS, THA1.rest, view)
        check_over_grounds(picture, lambda ground, raster=raster: exactly_over(raster, view, ground), TEXTURED)


def exactly_over(raster: Raster, view: View, ground: Color) -> np.ndarray:
    grid = len(raster.samples) // view.size
    mean = raster.samples.reshape(view.size, grid, view.size, grid, 4).mean(axis=(1, 3))
    return mean[..., :3] + (1 - mean[..., 3:]) * np.array(ground)


def test_nothing_is_left_of_what_is_nearly_invisible(renderer, tmp_path):
    """Alpha that rounds to 0 leaves no colour: of a faint layer, and of one faint sample among sixteen."""
    faint = draw(renderer, scene_model(tilted(WHITE, alpha=0.4 * STEP), tmp_path), flat_view())
    assert not faint.any()
    just = draw(renderer, scene_model(tilted(WHITE, alpha=0.9 * STEP), tmp_path), flat_view())
    assert tuple(just[32, 32]) == (255, 255, 255, 1)
    picture = draw(renderer, scene_model(tilted(MAGENTA, alpha=2.2 * STEP), tmp_path), flat_view(samples=16))
    check_stored(picture)
    assert {0, 1, 2} <= set(np.unique(picture[..., 3]).tolist())
    assert set(map(tuple, picture[picture[..., 3] > 0][:, :3].tolist())) <= {(255, 0, 255), (254, 0, 254)}


# Layers


def face_with(*layers: Build, skin: Color = SKIN) -> Build:
    """An opaque face that fills the lower half of the picture, and layers in front of it."""

    def build(toy: ToyBuilder) -> None:
        toy.quad((0, 16.4, 1), (3, 0, 0), (0, 1.5, 0))  # its upper edge at y = 17.9, the middle
        toy.material("skin", skin)
        for layer in layers:
            layer(toy)

    return build


def test_a_blush_on_skin_is_the_formula_s(renderer, tmp_path):
    """Half-transparent and softly ending: exactly between skin and blush, in linear light, and still opaque."""
    for alpha in (0.15, 0.5, 0.9):
        picture = draw(renderer, scene_model(face_with(tilted(BLUSH, 0, alpha)), tmp_path), flat_view())
        mixed = alpha * np.array(BLUSH) + (1 - alpha) * np.array(SKIN)
        np.testing.assert_allclose(picture[38, 32], [*encode(mixed) * 255, 255], atol=1)
        np.testing.assert_allclose(picture[26, 32], [*encode(np.array(BLUSH)) * 255, 255 * alpha], atol=1)

    view = flat_view()
    for hidden in ("white", "black"):
        name = disc(tmp_path, "blush.png", BLUSH, hidden, 32, soft=12.0)
        build = face_with(poster(name, 1.1, alpha=0.7))
        picture = check_against_walls(renderer, build, tmp_path, view)
        expected = rasterise(scene_model(build, tmp_path), NO_TERMS, THA1.rest, view)
        below = slice(33, None)
        assert (picture[below][..., 3] == 255).all(), "a layer in front makes no hole into what is opaque"
        assert np.abs(picture[below].astype(int) - expected.image[below]).max() <= 1
        low, high = (ufunc(encode(np.array(SKIN)), encode(np.array(BLUSH))) * 255 for ufunc in (np.minimum, np.maximum))
        assert (picture[below][..., :3] >= low - 1).all()
        assert (picture[below][..., :3] <= high + 1).all()


@pytest.mark.parametrize(("half", "side"), [(1.4, 32), (1.2, 256)], ids=["magnified", "minified"])
@pytest.mark.parametrize("hidden", ["white", "magenta"])
def test_a_fringe_over_a_face_has_no_rim(renderer, tmp_path, hidden, half, side):
    """Between hair and skin lies nothing lighter than both or darker than both."""
    name = disc(tmp_path, "fringe.png", HAIR, hidden, side, soft=side / 10)
    picture = check_against_walls(renderer, face_with(poster(name, half)), tmp_path, flat_view())
    below = picture[33:]
    hair, skin = (encode(np.array(color)) * 255 for color in (HAIR, SKIN))
    assert (below[..., 3] == 255).all()
    assert (below[..., :3] >= np.minimum(hair, skin) - 1).all()
    assert (below[..., :3] <= np.maximum(hair, skin) + 1).all()
    share = (decode(below[..., :3] / 255) - np.array(SKIN)) / (np.array(HAIR) - np.array(SKIN))
    assert (np.ptp(share, axis=-1) < 0.02).all(), "one share of hair for all three channels"
    assert ((share > 0.1) & (share < 0.9)).all(axis=-1).sum() > 20


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(st.tuples(*[st.floats(0, 1)] * 3), st.floats(0.02, 1), st.integers(-2, 2)), min_size=1, max_size=7
    )
)
def test_layers_follow_the_order_of_materials(renderer, tmp_path_factory, layers):
    """Each material over the ones before it, unless it lies behind what was drawn earlier: MMD does not sort."""

    def build(toy: ToyBuilder) -> None:
        for color, alpha, z in layers:
            tilted(color, 0.2, alpha, z=z)(toy)

    picture = draw(renderer, scene_model(build, tmp_path_factory.getbasetemp()), flat_view(size=16))
    result, nearest = np.zeros(4), np.inf
    for color, alpha, z in layers:
        if z <= nearest + 1e-9:
            result = np.append(np.array(color) * alpha, alpha) + (1 - alpha) * result
            nearest = z
    straight = encode(np.minimum(result[:3] / result[3], 1)) * 255
    np.testing.assert_allclose(picture[8, 8, 3], result[3] * 255, atol=1)
    # A half float holds 11 bits: of a layer's light no more than 1/2048 is lost, for each layer over it.
    tolerance = 0.6 + 255 * len(layers) * 2.0**-11 * np.maximum(straight / 255, 0.1)
    assert (np.abs(picture[8, 8, :3] - straight) <= tolerance).all()


@pytest.mark.parametrize(("count", "alpha"), [(8, 0.5), (32, 0.1), (64, 0.03), (100, 0.02)])
def test_many_layers_stay_within_the_half_floats_bound(renderer, tmp_path, count, alpha):
    """Veils over one another: n roundings of at most 2^-11 of the value, in practice fewer than two steps."""

    def build(toy: ToyBuilder) -> None:
        for number in range(count):
            tilted(((0.8, 0.3, 0.1), (0.2, 0.5, 0.9))[number % 2], 0, alpha, z=-number / 100)(toy)

    picture = draw(renderer, scene_model(build, tmp_path), flat_view(size=16))
    result = np.zeros(4)
    for number in range(count):
        color = ((0.8, 0.3, 0.1), (0.2, 0.5, 0.9))[number % 2]
        result = np.append(np.array(color) * alpha, alpha) + (1 - alpha) * result
    expected = np.append(encode(result[:3] / result[3]) * 255, result[3] * 255)
    # Old roundings fade with the layers over them: 1 / alpha of them count.
    bound = 0.6 + 255 * min(count, 1 / alpha) * 2.0**-11
    assert (np.abs(picture[8, 8] - expected) <= bound).all()
    assert (np.abs(picture[8, 8] - expected) <= 2.5).all()


# The expression box


def test_pasted_boxes_equal_whole_pictures_at_translucent_borders(renderer, tmp_path):
    """A soft lid that moves over soft hair, beyond the skin's edge, with veils across the box's border: bit for bit."""
    toy = ToyBuilder()
    toy.textures += [
        disc(tmp_path, "lid.png", HAIR, "white", 64, 20.0),
        disc(tmp_path, "veil.png", BLUSH, "noise", 64, 30.0),
    ]
    face_with()(toy)
    toy.quad((0.3, 18, 0.5), (1.4, 0.3, 0), (-0.3, 1.4, 0))
    toy.material("veil behind", WHITE, 0.8, texture_index=1)
    lid = toy.quad((0.3, 18, 0), (0.4, 0, 0), (0, 0.3, 0))
    toy.material("lid", WHITE, 0.9, texture_index=0, flags=pmx.EDGE, edge_size=4.0, edge_color=(0.2, 0, 0, 0.5))
    toy.quad((0.6, 17.8, -1), (0.5, 0, 0), (0, 0.9, 0))
    toy.material("veil in front", WHITE, 0.6, texture_index=1)
    toy.vertex_morph("まばたき", {int(lid[0]): (0, -0.3, 0), int(lid[1]): (0.2, -0.3, 0)})
    binding = PoseBinding(THA1, 1, 2, {"left_eye": (MorphTerm(0),), "right_eye": (), "mouth": ()})
    poses = sample_poses(THA1, 4, "translucent", 0, 8)
    poses[:, :3] = 0
    for samples in (1, 4, 16):
        view = flat_view(samples=samples, outline=1.0)
        prepared = prepare_model(toy.model(tmp_path / "toy.pmx"), binding, view)
        with renderer.scene(prepared) as scene:
            pasted, whole = list(scene.expressions(poses)), list(scene.posed(poses))
        assert len({picture.tobytes() for picture in whole}) == len(poses)
        for quick, full in zip(pasted, whole, strict=True):
            np.testing.assert_array_equal(quick, full)
            check_stored(full)
        translucent = (whole[0][..., 3] > 0) & (whole[0][..., 3] < 255)
        left, right, bottom, top = prepared.rig.expression_box or pytest.fail("there must be a box")
        x, y = ((left - view.center_x) / view.height + 0.5) * 64, (0.5 - (top - view.center_y) / view.height) * 64
        wide, high = (right - left) / view.height * 64, (top - bottom) / view.height * 64
        assert wide < 50
        assert high < 50
        around = translucent[max(int(y) - 2, 0) : int(y + high) + 3, max(int(x) - 2, 0) : int(x + wide) + 3]
        assert around[:4].any(), "something translucent lies across the box's border"
