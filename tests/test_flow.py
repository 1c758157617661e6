"""Flow from the posed to the expression image: closed forms on toys, the numpy rasteriser on characters, warping."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from flow_oracle import expected_flow
from PIL import Image
from test_phong_oracle import ball, character
from test_render import blushing_toy, rich_binding, rich_toy
from toy import RED, TOP, YELLOW, ToyBuilder, toy_binding, toy_builder, toy_view

from mmdgen.dataset.schema import FLOW_STEP, HIDDEN, NO_SURFACE, VISIBLE
from mmdgen.errors import RenderError
from mmdgen.formats.pmx import records as pmx
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.flow import STEPS
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import SHADINGS, Camera, View

pytestmark = pytest.mark.gl

STEP = 1 / STEPS
NECK, HEAD = np.array([0, 16, 0.2]), np.array([0, 16.8, 0.1])  # the toy's joints
TURN = math.radians(15)


@pytest.fixture(scope="module")
def renderer():
    """One renderer for this module: a process has one context at a time."""
    with Renderer(tiles=(1, 1)) as one:
        yield one


def flow_of(renderer, model, binding, view, *poses) -> list[tuple[np.ndarray, np.ndarray]]:
    with renderer.scene(prepare_model(model, binding, view)) as scene:
        return list(scene.flows(np.array(poses, np.float32)))


def toy_flow(renderer, toy, size: int = 128, binding=None, outline: float = 0.0, **values):
    view = toy_view(size=size, outline=outline)
    return (*flow_of(renderer, toy.model(), binding or toy_binding(), view, THA1.pose(**values))[0], view)


def places(view: View) -> tuple[np.ndarray, np.ndarray]:
    """The pixels' centres in MU, f64 [S, S] twice."""
    rows, columns = np.indices((view.size, view.size)) + 0.5
    scale = view.height / view.size
    return view.center_x - view.height / 2 + columns * scale, view.center_y + view.height / 2 - rows * scale


def pixels(view: View, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A displacement in MU as one in pixels."""
    return np.stack([x, -y], axis=-1) * (view.size / view.height)


def inner(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """Where a mask holds all around, `width` pixels wide."""
    for _ in range(width):
        wide = np.pad(mask, 1)
        mask = np.logical_and.reduce([wide[i : i + len(mask), j : j + len(mask)] for i in range(3) for j in range(3)])
    return mask


def head_only() -> ToyBuilder:
    toy = ToyBuilder()
    toy.box((-1, 16.8, -1), (1, TOP, 1))
    toy.material("skull")
    toy.box((-0.1, 17.5, -1.4), (0.1, 17.7, -1))
    toy.material("nose", RED)
    for name in ("まばたき左", "まばたき右", "あ"):
        toy.vertex_morph(name, {0: (0.0, 0.0, 0.0)})
    return toy


def front(toy: ToyBuilder, *quads: tuple, morphs: bool = True) -> ToyBuilder:
    """Add quads, each a material: (center, u, v, alpha, changes)."""
    for number, (center, u, v, alpha, changes) in enumerate(quads):
        toy.quad(center, u, v)
        toy.material(f"quad {number}", YELLOW, alpha, **changes)
    for name in ("まばたき左", "まばたき右", "あ") if morphs else ():
        toy.vertex_morph(name, {0: (0.0, 0.0, 0.0)})
    return toy


# Closed forms


def test_the_steps_are_those_of_the_dataset():
    assert STEP == FLOW_STEP


@pytest.mark.parametrize("value", [1.0, -0.6])
def test_leaning_is_a_rotation_in_the_plane_and_hides_nothing(renderer, value):
    flow, seen, view = toy_flow(renderer, head_only(), neck_z=value, outline=0.0)
    x, y = places(view)
    angle = -value * TURN  # back: +1 leans to image left, anticlockwise on the screen
    dx, dy = x - NECK[0], y - NECK[1]
    back = np.stack([math.cos(angle) * dx - math.sin(angle) * dy, math.sin(angle) * dx + math.cos(angle) * dy], axis=-1)
    expected = pixels(view, back[..., 0] - dx, back[..., 1] - dy)
    surface = seen > NO_SURFACE
    assert surface.sum() > 1500
    assert np.abs(flow - expected)[surface].max() <= STEP / 2 + 2e-3
    assert (flow[~surface] == 0).all()
    assert (seen[surface] == VISIBLE).mean() > 0.98
    # But where a pixel of one surface comes to lie between several of another: at the silhouette and around the nose.
    nose = (np.abs(back[..., 0]) < 0.15) & (np.abs(back[..., 1] + NECK[1] - 17.6) < 0.15)
    assert (seen[inner(surface) & ~nose] == VISIBLE).all()


def test_turning_moves_by_depth(renderer):
    """The skull's front plane z = -1 under head_y = 1: x' = c + (x - c) cos + (z - c) sin, solved for x."""
    flow, seen, view = toy_flow(renderer, head_only(), head_y=1.0)
    x, y = places(view)
    cosine, sine = math.cos(TURN), math.sin(TURN)
    still = (x - HEAD[0] - (-1 - HEAD[2]) * sine) / cosine + HEAD[0]
    nose = (np.abs(y - 17.6) < 0.16) & (x < 0.3)  # where it can come to lie
    plane = (np.abs(still) < 0.97) & (y > 16.85) & (y < TOP - 0.05) & ~nose
    assert plane.sum() > 1000
    assert np.abs(flow - pixels(view, still - x, np.zeros_like(x)))[plane].max() <= STEP / 2 + 2e-3
    assert (flow[plane][:, 0] > 0).all()  # the face goes to image left, and comes from the right
    side = (x > 1 * cosine - 1.1 * sine + 0.1) & (y > 16.9) & (y < TOP - 0.1) & (seen > NO_SURFACE)
    assert side.sum() > 20
    assert (seen[side] == HIDDEN).all()  # the skull's side cannot be seen from the front


def test_an_occluder_hides_what_is_behind_it(renderer):
    """A pane hovers before a wall. Turned, the part of the wall that it covers at rest comes free: that part, and no
    other, is hidden."""
    flow, seen, view = hovering(renderer)
    x, y = places(view)
    cosine, sine, pixel = math.cos(TURN), math.sin(TURN), view.height / view.size
    still = (x - HEAD[0] - (-1 - HEAD[2]) * sine) / cosine + HEAD[0]  # where the wall is at rest
    pane = (x - HEAD[0] - (-1.8 - HEAD[2]) * sine) / cosine + HEAD[0]
    band = np.abs(y - 17.6) < 0.2 - pixel
    wall = band & (np.abs(pane) > 0.1 + pixel) & (np.abs(still) < 0.97)
    hidden, shown = wall & (np.abs(still) < 0.1 - pixel), wall & (np.abs(still) > 0.1 + pixel)
    assert hidden.sum() > 100
    assert (seen[hidden] == HIDDEN).all()
    assert (seen[shown] == VISIBLE).all()
    assert (seen[band & (np.abs(pane) < 0.1 - pixel)] == VISIBLE).all()
    assert np.abs(flow - pixels(view, still - x, np.zeros_like(x)))[wall].max() <= STEP / 2 + 2e-3


def hovering(renderer):
    toy = front(
        ToyBuilder(),
        ((0, 17.9, -1), (1, 0, 0), (0, 1, 0), 1.0, {}),
        ((0, 17.6, -1.8), (0.1, 0, 0), (0, 0.2, 0), 1.0, {}),
    )
    return toy_flow(renderer, toy, size=256, head_y=1.0)


@pytest.mark.parametrize("slope", [0, 40, 70, 80])
def test_flat_surfaces_never_hide_themselves(renderer, slope):
    angle = math.radians(slope)
    toy = front(ToyBuilder(), ((0, 17.9, 0), (math.cos(angle), 0, math.sin(angle)), (0, 0.8, 0), 1.0, {}))
    for values in ({"neck_z": 1.0}, {"head_x": 1.0}, {"head_y": 0.5}, {"head_y": 1.0, "head_x": -0.3, "neck_z": -1.0}):
        for size in (64, 200):
            _, seen, _ = toy_flow(renderer, toy, size=size, **values)
            within = inner(seen > NO_SURFACE)
            if values.get("head_y"):  # turned open: at rest it may be narrower than a pixel
                within &= slope < 80
            assert (seen[within] == VISIBLE).all()


def test_what_comes_from_outside_the_frame_is_not_visible(renderer):
    toy = front(ToyBuilder(), ((0, 17.9, 0), (9, 0, 0), (0, 0.3, 0), 1.0, {}))
    flow, seen, view = toy_flow(renderer, toy, neck_z=1.0)
    rows, columns = np.indices(seen.shape)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    outside = (x < -0.52) | (x > view.size - 0.48) | (y < -0.52) | (y > view.size - 0.48)
    surface = seen > NO_SURFACE
    assert (surface & outside).sum() > 50
    assert (seen[surface & outside] == HIDDEN).all()
    rim = (x < 0) | (x > view.size - 1) | (y < 0) | (y > view.size - 1)
    assert (seen[inner(surface) & ~rim] == VISIBLE).all()


def test_a_face_that_turns_its_back_at_rest_is_hidden(renderer):
    """Edge-on but for 6 degrees, and culled at rest; 15 degrees of turn open it. Drawn from both sides it is seen."""
    angle = math.radians(96)
    for flags, expected in ((0, HIDDEN), (pmx.DOUBLE_SIDED, VISIBLE)):
        toy = front(
            ToyBuilder(),
            ((0, 17.9, 0), (math.cos(angle), 0, -math.sin(angle)), (0, 0.8, 0), 1.0, {"flags": flags}),
        )
        found = [toy_flow(renderer, toy, size=256, head_y=turn)[1] for turn in (1.0, -1.0)]
        shown = max(found, key=lambda seen: int((seen > NO_SURFACE).sum()))
        surface = shown > NO_SURFACE
        assert surface.sum() > 500
        assert (shown[surface] == expected).mean() > (0.99 if expected == HIDDEN else 0.5)


# What gives the colour gives the flow


def layered(renderer, alpha: float, first: bool, **values):
    """A wall at z = 0 and a pane of some alpha before it, drawn after it or first."""
    wall = ((0, 17.9, 0), (1, 0, 0), (0, 0.8, 0), 1.0, {})
    pane = ((0, 17.9, -1), (0.4, 0, 0), (0, 0.4, 0), alpha, {})
    toy = front(ToyBuilder(), *((pane, wall) if first else (wall, pane)))
    flow, seen, view = toy_flow(renderer, toy, **values)
    middle = view.size // 2
    row = int((view.center_y + view.height / 2 - 17.9) / view.height * view.size)
    return flow[row, middle], seen[row, middle], view


@pytest.mark.parametrize(
    ("alpha", "first", "depth"), [(0.7, False, -1), (0.3, False, 0), (0.7, True, -1), (0.3, True, None)]
)
def test_thin_layers_do_not_count_but_write_depth(renderer, alpha, first, depth):
    """As in the picture, what is drawn first and thin hides what is drawn behind it later: then nothing is there."""
    flow, seen, view = layered(renderer, alpha, first, head_y=0.3)
    if depth is None:
        assert seen == NO_SURFACE
        assert not flow.any()
        return
    x, _ = places(view)
    here = x[0, view.size // 2]
    angle = 0.3 * TURN
    still = (here - (depth - HEAD[2]) * math.sin(angle)) / math.cos(angle)
    assert seen == VISIBLE
    assert flow[0] == pytest.approx((still - here) * view.size / view.height, abs=STEP / 2 + 2e-3)


@pytest.mark.parametrize("shading", SHADINGS)
def test_transparent_texels_are_no_surface(renderer, tmp_path, shading):
    texels = np.zeros((8, 8, 4), np.uint8)
    texels[:, 4:] = 255  # the right half is there
    Image.fromarray(texels).save(tmp_path / "half.png")
    toy = front(ToyBuilder(), ((0, 17.9, 0), (1, 0, 0), (0, 0.8, 0), 1.0, {"texture_index": 0}))
    toy.textures.append("half.png")
    view = toy_view(size=128, shading=shading)
    ((flow, seen),) = flow_of(renderer, toy.model(tmp_path / "a.pmx"), toy_binding(), view, THA1.pose(neck_z=0.2))
    columns = np.flatnonzero((seen > NO_SURFACE).any(axis=0))
    assert 58 <= columns.min() <= 66
    assert columns.max() > 85
    assert (flow[seen == NO_SURFACE] == 0).all()


def test_outlines_have_a_flow_of_their_own(renderer):
    toy = ToyBuilder()
    ball(toy, (0, 17.9, 0), 0.9, lambda _: (pmx.BDEF1, (2,), (1.0,), None), rings=16)
    toy.material("ball", flags=pmx.EDGE, edge_size=12.0, edge_color=(0, 0, 0, 1.0))
    front(toy)
    bare = toy_flow(renderer, toy, neck_z=0.5)[1]
    flow, seen, view = toy_flow(renderer, toy, neck_z=0.5, outline=1.0)
    rim = (seen > NO_SURFACE) & (bare == NO_SURFACE)
    assert rim.sum() > 250
    x, y = places(view)
    angle, dx, dy = -0.5 * TURN, x - NECK[0], y - NECK[1]
    back = (math.cos(angle) * dx - math.sin(angle) * dy, math.sin(angle) * dx + math.cos(angle) * dy)
    assert np.abs(flow - pixels(view, back[0] - dx, back[1] - dy))[rim].max() <= STEP / 2 + 2e-3
    assert (seen[rim] == VISIBLE).mean() > 0.8  # but for its outermost pixels
    # Turned, another part of the hull makes the silhouette: much of it cannot be seen at rest, and is not taken for the
    # ball that is.
    _, seen, _ = toy_flow(renderer, toy, head_y=1.0, outline=1.0)
    bare = toy_flow(renderer, toy, head_y=1.0)[1]
    rim = (seen > NO_SURFACE) & (bare == NO_SURFACE)
    side = rim & (np.abs(y - 17.9) < 0.5)
    assert side.sum() > 60
    assert (seen[side] == HIDDEN).mean() > 0.4


# Zero


@pytest.mark.parametrize("values", [{}, {"left_eye": 1.0, "mouth": 0.2}])
def test_without_a_turn_nothing_moves_and_all_is_visible(renderer, characters, values):
    cases = [(toy_builder().model(), toy_binding(), toy_view(size=96)), (*characters[5][:2], head_view(characters[5]))]
    cases.append((rich_toy().model(), rich_binding(), toy_view(size=96)))
    for model, binding, view in cases:
        ((flow, seen),) = flow_of(renderer, model, binding, view, THA1.pose(**values))
        assert not flow.any()
        assert (seen == VISIBLE).sum() > 1000
        assert not (seen == HIDDEN).any()


# Against the rasteriser


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("characters")
    return {seed: character(folder, seed) for seed in (0, 5)}


def head_view(item, size: int = 128, **settings) -> View:
    return View.of_head(**item[2], size=size, **{"ambient": 1.0, "directional": 0.0, **settings})


POSES = {
    "turn": THA1.pose(head_y=1.0),
    "all": THA1.pose(head_x=-0.8, head_y=-0.6, neck_z=0.8, left_eye=1.0, mouth=0.4),
}


@pytest.mark.parametrize(
    ("kind", "outline", "name"), [(0, 0.0, "turn"), (5, 1.0, "all"), ("rich", 0.0, "turn"), ("rich", 0.0, "all")]
)
def test_flow_and_visibility_agree_with_the_rasteriser(renderer, characters, kind, outline, name):
    pose = POSES[name]
    if kind == "rich":
        model, binding, view = rich_toy().model(), rich_binding(), toy_view(size=96, outline=outline)
    else:
        model, binding, view = *characters[kind][:2], head_view(characters[kind], 96, outline=outline)
    ((flow, seen),) = flow_of(renderer, model, binding, view, pose)
    expected, surface, visible = expected_flow(model, binding, pose, view)
    both = surface & (seen > NO_SURFACE)
    assert ((seen > NO_SURFACE) == surface).mean() > 0.995
    off = np.abs(flow - expected).max(axis=-1)[both]
    # At a few pixels' centres rounding decides which of two surfaces is hit.
    assert (off <= STEP / 2 + 0.01).mean() > 0.99
    agree = (seen == VISIBLE) == visible
    assert agree[both].mean() > (0.91 if outline else 0.93)
    # Where they differ is where visible and hidden meet, and at strands and outlines of a pixel's width.
    firm = (inner(visible | ~surface) | inner(~visible)) & both
    assert firm.sum() > 0.5 * both.sum()
    assert agree[firm].mean() > 0.97


# Warping


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Premultiplied f64 [S, S, 4] of `image` at (x + dx, y + dy), bilinear."""
    size = len(image)
    rows, columns = np.indices((size, size))
    x, y = np.clip(columns + flow[..., 0], 0, size - 1.001), np.clip(rows + flow[..., 1], 0, size - 1.001)
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    source = premultiplied(image)
    upper = source[y0, x0] * (1 - fx) + source[y0, x0 + 1] * fx
    return upper * (1 - fy) + (source[y0 + 1, x0] * (1 - fx) + source[y0 + 1, x0 + 1] * fx) * fy


def premultiplied(image: np.ndarray) -> np.ndarray:
    alpha = image[..., 3:].astype(float)
    return np.concatenate([image[..., :3] * alpha / 255, alpha], axis=2)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_expression_picture_warped_is_the_posed_one(renderer, characters, seed):
    """Under ambient light alone. Where the flow is smooth all around (no outline, no edge of a part runs through the
    pixel) colours agree to 2 steps of 255 in the mean; over all visible pixels the error is a fraction of that
    without the flow."""
    model, binding, _ = characters[seed]
    view = head_view(characters[seed], 256, outline=0.0)
    with renderer.scene(prepare_model(model, binding, view)) as scene:
        for pose in POSES.values():
            expression, turned = next(scene.expressions(pose[None])), next(scene.posed(pose[None]))
            ((flow, seen),) = scene.flows(pose[None])
            visible = seen == VISIBLE
            error = np.abs(warp(expression, flow) - premultiplied(turned)).max(axis=-1)
            still = np.abs(premultiplied(expression) - premultiplied(turned)).max(axis=-1)
            moved = visible & (np.hypot(flow[..., 0], flow[..., 1]) > 3)
            assert moved.sum() > 3000
            step = np.abs(np.diff(flow, axis=1, append=0)).max(axis=-1) + np.abs(np.diff(flow, axis=0, append=0)).max(
                axis=-1
            )
            smooth = inner(moved & (step < 0.5))
            assert smooth.sum() > 1500
            assert error[moved].mean() < 0.4 * still[moved].mean()
            assert error[smooth].mean() < 2.0
            assert np.percentile(error[smooth], 95) < 8


# Order, company, atlas


def test_order_and_company_do_not_matter(renderer, characters):
    poses = sample_poses(THA1, 3, "flow", 0, 5)
    cases = [
        (*characters[5][:2], head_view(characters[5], 64)),
        (rich_toy().model(), rich_binding(), toy_view(size=64)),
    ]
    alone = [[flow_of(renderer, *case, pose)[0] for pose in poses] for case in cases]
    with (
        renderer.scene(prepare_model(*cases[0])) as first,
        renderer.scene(prepare_model(*cases[1])) as second,
    ):
        turns = zip(first.flows(poses), second.flows(poses), first.posed(poses), first.flows(poses[::-1]), strict=True)
        for number, (a, b, _, c) in enumerate(turns):
            for found, expected in ((a, alone[0][number]), (b, alone[1][number]), (c, alone[0][4 - number])):
                assert np.array_equal(found[0], expected[0])
                assert np.array_equal(found[1], expected[1])


def test_pictures_are_the_same_with_flow_in_between(renderer, characters):
    poses = sample_poses(THA1, 4, "flow", 0, 3)
    model, binding, _ = characters[0]
    prepared = prepare_model(model, binding, head_view(characters[0], 64))
    with renderer.scene(prepared) as scene:
        plain = [scene.rest(), *scene.expressions(poses), *scene.posed(poses)]
        list(scene.flows(poses))
        again = [*scene.expressions(poses), *scene.posed(poses)]
    assert all(np.array_equal(a, b) for a, b in zip(plain[1:], again, strict=True))


@pytest.mark.parametrize("kind", ["plain", "rich", "blushing"])
@pytest.mark.parametrize("shading", SHADINGS)
def test_atlas_flows_match_single_ones(renderer, monkeypatch, kind, shading):
    toy, binding = {
        "plain": lambda: (toy_builder(), toy_binding()),
        "rich": lambda: (rich_toy(), rich_binding()),
        "blushing": blushing_toy,
    }[kind]()
    poses = sample_poses(THA1, 2, "atlas", 0, 8)
    prepared = prepare_model(toy.model(), binding, toy_view(size=64, shading=shading, outline=1.0))
    found = []
    for tiles in ((1, 1), (3, 2)):
        monkeypatch.setattr(renderer, "tiles", tiles)
        with renderer.scene(prepared) as scene:
            found.append(list(scene.flows(poses)))
    assert len(found[1]) == 8
    for (flow, seen), (tile, tile_seen) in zip(*found, strict=True):
        assert (seen > NO_SURFACE).sum() > 300
        same = (np.abs(flow - tile) <= STEP).all(axis=-1) & (seen == tile_seen)
        assert same.mean() > 0.99  # rounding at edges, and between the crossing triangles of the second toy


def test_another_camera_has_no_flow(renderer):
    camera = Camera(position=(0, 18, -10), target=(0, 18, 0), near=1, far=100, fov_deg=30)
    prepared = prepare_model(toy_builder().model(), toy_binding(), View.through(camera, size=64))
    with renderer.scene(prepared) as scene, pytest.raises(RenderError, match="not through a camera"):
        next(scene.flows(THA1.rest[None]))


def test_poses_of_the_wrong_shape_are_refused(renderer):
    with (
        renderer.scene(prepare_model(toy_builder().model(), toy_binding(), toy_view(size=64))) as scene,
        pytest.raises(RenderError, match=r"poses must be \[N, 6\]"),
    ):
        scene.flows(np.zeros((2, 5), np.float32))


def test_pictures_larger_than_16_bits_reach(renderer):
    toy = front(ToyBuilder(), ((0, 17.9, 0), (9, 0, 0), (0, 0.3, 0), 1.0, {}))
    (small, few, _), (large, many, _) = (toy_flow(renderer, toy, size=size, neck_z=1.0) for size in (130, 650))
    both = (few > NO_SURFACE) & (many[2::5, 2::5] > NO_SURFACE)
    assert both.sum() > 800
    assert np.abs(large[2::5, 2::5] - 5 * small)[both].max() <= 5 * STEP


def test_real_models_have_flows(renderer, corpus: Path):
    from mmdgen.annotate.store import resolve
    from mmdgen.model.load import load_model

    path = corpus / "mmdagent/mei/mei.pmd"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    model = load_model(path)
    found = resolve(model, None)
    bounds = found.bounds
    binding = PoseBinding(THA1, found.neck, found.head, found.parameter_terms(), bounds.center_x)
    view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=128)
    with renderer.scene(prepare_model(model, binding, view)) as scene:
        pose = POSES["all"]
        ((flow, seen),) = scene.flows(pose[None])
        solid = inner(next(scene.posed(pose[None]))[..., 3] == 255)
    assert (seen[solid] > NO_SURFACE).all()
    assert (seen[solid] == VISIBLE).mean() > 0.8
    assert 3 < np.abs(flow).max() < 40
