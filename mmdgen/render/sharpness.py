"""Which mip levels of a texture no picture of a rig can need: how densely its texels can lie, at least, in any pose.

GL chooses the mip level whose texels are nearest in size to the samples: the level is about log2 of rho, how many
texels of the file's own size one step to the next sample goes. Levels finer than the least rho allows are never read.
So they need not be kept, and big textures that are seen from afar take little memory.

A bound from below for rho: let J map the surface to texels, with singular values s1 >= s2. Turning the surface away
from the viewer only makes steps on it longer, so one of the steps along x and y crosses sqrt((s1^2 + s2^2) / 2) texels
or more. Drivers may take the greatest coordinate for the length, as Mesa's software renderer does: then it is
sqrt((s1^2 + s2^2) / 4). Where a face is rigid J is known. Elsewhere s1 is at least the ratio of an edge in texels, at
its shortest, to the edge in the model, at its longest in any pose.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mmdgen.jit import kernel
from mmdgen.pose.rig import Rig

SMALL = 1 << 18  # pixels: less memory is not worth looking
_MARGIN = 0.02  # levels; drivers take logarithms roughly
_MOST = 14


def level_finder(rig: Rig, step: float) -> Callable[[set[int], int, int], int]:
    """Return a function (numbers, width, height) -> how many of the finest levels of a picture are never read.

    `numbers` are the textures of the model that are this picture of `width` x `height` texels; `step` is the least
    distance of two samples in MU. Only for orthographic views, and for what is read at the vertices' own uv alone.
    """
    moved = np.flatnonzero(rig.morph_slot >= 0)
    offset = np.abs(rig.morph_offset[rig.morph_slot[moved]].astype(np.float64)).sum(axis=1)
    change = np.zeros((len(rig.vertex), 5))  # how far morphs can move each coordinate, MU, and uv
    change[moved] = offset
    place = rig.model.position[rig.vertex].astype(np.float64)
    uv = rig.model.uv[rig.vertex].astype(np.float64)

    def spare(numbers: set[int], width: int, height: int) -> int:
        if width * height < SMALL:
            return 0
        least = np.inf
        # Level k is chosen for log2(rho) in (k - 0.5, k + 0.5].
        enough = 2 ** (0.5 + _MARGIN) / step
        for draw in rig.draws:
            if rig.model.materials[draw.material].texture in numbers:
                face = rig.index[draw.first : draw.first + draw.count].reshape(-1, 3)
                groups, weights, low, high = rig.group_index, rig.group_weight, rig.reach.low, rig.reach.high
                size = np.array([width, height], np.float64)
                least = min(least, _least(face, place, uv, size, change, groups, weights, low, high, enough))
                if least < enough:
                    return 0
        if not math.isfinite(least):
            return 0
        return max(0, min(_MOST, math.ceil(math.log2(least * step) + 0.5 - _MARGIN) - 1))

    return spare


@kernel
def _least(face, place, uv, size, change, groups, weights, low, high, enough):
    """Return how many texels a MU one of the two steps crosses at least, along one coordinate, on any of the faces.

    Stops at the first that has fewer than `enough`. `face` u32 [f, 3]; by vertex: `place` [v, 3] MU, `uv` [v, 2],
    `change` [v, 5], `groups` and `weights` [v, 4], `low` and `high` [v, 3] MU; `size` [2] texels.
    """
    least = np.inf
    for number in range(face.shape[0]):
        sharpest = 0.0
        rigid = True
        for corner in range(3):
            a, b = np.int64(face[number, corner]), np.int64(face[number, (corner + 1) % 3])
            length, across, stretch = 0.0, 0.0, 0.0
            for axis in range(3):
                length += (place[a, axis] - place[b, axis]) ** 2
                stretch += (change[a, axis] + change[b, axis]) ** 2
            still = stretch == 0.0
            for axis in range(2):
                slide = change[a, 3 + axis] + change[b, 3 + axis]
                still = still and slide == 0.0
                apart = abs(uv[a, axis] - uv[b, axis]) - slide
                if apart > 0:
                    across += (apart * size[axis]) ** 2
            length = math.sqrt(length) + math.sqrt(stretch)
            # What the ends' groups have in common turns the edge as it is. The rest of their weights leaves each end
            # somewhere in its own bounds; vertices that bend as a sphere does (SDEF) have none.
            if groups[a, 0] != groups[b, 0] or weights[a, 1] > 0 or weights[b, 1] > 0:
                common = 0.0
                for one in range(4):
                    for other in range(4):
                        if groups[a, one] == groups[b, other]:
                            common += min(weights[a, one], weights[b, other])
                if not math.isfinite(low[a, 0]) or not math.isfinite(low[b, 0]):
                    length = np.inf
                    rigid = False
                elif 1.0 - common > 1e-6:
                    far = 0.0
                    for axis in range(3):
                        far += (max(high[a, axis], high[b, axis]) - min(low[a, axis], low[b, axis])) ** 2
                    length += (1.0 - common) * math.sqrt(far)
                    rigid = False
            rigid = rigid and still
            if length > 0 and across > 0:
                sharpest = max(sharpest, math.sqrt(across) / length)
        if rigid:  # or all corners move by one map, of several groups in equal parts, that makes nothing longer
            a, b, c = face[number, 0], face[number, 1], face[number, 2]
            ee, ef, ff, uu, uw, ww = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for axis in range(3):
                e, f = place[b, axis] - place[a, axis], place[c, axis] - place[a, axis]
                ee, ef, ff = ee + e * e, ef + e * f, ff + f * f
            for axis in range(2):
                u, w = (uv[b, axis] - uv[a, axis]) * size[axis], (uv[c, axis] - uv[a, axis]) * size[axis]
                uu, uw, ww = uu + u * u, uw + u * w, ww + w * w
            area = ee * ff - ef * ef
            if area > 1e-9 * ee * ff:  # else rounding decides
                sharpest = max(sharpest, math.sqrt(max(0.0, (uu * ff - 2 * uw * ef + ww * ee) / area)))
        least = min(least, sharpest / 2)
        if least < enough:
            return least
    return least
