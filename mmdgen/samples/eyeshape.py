"""The outlines of one eye: open, closed and half closed, as curves over the face. All for the left eye (x > 0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.samples.curves import bump
from mmdgen.samples.traits import EyeTraits


@dataclass(frozen=True, slots=True)
class EyeShape:
    """Curves over t in [0, 1] from the inner to the outer corner; each returns (x, y) as f64 [..., 2]."""

    eye: EyeTraits
    center_y: float

    @property
    def center(self) -> tuple[float, float]:
        return self.eye.center_x, self.center_y

    def _base(self, t: np.ndarray, width: float = 1.0, tilt: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        angle = np.pi * np.asarray(t, float)
        along = -np.cos(angle)
        x = self.eye.center_x + self.eye.half_width * width * along
        return x, self.center_y + tilt * self.eye.tilt * along, np.sin(angle)

    def upper(self, t: np.ndarray) -> np.ndarray:
        """The edge of the upper lid."""
        x, y, s = self._base(t)
        lift = self.eye.up * s**self.eye.box_up * (1 + self.eye.peak * (np.asarray(t) - 0.5))
        return np.stack([x, y - 0.02 + lift], -1)

    def lower(self, t: np.ndarray) -> np.ndarray:
        """The edge of the lower lid."""
        x, y, s = self._base(t)
        sag = self.eye.low * s**self.eye.box_low * (1 - 0.25 * (np.asarray(t) - 0.5))
        return np.stack([x, y - 0.02 - sag], -1)

    def closed(self, t: np.ndarray) -> np.ndarray:
        """The line of lashes of a quietly closed eye: a shallow U low in the opening."""
        x, y, s = self._base(t, 1.02, 0.5)
        return np.stack([x, y - 0.02 - 0.42 * self.eye.low - 0.42 * self.eye.low * s**1.8 - 0.15 * self.eye.tilt], -1)

    def smiling(self, t: np.ndarray) -> np.ndarray:
        """The line of lashes of a smiling closed eye: an arch."""
        x, y, s = self._base(t, 1.02, 0.5)
        return np.stack([x, y - 0.02 - 0.55 * self.eye.low + (0.40 * self.eye.low + 0.38 * self.eye.up) * s**1.55], -1)

    def half(self, t: np.ndarray) -> np.ndarray:
        """The upper lid's edge of a flat, sceptical stare."""
        x, y, s = self._base(t)
        return np.stack([x, y - 0.02 + 0.30 * self.eye.up * s**0.4], -1)

    def wide(self, t: np.ndarray) -> np.ndarray:
        """The upper lid's edge of a surprised eye."""
        open_edge = self.upper(t)
        open_edge[..., 1] += 0.030 * bump(t, 0.5, 0.4)
        return open_edge

    def scaled(self, t: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
        """The outline enlarged by `radius` around its centre; t in [0, 2]: upper edge outwards, lower edge back."""
        t = np.asarray(t, float)
        edge = np.where((t <= 1)[..., None], self.upper(np.clip(t, 0, 1)), self.lower(np.clip(2 - t, 0, 1)))
        middle = np.array([self.eye.center_x, self.center_y])
        return middle + (edge - middle) * np.asarray(radius)[..., None]
