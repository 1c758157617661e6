"""The horizontal flip: a mirrored example is an example of a mirrored character in the mirrored pose.

The frame's centre column is the face's, light comes along the view, and the pose is symmetric: so the mirror image of a
picture is what the same renderer makes of the mirrored model with head_y and neck_z negated and the eyes exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdgen import rng
from mmdgen.errors import ConfigError

# Parameter of the mirrored pose: where its value comes from and its sign. About x a head nods the same way in a mirror.
MIRROR = {
    "head_x": ("head_x", 1.0),
    "head_y": ("head_y", -1.0),
    "neck_z": ("neck_z", -1.0),
    "left_eye": ("right_eye", 1.0),
    "right_eye": ("left_eye", 1.0),
    "mouth": ("mouth", 1.0),
}

Mirror = tuple[np.ndarray, np.ndarray]


def is_flipped(seed: int, epoch: int, index: int) -> bool:
    """Return whether sample `index` of its split is flipped in `epoch`: half are, whoever asks gets the same answer."""
    return rng.fraction(seed, "train", "flip", epoch, index) < 0.5


def mirror_of(names: Sequence[str]) -> Mirror:
    """Return (columns i64 [K], signs f32 [K]): `pose[..., columns] * signs` is the mirrored pose, see `flip_pose`.

    Raises `ConfigError` when a parameter's mirror is not known, or its counterpart is missing.
    """
    columns, signs = [], []
    for name in names:
        source, sign = MIRROR.get(name, ("", 0.0))
        if source not in names:
            known = ", ".join(MIRROR)
            raise ConfigError(f"the pose parameter {name!r} cannot be mirrored (flipping knows {known}); do not flip")
        columns.append(list(names).index(source))
        signs.append(sign)
    return np.array(columns, np.int64), np.array(signs, np.float32)


def flip_pose(pose: np.ndarray, mirror: Mirror) -> np.ndarray:
    """Return the mirrored pose, f32 [..., K]; a new array."""
    columns, signs = mirror
    return pose[..., columns] * signs


def flip_picture(picture: np.ndarray) -> np.ndarray:
    """Return a view of `picture` [H, W, ...] with left and right exchanged."""
    return picture[:, ::-1]


def flip_flow(flow: np.ndarray) -> np.ndarray:
    """Return the flow field f32 [H, W, 2] (x right, y down, pixels) of the mirrored pictures; a new array."""
    mirrored = flow[:, ::-1].copy()
    np.negative(mirrored[..., 0], out=mirrored[..., 0])
    return mirrored
