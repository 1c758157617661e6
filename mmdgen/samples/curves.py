"""Curves and small vector helpers for the procedural shapes. Plain numpy, vectorised, without randomness."""

from __future__ import annotations

import numpy as np


def unit(vector: np.ndarray) -> np.ndarray:
    """Return f64 [..., 3] scaled to length 1; vectors shorter than 1e-12 become (0, 0, -1), the viewing direction."""
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.where(length > 1e-12, vector / np.maximum(length, 1e-12), np.array([0.0, 0.0, -1.0]))


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, x: np.ndarray | float) -> np.ndarray:
    """Return 0 below `low`, 1 above `high`, with a smooth rise between (also for low > high: a smooth fall)."""
    x = np.asarray(x)
    if x.dtype != np.float32:  # pictures stay in single precision
        x = x.astype(float)
    t = np.minimum(np.maximum((x - low) * (1.0 / (high - low)), 0), 1)
    return t * t * (3 - 2 * t)


def bump(x: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return a Gaussian bell of height 1."""
    return np.exp(-(((np.asarray(x, float) - center) / width) ** 2))


def lerp(a: np.ndarray | float, b: np.ndarray | float, t: np.ndarray | float) -> np.ndarray:
    return np.asarray(a) + (np.asarray(b) - np.asarray(a)) * np.asarray(t)


class Spline:
    """A natural cubic spline through `value` f64 [K, ...] at the increasing knots `knot` f64 [K]; C2, constant-free."""

    def __init__(self, knot: np.ndarray, value: np.ndarray) -> None:
        self.knot = np.asarray(knot, float)
        self.value = np.asarray(value, float).reshape(len(self.knot), -1)
        step = np.diff(self.knot)
        slope = np.diff(self.value, axis=0) / step[:, None]
        size = len(self.knot)
        system = np.eye(size)
        right = np.zeros((size, self.value.shape[1]))
        inner = np.arange(1, size - 1)
        system[inner, inner - 1] = step[:-1]
        system[inner, inner] = 2 * (step[:-1] + step[1:])
        system[inner, inner + 1] = step[1:]
        right[1:-1] = 6 * np.diff(slope, axis=0)
        self.bend = np.linalg.solve(system, right)  # second derivatives at the knots

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return f64 [..., D] at `x`, clamped to the range of the knots."""
        x = np.clip(np.asarray(x, float), self.knot[0], self.knot[-1])
        index = np.clip(np.searchsorted(self.knot, x, side="right") - 1, 0, len(self.knot) - 2)
        step = (self.knot[index + 1] - self.knot[index])[..., None]
        b = (x - self.knot[index])[..., None] / step
        a = 1 - b
        return (
            a * self.value[index]
            + b * self.value[index + 1]
            + ((a**3 - a) * self.bend[index] + (b**3 - b) * self.bend[index + 1]) * step**2 / 6
        )


def steady(value: np.ndarray | float, step: float = 2.0**-15) -> np.ndarray:
    """Round to multiples of `step`: processors differ in the last bits of sines and exponentials, files must not."""
    return np.round(np.asarray(value, float) / step) * step


def rotation(axis: int, angle: float) -> np.ndarray:
    """Return the matrix [3, 3] of a rotation by `angle` radians about coordinate axis 0, 1 or 2."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def arc_lengths(point: np.ndarray) -> np.ndarray:
    """Return the running length along curves f64 [..., R, 3], starting at 0."""
    step = np.linalg.norm(np.diff(point, axis=-2), axis=-1)
    return np.concatenate([np.zeros((*step.shape[:-1], 1)), np.cumsum(step, -1)], -1)
