"""Motions at a frame: bone poses and morph weights between the keyframes of a VMD file.

A key of a bone holds four Bézier curves (x, y, z, rotation) for the way that *ends* at it. A curve runs from (0, 0) to
(1, 1) with the control points (ax, ay) and (bx, by) in 127ths; it maps the share of time between two keys to the share
of the way. Rotations turn along the shorter arc. Morph weights change linearly. After its last key a track stays. In
MMD every bone and morph has a key at frame 0 that cannot be deleted (project files store it apart from the others), so
a track that a file begins later starts at rest. Keys of one frame overwrite each other: the last one counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmdgen.formats.text import decode_text, encode_text
from mmdgen.formats.vmd.records import KEY_NAME_SIZE, MORPH, VmdFile, curves_of, field_text
from mmdgen.geometry import IDENTITY, quaternion_multiply, quaternion_power

FRAMES_PER_SECOND = 30
_CURVE_SCALE = 127
_BISECTIONS = 54  # enough for every bit of a double between 0 and 1
_CONJUGATE = np.array([-1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class BoneTrack:
    """The keys of one bone: `frame` f64 [K], rising from 0; `position` f64 [K, 3] MU, relative to the rest position;
    `rotation` f64 [K, 4], unit quaternions; `curve` f64 [K, 4, 4]: ax, ay, bx, by in [0, 1] for x, y, z, rotation.
    """

    frame: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    curve: np.ndarray

    def sample(self, frames: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Positions f64 [..., 3] and rotations f64 [..., 4] at `frames` [...], which may lie between whole frames."""
        start, end, share = _between(self.frame, frames)
        ways = bezier(self.curve[end], share[..., None])
        position = self.position[start] + (self.position[end] - self.position[start]) * ways[..., :3]
        turn = quaternion_multiply(self.rotation[start] * _CONJUGATE, self.rotation[end])
        return position, quaternion_multiply(self.rotation[start], quaternion_power(turn, ways[..., 3]))


@dataclass(frozen=True, slots=True, eq=False)
class MorphTrack:
    """The keys of one morph: `frame` f64 [K], rising from 0, and `weight` f64 [K]."""

    frame: np.ndarray
    weight: np.ndarray

    def sample(self, frames: ArrayLike) -> np.ndarray:
        """Weights f64 [...] at `frames` [...], which may lie between whole frames."""
        start, end, share = _between(self.frame, frames)
        return self.weight[start] + (self.weight[end] - self.weight[start]) * share


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """A motion by names as `track_name` gives them. `repaired` counts keys with values that mean nothing.

    Those are numbers that are not finite and quaternions of length 0: they became zeros and identities.
    """

    bones: dict[str, BoneTrack]
    morphs: dict[str, MorphTrack]
    repaired: int = 0

    @property
    def last_frame(self) -> int:
        """The highest frame number with a key."""
        return int(max((track.frame[-1] for track in (*self.bones.values(), *self.morphs.values())), default=0))


def track_name(name: str) -> str:
    """The name under which a motion keeps a bone or morph called `name`: what is left of it in 15 bytes of cp932.

    MMD matches names in this way. UnicodeEncodeError for a name that cp932 cannot express: no motion can move it.
    """
    return decode_text(encode_text(name, "cp932")[:KEY_NAME_SIZE], "cp932")


def tracks_of(file: VmdFile) -> Tracks:
    """The bone and morph keys of `file`, sorted by name and frame."""
    bones = file.bones
    position, bad_position = _finite(bones["position"])
    rotation, bad_rotation = _finite(bones["rotation"])
    length = np.linalg.norm(rotation, axis=1)
    bad_rotation |= length == 0
    rotation = np.where(bad_rotation[:, None], IDENTITY, rotation / np.where(length == 0, 1, length)[:, None])
    # Editors keep control points within the square; a curve with one outside of it would run back in time.
    curve = np.minimum(curves_of(bones["interpolation"]), _CURVE_SCALE) / _CURVE_SCALE
    bone_tracks = {}
    for name, rows in _rows_by_name(bones).items():
        frame = bones["frame"][rows].astype(np.float64)
        track = BoneTrack(frame, position[rows], rotation[rows], curve[rows])
        bone_tracks[name] = track if frame[0] == 0 else _bone_from_rest(track)
    morphs = np.zeros(0, MORPH) if file.morphs is None else file.morphs
    weight, bad_weight = _finite(morphs["weight"][:, None])
    morph_tracks = {}
    for name, rows in _rows_by_name(morphs).items():
        frame, values = morphs["frame"][rows].astype(np.float64), weight[rows, 0]
        if frame[0] != 0:
            frame, values = np.append(0.0, frame), np.append(0.0, values)
        morph_tracks[name] = MorphTrack(frame, values)
    repaired = int(np.count_nonzero(bad_position | bad_rotation) + np.count_nonzero(bad_weight))
    return Tracks(bone_tracks, morph_tracks, repaired)


def bezier(curve: ArrayLike, x: ArrayLike) -> np.ndarray:
    """The heights f64 [...] at `x` [...] in [0, 1] of the curves `curve` [..., 4] (ax, ay, bx, by, all in [0, 1]).

    Exactly 0 and 1 at the ends, never falling, and exactly `x` for a curve whose control points lie on the diagonal.
    """
    ax, ay, bx, by = np.moveaxis(np.asarray(curve, np.float64), -1, 0)
    x = np.broadcast_to(np.asarray(x, np.float64), np.broadcast_shapes(ax.shape, np.shape(x)))
    low, high = np.zeros(x.shape), np.ones(x.shape)
    # x(s) never falls where 0 <= ax, bx <= 1, but it may stand still, where Newton's method would not converge.
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        before = _cubic(ax, bx, middle) < x
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    height = np.minimum(_cubic(ay, by, high), 1)
    return np.where((ax == ay) & (bx == by) | (x <= 0) | (x >= 1), np.clip(x, 0, 1), height)


def _cubic(a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """One coordinate of a Bézier curve from 0 to 1 with the inner control values a and b, at the parameter s."""
    r = 1 - s
    return 3 * r * r * s * a + 3 * r * s * s * b + s * s * s


def _between(keys: np.ndarray, frames: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The key before each frame, the one after it, and how far the frame lies between them, in [0, 1)."""
    frames = np.asarray(frames, np.float64)
    start = np.clip(np.searchsorted(keys, frames, side="right") - 1, 0, None)
    end = np.minimum(start + 1, len(keys) - 1)
    span = keys[end] - keys[start]
    share = np.where(span > 0, (frames - keys[start]) / np.where(span > 0, span, 1), 0.0)
    return start, end, np.clip(share, 0, 1)


def _bone_from_rest(track: BoneTrack) -> BoneTrack:
    return BoneTrack(
        np.append(0.0, track.frame),
        np.concatenate([np.zeros((1, 3)), track.position]),
        np.concatenate([IDENTITY[None], track.rotation]),
        np.concatenate([track.curve[:1], track.curve]),
    )


def _finite(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`values` [n, k] as f64 with rows of zeros where one is not finite, and where, bool [n]."""
    bad = np.asarray(~np.isfinite(values).all(axis=1))
    return np.where(bad[:, None], 0, values).astype(np.float64), bad


def _rows_by_name(keys: np.ndarray) -> dict[str, np.ndarray]:
    """For each name in `keys`, the rows of its keys by rising frame, the last one of those of equal frame."""
    raw, inverse = np.unique(keys["name"], return_inverse=True)
    groups: dict[str, int] = {}  # what follows a NUL differs between keys of one bone, so texts are compared
    group_of_raw = np.array([groups.setdefault(field_text(name), len(groups)) for name in raw.tolist()], np.int64)
    group = group_of_raw[inverse.reshape(-1)] if len(raw) else np.zeros(0, np.int64)
    order = np.lexsort((keys["frame"], group))
    group, frame = group[order], keys["frame"][order]
    last = np.append((group[1:] != group[:-1]) | (frame[1:] != frame[:-1]), True)[: len(order)]
    order, group = order[last], group[last]
    starts = np.searchsorted(group, np.arange(len(groups)))
    return dict(zip(groups, np.split(order, starts[1:]), strict=True)) if groups else {}
