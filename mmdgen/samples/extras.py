"""Layers on the face that morphs show: blush and tears."""

from __future__ import annotations

import numpy as np

from mmdgen.samples.eyeshape import EyeShape
from mmdgen.samples.mesh import Part, grid_part, merge, mirrored, oriented
from mmdgen.samples.skull import Skull


def _patch(material: str, skull: Skull, center: tuple[float, float], size: tuple[float, float], ahead: float) -> Part:
    x = center[0] + size[0] * np.linspace(-1, 1, 9)[None] + 0 * np.zeros((7, 1))
    y = center[1] + size[1] * np.linspace(1, -1, 7)[:, None] + 0 * x
    point = skull.at(x, y, ahead)
    part = oriented(grid_part(material, point), np.array([0.0, 0.0, -1.0]))
    part.edge[:] = 0
    return part


def build_blush(skull: Skull, shape: EyeShape) -> list[Part]:
    """Return the hidden blush and the hidden tears (alpha 0 until a material morph shows them)."""
    eye = shape.eye
    low = shape.center_y - eye.low
    blush = _patch("blush", skull, (eye.center_x + 0.02, low - 0.115), (min(0.15, 0.50 - eye.center_x), 0.085), 0.006)
    tear = _patch("tears", skull, (eye.center_x + 0.02, low - 0.02), (0.10, 0.022), 0.022)
    return [merge([blush, mirrored(blush)]), merge([tear, mirrored(tear)])]
