"""Which bones turn the head, which names mean what, and the codes of what is no character."""

from __future__ import annotations

import heads
import numpy as np
import pytest
from heads import character, code_of, replace

from mmdgen.annotate import names
from mmdgen.annotate.bones import find_bones, vertex_share
from mmdgen.annotate.motion import displacement

SEED = 5

# -- bones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("neck", "head"), [("首", "頭"), ("neck", "Head"), ("J_Bip_C_Neck", "J_Bip_C_Head"), ("脖子", "头"), ("首1", "頭")]
)
def test_bone_names(neck: str, head: str):
    model, truth = character(SEED)
    found = find_bones(heads.with_bones(model, {"首": neck, "頭": head}))
    assert (found.neck, found.head) == (truth.neck, truth.head)
    assert not found.notes


def test_the_root_of_a_neck_chain_turns_and_stand_ins_are_noted():
    model, truth = character(SEED)
    skeleton = heads.with_bone(model.skeleton, "首1", model.skeleton.rest[truth.head] - (0, 0.2, 0), truth.neck)
    parent = skeleton.parent.copy()
    parent[truth.head] = len(skeleton.name) - 1
    order = np.array([b for b in skeleton.order if b != truth.head] + [truth.head], np.int32)
    below = [b for b in order.tolist() if b != truth.head and skeleton.parent[b] == truth.head]
    order = np.array([b for b in order.tolist() if b not in below] + below, np.int32)
    chained = replace(model, skeleton=replace(skeleton, parent=parent, order=order))
    assert find_bones(chained).neck == truth.neck
    nameless = find_bones(heads.with_bones(model, {"首": "何か"}))
    assert nameless.neck == truth.neck
    assert "stands in" in nameless.notes[0]
    parentless = model.skeleton.parent.copy()
    parentless[truth.head] = -1
    named = heads.with_bones(model, {"首": "何か"})
    lonely = find_bones(replace(named, skeleton=replace(named.skeleton, parent=parentless)))
    assert lonely.neck == lonely.head == truth.head


@pytest.mark.parametrize("spelling", ["Armature_{}", "bip01 {}", "ORG-{}"])
def test_longer_bone_names(spelling: str):
    model, truth = character(SEED)
    found = find_bones(heads.with_bones(model, {"首": spelling.format("Neck"), "頭": spelling.format("Head")}))
    assert (found.neck, found.head) == (truth.neck, truth.head)


def test_a_head_with_an_unreadable_name_is_what_carries_the_lids():
    model, truth = character(SEED)
    broken = heads.with_bones(model, {name: f"?{i}" for i, name in enumerate(model.skeleton.name)})
    found = find_bones(broken)
    assert (found.neck, found.head) == (truth.neck, truth.head)
    assert "stands in" in found.notes[0]
    assert code_of(replace(broken, morphs=())) == "no_head_bone"


def test_eye_bones_are_told_apart_by_place():
    model, _ = character(SEED)
    found = find_bones(heads.with_bones(model, {"左目": "右目", "右目": "左目"}))
    assert model.skeleton.rest[found.left_eye, 0] > model.skeleton.rest[found.right_eye, 0]


def test_followers_by_append_belong_to_the_head():
    """頭D: the face hangs on a bone that only takes over the head's rotation."""
    seed = next(s for s in range(40) if character(s)[1].habits.head_d)
    model, truth = character(seed)
    bones = find_bones(model)
    assert bones.head == truth.head
    share = vertex_share(model, bones.share)
    eyes = displacement(model, heads.terms(truth.slots["normal_both"]), truth.center_x)
    np.testing.assert_allclose(share[eyes.index], 1, atol=1e-5)


def test_props_and_stages_have_codes():
    model, truth = character(SEED)
    assert code_of(replace(heads.with_bones(model, {"頭": "箱"}), morphs=())) == "no_head_bone"
    empty = replace(model, position=model.position[:0], face=model.face[:0])
    assert code_of(empty) == "no_vertices"
    body = int(model.skeleton.parent[truth.neck])
    index, weight = np.zeros_like(model.bone_index), np.zeros_like(model.bone_weight)
    index[:, 0], weight[:, 0] = body, 1
    assert code_of(replace(model, bone_index=index, bone_weight=weight)) == "not_a_character"
    assert code_of(replace(model, morphs=())) == "no_eye_morph"


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "number", "sided"),
    [
        ("ｳｨﾝｸ２右", "wink", 2, True),
        ("右ウィンク3", "wink", 3, True),
        ("ウィンク(右)", "wink", 0, True),
        ("まばたき", "blink", 0, False),
        ("目_閉じ", "blink", 0, False),
        ("両目まばたき", "blink", 0, False),
        ("Fcl_EYE_Joy_R", "smile", 0, True),
        ("眨眼", "blink", 0, False),
        ("E-Close.L", "blink", 0, True),
        ("E-SmileClose.R", "smile", 0, True),
        ("e_wink_l", "wink", 0, True),
        ("E-HalfClose", None, 0, False),
        ("E-Down", None, 0, False),
        ("M-Smile", "other", 0, False),
        ("なごみ", "other", 0, False),
        ("はぅ", "other", 0, False),
        ("じと目", "other", 0, False),
        ("まばたき瞳", "other", 0, False),
        ("真面目", None, 0, False),
        ("-----", None, 0, False),
        ("", None, 0, False),
    ],
)
def test_eye_names(name: str, kind: str | None, number: int, sided: bool):
    parsed = names.parse(name)
    assert names.eye_class(parsed) == kind
    assert (parsed.number, parsed.sided) == (number, sided)


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("あ", 0),
        ("発音「あ」", 0),
        ("Fcl_MTH_A", 0),
        ("aa", 0),
        ("口開け", 2),
        ("お", 3),
        ("い", None),
        ("M-a", 0),
        ("M-Open", 2),
        ("M-i", None),
        ("E-a", None),
    ],
)
def test_mouth_names(name: str, rank: int | None):
    assert names.mouth_rank(names.parse(name)) == rank


@pytest.mark.parametrize(
    "name", ["リボン", "帽子", "ネコミミ", "アホ毛", "hat_01", "髪飾り", "Hair_Acc", "ヘッドホン", "发饰"]
)
def test_accessories(name: str):
    assert names.is_accessory(name)
    assert not names.is_hair(name)


@pytest.mark.parametrize("name", ["髪", "前髪", "Hair", "头发", "耳前髪", "後ろ髪"])
def test_hair(name: str):
    assert not names.is_accessory(name)
    assert names.is_hair(name)
