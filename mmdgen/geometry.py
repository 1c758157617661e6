"""Batch quaternions (xyzw), rigid transforms and projections. Column vectors, radians, MMD's left-handed frame.

pyrr serves for projections only: nothing in it works on batches, and its matrix rotations turn the opposite way to
its quaternions. The quaternion algebra is the usual one (Shoemake 1985, "Animating rotation with quaternion curves");
it holds in left-handed frames too, where a positive angle turns clockwise seen against the axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyrr

IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])


def quaternion_about_axis(axis: int, angle: np.ndarray) -> np.ndarray:
    """Return rotations by `angle` [...] radians about coordinate axis 0, 1 or 2: f64 [..., 4]."""
    angle = np.asarray(angle, np.float64)
    result = np.zeros((*angle.shape, 4))
    result[..., axis] = np.sin(angle / 2)
    result[..., 3] = np.cos(angle / 2)
    return result


def quaternion_multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product a b (first b, then a) of quaternions [..., 4]."""
    ax, ay, az, aw = np.moveaxis(np.asarray(a, np.float64), -1, 0)
    bx, by, bz, bw = np.moveaxis(np.asarray(b, np.float64), -1, 0)
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )


def quaternion_rotate(q: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rotate vectors [..., 3] by unit quaternions [..., 4] (broadcast): f64 [..., 3]."""
    q = np.asarray(q, np.float64)
    vector = np.asarray(vector, np.float64)
    axis, w = q[..., :3], q[..., 3:]
    twice = 2 * np.cross(axis, vector)
    return vector + w * twice + np.cross(axis, twice)


def quaternion_power(q: np.ndarray, exponent: np.ndarray | float) -> np.ndarray:
    """Return unit quaternions [..., 4] with their angle scaled: the slerp from identity, extrapolated outside [0, 1].

    Negative exponents turn the other way; the shorter of the two arcs is scaled, as MMD's append does.
    """
    q = np.asarray(q, np.float64)
    q = np.where(q[..., 3:] < 0, -q, q)
    sine = np.linalg.norm(q[..., :3], axis=-1)
    half = np.arctan2(sine, q[..., 3]) * np.asarray(exponent, np.float64)
    safe = np.where(sine > 0, sine, 1.0)
    axis = q[..., :3] / safe[..., None]
    return np.concatenate([axis * np.sin(half)[..., None], np.cos(half)[..., None]], axis=-1)


def quaternion_matrix(q: np.ndarray) -> np.ndarray:
    """Return rotation matrices f64 [..., 3, 3] for unit quaternions [..., 4] (column vectors)."""
    x, y, z, w = np.moveaxis(np.asarray(q, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def orthographic(left: float, right: float, bottom: float, top: float, near: float, far: float) -> np.ndarray:
    """Return the f32 [4, 4] matrix that maps the box to [-1, 1]^3, looking along +z: near goes to -1, far to +1.

    pyrr looks along -z and multiplies row vectors, hence the negated distances and the transpose.
    """
    return np.asarray(
        pyrr.matrix44.create_orthogonal_projection(left, right, bottom, top, -near, -far), np.float64
    ).T.astype(np.float32)


def perspective(fov_deg: float, near: float, far: float) -> np.ndarray:
    """Return the f32 [4, 4] matrix of a square perspective picture, looking along +z: near goes to -1, far to +1.

    `fov_deg` is the vertical angle in degrees. pyrr looks along -z, hence the negated column.
    """
    lens = np.asarray(pyrr.matrix44.create_perspective_projection(fov_deg, 1.0, near, far), np.float64).T
    lens[:, 2] *= -1
    return lens.astype(np.float32)


def look_at(position: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Return the f64 [4, 4] matrix from MMD's frame to the camera's: +x right, +y up, +z forward, left-handed too.

    +y of the world points upwards in the picture; `target` must not lie straight above or below `position`.
    """
    origin = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - origin
    forward /= np.linalg.norm(forward)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    result = np.eye(4)
    result[:3, :3] = [right, np.cross(forward, right), forward]
    result[:3, 3] = -result[:3, :3] @ origin
    return result
