"""Motions of MikuMikuDance as poses of the vocabulary `tha1`, and poses as motions.

**Head.** The network turns the neck about z and then, on top of it, the head about y and x: seen from the body the head
stands at Rz(neck_z) Ry(head_y) Rx(head_x). A motion spreads one turn over 首 (neck) and 頭 (head) as its author likes,
some put all of it on 頭. So the two are multiplied, q = q_neck q_head, and q is taken apart into exactly those three
angles; of the two triples that there are, those with the smaller angles, so that a face that turns by more than 90
degrees is one that turns, not one that nods and leans by 180. The head then stands as in the motion, only its centre of
rotation may differ. An angle of 15 degrees is the value 1; larger ones are clipped. What the body below the neck does
is not in the picture.

**Eyes and mouth.** A motion knows only names of morphs. Weights of all morphs that close an eye (or open the mouth)
add up, as they do on a model, and are clipped to [0, 1]. Both eyes: まばたき and 笑い. One eye: ウィンク and ウィンク２
are the character's left one, with 右 the right one. That is the commonest habit, yet some models have it the other way
round: `swap_winks` is for their motions. 左 and 右 in a name otherwise say the side. あ opens the mouth with its
whole weight, other vowels with the share in `MOUTH`: how far apart the morph moves what lies in the middle of the
mouth, against あ on the same model. The medians over 51 real models are い 0.43, う 0.54, え 0.54 and お 1.06.

Between keys everything is interpolated as MMD does it (`pose/keyframes`), at 30 frames a second.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmdgen.errors import ConfigError
from mmdgen.formats.vmd.records import BONE, CAMERA, KEY_NAME_SIZE, LIGHT, MORPH, NAME_SIZE, SHADOW, SIGNATURE, VmdFile
from mmdgen.formats.vmd.records import interpolation_of as _block_of
from mmdgen.geometry import IDENTITY, quaternion_about_axis, quaternion_matrix, quaternion_multiply
from mmdgen.pose.keyframes import Tracks
from mmdgen.pose.vocabulary import HEAD_ROTATION_LIMIT_DEG, THA1

# The share of あ's opening that a vowel has (see the module's text).
MOUTH = {"あ": 1.0, "い": 0.45, "う": 0.55, "え": 0.55, "お": 1.0}
LINEAR = (20, 20, 107, 107)  # control points on the diagonal: MMD's own for a new key

_NECK, _HEAD = "首", "頭"
_BONES = {"首": _NECK, "neck": _NECK, "頭": _HEAD, "头": _HEAD, "head": _HEAD}
_BOTH_EYES = frozenset(("まばたき", "笑い", "瞬き", "blink", "笑い目"))
_WINKS = frozenset(("ウィンク", "wink"))
_MOUTHS = {**MOUTH, "a": MOUTH["あ"], "i": MOUTH["い"], "u": MOUTH["う"], "e": MOUTH["え"], "o": MOUTH["お"]}
_SMALL = str.maketrans("ィ", "イ")
_DROPPED = re.compile(r"[\s_()\[\]・.]+")
_SIDE = re.compile(r"左|右|(?<![a-z])(?:left|right)|(?<=k)(?:left|right)|(?<=[a-zク\d])[lr](?=\d?$)")
# Which weights count as clipped: keys of editors are a little off 1 now and then.
_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class Track:
    """A track of the motion that was used: `name` as the motion has it, the columns that it moves, and its `factor`."""

    name: str
    columns: tuple[str, ...]
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Clipping:
    """How much of a column did not fit into its range.

    `share` of the frames that were clipped, and `most`: the value farthest outside, before it was clipped.
    """

    column: str
    share: float
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class MotionPoses:
    """`values` f32 [N, 6], columns of `THA1`, within their ranges; what was `used`, what was `clipped`.

    `ignored` are the morphs that move, but say nothing that the vocabulary knows.
    """

    values: np.ndarray
    used: tuple[Track, ...]
    clipped: tuple[Clipping, ...]
    ignored: tuple[str, ...]


def poses_from_motion(tracks: Tracks, frames: ArrayLike, *, swap_winks: bool = False) -> MotionPoses:
    """Return the poses at `frames` [N] (numbers of MMD's frames, 30 a second; they may lie between whole ones).

    Raises `ConfigError` where the motion has no track that the vocabulary can show (it may be one for a camera).
    """
    frames = np.atleast_1d(np.asarray(frames, np.float64))
    raw = np.zeros((len(frames), len(THA1.names)))
    used: list[Track] = []
    ignored: list[str] = []
    turns = {_NECK: np.tile(IDENTITY, (len(frames), 1)), _HEAD: np.tile(IDENTITY, (len(frames), 1))}
    for name, track in tracks.bones.items():
        bone = _BONES.get(_folded(name))
        if bone is None:
            continue
        turns[bone] = quaternion_multiply(turns[bone], track.sample(frames)[1])
        used.append(Track(name, ("head_x", "head_y", "neck_z")))
    for column, angle in zip(("head_x", "head_y", "neck_z"), head_angles(turns[_NECK], turns[_HEAD]).T, strict=True):
        raw[:, THA1.index(column)] = np.degrees(angle) / HEAD_ROTATION_LIMIT_DEG
    for name, track in tracks.morphs.items():
        columns, factor = _meaning(name, swap_winks)
        if columns:
            weight = factor * track.sample(frames)
            for column in columns:
                raw[:, THA1.index(column)] += weight
            used.append(Track(name, columns, factor))
        elif np.abs(track.weight).max() > _SLACK:
            ignored.append(name)
    if not used:
        raise ConfigError(
            "the motion moves neither 首 nor 頭 nor a morph of eyes or mouth that is known by name "
            f"({len(tracks.bones)} bones, {len(tracks.morphs)} morphs): is it one of a camera or of a body?"
        )
    return _clipped(raw, used, ignored)


def head_angles(neck: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Return the angles f64 [N, 3] about x, y and z, in radians, of neck and head quaternions f64 [N, 4] together.

    neck head = Rz(c) Ry(b) Rx(a), of the two ways that there are the one with the smaller sum of angles.
    """
    matrix = quaternion_matrix(quaternion_multiply(neck, head))
    a = np.arctan2(matrix[:, 2, 1], matrix[:, 2, 2])
    b = np.arcsin(np.clip(-matrix[:, 2, 0], -1, 1))
    c = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
    near = np.stack([a, b, c], axis=1)
    far = np.stack([a, np.pi - b, c], axis=1)  # and a half turn of the others, either way
    far[:, 0] -= np.copysign(np.pi, a)
    far[:, 2] -= np.copysign(np.pi, c)
    far[:, 1] -= np.where(far[:, 1] > np.pi, 2 * np.pi, 0)
    smaller = np.abs(far).sum(axis=1) < np.abs(near).sum(axis=1)
    return np.where(smaller[:, None], far, near)


def motion_from_poses(
    values: np.ndarray, *, frames: Sequence[int] | None = None, model_name: str = "mmdgen"
) -> VmdFile:
    """Return the motion with a key of 首, 頭 and the morphs for every pose f32 [N, 6] of `THA1`, at `frames` (0..N-1).

    Left and right eye become ウィンク２ and ｳｨﾝｸ２右, the mouth あ; `poses_from_motion` reads the same poses from it.
    """
    values = np.asarray(values, np.float64).reshape(-1, len(THA1.names))
    numbers = np.arange(len(values)) if frames is None else np.asarray(frames, np.int64)
    if len(numbers) != len(values):
        raise ConfigError(f"{len(values)} poses need as many frame numbers, found {len(numbers)}")

    def column(name: str) -> np.ndarray:
        return values[:, THA1.index(name)]

    limit = np.radians(HEAD_ROTATION_LIMIT_DEG)
    turns = {
        _NECK: quaternion_about_axis(2, column("neck_z") * limit),
        _HEAD: quaternion_multiply(
            quaternion_about_axis(1, column("head_y") * limit), quaternion_about_axis(0, column("head_x") * limit)
        ),
    }
    bones = np.zeros(2 * len(values), BONE)
    bones["interpolation"] = _block_of(np.broadcast_to(np.array(LINEAR, np.uint8), (4, 4)))
    for rows, (name, rotation) in zip(np.split(np.arange(len(bones)), 2), turns.items(), strict=True):
        bones["name"][rows], bones["frame"][rows], bones["rotation"][rows] = _field(name), numbers, rotation
    written = {"ウィンク２": "left_eye", "ｳｨﾝｸ２右": "right_eye", "あ": "mouth"}
    morphs = np.zeros(len(written) * len(values), MORPH)
    for rows, (name, source) in zip(np.split(np.arange(len(morphs)), len(written)), written.items(), strict=True):
        morphs["name"][rows], morphs["frame"][rows], morphs["weight"][rows] = _field(name), numbers, column(source)
    title = model_name.encode("cp932", "replace")[:NAME_SIZE]
    return VmdFile(SIGNATURE, title, bones, morphs, np.zeros(0, CAMERA), np.zeros(0, LIGHT), np.zeros(0, SHADOW))


def _meaning(name: str, swap_winks: bool) -> tuple[tuple[str, ...], float]:
    """The columns that a morph moves by its name, and the share of its weight; no columns where it means nothing."""
    folded = _folded(name)
    if folded in _MOUTHS:
        return ("mouth",), _MOUTHS[folded]
    found = _SIDE.search(folded)
    base = re.sub(r"\d$", "", folded[: found.start()] + folded[found.end() :] if found else folded)
    side = "right" if found and found[0][0] in "右r" else "left"
    if base in _WINK_KEYS:
        if swap_winks:
            side = "left" if side == "right" else "right"
        return (f"{side}_eye",), 1.0
    if base in _BOTH_KEYS:
        return (("left_eye", "right_eye") if found is None else (f"{side}_eye",)), 1.0
    return (), 0.0


def _folded(name: str) -> str:
    """The name without what spellings differ in: width, case, small ィ, spaces, brackets."""
    return _DROPPED.sub("", unicodedata.normalize("NFKC", name).casefold().translate(_SMALL))


_WINK_KEYS = frozenset(map(_folded, _WINKS))
_BOTH_KEYS = frozenset(map(_folded, _BOTH_EYES))


def _field(name: str) -> bytes:
    return name.encode("cp932").ljust(KEY_NAME_SIZE, b"\0")


def _clipped(raw: np.ndarray, used: list[Track], ignored: list[str]) -> MotionPoses:
    low = np.array([parameter.low for parameter in THA1.parameters])
    high = np.array([parameter.high for parameter in THA1.parameters])
    values = np.clip(raw, low, high)
    clipped = []
    for column, name in enumerate(THA1.names):
        over = np.abs(raw[:, column] - values[:, column])
        outside = over > _SLACK
        if outside.any():
            clipped.append(Clipping(name, float(outside.mean()), float(raw[np.argmax(over), column])))
    return MotionPoses(values.astype(np.float32), tuple(used), tuple(clipped), tuple(ignored))
