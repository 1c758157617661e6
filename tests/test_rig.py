"""The rig reduction against the slow oracle: groups, appends, SDEF, reach, culling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from toy import toy_binding, toy_builder, toy_view

from mmdgen.formats.pmx import records as pmx
from mmdgen.model.records import MorphTerm, Skeleton
from mmdgen.pose.bones import BoneMotion, evaluate_groups, rigid_groups
from mmdgen.pose.rig import Frame, build_rig
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.skinning import skin, skin_matrices
from mmdgen.pose.vocabulary import THA1, PoseVocabulary


@st.composite
def skeletons(draw) -> Skeleton:
    """Random trees with appends (rotation, translation, local, negative ratios, chains), evaluated parents first."""
    count = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parent = np.array([rng.integers(-1, i) if i else -1 for i in range(count)], np.int32)
    source = np.array([rng.integers(-1, i) if i else -1 for i in range(count)], np.int32)
    kind = rng.integers(0, 4, count)
    return Skeleton(
        name=tuple(f"b{i}" for i in range(count)),
        name_en=("",) * count,
        rest=rng.normal(size=(count, 3)).astype(np.float32) * 3,
        parent=parent,
        append_source=source,
        append_ratio=rng.choice([-1.5, -1, -0.3, 0.3, 1, 1.7], count).astype(np.float32),
        append_rotation=((kind & 1) > 0) & (source >= 0),
        append_translation=((kind & 2) > 0) & (source >= 0),
        append_local=(rng.random(count) < 0.2) & (source >= 0),
        order=np.arange(count, dtype=np.int32),
    )


@settings(max_examples=150, deadline=None)
@given(skeletons(), st.integers(0, 2**32 - 1))
def test_groups_move_every_bone_as_the_oracle_does(skeleton, seed):
    rng = np.random.default_rng(seed)
    count = len(skeleton.parent)
    moving = [int(bone) for bone in rng.choice(count, rng.integers(0, min(4, count) + 1), replace=False)]
    rotvec = {bone: rng.normal(size=3) * 0.4 for bone in moving}
    shift = {bone: rng.normal(size=3) for bone in moving if rng.random() < 0.5}
    oracle = skin_matrices(
        skeleton, {bone: Rotation.from_rotvec(value).as_matrix() for bone, value in rotvec.items()}, shift
    )
    groups = rigid_groups(skeleton, frozenset(moving))
    motion = BoneMotion(
        1,
        {bone: Rotation.from_rotvec(value).as_quat()[None] for bone, value in rotvec.items()},
        {bone: value[None] for bone, value in shift.items()},
    )
    rotation, translation = evaluate_groups(skeleton, groups, motion)
    matrices = Rotation.from_quat(rotation[0]).as_matrix()
    for bone in range(count):
        group = groups.group_of_bone[bone]
        np.testing.assert_allclose(matrices[group], oracle[bone, :3, :3], atol=1e-9)
        np.testing.assert_allclose(translation[0, group], oracle[bone, :3, 3], atol=1e-8)


def test_still_bones_are_one_group():
    model = toy_builder().model()
    groups = rigid_groups(model.skeleton, frozenset({1, 2}))
    assert groups.count == 3
    assert groups.group_of_bone.tolist() == [0, 1, 2]


def _frame() -> Frame:
    view = toy_view()
    half = view.height / 2
    return Frame(-half, half, view.center_y - half, view.center_y + half, view.height / 256)


def test_faces_that_never_come_into_view_are_dropped_and_no_others():
    toy = toy_builder()
    toy.box((-0.2, 3, -0.2), (0.2, 5, 0.2), (pmx.BDEF1, (0,), (1.0,), None))
    toy.material("foot")
    toy.box((-0.2, 21.9, -0.2), (0.2, 22.2, 0.2))
    toy.material("antenna")  # on the head, above the frame at rest, but nodding brings it in
    toy.box((-0.2, 12.0, -0.2), (0.2, 12.9, 0.2), (pmx.BDEF1, (1,), (1.0,), None))
    toy.material("pendulum")  # on the neck, below the frame in every pose
    model = toy.model()
    names = {model.materials[draw.material].name for draw in build_rig(model, toy_binding(), _frame()).draws}
    assert "foot" not in names
    assert "pendulum" not in names
    assert {"neck", "skull", "nose", "left eye", "right eye", "mouth", "crown"} <= names
    seen = [skin(model, toy_binding(), pose) for pose in _extremes()]
    antenna = np.unique(model.face[-24:-12])
    lowest = min(positions[antenna, 1].min() for positions in seen)
    assert ("antenna" in names) == bool(lowest <= _frame().top), "kept exactly if it can be seen in this toy"


def _extremes() -> np.ndarray:
    grid = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], [0, 1], [0, 1], [0, 1])).reshape(6, -1).T
    return grid.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from((15, 15, 60, 120)))
def test_no_dropped_face_is_ever_in_the_frame(seed, limit):
    """Random triangles all over the place on random bones: what the rig dropped stays outside in random poses."""
    rng = np.random.default_rng(seed)
    toy = toy_builder()
    toy.bones.append(pmx.PmxBone("頭D", position=(0, 16.8, 0.1), parent_index=1, append_index=2, append_ratio=-0.7,
                                 flags=pmx.BONE_APPEND_ROTATION))  # fmt: skip
    for _ in range(60):
        center = np.array([0, 17.8, 0]) + rng.normal(size=3) * 3
        weight = float(rng.uniform(0, 1))
        pair = tuple(int(bone) for bone in rng.choice(4, 2, replace=False))
        toy.quad(center, rng.normal(size=3) * 0.3, rng.normal(size=3) * 0.3, (pmx.BDEF2, pair, (weight,), None))
    toy.material("confetti")
    model, frame = toy.model(), _frame()
    angle = np.radians(limit)
    wide = tuple(dataclasses.replace(p, limit=angle) if p.kind == "rotation" else p for p in THA1.parameters)
    binding = dataclasses.replace(toy_binding(), vocabulary=PoseVocabulary("wide", wide))
    rig = build_rig(model, binding, frame)
    kept = {tuple(face) for face in rig.vertex[rig.index.reshape(-1, 3)].tolist()}
    dropped = np.array([face for face in model.face.tolist() if tuple(face) not in kept], int).reshape(-1, 3)
    for pose in np.concatenate([sample_poses(THA1, seed, "x", 0, 6), _extremes()[::17]]):
        corners = skin(model, binding, pose)[dropped][..., :2]
        low, high = corners.min(axis=1), corners.max(axis=1)
        inside = (low[:, 0] < frame.right) & (high[:, 0] > frame.left)
        inside &= (low[:, 1] < frame.top) & (high[:, 1] > frame.bottom)
        assert not inside.any()


def test_hidden_materials_keep_no_faces_unless_a_morph_shows_them():
    toy = toy_builder()
    toy.quad((0, 17.6, -1.5), (0.2, 0, 0), (0, 0.2, 0))
    toy.material("blush", (1, 0, 0), alpha=0.0)
    hidden = toy.model()
    names = {hidden.materials[d.material].name for d in build_rig(hidden, toy_binding(), _frame()).draws}
    assert "blush" not in names
    row = np.zeros(1, pmx.MATERIAL_OFFSET)
    row["material"], row["operation"], row["diffuse"] = len(toy.materials) - 1, 1, (0, 0, 0, 1)
    toy.morphs.append(pmx.PmxMorph("照れ", "", 4, pmx.MORPH_MATERIAL, row))
    binding = toy_binding()
    binding = dataclasses.replace(binding, terms={**binding.terms, "mouth": (MorphTerm(2), MorphTerm(3))})
    shown = toy.model()
    rig = build_rig(shown, binding, _frame())
    assert "blush" in {shown.materials[d.material].name for d in rig.draws}
    assert rig.expression_box is None, "a material morph can change anything"


def test_one_sided_terms_split_a_both_eyes_morph():
    toy = toy_builder()
    offsets = np.concatenate([toy.morphs[0].offsets, toy.morphs[1].offsets])
    toy.morphs.append(pmx.PmxMorph("まばたき", "", 2, pmx.MORPH_VERTEX, offsets))
    model, whole = toy.model(), toy_binding()
    split = dataclasses.replace(
        whole,
        terms={**whole.terms, "left_eye": (MorphTerm(3, 1.0, "left"),), "right_eye": (MorphTerm(3, 1.0, "right"),)},
    )
    for name, value in (("left_eye", 0.7), ("right_eye", 0.3)):
        pose = THA1.pose(**{name: value})
        np.testing.assert_allclose(skin(model, split, pose), skin(model, whole, pose), atol=1e-6)


@pytest.mark.parametrize("face_on", ["head", "headD"])
def test_a_face_on_head_d_follows_the_head(face_on):
    """頭D hangs on the neck and follows 頭 by append with ratio 1: the face must move exactly as if it hung on 頭."""
    toy = toy_builder(face_bone=3 if face_on == "headD" else 2)
    toy.bones.append(pmx.PmxBone("頭D", position=(0, 16.8, 0.1), parent_index=1, append_index=2, append_ratio=1.0,
                                 flags=pmx.BONE_APPEND_ROTATION))  # fmt: skip
    model, plain = toy.model(), toy_builder().model()
    for pose in sample_poses(THA1, 3, "d", 0, 5):
        np.testing.assert_allclose(skin(model, toy_binding(), pose), skin(plain, toy_binding(), pose), atol=1e-5)


@pytest.mark.parametrize("center", [(0.0, 17.0, 0.0), (0.0, 0.0, 0.0), (3.0, 10.0, 12.0)])
def test_depth_holds_whatever_sdef_and_local_appends_do(center):
    """Vertices without bounds are never dropped; the near and far planes must not cut them off either."""
    toy = toy_builder()
    local = pmx.BONE_APPEND_ROTATION | pmx.BONE_APPEND_TRANSLATION | pmx.BONE_APPEND_LOCAL
    toy.bones.append(
        pmx.PmxBone("局所", position=(2, 18, 0), parent_index=1, append_index=2, append_ratio=-1.5, flags=local)
    )
    sdef = (center, (center[0], center[1] - 2, center[2] + 5), (center[0] + 1, center[1] + 4, center[2] - 5))
    moved = toy.quad((0.3, 17.5, -1.3), (0.3, 0, 0), (0, 0.3, 0), (pmx.SDEF, (1, 2), (0.6,), sdef))
    toy.quad((0.3, 17.5, -1.3), (0.3, 0, 0), (0, 0.3, 0), (pmx.SDEF, (3, 0), (0.3,), sdef))
    toy.quad((0.3, 17.5, -1.3), (0.3, 0, 0), (0, 0.3, 0), (pmx.BDEF2, (3, 0), (0.3,), None))
    toy.material("free")
    toy.vertex_morph("前", {int(vertex): (0, 0, -40) for vertex in moved})
    rows = np.zeros(2, pmx.BONE_OFFSET)
    rows["bone"], rows["translation"], rows["rotation"] = [2, 3], [(0, 0, 7), (0, 0, -9)], (0, 0, 0, 1)
    toy.morphs.append(pmx.PmxMorph("骨", "", 4, pmx.MORPH_BONE, rows))
    model = toy.model()
    binding = toy_binding()
    binding = dataclasses.replace(binding, terms={**binding.terms, "mouth": (MorphTerm(3), MorphTerm(4))})
    rig = build_rig(model, binding, _frame())
    for pose in np.concatenate([_extremes()[::5], sample_poses(THA1, 4, "depth", 0, 8)]):
        z = skin(model, binding, pose)[rig.vertex, 2]
        assert rig.depth[0] < z.min()
        assert z.max() < rig.depth[1]
    assert rig.depth[1] - rig.depth[0] < 400, "bounds, not infinity"


@pytest.mark.parametrize(
    ("operation", "size", "value", "weight"), [(1, 0.0, 9.0, 1.0), (0, 1.0, 10.0, 1.0), (1, -50.0, 0.0, 1.0)]
)
def test_edges_that_a_morph_makes_wide_keep_their_faces(operation, size, value, weight):
    """A part below the frame whose outline alone reaches into it; negative sizes take nothing away."""
    toy = toy_builder()
    frame = _frame()
    low = frame.bottom - 0.02
    toy.box((-0.2, low - 0.5, -0.2), (0.2, low, 0.2), (pmx.BDEF1, (0,), (1.0,), None))
    toy.material("below", flags=pmx.EDGE, edge_size=size)
    row = np.zeros(1, pmx.MATERIAL_OFFSET)
    for name in pmx.MATERIAL_OFFSET.names or ():
        if name not in ("material", "operation"):
            row[name] = 1 - operation
    row["material"], row["operation"], row["edge_size"] = len(toy.materials) - 1, operation, value
    toy.morphs.append(pmx.PmxMorph("縁", "", 4, pmx.MORPH_MATERIAL, row))
    binding = dataclasses.replace(toy_binding(), terms={**toy_binding().terms, "mouth": (MorphTerm(3, weight),)})
    model = toy.model()
    names = {model.materials[d.material].name for d in build_rig(model, binding, frame, 0.01).draws}
    assert ("below" in names) == (size >= 0)
    assert {"neck", "skull", "nose", "left eye", "right eye", "mouth", "crown"} <= names
