"""Levels of textures that are left out are never read: pictures stay the same bit for bit. And how levels are made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from mmdgen.annotate.records import Annotation
from mmdgen.errors import RenderError
from mmdgen.generate.characters import exact_annotation
from mmdgen.model.load import load_model
from mmdgen.model.records import Model
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.rig import Frame, build_rig
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.vocabulary import THA1
from mmdgen.render import prepare
from mmdgen.render.mipmaps import level_definer
from mmdgen.render.prepare import linear_to_srgb, premultiply, prepare_model, srgb_to_linear
from mmdgen.render.renderer import Renderer
from mmdgen.render.sharpness import _least, level_finder
from mmdgen.render.texels import halved, premultiply_own
from mmdgen.render.view import SHADINGS, View
from mmdgen.samples.character import build_character
from mmdgen.samples.library import write_character


def noise(height: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, 4), np.uint8)


class TestHalved:
    @pytest.mark.parametrize("linear", [True, False])
    def test_a_texel_is_the_mean_of_four(self, linear):
        texels = noise(64, 32)
        light = texels[..., :3] / 255
        light = srgb_to_linear(light) if linear else light
        mean = light.reshape(32, 2, 16, 2, 3).mean(axis=(1, 3))
        expected = (linear_to_srgb(mean) if linear else mean) * 255
        found = halved(texels, linear)
        assert found.shape == (32, 16, 4)
        # to the nearest byte, but for what counting in whole numbers takes
        assert np.abs(found[..., :3] - expected).max() < 0.51
        alpha = texels[..., 3].astype(int).reshape(32, 2, 16, 2).sum(axis=(1, 3))
        np.testing.assert_array_equal(found[..., 3], (alpha + 2) // 4)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 3), (7, 10), (2, 2)])
    def test_every_size(self, shape):
        texels = noise(*shape)
        found = halved(texels, True)
        assert found.shape == (max(1, shape[0] // 2), max(1, shape[1] // 2), 4)
        assert (found >= texels.min(axis=(0, 1))).all()
        assert (found <= texels.max(axis=(0, 1))).all()

    @pytest.mark.parametrize("linear", [True, False])
    @pytest.mark.parametrize("shape", [(2, 2), (3, 5), (8, 9)])
    def test_one_colour_stays(self, linear, shape):
        for value in range(0, 256, 5):
            texels = np.full((*shape, 4), value, np.uint8)
            assert (halved(texels, linear) == value).all()

    def test_odd_sides_are_read_bilinearly_at_the_centre(self):
        texels = np.zeros((1, 3, 4), np.uint8)
        texels[0, :, 0] = (10, 200, 90)
        assert halved(texels, False)[0, 0, 0] == 200  # the middle of three is one texel's centre


def test_premultiplying_in_place_is_that_of_the_copy():
    texels = noise(16, 16)
    before = texels.copy()
    result = premultiply(texels)
    np.testing.assert_array_equal(texels, before)
    premultiply_own(texels)
    np.testing.assert_array_equal(texels, result)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    """A character whose textures have 16 times the texels, with noise that any wrong level would show."""
    path = write_character(tmp_path_factory.mktemp("fine"), build_character(3))
    for place in path.parent.rglob("*.png"):
        coarse = np.asarray(Image.open(place).convert("RGBA")).repeat(4, axis=0).repeat(4, axis=1)
        fine = coarse.astype(int) + noise(*coarse.shape[:2]) // 4 - 32
        Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(place, compress_level=1)
    return load_model(path)


def heads_view(annotation: Annotation, **settings: Any) -> View:
    bounds = annotation.bounds
    return View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, **settings)


@pytest.mark.gl
@pytest.mark.parametrize("shading", SHADINGS)
def test_pictures_stay_the_same_bit_for_bit(model, monkeypatch, shading):
    annotation = exact_annotation(model)
    binding = PoseBinding(
        THA1, annotation.neck, annotation.head, annotation.parameter_terms(), annotation.bounds.center_x
    )
    view = heads_view(annotation, size=32, shading=shading)
    reduced = prepare_model(model, binding, view)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_spare", lambda *_: None)
        whole = prepare_model(model, binding, view)
    assert reduced.nbytes < whole.nbytes / 2
    poses = sample_poses(THA1, 1, "any", 0, 6)
    with Renderer(tiles=(1, 1)) as renderer:
        if not renderer.report()["software"]:
            pytest.skip("a GPU makes its own mip maps, with its own rounding")
        drawn = []
        for prepared in (whole, reduced):
            with renderer.scene(prepared) as scene:
                drawn.append([scene.rest(), *scene.expressions(poses), *scene.posed(poses)])
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_a_picture_16_times_as_large_needs_four_levels_more(model):
    annotation = exact_annotation(model)
    terms = annotation.parameter_terms()
    binding = PoseBinding(THA1, annotation.neck, annotation.head, terms, annotation.bounds.center_x)
    counts = {}
    for size in (32, 512):
        view = heads_view(annotation, size=size)
        half, x, y = view.height / 2, view.center_x, view.center_y
        rig = build_rig(model, binding, Frame(x - half, x + half, y - half, y + half, view.height / size))
        find = level_finder(rig, view.height / size / 2)
        numbers = {draw.material: rig.model.materials[draw.material].texture for draw in rig.draws}
        counts[size] = {number: find({number}, 4096, 4096) for number in set(numbers.values()) - {-1}}
    differences = [counts[32][number] - counts[512][number] for number in counts[32] if counts[512].get(number)]
    assert set(differences) == {4}


def test_what_an_edge_may_stretch_to_counts():
    """Without morphs and with one that moves all corners of a face far apart."""
    place = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    uv = np.array([[0, 0], [1, 0], [0, 1]], float)
    face = np.array([[0, 1, 2]], np.uint32)
    groups, weights = np.zeros((3, 4), np.uint8), np.tile(np.array([1, 0, 0, 0], np.float32), (3, 1))
    size, still = np.array([64.0, 64.0]), np.zeros((3, 5))
    low, high = place.copy(), place.copy()

    def least(change: np.ndarray = still, weights: np.ndarray = weights, low: np.ndarray = low) -> float:
        return _least(face, place, uv, size, change, groups, weights, low, high, 0.0)

    assert least() == pytest.approx(64 * np.sqrt(2) / 2)  # 64 texels a unit both ways
    moved = still.copy()
    moved[1, 0] = 3.0  # the shortest of the stretched edges' densities counts for nothing: another edge is sharper
    assert least(moved) == pytest.approx(64 / 2)
    moved[:, 0] = 3.0
    assert least(moved) == pytest.approx(64 * np.sqrt(2) / (np.sqrt(2) + 6) / 2)
    sliding = still.copy()
    sliding[:, 3:] = 1.0  # uv morphs may make the face one texel
    assert least(sliding) == 0
    blended = np.tile(np.array([0.5, 0.5, 0, 0], np.float32), (3, 1))
    unbounded = np.full((3, 3), -np.inf)
    assert least(weights=blended, low=unbounded) == 0


def test_no_mip_maps_but_ours_are_drawn_with_in_silence():
    """A moderngl that hides glTexImage2D would leave them to the driver, and pictures would differ."""
    for hiding in (object(), SimpleNamespace(_context=SimpleNamespace(load=lambda name: 0))):
        with pytest.raises(RenderError, match=r"gives no access to glTexImage2D.* or use --renderer cpu"):
            level_definer(cast(Any, SimpleNamespace(mglo=hiding)))
