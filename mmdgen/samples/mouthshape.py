"""The mouth's line at rest and its openings, as curves over the face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# half width factor, rise of the upper lip, fall of the lower lip, bend of the corners, box (1 round, < 1 boxy)
MOUTH_MOVES: dict[str, tuple[float, float, float, float, float]] = {
    "a": (1.05, 0.030, 0.160, 0.010, 0.62),
    "i": (1.35, 0.016, 0.042, 0.012, 0.45),
    "u": (0.45, 0.030, 0.045, 0.000, 0.90),
    "e": (1.12, 0.020, 0.092, 0.004, 0.50),
    "o": (0.62, 0.032, 0.120, -0.004, 0.85),
    "grin": (1.25, 0.000, 0.000, 0.034, 1.0),
    "frown": (1.00, 0.000, 0.000, -0.030, 1.0),
    "wa": (1.30, 0.018, 0.115, 0.034, 0.42),
    "triangle": (0.75, 0.040, 0.052, -0.022, 0.60),
}


@dataclass(frozen=True, slots=True)
class MouthShape:
    """Curves over t in [0, 1] from the character's right corner (x < 0) to the left one; (x, y) as f64 [..., 2]."""

    y: float
    half_width: float
    curve: float

    def rest(self, t: np.ndarray) -> np.ndarray:
        """The closed line."""
        along = -np.cos(np.pi * np.asarray(t, float))
        return np.stack([self.half_width * along, self.y + self.curve * (along**2 - 0.4)], -1)

    def edge(self, name: str, upper: bool) -> Callable[[np.ndarray], np.ndarray]:
        """The lip's edge in the movement `name` at full strength."""
        width, rise, fall, bend, box = MOUTH_MOVES[name]
        scale = 0.75 + 0.25 * self.half_width / 0.12  # small mouths open a little less
        half = max(self.half_width, 0.10) * width

        def curve(t: np.ndarray) -> np.ndarray:
            angle = np.pi * np.asarray(t, float)
            along = -np.cos(angle)
            lift = (rise if upper else -fall) * scale * np.sin(angle) ** box
            corner = (self.curve + bend) * along**2 - 0.4 * self.curve
            if upper and rise:
                lift = lift * (0.85 + 0.25 * along**2)  # the upper lip is nearly straight
            return np.stack([half * along, self.y + corner + lift], -1)

        return curve

    def reach(self) -> np.ndarray:
        """Return the points f64 [n, 2] that the hole in the skin must hold: the line and the lips of every opening."""
        t = np.linspace(0, 1, 17)
        edges = [self.edge(name, upper)(t) for name in MOUTH_MOVES for upper in (True, False)]
        return np.concatenate([self.rest(t), *edges])
