"""Deformation from the file to the GPU: SDEF and QDEF, bone, UV and group morphs, appends.

Under rotations far beyond a dataset's, against the oracle and against formulas written out here once more.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp
from toy import RED, mask_of, toy_binding, toy_builder, toy_view

from mmdgen.errors import ModelError
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.model.load import model_from_bytes
from mmdgen.model.records import Model, MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.rig import MAX_GROUPS
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.skinning import skin, skin_normals
from mmdgen.pose.vocabulary import THA1, PoseVocabulary
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer

NECK_REST, HEAD_REST = np.array([0, 16, np.float32(0.2)]), np.array([0, np.float32(16.8), np.float32(0.1)])


@pytest.fixture(scope="module")
def renderer():
    with Renderer(tiles=(1, 1)) as one:
        yield one


def wide(limit_deg: float) -> PoseVocabulary:
    """`tha1` with other angles at +-1."""
    limit = np.radians(limit_deg)
    return PoseVocabulary(
        "wide", tuple(dataclasses.replace(p, limit=limit) if p.kind == "rotation" else p for p in THA1.parameters)
    )


def bind(vocabulary: PoseVocabulary = THA1, **terms: tuple[MorphTerm, ...]) -> PoseBinding:
    plain = toy_binding()
    return dataclasses.replace(plain, vocabulary=vocabulary, terms={**plain.terms, **terms})


def scene_of(renderer: Renderer, model: Model, binding: PoseBinding, **view):
    prepared = prepare_model(model, binding, toy_view(**view))
    return prepared, renderer.scene(prepared)


def draw(renderer: Renderer, model: Model, binding: PoseBinding, poses, **view) -> list[np.ndarray]:
    prepared, scene = scene_of(renderer, model, binding, **{"size": 128, **view})
    assert len(prepared.rig.vertex)
    with scene:
        return list(scene.posed(np.array(poses, np.float32)))


# SDEF

CENTRES = {
    "usual": ((0, 16.8, 0.1), (0.1, 16.6, 0.1), (-0.1, 17.1, 0.0)),
    "at the vertex": ((0.4, 17.5, -1.2), (0.4, 17.5, -1.2), (0.4, 17.5, -1.2)),
    "all zero": ((0, 0, 0), (0, 0, 0), (0, 0, 0)),  # what converters write
    "far apart": ((0, 16, 0), (0, 6, 3), (2, 27, -3)),
    "r0 is r1": ((0.2, 16.5, 0), (1, 16, 1), (1, 16, 1)),
}
WEIGHTS = (0.0, 0.02, 0.3, 0.5, 0.7, 0.98, 1.0)
PAIRS = ((1, 2), (2, 1), (0, 2), (2, 0), (0, 1), (2, 2))


def sdef_toy(centres):
    toy = toy_builder()
    first = len(toy.positions)
    for number, weight in enumerate(WEIGHTS):
        for pair in PAIRS:
            spot = np.array([0.4, 17.5, -1.2]) + np.array([-0.1, 0.08, 0]) * number
            toy.quad(spot, (0.2, 0.05, 0), (0, 0.1, 0.05), (pmx.SDEF, pair, (weight,), centres))
    toy.material("sdef", flags=pmx.DOUBLE_SIDED)
    return toy, np.arange(first, len(toy.positions))


def bone_motions(vocabulary: PoseVocabulary, pose: np.ndarray):
    """(rotation, translation) of center, neck and head, by hand: p' = R p + t. MMD turns by Ry Rx Rz."""
    limit = vocabulary.parameters[0].limit
    head_x, head_y, neck_z = (float(value) * limit for value in pose[:3])
    neck = Rotation.from_euler("z", neck_z)
    head = Rotation.from_euler("y", head_y) * Rotation.from_euler("x", head_x)
    both = neck * head
    neck_shift = NECK_REST - neck.apply(NECK_REST)
    head_place = neck.apply(HEAD_REST) + neck_shift
    return (Rotation.identity(), np.zeros(3)), (neck, neck_shift), (both, head_place - both.apply(HEAD_REST))


def sdef_by_hand(point, normal, motions, weight, centres):
    """The formula without its w0 R0 + w1 R1: the centres are C +- (R0 - R1) / 2 times the other bone's weight."""
    c, r0, r1 = (np.array(value, np.float32).astype(float) for value in centres)
    (turn0, shift0), (turn1, shift1) = motions
    half = (r0 - r1) / 2
    turn = Slerp([0, 1], Rotation.concatenate([turn0, turn1]))([1 - weight])[0]
    centre0 = turn0.apply(c + half * (1 - weight)) + shift0
    centre1 = turn1.apply(c - half * weight) + shift1
    return turn.apply(point - c) + weight * centre0 + (1 - weight) * centre1, turn.apply(normal)


def far_from_half_turns(vocabulary: PoseVocabulary, pose: np.ndarray) -> bool:
    """Two rotations half a turn apart have two ways between them, and rounding chooses."""
    still, neck, head = (turn for turn, _ in bone_motions(vocabulary, pose))
    apart = [(a.inv() * b).magnitude() for a, b in ((still, neck), (neck, head), (still, head))]
    return max(apart) < np.radians(175)


def wide_poses(vocabulary: PoseVocabulary) -> list[np.ndarray]:
    corners = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 1])).reshape(3, -1).T
    poses = sample_poses(vocabulary, 5, "sdef", 0, 12)
    more = np.tile(poses[0], (len(corners), 1))
    more[:, :3] = corners
    kept = [pose for pose in np.concatenate([poses, more]) if far_from_half_turns(vocabulary, pose)]
    assert len(kept) >= 12
    return kept


@pytest.mark.parametrize("limit", [15, 90, 120])
@pytest.mark.parametrize("centres", CENTRES.values(), ids=CENTRES)
def test_the_oracle_s_sdef_is_the_formula(centres, limit):
    toy, vertices = sdef_toy(centres)
    model, vocabulary = toy.model(), wide(limit)
    assert model.sdef.vertex.tolist() == vertices.tolist()
    assert model.diagnostics == ()
    for pose in wide_poses(vocabulary)[::3]:
        motions = bone_motions(vocabulary, pose)
        position = skin(model, bind(vocabulary), pose)
        normal = skin_normals(model, bind(vocabulary), pose)
        for vertex in vertices[::4]:
            pair = model.bone_index[vertex, :2]
            expected = sdef_by_hand(
                model.position[vertex],
                model.normal[vertex],
                [motions[bone] for bone in pair],
                float(model.bone_weight[vertex, 0]),
                centres,
            )
            np.testing.assert_allclose(position[vertex], expected[0], atol=1e-5)
            np.testing.assert_allclose(normal[vertex], expected[1], atol=1e-6)


def test_sdef_between_equal_motions_is_rigid_and_at_the_ends_is_the_bone():
    toy, vertices = sdef_toy(CENTRES["far apart"])
    model, vocabulary = toy.model(), wide(120)
    for pose in wide_poses(vocabulary)[:6]:
        motions = bone_motions(vocabulary, pose)
        position = skin(model, bind(vocabulary), pose)
        for vertex in vertices:
            first, second = model.bone_index[vertex, :2]
            weight = float(model.bone_weight[vertex, 0])
            alone = first if first == second or weight == 1 else second if weight == 0 else None
            if alone is not None:
                turn, shift = motions[alone]
                np.testing.assert_allclose(position[vertex], turn.apply(model.position[vertex]) + shift, atol=1e-5)


def posed_normals(renderer: Renderer, scene, pose: np.ndarray, monkeypatch) -> np.ndarray:
    """What the vertex shader hands on as the normal: read back by the way that positions take."""
    programs = renderer.programs

    def feedback(geometry):
        return programs._get("model.vert", None, {**geometry, "EDGE": 0, "FEEDBACK": 1}, ("v_normal",))

    with monkeypatch.context() as patch:
        patch.setattr(programs, "feedback", feedback)
        return scene.posed_vertices(pose)


@pytest.mark.gl
@pytest.mark.parametrize("limit", [15, 120])
@pytest.mark.parametrize("centres", CENTRES.values(), ids=CENTRES)
def test_the_shader_s_sdef_is_the_oracle_s(renderer, monkeypatch, centres, limit):
    toy, _ = sdef_toy(centres)
    model, vocabulary = toy.model(), wide(limit)
    prepared, scene = scene_of(renderer, model, bind(vocabulary))
    # Pairs of one bone, and weights of 0 and 1, are plain rigid motion, which the rig knows.
    assert len(prepared.rig.sdef) == 4 * 5 * (len(WEIGHTS) - 2)
    with scene:
        for pose in wide_poses(vocabulary)[:: 2 if limit == 120 else 4]:
            kept = prepared.rig.vertex
            position, normal = scene.posed_vertices(pose), posed_normals(renderer, scene, pose, monkeypatch)
            np.testing.assert_allclose(position, skin(model, bind(vocabulary), pose)[kept], atol=2e-5)
            np.testing.assert_allclose(normal, skin_normals(model, bind(vocabulary), pose)[kept], atol=2e-6)


@pytest.mark.gl
def test_sdef_and_bdef_differ_where_they_should(renderer):
    """The test above would pass if both sides forgot SDEF."""
    toy, vertices = sdef_toy(CENTRES["usual"])
    model, vocabulary = toy.model(), wide(120)
    none = np.zeros((0, 3), np.float32)
    linear = dataclasses.replace(model, sdef=type(model.sdef)(np.zeros(0, np.int32), none, none, none))
    pose = np.array([0, 0, 1, 0, 0, 1], np.float32)
    apart = np.abs(skin(model, bind(vocabulary), pose) - skin(linear, bind(vocabulary), pose)).max(axis=1)
    blended = (model.bone_weight[vertices, 0] > 0.2) & (model.bone_weight[vertices, 0] < 0.8)
    blended &= model.bone_index[vertices, 0] == 0
    assert (apart[vertices[blended]] > 0.1).all()
    for each in (model, linear):
        prepared, scene = scene_of(renderer, each, bind(vocabulary))
        with scene:
            expected = skin(each, bind(vocabulary), pose)[prepared.rig.vertex]
            np.testing.assert_allclose(scene.posed_vertices(pose), expected, atol=1e-4)


# QDEF and weights


def deform_toy(deform: int, weights=(0.4, 0.3, 0.2, 0.1)):
    toy = toy_builder()
    toy.bones.append(pmx.PmxBone("顎", position=(0, 17, -0.5), parent_index=2))
    toy.quad((0.3, 17.4, -1.3), (0.3, 0, 0), (0, 0.3, 0), (deform, (0, 1, 2, 3), weights, None))
    toy.material("four", RED, flags=pmx.DOUBLE_SIDED)
    return toy


@pytest.mark.gl
def test_qdef_is_bdef4_as_in_mmd(renderer):
    """MMD itself reads PMX 2.0 only; what draws 2.1 in its manner takes the weights for linear blending."""
    poses = [THA1.pose(head_x=1, neck_z=-1), THA1.pose(head_y=-1, mouth=0.5)]
    header = pmx.PmxHeader(version=2.1)
    four, q = (
        model_from_bytes(write_pmx(dataclasses.replace(deform_toy(kind).file(), header=header)), Path("q.pmx"))
        for kind in (pmx.BDEF4, pmx.QDEF)
    )
    assert q.diagnostics == four.diagnostics == ()
    for pose in poses:
        assert np.array_equal(skin(q, bind(), pose), skin(four, bind(), pose))
    assert all(
        np.array_equal(a, b) for a, b in zip(*(draw(renderer, m, bind(), poses) for m in (q, four)), strict=True)
    )


@pytest.mark.gl
def test_normals_of_blended_vertices_turn_with_the_bones(renderer, monkeypatch):
    model, vocabulary = deform_toy(pmx.BDEF4).model(), wide(120)
    prepared, scene = scene_of(renderer, model, bind(vocabulary))
    with scene:
        for pose in wide_poses(vocabulary)[:6]:
            expected = skin_normals(model, bind(vocabulary), pose)[prepared.rig.vertex]
            np.testing.assert_allclose(posed_normals(renderer, scene, pose, monkeypatch), expected, atol=2e-5)
    assert np.linalg.norm(skin_normals(model, bind(vocabulary), np.array([1, 1, 1, 0, 0, 1])), axis=1).min() < 0.95


# Bone morphs


def bone_rows(rows) -> np.ndarray:
    """BONE_OFFSET rows from (bone, translation, rotation vector)."""
    table = np.zeros(len(rows), pmx.BONE_OFFSET)
    for item, (bone, translation, turn) in zip(table, rows, strict=True):
        item["bone"], item["translation"] = bone, translation
        item["rotation"] = Rotation.from_rotvec(turn).as_quat()
    return table


def group_morph(name: str, parts: dict[int, float]) -> pmx.PmxMorph:
    table = np.zeros(len(parts), pmx.GROUP_OFFSET)
    table["morph"], table["weight"] = list(parts), list(parts.values())
    return pmx.PmxMorph(name, "", 4, pmx.MORPH_GROUP, table)


LEFT_EYE, RIGHT_EYE, MOUTH = (np.arange(4) + first for first in (72, 76, 80))  # quads of `toy_builder`
SHIFT = {3: (0, -0.3, 0), 4: (0, -0.3, 0), 5: (0, -0.2, -0.1)}


def bone_morph_toy(nested: bool = False):
    """The toy whose eyes and mouth hang on bones of their own (3, 4, 5) that bone morphs 3, 4, 5 move.

    Morphs 6, 7, 8 are vertex morphs with the same effect; with `nested`, 9, 10, 11 are groups of two halves of 3, 4, 5.
    """
    toy = toy_builder()
    for name, quad in (("左まぶた", LEFT_EYE), ("右まぶた", RIGHT_EYE), ("下顎", MOUTH)):
        place = np.mean([toy.positions[i] for i in quad], axis=0)
        toy.bones.append(pmx.PmxBone(name, position=tuple(place), parent_index=2))
        for vertex in quad:
            toy.weights[vertex] = (pmx.BDEF1, (len(toy.bones) - 1,), (1.0,), None)
    for bone, shift in SHIFT.items():
        toy.morphs.append(pmx.PmxMorph(f"骨{bone}", "", 4, pmx.MORPH_BONE, bone_rows([(bone, shift, (0, 0, 0))])))
    for shift, quad in zip(SHIFT.values(), (LEFT_EYE, RIGHT_EYE, MOUTH), strict=True):
        toy.vertex_morph(f"点{quad[0]}", {int(vertex): shift for vertex in quad})
    if nested:
        toy.morphs += [group_morph(f"組{number}", {number: 0.5}) for number in (3, 4, 5)]
    return toy


def terms_of(*morphs: int, weight: float = 1.0) -> dict[str, tuple[MorphTerm, ...]]:
    return {
        name: (MorphTerm(morph, weight),)
        for name, morph in zip(("left_eye", "right_eye", "mouth"), morphs, strict=True)
    }


FACES = [
    THA1.pose(left_eye=1, mouth=0),
    THA1.pose(right_eye=0.4, mouth=1),
    THA1.pose(left_eye=1, right_eye=1, mouth=0.7, head_x=-1, head_y=0.6, neck_z=1),
]


@pytest.mark.gl
@pytest.mark.parametrize("through", ["bone morphs", "groups"])
def test_eyes_and_mouth_moved_by_bones_look_as_if_moved_by_vertices(renderer, through):
    model = bone_morph_toy(nested=True).model()
    assert model.diagnostics == ()
    bones = bind(THA1, **(terms_of(3, 4, 5) if through == "bone morphs" else terms_of(9, 10, 11, weight=2.0)))
    points = bind(THA1, **terms_of(6, 7, 8))
    for pose in FACES:
        np.testing.assert_allclose(skin(model, bones, pose), skin(model, points, pose), atol=1e-5)
    for ours, expected in zip(*(draw(renderer, model, each, FACES) for each in (bones, points)), strict=True):
        # Positions differ in their last bits, which decides some samples at edges.
        apart = np.abs(ours.astype(int) - expected).max(axis=2)
        assert (apart > 1).mean() < 4e-3
        assert apart.mean() < 0.1
    prepared, scene = scene_of(renderer, model, bones, size=128)
    with scene:
        # The box in which expressions are redrawn holds what bones move.
        assert prepared.rig.expression_box is not None
        still = [pose * (np.array(THA1.rest) * 0 + [0, 0, 0, 1, 1, 1]) for pose in FACES]
        for fast, full in zip(scene.expressions(np.array(FACES)), scene.posed(np.array(still)), strict=True):
            assert np.array_equal(fast, full)


@pytest.mark.gl
def test_bone_morphs_turn_by_slerp_and_add_up(renderer):
    """Half the weight is half the angle about the same axis; of two morphs, shifts add up and turns multiply."""
    toy = bone_morph_toy()
    toy.morphs += [
        pmx.PmxMorph(
            "回1", "", 4, pmx.MORPH_BONE, bone_rows([(5, (0, -0.1, 0), (1.2, 0, 0)), (3, (0, 0, 0), (0, 0, 1))])
        ),
        pmx.PmxMorph("回2", "", 4, pmx.MORPH_BONE, bone_rows([(5, (0.05, 0, 0), (0, 0, -2.2))])),
    ]
    model = toy.model()
    binding = bind(mouth=(MorphTerm(9), MorphTerm(10, 0.5)), left_eye=(), right_eye=())
    pivot = model.skeleton.rest[5].astype(float)
    for weight in (0.0, 0.25, 1.0):
        pose = THA1.pose(mouth=weight)
        turn = Rotation.from_rotvec([1.2 * weight, 0, 0]) * Rotation.from_rotvec([0, 0, -1.1 * weight])
        shift = np.array([0.025, -0.1, 0]) * weight
        expected = turn.apply(model.position[MOUTH] - pivot) + pivot + shift
        np.testing.assert_allclose(skin(model, binding, pose)[MOUTH], expected, atol=1e-5)
        prepared, scene = scene_of(renderer, model, binding)
        with scene:
            got = dict(zip(prepared.rig.vertex.tolist(), scene.posed_vertices(pose), strict=True))
            np.testing.assert_allclose([got[int(vertex)] for vertex in MOUTH], expected, atol=1e-5)


def test_more_moving_bones_than_can_be_drawn_are_a_model_error():
    toy = toy_builder()
    count = MAX_GROUPS
    for number in range(count):
        toy.bones.append(pmx.PmxBone(f"b{number}", position=(0, 18, 0), parent_index=2))
    rows = bone_rows([(3 + number, (0, 0.01, 0), (0, 0, 0)) for number in range(count)])
    toy.morphs.append(pmx.PmxMorph("全部", "", 4, pmx.MORPH_BONE, rows))
    toy.morphs.append(pmx.PmxMorph("少し", "", 4, pmx.MORPH_BONE, rows[: MAX_GROUPS - 3]))
    model = toy.model()
    with pytest.raises(ModelError) as caught:
        prepare_model(model, bind(mouth=(MorphTerm(3),)), toy_view())
    assert caught.value.code == "too_many_groups"
    assert prepare_model(model, bind(mouth=(MorphTerm(4),)), toy_view()).rig.groups.count == MAX_GROUPS


@pytest.mark.gl
def test_as_many_moving_bones_as_are_allowed_are_drawn(renderer):
    toy = toy_builder()
    count = MAX_GROUPS - 3
    for number in range(count):
        toy.bones.append(pmx.PmxBone(f"b{number}", position=(0, 18, 0), parent_index=2))
    rows = bone_rows([(3 + number, (0, 0.001 * number, 0), (0, 0, 0.01)) for number in range(count)])
    toy.morphs.append(pmx.PmxMorph("全部", "", 4, pmx.MORPH_BONE, rows))
    toy.quad((0, 18, -2), (0.2, 0, 0), (0, 0.2, 0), (pmx.BDEF1, (len(toy.bones) - 1,), (1.0,), None))
    toy.material("last", RED)
    model, binding = toy.model(), bind(mouth=(MorphTerm(3),))
    prepared, scene = scene_of(renderer, model, binding)
    with scene:
        pose = THA1.pose(mouth=0.8, head_y=1)
        expected = skin(model, binding, pose)[prepared.rig.vertex]
        np.testing.assert_allclose(scene.posed_vertices(pose), expected, atol=1e-4)
        assert mask_of(next(scene.posed(pose[None])), RED).any()


# Groups, UVs and what has no effect


@pytest.mark.gl
def test_groups_in_circles_do_what_their_other_entries_do(renderer):
    toy = toy_builder()
    toy.morphs += [group_morph("甲", {4: 1.0, 0: 0.5}), group_morph("乙", {3: 1.0, 4: 1.0, 1: 1.0})]
    model, plain = toy.model(), toy_builder().model()
    assert [(item.code, item.index) for item in model.diagnostics] == [
        ("morph_group_nested", 3),
        ("morph_group_nested", 4),
    ]
    circle = bind(left_eye=(MorphTerm(3, 2.0),), right_eye=(MorphTerm(4),))
    for ours, expected in zip(draw(renderer, model, circle, FACES), draw(renderer, plain, bind(), FACES), strict=True):
        assert np.array_equal(ours, expected)


@pytest.mark.gl
@pytest.mark.parametrize("kind", [pmx.MORPH_UV + 1, pmx.MORPH_UV + 4, pmx.MORPH_FLIP, pmx.MORPH_IMPULSE])
def test_morphs_that_no_picture_shows_have_no_effect(renderer, kind):
    """Additional UVs feed shaders that MMD itself has not; impulses need physics; MMD ignores flips."""
    toy = toy_builder()
    table = np.zeros(1, pmx.OFFSET_DTYPES[kind])
    if kind <= pmx.MORPH_UV + 4:
        table["offset"] = 5.0
    elif kind == pmx.MORPH_FLIP:
        table["weight"] = 1.0
    toy.morphs.append(pmx.PmxMorph("無", "", 4, kind, table))
    header = pmx.PmxHeader(version=2.1, additional_uv_count=4)
    model = model_from_bytes(write_pmx(dataclasses.replace(toy.file(), header=header)), Path("x.pmx"))
    assert model.diagnostics == ()
    assert model.morphs[3].kind == "other"
    with_it = bind(mouth=(MorphTerm(2), MorphTerm(3)))
    for ours, expected in zip(draw(renderer, model, with_it, FACES), draw(renderer, model, bind(), FACES), strict=True):
        assert np.array_equal(ours, expected)


# Appends from the file to the picture


def append_toy(bones: list[pmx.PmxBone], hang: int):
    """The toy with a red flag on bone `hang`; `bones` come after センター, 首, 頭."""
    toy = toy_builder()
    toy.bones += bones
    toy.quad((0.9, 18.4, -1.6), (0.2, 0, 0), (0, 0.2, 0), (pmx.BDEF1, (hang,), (1.0,), None))
    toy.material("flag", RED, flags=pmx.DOUBLE_SIDED)
    return toy


def follower(
    name: str, source: int, ratio: float, parent: int = 0, flags: int = pmx.BONE_APPEND_ROTATION, layer: int = 0
):
    place = (0.0, 16.8, 0.1)
    return pmx.PmxBone(
        name, position=place, parent_index=parent, layer=layer, flags=flags, append_index=source, append_ratio=ratio
    )


# (bones from 3 on, the bone of the flag, times that the head's own turn is taken there)
APPENDS = {
    "half": ([follower("半", 2, 0.5)], 3, 0.5),
    "backwards": ([follower("逆", 2, -1.0)], 3, -1.0),
    "more than whole": ([follower("倍", 2, 2.5)], 3, 2.5),
    "backwards and more": ([follower("逆倍", 2, -3.0)], 3, -3.0),
    "chain": ([follower("一", 2, 0.5), follower("二", 3, -3.0)], 4, -1.5),
    "chain in the wrong order": ([follower("二", 4, -3.0), follower("一", 2, 0.5)], 3, -1.5),
    "source in a later layer": ([follower("先", 4, 1.0), follower("後", 2, 0.5, layer=3)], 3, 0.5),
    "after physics": (
        [follower("物理後", 2, 0.5, flags=pmx.BONE_APPEND_ROTATION | pmx.BONE_AFTER_PHYSICS)], 3, 0.5
    ),
    "child of an after-physics bone": (
        [
            pmx.PmxBone("子", position=(0, 17, 0), parent_index=4),
            follower("物理後", 2, 0.5, flags=pmx.BONE_APPEND_ROTATION | pmx.BONE_AFTER_PHYSICS),
        ], 3, 0.5,
    ),
    "translation of what only turns": ([follower("移", 2, 1.0, flags=pmx.BONE_APPEND_TRANSLATION)], 3, 0.0),
    "ratio 0": ([follower("零", 2, 0.0)], 3, 0.0),
    "a circle is cut": ([follower("甲", 4, 1.0), follower("乙", 3, 1.0)], 3, 0.0),
}  # fmt: skip


@pytest.mark.gl
@pytest.mark.parametrize(("bones", "hang", "times"), APPENDS.values(), ids=APPENDS)
def test_appends_turn_by_the_scaled_angle(renderer, bones, hang, times):
    model = append_toy(bones, hang).model()
    assert [item.code for item in model.diagnostics] == (["append_cycle"] if "甲" in model.skeleton.name else [])
    flag = np.arange(len(model.position) - 4, len(model.position))
    pivot = np.array([0, np.float32(16.8), np.float32(0.1)], float)
    prepared, scene = scene_of(renderer, model, bind(), size=128)
    with scene:
        for values in ({"head_x": 1}, {"head_y": -0.7}, {"head_x": -0.5, "head_y": 1, "neck_z": 1}):
            pose = THA1.pose(**values)
            head = bone_motions(THA1, np.concatenate([pose[:2], [0]]))[2][0]
            turn = Rotation.from_rotvec(head.as_rotvec() * times)
            expected = turn.apply(model.position[flag] - pivot) + pivot
            oracle = skin(model, bind(), pose)
            np.testing.assert_allclose(oracle[flag], expected, atol=1e-5)
            np.testing.assert_allclose(scene.posed_vertices(pose), oracle[prepared.rig.vertex], atol=1e-4)
