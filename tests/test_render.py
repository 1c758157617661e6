"""Pictures: signs and sides, framing, light, order, transparency, exact shortcuts, GPU positions against the oracle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import BLUE, CYAN, GREEN, RED, YELLOW, centroid, mask_of, toy_binding, toy_builder, toy_view

from mmdgen.errors import ConfigError, ModelError, RenderError
from mmdgen.formats.pmx import records as pmx
from mmdgen.geometry import quaternion_about_axis
from mmdgen.model.records import MorphTerm
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.skinning import skin
from mmdgen.pose.vocabulary import THA1
from mmdgen.render import draws, prepare
from mmdgen.render.prepare import linear_to_srgb, premultiply, prepare_model, srgb_to_linear
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import SHADINGS, View

pytestmark = pytest.mark.gl


@pytest.fixture(scope="module")
def renderer():
    """One renderer for this module: a process has one context at a time."""
    with Renderer(tiles=(1, 1)) as one:
        yield one


def draw(renderer, toy, poses, binding=None, **settings) -> list[np.ndarray]:
    model = toy.model() if hasattr(toy, "model") else toy
    with renderer.scene(prepare_model(model, binding or toy_binding(), toy_view(**settings))) as scene:
        return list(scene.posed(np.asarray(poses, np.float32)))


def one(renderer, toy, binding=None, size=256, samples=4, **values) -> np.ndarray:
    return draw(renderer, toy, [THA1.pose(**values)], binding, size=size, samples=samples)[0]


# Signs and sides (reference/talking-head-anime.md, section 1)


def test_head_y_turns_the_face_to_image_left(renderer):
    rest, turned = (centroid(mask_of(one(renderer, toy_builder(), head_y=v), RED)) for v in (0, 1))
    back = centroid(mask_of(one(renderer, toy_builder(), head_y=-1), RED))
    assert turned[1] < rest[1] - 5 < back[1] - 10


def test_head_x_looks_up(renderer):
    rows = [centroid(mask_of(one(renderer, toy_builder(), head_x=v), RED))[0] for v in (-1, 0, 1)]
    assert rows[0] > rows[1] + 5 > rows[2] + 10, "row 0 is the top"


def test_neck_z_leans_the_top_of_the_head_to_image_left(renderer):
    columns = [centroid(mask_of(one(renderer, toy_builder(), neck_z=v), CYAN))[1] for v in (-1, 0, 1)]
    assert columns[0] > columns[1] + 10 > columns[2] + 20


@pytest.mark.parametrize(("parameter", "color", "other"), [("left_eye", GREEN, BLUE), ("right_eye", BLUE, GREEN)])
def test_each_eye_closes_on_its_own_side(renderer, parameter, color, other):
    rest, closed = one(renderer, toy_builder()), one(renderer, toy_builder(), **{parameter: 1})
    column = centroid(mask_of(rest, color))[1]
    assert (column > 128) == (parameter == "left_eye"), "the character's left is image right"
    assert mask_of(closed, color).sum() < 0.15 * mask_of(rest, color).sum()
    assert mask_of(closed, other).sum() == mask_of(rest, other).sum()
    changed = np.nonzero((rest != closed).any(axis=(0, 2)))[0]
    assert (changed > 128).all() == (parameter == "left_eye")


def test_the_mouth_is_open_at_one_and_at_rest(renderer):
    opened, closed = one(renderer, toy_builder(), mouth=1), one(renderer, toy_builder(), mouth=0)
    assert mask_of(opened, YELLOW).sum() > 2 * mask_of(closed, YELLOW).sum()
    with renderer.scene(prepare_model(toy_builder().model(), toy_binding(), toy_view())) as scene:
        np.testing.assert_array_equal(scene.rest(), opened)


def test_angles_are_fifteen_degrees(renderer):
    image = one(renderer, toy_builder(), neck_z=1)
    left, right = (centroid(mask_of(image, color)) for color in (BLUE, GREEN))
    tilt = np.degrees(np.arctan2(left[0] - right[0], right[1] - left[1]))
    assert tilt == pytest.approx(15, abs=0.3)


# Framing


def test_chin_and_skull_top_fall_on_rows_192_and_64(renderer):
    toy = toy_builder()
    image = one(renderer, toy)
    skull = (np.abs(image[..., :3].astype(int) - image[180, 80, :3]) < 4).all(axis=-1) | mask_of(image, CYAN)
    rows = np.nonzero(skull.any(axis=1))[0]
    assert (rows[0], rows[-1] + 1) == (64, 192)
    columns = np.nonzero(skull.any(axis=0))[0]
    assert columns[0] + columns[-1] + 1 == 256, "centred"


@pytest.mark.parametrize("size", [64, 128, 512])
def test_other_sizes_show_the_same(renderer, size):
    small = one(renderer, toy_builder(), size=size)
    rows = np.nonzero(mask_of(small, CYAN).any(axis=1))[0]
    assert rows[0] == size // 4


def test_views_refuse_nonsense():
    with pytest.raises(ConfigError, match="above the chin"):
        View.of_head(19, 17, 0)
    with pytest.raises(ConfigError, match="samples"):
        View(0, 0, 1, samples=5)


def test_nothing_in_view_is_a_model_error():
    far = View(500, 500, 1)
    with pytest.raises(ModelError, match="no face lies in the view") as caught:
        prepare_model(toy_builder().model(), toy_binding(), far)
    assert caught.value.code == "nothing_in_view"


# Light and colour


def test_a_flat_face_has_the_formula_s_colour(renderer):
    toy = toy_builder()
    toy.quad((0, 17.9, -2), (2, 0, 0), (0, 2, 0))
    toy.material("wall", diffuse=(0.6, 0.4, 0.2, 1), ambient=(0.3, 0.5, 0.1))
    for ambient, directional in ((0.5, 0.5), (1.2, 0.5), (0.0, 1.0)):
        image = draw(renderer, toy, [THA1.rest], ambient=ambient, directional=directional)[0]
        linear = np.array([0.3, 0.5, 0.1]) * ambient + np.array([0.6, 0.4, 0.2]) * directional
        expected = linear_to_srgb(np.minimum(linear, 1)) * 255
        np.testing.assert_allclose(image[100, 128], [*expected, 255], atol=0.51)


def test_light_falls_off_with_the_cosine_on_both_sides(renderer):
    angle = np.radians(50)
    for flip in (1, -1):  # double-sided faces are lit like the side that is seen
        toy = toy_builder()
        toy.quad((0, 17.9, -3), (flip * 2 * np.cos(angle), 0, flip * 2 * np.sin(angle)), (0, 2, 0))
        toy.material("wall", flags=pmx.DOUBLE_SIDED)
        image = one(renderer, toy)
        expected = linear_to_srgb(0.5 * 0.5 + 0.5 * 0.5 * np.cos(angle)) * 255
        np.testing.assert_allclose(image[100, 128, :3], expected, atol=1)


def test_a_highlight_is_optional(renderer):
    toy = toy_builder()
    toy.quad((0, 17.9, -2), (2, 0, 0), (0, 2, 0))
    toy.material("wall", (0.2, 0.2, 0.2), specular=(0.4, 0.0, 0.0), specular_power=8.0)
    plain, shiny = (draw(renderer, toy, [THA1.rest], specular=value)[0][100, 128] for value in (0.0, 1.0))
    assert plain[0] == plain[1]
    expected = linear_to_srgb(np.array([0.2 * 1.0 + 0.4 * 0.5, 0.2, 0.2])) * 255
    np.testing.assert_allclose(shiny[:3], expected, atol=1)


def test_back_faces_are_culled_unless_double_sided(renderer):
    for flags, seen in ((0, False), (pmx.DOUBLE_SIDED, True)):
        toy = toy_builder()
        toy.quad((0, 17.9, -2), (-2, 0, 0), (0, 2, 0))  # seen from behind
        toy.material("wall", YELLOW, flags=flags)
        assert bool(mask_of(one(renderer, toy), YELLOW).sum() > 20000) == seen


# Transparency and order


def test_translucent_layers_blend_in_linear_light_and_material_order(renderer):
    toy = toy_builder()
    toy.quad((0, 17.9, -2), (2, 0, 0), (0, 2, 0))
    toy.material("first", RED, alpha=0.5)
    toy.quad((0, 17.9, -3), (2, 0, 0), (0, 2, 0))
    toy.material("second", GREEN, alpha=0.25)
    image = one(renderer, toy)
    skull = np.array([0.5, 0.5, 0.5])  # (ambient + diffuse) of grey under 0.5 + 0.5
    expected = 0.25 * np.array(GREEN) + 0.75 * (0.5 * np.array(RED) + 0.5 * skull)
    np.testing.assert_allclose(image[180, 80, :3], linear_to_srgb(expected) * 255, atol=1)
    assert image[180, 80, 3] == 255
    beside = image[100, 40]  # nothing behind: straight alpha, colour not darkened
    alpha = 0.25 + 0.75 * 0.5
    straight = (0.25 * np.array(GREEN) + 0.75 * 0.5 * np.array(RED)) / alpha
    np.testing.assert_allclose(beside, [*(linear_to_srgb(straight) * 255), alpha * 255], atol=1)


def test_translucent_materials_write_depth_as_in_mmd(renderer):
    toy = toy_builder()
    toy.quad((0, 17.9, -3), (2, 0, 0), (0, 2, 0))
    toy.material("front, earlier", RED, alpha=0.5)
    toy.quad((0, 17.9, -2), (2, 0, 0), (0, 2, 0))
    toy.material("behind, later", GREEN)
    image = one(renderer, toy)
    np.testing.assert_allclose(image[100, 40], [255, 0, 0, 128], atol=1)


def test_rgb_is_zero_where_alpha_is_zero_and_edges_are_straight(renderer):
    for pose in sample_poses(THA1, 0, "toy", 0, 4):
        image = draw(renderer, toy_builder(), [pose])[0]
        assert not image[image[..., 3] == 0].any()
        edge = (image[..., 3] > 0) & (image[..., 3] < 255)
        assert edge.any()
        assert image[edge][:, :3].max(axis=1).min() > 60, "no darkening towards the outside"


def test_no_halo_from_transparent_texels(renderer, tmp_path):
    """A red disc on transparent white: filtered and minified edges must stay red."""
    from PIL import Image

    texels = np.full((256, 256, 4), 255, np.uint8)
    y, x = np.mgrid[:256, :256]
    inside = (x - 128) ** 2 + (y - 128) ** 2 < 100**2
    texels[~inside, 3] = 0
    texels[inside, 1:3] = 0
    Image.fromarray(texels).save(tmp_path / "disc.png")
    toy = toy_builder()
    toy.textures.append("disc.png")
    toy.quad((1.8, 18.9, -2), (0.35, 0, 0), (0, 0.35, 0))
    toy.material("disc", (1, 1, 1), texture_index=0)
    model = toy.model(tmp_path / "toy.pmx")
    with renderer.scene(prepare_model(model, toy_binding(), toy_view())) as scene:
        image = scene.rest()
    disc = image[30:100, 205:255]
    assert (disc[..., 3] > 250).sum() > 300
    edge = (disc[..., 3] > 0) & (disc[..., 3] < 255)
    assert edge.sum() > 20
    assert disc[edge][:, 1:3].max() <= 2, "green or blue would be a white halo"
    assert disc[edge][:, 0].min() >= 250, "less red would be a dark one"


def test_premultiplied_texels_follow_the_formula():
    values = np.arange(256, dtype=np.uint8)
    texels = np.stack(np.broadcast_arrays(values[None], values[None], values[None], values[:, None]), axis=-1)
    expected = linear_to_srgb(srgb_to_linear(texels[..., :1] / 255) * (texels[..., 3:] / 255)) * 255
    np.testing.assert_allclose(premultiply(texels)[..., :1], expected, atol=0.5001)
    np.testing.assert_array_equal(premultiply(texels)[..., 3], texels[..., 3])


def test_textures_have_row_0_at_v_0(renderer, tmp_path):
    from PIL import Image

    texels = np.zeros((64, 64, 4), np.uint8)
    texels[..., 3] = 255
    texels[:32, :32, 0] = 255  # top left red
    texels[32:, 32:, 1] = 255  # bottom right green
    Image.fromarray(texels).save(tmp_path / "corners.bmp", format="PNG")  # the extension lies
    toy = toy_builder()
    toy.textures.append("corners.bmp")
    toy.quad((0, 17.9, -2), (1, 0, 0), (0, 1, 0))
    toy.material("picture", (1, 1, 1), texture_index=0)
    with renderer.scene(prepare_model(toy.model(tmp_path / "t.pmx"), toy_binding(), toy_view())) as scene:
        image = scene.rest()
    red, green = centroid(mask_of(image, RED)), centroid(mask_of(image, GREEN))
    assert max(red) < 128
    assert min(green) > 128


def test_outlines_widen_the_silhouette_by_their_size(renderer):
    toy = toy_builder()
    for number, material in enumerate(toy.materials):
        toy.materials[number] = dataclasses.replace(material, flags=pmx.EDGE, edge_size=10.0, edge_color=(1, 0, 1, 1))
    for number, position in enumerate(toy.positions):  # a hull needs one normal per corner; here straight sideways
        toy.normals[number] = np.array([np.sign(position[0]), 0, 0])
    plain = one(renderer, toy)
    with renderer.scene(prepare_model(toy.model(), toy_binding(), toy_view(outline=1.0))) as scene:
        outlined = scene.rest()
    width = [np.nonzero(image[150, :, 3])[0] for image in (plain, outlined)]
    assert width[0][0] - width[1][0] == pytest.approx(10 * 0.0015 * 256, abs=1)
    assert tuple(outlined[150, width[1][0] + 2]) == (255, 0, 255, 255)
    np.testing.assert_array_equal(outlined[182, 80:170], plain[182, 80:170])


# Exact shortcuts


@pytest.mark.parametrize("shading", SHADINGS)
@pytest.mark.parametrize("kind", ["plain", "bone morph"])
def test_expression_images_equal_full_redraws_bit_for_bit(renderer, kind, shading):
    poses = sample_poses(THA1, 5, "toy", 0, 12)
    toy, binding = (toy_builder(), toy_binding()) if kind == "plain" else (rich_toy(hang=3), rich_binding())
    for number, material in enumerate(toy.materials):
        toy.materials[number] = dataclasses.replace(material, flags=pmx.EDGE, edge_size=3.0)
    prepared = prepare_model(toy.model(), binding, toy_view(outline=1.0, shading=shading))
    assert prepared.rig.expression_box is not None
    assert 0 < len(prepared.rig.expression_index) < len(prepared.rig.index)
    with renderer.scene(prepared) as scene:
        quick = list(scene.expressions(poses))
        still = poses.copy()
        still[:, :3] = 0
        for fast, full in zip(quick, scene.posed(still), strict=True):
            np.testing.assert_array_equal(fast, full)


def test_dropping_faces_changes_no_pixel(renderer, monkeypatch):
    toy = toy_builder()
    rng = np.random.default_rng(1)
    for _ in range(150):
        toy.quad(np.array([0, 17.8, 0]) + rng.normal(size=3) * 3, rng.normal(size=3) * 0.3, rng.normal(size=3) * 0.3)
    toy.material("confetti", YELLOW, flags=pmx.DOUBLE_SIDED)
    model, poses = toy.model(), sample_poses(THA1, 1, "toy", 0, 8)
    import mmdgen.pose.rig as rig

    culled = prepare_model(model, toy_binding(), toy_view())
    monkeypatch.setattr(rig, "_faces_in", lambda face, *_: np.ones(len(face), bool))
    everything = prepare_model(model, toy_binding(), toy_view())
    assert len(everything.rig.index) > len(culled.rig.index)
    pictures = []
    for prepared in (culled, everything):
        # The depth range depends on the kept vertices; it must be the same for a bit-exact comparison.
        same = dataclasses.replace(prepared, rig=dataclasses.replace(prepared.rig, depth=(-10.0, 10.0)))
        with renderer.scene(same) as scene:
            pictures.append(list(scene.posed(poses)))
    for a, b in zip(*pictures, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("samples", [1, 9, 16])
def test_more_samples_converge(renderer, samples):
    pose = [THA1.pose(head_y=0.4, neck_z=0.3)]
    coarse = draw(renderer, toy_builder(), pose, samples=samples)[0].astype(int)
    fine = draw(renderer, toy_builder(), pose, samples=16)[0]
    inside = (fine[..., 3] == 255) & (coarse[..., 3] == 255)
    assert np.abs(coarse - fine)[inside].mean() < (3 if samples == 1 else 1)
    if samples == 16:
        levels = np.unique(fine[..., 3])
        assert set(levels.tolist()) <= {round(255 * k / 16) for k in range(17)}, "16 levels of alpha, as the article's"


def test_order_and_company_do_not_matter(renderer):
    """The same pose gives the same bytes alone, in a batch, and after another model."""
    poses = sample_poses(THA1, 9, "toy", 0, 5)
    batch = draw(renderer, toy_builder(), poses)
    other = toy_builder()
    other.materials[1] = dataclasses.replace(other.materials[1], diffuse=(1, 0, 1, 0.5))
    draw(renderer, other, poses)
    for pose, image in zip(poses[::-1], batch[::-1], strict=True):
        np.testing.assert_array_equal(draw(renderer, toy_builder(), [pose])[0], image)


def test_two_batches_of_a_scene_may_be_drawn_in_turn(renderer):
    poses = sample_poses(THA1, 4, "turns", 0, 3)
    with renderer.scene(prepare_model(toy_builder().model(), toy_binding(), toy_view(size=64))) as scene:
        alone = list(scene.expressions(poses)), list(scene.posed(poses))
        turns = list(zip(scene.expressions(poses), scene.posed(poses), strict=True))
    for number, pair in enumerate(turns):
        np.testing.assert_array_equal(pair[0], alone[0][number])
        np.testing.assert_array_equal(pair[1], alone[1][number])


def test_poses_of_the_wrong_shape_are_refused(renderer):
    with (
        renderer.scene(prepare_model(toy_builder().model(), toy_binding(), toy_view())) as scene,
        pytest.raises(RenderError, match="poses must be"),
    ):
        list(scene.posed(np.zeros((2, 5), np.float32)))


# GPU positions against the oracle


def rich_toy(hang: int = 6):
    """BDEF4, SDEF, more than four groups, an appending bone and a bone morph of the jaw (bone 4), which has a quad.

    The confetti hangs on the first `hang` bones only.
    """
    toy = toy_builder()
    toy.bones += [
        pmx.PmxBone("頭D", position=(0.1, 16.8, 0.1), parent_index=1, append_index=2, append_ratio=-0.6,
                    flags=pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION),
        pmx.PmxBone("顎", position=(0, 17, -0.5), parent_index=2),
        pmx.PmxBone("顎追従", position=(0, 17, -0.5), parent_index=1, append_index=4, append_ratio=0.5,
                    flags=pmx.BONE_APPEND_ROTATION),
    ]  # fmt: skip
    toy.quad((0, 17.0, -1.2), (0.2, 0, 0), (0, 0.1, 0), (pmx.BDEF1, (4,), (1.0,), None))
    rng = np.random.default_rng(2)
    for _ in range(20):
        weights = rng.dirichlet(np.ones(4)).astype(np.float32)
        bones = tuple(int(bone) for bone in rng.choice(hang, 4, replace=hang < 4))
        spot = np.array([0, 17.8, 0]) + rng.normal(size=3)
        toy.quad(spot, rng.normal(size=3) * 0.2, rng.normal(size=3) * 0.2, (pmx.BDEF4, bones, weights, None))
    for _ in range(20):
        pair = tuple(int(bone) for bone in rng.choice(min(hang, 4), 2, replace=False))
        c = np.array([0, 16.8, 0]) + rng.normal(size=3) * 0.3
        sdef = (c, c + rng.normal(size=3) * 0.2, c + rng.normal(size=3) * 0.2)
        weight = (float(rng.uniform(0.05, 0.95)),)
        toy.quad(c, rng.normal(size=3) * 0.2, rng.normal(size=3) * 0.2, (pmx.SDEF, pair, weight, sdef))
    toy.material("rich", flags=pmx.DOUBLE_SIDED)
    row = np.zeros(1, pmx.BONE_OFFSET)
    row["bone"], row["translation"] = 4, (0, -0.1, 0.02)
    row["rotation"] = quaternion_about_axis(0, np.array(-0.4))
    toy.morphs.append(pmx.PmxMorph("顎開き", "", 3, pmx.MORPH_BONE, row))
    return toy


def rich_binding():
    binding = toy_binding()
    return dataclasses.replace(binding, terms={**binding.terms, "mouth": (MorphTerm(2), MorphTerm(3, 0.8))})


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_gpu_positions_agree_with_the_oracle(renderer, kind):
    toy, binding = (toy_builder(), toy_binding()) if kind == "plain" else (rich_toy(), rich_binding())
    model = toy.model()
    prepared = prepare_model(model, binding, toy_view())
    assert (prepared.rig.groups.count > 4) == (kind == "rich")
    assert bool(len(prepared.rig.sdef)) == (kind == "rich")
    with renderer.scene(prepared) as scene:
        for pose in sample_poses(THA1, 11, kind, 0, 20):
            expected = skin(model, binding, pose)[prepared.rig.vertex]
            np.testing.assert_allclose(scene.posed_vertices(pose), expected, atol=1e-4)


def test_uv_morphs_move_the_texture(renderer, tmp_path):
    from PIL import Image

    texels = np.zeros((64, 64, 3), np.uint8)
    texels[:, :32, 0] = 255
    texels[:, 32:, 1] = 255
    Image.fromarray(texels).save(tmp_path / "halves.png")
    toy = toy_builder()
    toy.textures.append("halves.png")
    corner = toy.quad((0, 17.9, -2), (1, 0, 0), (0, 1, 0))
    toy.uvs[-4:] = [(0.25, 0.5)] * 4
    toy.material("picture", (1, 1, 1), texture_index=0)
    rows = np.zeros(4, pmx.UV_OFFSET)
    rows["vertex"], rows["offset"] = corner, (0.5, 0, 0, 0)
    toy.morphs.append(pmx.PmxMorph("uv", "", 4, pmx.MORPH_UV, rows))
    binding = toy_binding()
    binding = dataclasses.replace(binding, terms={**binding.terms, "mouth": (MorphTerm(3),)})
    with renderer.scene(prepare_model(toy.model(tmp_path / "t.pmx"), binding, toy_view())) as scene:
        closed, opened = scene.expressions(np.array([THA1.pose(mouth=0), THA1.pose(mouth=1)]))
    assert tuple(closed[100, 128]) == (255, 0, 0, 255)
    assert tuple(opened[100, 128]) == (0, 255, 0, 255)


def test_material_morphs_show_hidden_parts(renderer):
    toy = toy_builder()
    toy.quad((0, 17.9, -2), (1, 0, 0), (0, 1, 0))
    toy.material("blush", RED, alpha=0.0)
    row = np.zeros(1, pmx.MATERIAL_OFFSET)
    row["material"], row["operation"], row["diffuse"] = len(toy.materials) - 1, 1, (0, 0, 0, 1)
    toy.morphs.append(pmx.PmxMorph("照れ", "", 4, pmx.MORPH_MATERIAL, row))
    binding = toy_binding()
    binding = dataclasses.replace(binding, terms={**binding.terms, "mouth": (MorphTerm(3),)})
    closed, half, opened = draw(renderer, toy, [THA1.pose(mouth=v) for v in (0, 0.5, 1)], binding)
    assert tuple(opened[100, 128]) == (255, 0, 0, 255)
    assert tuple(closed[100, 128])[:3] != (255, 0, 0)
    mixed = srgb_to_linear(opened[180, 128, :3] / 255) * 0.5 + srgb_to_linear(closed[180, 128, :3] / 255) * 0.5
    np.testing.assert_allclose(half[180, 128, :3], linear_to_srgb(mixed) * 255, atol=2)


def blushing_toy():
    """The toy with toon ramps, highlights and outlines, and a blush that its mouth morph shows with an outline."""
    toy = toy_builder()
    toy.quad((0, 17.9, -2), (0.4, 0, 0), (0, 0.2, 0))
    toy.material("blush", RED, alpha=0.0)
    for number, material in enumerate(toy.materials):
        toy.materials[number] = dataclasses.replace(
            material, flags=pmx.EDGE, edge_size=8.0, edge_color=(0.4, 0.1, 0.2, 1.0), specular=(0.2, 0.3, 0.4)
        )
    row = np.zeros(2, pmx.MATERIAL_OFFSET)
    row["material"], row["operation"] = (len(toy.materials) - 1, -1), 1
    row["diffuse"][0], row["toon"][1], row["edge_size"][1] = (0, 0, 0, 1), (0.1, 0, 0, -0.3), 2
    toy.morphs.append(pmx.PmxMorph("照れ", "", 4, pmx.MORPH_MATERIAL, row))
    binding = toy_binding()
    return toy, dataclasses.replace(binding, terms={**binding.terms, "mouth": (MorphTerm(2), MorphTerm(3))})


@pytest.mark.parametrize("shading", SHADINGS)
def test_a_part_that_a_morph_hides_takes_its_outline_along(renderer, shading):
    toy, binding = blushing_toy()
    hidden, shown = draw(renderer, toy, [THA1.pose(mouth=v) for v in (0, 1)], binding, outline=1.0, shading=shading)
    bare, bare_binding = toy_builder(), toy_binding()
    for number, material in enumerate(bare.materials):
        bare.materials[number] = dataclasses.replace(
            material, flags=pmx.EDGE, edge_size=8.0, edge_color=(0.4, 0.1, 0.2, 1.0), specular=(0.2, 0.3, 0.4)
        )
    (expected,) = draw(renderer, bare, [THA1.pose(mouth=0)], bare_binding, outline=1.0, shading=shading)
    assert np.abs(hidden.astype(int) - expected).max() <= 1
    assert (np.abs(shown.astype(int) - hidden).max(axis=-1) > 30).mean() > 0.01


@pytest.mark.parametrize("shading", SHADINGS)
def test_pose_data_too_large_for_a_uniform_block(renderer, monkeypatch, shading):
    toy, binding = blushing_toy()
    poses = sample_poses(THA1, 2, "storage", 0, 5)
    prepared = prepare_model(toy.model(), binding, toy_view(size=64, outline=1.0, shading=shading))
    with renderer.scene(prepared) as scene:
        block = list(scene.posed(poses))
    monkeypatch.setattr(draws, "_UNIFORM_BLOCK", 8)
    with renderer.scene(prepared) as scene:
        storage = list(scene.posed(poses))
    for a, b in zip(block, storage, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("shading", SHADINGS)
def test_atlas_tiles_match_single_pictures(renderer, monkeypatch, shading):
    """Batches on one atlas, partial last batch included: the same but for rounding at edges, nothing leaks between."""
    poses = sample_poses(THA1, 2, "atlas", 0, 11)
    wide = rich_toy()
    wide.quad((0, 17.9, -1.5), (9, 0, 0), (0, 0.2, 0))
    wide.material("beam far beyond the frame", YELLOW)
    cases = [(toy_builder(), toy_binding()), (wide, rich_binding()), blushing_toy()]
    prepared = [prepare_model(toy.model(), binding, toy_view(size=128, shading=shading)) for toy, binding in cases]
    pictures = {}
    for tiles in ((1, 1), (3, 2)):
        monkeypatch.setattr(renderer, "tiles", tiles)
        for number, item in enumerate(prepared):
            with renderer.scene(item) as scene:
                pictures[tiles, number] = [scene.rest(), *scene.expressions(poses), *scene.posed(poses)]
    for number in range(3):
        single, atlas = pictures[(1, 1), number], pictures[(3, 2), number]
        assert len(single) == len(atlas) == 23
        for a, b in zip(single, atlas, strict=True):
            different = (np.abs(a.astype(int) - b) > 1).any(axis=-1)
            # Rounding decides between samples at edges, and between the crossing triangles of the second toy.
            assert different.mean() < (0.008 if number == 1 else 0.004)


def test_atlas_expressions_leave_no_seam(renderer, monkeypatch):
    """The pasted box must agree with the full picture of the same path around its border too."""
    monkeypatch.setattr(renderer, "tiles", (2, 2))
    poses = sample_poses(THA1, 8, "seam", 0, 4)
    poses[:, :3] = 0
    with renderer.scene(prepare_model(toy_builder().model(), toy_binding(), toy_view(size=128))) as scene:
        for pasted, whole in zip(scene.expressions(poses), list(scene.posed(poses)), strict=True):
            assert (np.abs(pasted.astype(int) - whole) > 1).any(axis=-1).mean() < 0.001


def test_one_renderer_at_a_time(renderer):
    with pytest.raises(RenderError, match="a renderer already"):
        Renderer()


@pytest.mark.corpus
def test_shared_models_agree_with_the_oracle(renderer, corpus: Path):
    """Vertex positions read back from the GPU, on every usable model, within 1e-4 MU."""
    from mmdgen.annotate.auto import annotate
    from mmdgen.errors import AnnotationError
    from mmdgen.model.load import load_model
    from mmdgen.pose.binding import PoseBinding

    paths = sorted(path for path in corpus.rglob("*") if path.suffix.lower() in (".pmx", ".pmd"))
    checked = 0
    for path in paths:
        model = load_model(path)
        try:
            found = annotate(model)
        except AnnotationError:
            continue
        bounds = found.bounds
        binding = PoseBinding(THA1, found.neck, found.head, found.parameter_terms(), bounds.center_x)
        prepared = prepare_model(model, binding, View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=64))
        with renderer.scene(prepared) as scene:
            for pose in sample_poses(THA1, 1, model.id, 0, 3):
                expected = skin(model, binding, pose)[prepared.rig.vertex]
                error = np.abs(scene.posed_vertices(pose) - expected).max()
                assert error < 1e-4, f"{path}: {error}"
        checked += 1
    assert checked > len(paths) / 2


def test_one_file_under_two_names_is_decoded_and_uploaded_once(renderer, tmp_path, monkeypatch):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "Skin.png")
    toy = toy_builder()
    toy.textures += ["Skin.png", ".\\skin.PNG"]
    for number, index in ((1, 0), (2, 1)):
        toy.materials[number] = dataclasses.replace(toy.materials[number], texture_index=index)
    times = []
    decode = prepare.decode_texture
    monkeypatch.setattr(prepare, "decode_texture", lambda texture: times.append(texture) or decode(texture))
    prepared = prepare_model(toy.model(tmp_path / "t.pmx"), toy_binding(), toy_view())
    assert len(times) == 1
    assert prepared.images[0] is prepared.images[1]
    with renderer.scene(prepared) as scene:
        assert scene._upload.textures[0] is scene._upload.textures[1]
        scene.rest()
