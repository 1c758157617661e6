"""Our own ten shared toon ramps.

MikuMikuDance's toon01.bmp to toon10.bmp are its author's pictures and are not ours to ship. These are drawn from
scratch for the same ten slots: white towards the light, a shade away from it, a softer or harder border between.
"""

from __future__ import annotations

import numpy as np

ROWS = 64

# Shade (sRGB), where it begins (0 facing the light, 1 away from it, 0.5 sideways), and how wide the border is.
_RAMPS: tuple[tuple[tuple[int, int, int], float, float], ...] = (
    ((205, 205, 210), 0.50, 0.06),  # 1: hair and cloth
    ((245, 225, 222), 0.50, 0.12),  # 2: skin
    ((160, 160, 170), 0.50, 0.04),  # 3: hard and dark
    ((248, 238, 234), 0.50, 0.30),  # 4: light skin
    ((238, 205, 195), 0.50, 0.50),  # 5: warm, soft
    ((225, 215, 190), 0.55, 0.20),  # 6: yellowish
    ((255, 255, 255), 0.50, 0.10),  # 7 to 10: no shade
    ((255, 255, 255), 0.50, 0.10),
    ((255, 255, 255), 0.50, 0.10),
    ((255, 255, 255), 0.50, 0.10),
)
COUNT = len(_RAMPS)


def shared_ramp(number: int) -> np.ndarray:
    """Return shared ramp 0 to 9 as texels u8 [ROWS, 1, 4], the row that faces the light first."""
    shade, start, width = _RAMPS[number]
    along = (np.arange(ROWS) + 0.5) / ROWS
    t = np.clip((along - start) / width + 0.5, 0.0, 1.0)[:, None]
    t = t * t * (3 - 2 * t)
    texels = np.full((ROWS, 1, 4), 255, np.uint8)
    texels[:, 0, :3] = np.rint(255 + t * (np.array(shade) - 255))
    return texels
