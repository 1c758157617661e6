"""What is drawn and how: framing, size, anti-aliasing, light."""

from __future__ import annotations

from dataclasses import dataclass

from mmdgen.errors import ConfigError

SAMPLE_GRIDS = {1: 1, 4: 2, 9: 3, 16: 4}


@dataclass(frozen=True, slots=True)
class View:
    """An orthographic front view. `center_x`, `center_y`, `height` (of the whole image) are in MU.

    `size` pixels square; `samples` 1, 4, 9 or 16 a pixel (supersampling); `ambient` and `directional` are the white
    lights' magnitudes (the directional one shines along the view, article section 5.3); `specular` scales the highlight
    (0: none, as in the article); `outline` scales the edges (0: none).
    """

    center_x: float
    center_y: float
    height: float
    size: int = 256
    samples: int = 4
    ambient: float = 0.5
    directional: float = 0.5
    specular: float = 0.0
    outline: float = 1.0

    def __post_init__(self) -> None:
        if self.samples not in SAMPLE_GRIDS:
            raise ConfigError(f"samples must be one of {sorted(SAMPLE_GRIDS)}, found {self.samples}")
        if not self.height > 0:
            raise ConfigError(f"the view's height must be positive, found {self.height}")

    @classmethod
    def of_head(cls, chin_y: float, top_y: float, center_x: float, **settings) -> View:
        """Frame a head: the chin falls on row 3H/4 and the skull's top on row H/4 (article section 4)."""
        if not top_y > chin_y:
            raise ConfigError(f"the skull's top ({top_y:g}) must be above the chin ({chin_y:g})")
        return cls(center_x, (chin_y + top_y) / 2, 2 * (top_y - chin_y), **settings)
