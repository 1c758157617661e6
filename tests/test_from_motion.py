"""Motions as poses: the head's turn taken apart, names of morphs, clipping, and the way back."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdgen.errors import ConfigError, MmdgenError
from mmdgen.formats.vmd import read_vmd, write_vmd
from mmdgen.geometry import IDENTITY, quaternion_about_axis, quaternion_multiply, quaternion_rotate
from mmdgen.model.morphs import FlatMorph
from mmdgen.model.records import MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.from_motion import MOUTH, head_angles, motion_from_poses, poses_from_motion
from mmdgen.pose.keyframes import BoneTrack, MorphTrack, Tracks, track_name, tracks_of
from mmdgen.pose.motion import bone_motion
from mmdgen.pose.vocabulary import THA1

LIMIT = math.radians(15)
values = st.tuples(*(st.floats(p.low, p.high, width=32) for p in THA1.parameters))


def bone(rotation: np.ndarray) -> BoneTrack:
    return BoneTrack(np.zeros(1), np.zeros((1, 3)), np.asarray(rotation, np.float64)[None], np.full((1, 4, 4), 0.5))


def morph(weight: float) -> MorphTrack:
    return MorphTrack(np.zeros(1), np.array([weight]))


def pose_of(bones: dict | None = None, morphs: dict | None = None, **options) -> dict[str, float]:
    given_ = Tracks(
        {name: bone(turn) for name, turn in (bones or {}).items()}, {k: morph(w) for k, w in (morphs or {}).items()}
    )
    return dict(zip(THA1.names, poses_from_motion(given_, [0], **options).values[0].tolist(), strict=True))


def about(axis: int, degrees: float) -> np.ndarray:
    return quaternion_about_axis(axis, np.array(math.radians(degrees)))


@given(st.lists(values, min_size=1, max_size=6))
def test_poses_survive_the_way_into_a_motion_and_back(rows):
    poses = np.array(rows, np.float32)
    file = read_vmd(write_vmd(motion_from_poses(poses)))
    found = poses_from_motion(tracks_of(file), np.arange(len(poses)))
    np.testing.assert_allclose(found.values, poses, atol=2e-6)
    assert found.clipped == ()
    assert found.ignored == ()
    assert len(found.used) == 5


def test_between_keys_the_motion_is_interpolated():
    poses = np.stack([THA1.rest, THA1.pose(neck_z=1, head_x=0, mouth=0, left_eye=1)])
    tracks = tracks_of(motion_from_poses(poses, frames=[0, 10]))
    found = poses_from_motion(tracks, [0, 2.5, 5, 10, 99]).values
    np.testing.assert_allclose(found[:, THA1.index("neck_z")], [0, 0.25, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[:, THA1.index("mouth")], [1, 0.75, 0.5, 0, 0], atol=1e-6)


@given(values)
def test_the_angles_are_those_that_turn_the_models_bones(row):
    """The vocabulary's bones, posed by `pose/motion` as for a dataset's pictures, give the pose again."""
    terms: dict[str, tuple[MorphTerm, ...]] = dict.fromkeys(("left_eye", "right_eye", "mouth"), ())
    nothing = FlatMorph(*(np.zeros(0, np.int64),) * 10)
    motion = bone_motion(PoseBinding(THA1, 0, 1, terms), dict.fromkeys(terms, nothing), np.array([row]))
    angles = head_angles(motion.rotation[0], motion.rotation[1])[0] / LIMIT
    np.testing.assert_allclose(angles, row[:3], atol=1e-6)


@pytest.mark.parametrize("turn", [-170, -120, -91, -89, 89, 91, 120, 170])
@pytest.mark.parametrize("lean", [-10, 0, 10])
def test_a_face_that_looks_back_turns_and_does_not_tumble(turn, lean):
    neck, head = about(1, turn / 2), quaternion_multiply(about(1, turn / 2), about(0, lean))
    found = np.degrees(head_angles(neck[None], head[None])[0])
    np.testing.assert_allclose(found, [lean, turn, 0], atol=1e-6)


@given(st.tuples(*(st.floats(-90, 90),) * 6))
def test_the_head_stands_as_in_the_motion(degrees):
    """However a turn is spread over neck and head: the vocabulary's order of turns gives the same orientation."""
    neck = quaternion_multiply(about(1, degrees[0]), quaternion_multiply(about(0, degrees[1]), about(2, degrees[2])))
    head = quaternion_multiply(about(1, degrees[3]), quaternion_multiply(about(0, degrees[4]), about(2, degrees[5])))
    a, b, c = head_angles(neck[None], head[None])[0]
    if abs(math.cos(b)) < 0.2:  # near the one place where two of the angles become one
        return
    again = quaternion_multiply(
        quaternion_about_axis(2, c), quaternion_multiply(quaternion_about_axis(1, b), quaternion_about_axis(0, a))
    )
    for vector in np.eye(3):
        whole = quaternion_rotate(quaternion_multiply(neck, head), vector)
        np.testing.assert_allclose(quaternion_rotate(again, vector), whole, atol=1e-9)


@pytest.mark.parametrize("carrier", ["首", "頭", "頭             ", "Head", "neck"])
@pytest.mark.parametrize(("axis", "name"), [(0, "head_x"), (1, "head_y"), (2, "neck_z")])
def test_either_bone_may_carry_the_whole_turn(carrier, axis, name):
    found = pose_of({carrier: about(axis, -7.5)})
    expected = {**dict.fromkeys(THA1.names, 0.0), name: -0.5}
    assert found == pytest.approx(expected, abs=1e-6)


def test_turns_of_neck_and_head_add_up():
    found = pose_of({"首": about(1, 4.5), "頭": about(1, 6)})
    assert found["head_y"] == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("まばたき", 1, 1),
        ("まばたき       ", 1, 1),
        ("笑い", 1, 1),
        ("blink", 1, 1),
        ("ウィンク", 1, 0),
        ("ウインク", 1, 0),
        ("ウィンク２", 1, 0),
        ("ウィンク左", 1, 0),
        ("ウィンク右", 0, 1),
        ("ｳｨﾝｸ２右", 0, 1),
        ("ウィンク右２", 0, 1),
        ("ウィンク(右)", 0, 1),
        ("ウィンクR", 0, 1),
        ("Wink_L", 1, 0),
        ("wink right", 0, 1),
        ("まばたき右", 0, 1),
        ("笑い左", 1, 0),
        ("blink_r", 0, 1),
    ],
)
def test_eyes_by_name(name, left, right):
    found = pose_of(morphs={name: 0.5})
    assert (found["left_eye"], found["right_eye"]) == (left / 2, right / 2)
    assert pose_of(morphs={track_name(name): 0.5}) == found  # as a motion keeps the name


def test_winks_can_be_swapped_and_blinks_stay():
    assert pose_of(morphs={"ウィンク": 1}, swap_winks=True)["right_eye"] == 1
    assert pose_of(morphs={"ウィンク右": 1}, swap_winks=True)["left_eye"] == 1
    assert pose_of(morphs={"まばたき左": 1}, swap_winks=True)["left_eye"] == 1


@pytest.mark.parametrize(("vowel", "share"), MOUTH.items())
def test_vowels_open_the_mouth_by_their_share(vowel, share):
    assert pose_of(morphs={vowel: 0.8})["mouth"] == pytest.approx(0.8 * share)


def test_weights_add_up_and_are_clipped_and_told():
    tracks = Tracks({"頭": bone(about(0, 30))}, {"まばたき": morph(0.75), "ウィンク": morph(0.5), "あ": morph(-0.25)})
    found = poses_from_motion(tracks, [0, 1])
    assert found.values.tolist() == [[1, 0, 0, 1, 0.75, 0]] * 2
    told = {item.column: (item.share, round(item.most, 6)) for item in found.clipped}
    assert told == {"head_x": (1.0, 2.0), "left_eye": (1.0, 1.25), "mouth": (1.0, -0.25)}


def test_what_says_nothing_is_named():
    tracks = Tracks(
        {"センター": bone(IDENTITY), "右手首": bone(about(0, 9))},
        {"あ": morph(1), "困る": morph(1), "照れ": morph(0), "びっくり": morph(0.5), "あーれー": morph(1)},
    )
    found = poses_from_motion(tracks, [0])
    assert [track.name for track in found.used] == ["あ"]
    assert found.ignored == ("困る", "びっくり", "あーれー")
    with pytest.raises(ConfigError, match="neither 首 nor 頭"):
        poses_from_motion(Tracks({"センター": bone(IDENTITY)}, {"困る": morph(1)}), [0])


def test_poses_and_frames_must_be_as_many():
    with pytest.raises(ConfigError, match="2 poses need as many"):
        motion_from_poses(np.zeros((2, 6)), frames=[1])


def test_real_motions_give_poses_in_range():
    folder = Path(os.environ.get("MMDGEN_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "models")
    files = sorted(folder.rglob("*.vmd"))
    if not files:
        pytest.skip(f"needs motions (.vmd) below {folder}")
    usable = 0
    for path in files[:20]:
        try:
            tracks = tracks_of(read_vmd(path.read_bytes()))
            found = poses_from_motion(tracks, np.linspace(0, tracks.last_frame, 60))
        except MmdgenError:
            continue
        usable += 1
        assert np.isfinite(found.values).all()
        assert all(
            p.low <= v <= p.high for p, column in zip(THA1.parameters, found.values.T, strict=True) for v in column
        )
    assert usable
