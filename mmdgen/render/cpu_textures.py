"""Textures for the CPU rasteriser: mip levels, made when a picture first needs them, and where texels hide nothing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mmdgen.render.cpu_jit import kernel
from mmdgen.render.prepare import TextureImage, srgb_to_linear

LEVELS, CODES = 16, 4096  # as in `cpu_kernels`
NEVER, ALWAYS = -1, 127
_BLOCK = 8
_F1, _FHALF = np.float32(1), np.float32(0.5)


@lru_cache(maxsize=2)
def curves(linear: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return tables between bytes and light: u16 [256] of colours and of alpha, 65535 for 1, then codes u8 [CODES + 1]
    and borders f32 [CODES + 1]. A value v in cell c = floor(CODES v) has byte codes[c], or one more from borders[c] on.

    `linear` is for linear light behind sRGB bytes (IEC 61966-2-1); else light is the byte's value / 255.
    """
    unit = np.arange(256) / 255
    curve = srgb_to_linear(unit) if linear else unit
    middle = (np.arange(255) + 0.5) / 255
    border = (srgb_to_linear(middle) if linear else middle).astype(np.float32)  # from it on, the next byte
    cells = np.arange(CODES + 1, dtype=np.float32) / np.float32(CODES)
    codes = np.searchsorted(border, cells, side="right")
    borders = np.append(border, np.float32(np.inf))[codes]
    return _in_16_bits(curve), _in_16_bits(unit), codes.astype(np.uint8), borders


def _in_16_bits(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 65535).astype(np.uint16)


@kernel
def _decode(source, curve, unit, target):
    """Write texels u8 [h, w, 4] as light u16 [h, w, 4]."""
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            for c in range(3):
                target[y, x, c] = curve[source[y, x, c]]
            target[y, x, 3] = unit[source[y, x, 3]]


@kernel
def _decode_halved(source, curve, unit, target):
    """Write the means of two by two texels u8 [2 h, 2 w, 4] as light u16 [h, w, 4]."""
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            for c in range(3):
                upper = np.uint32(curve[source[2 * y, 2 * x, c]]) + np.uint32(curve[source[2 * y, 2 * x + 1, c]])
                y1 = 2 * y + 1
                lower = np.uint32(curve[source[y1, 2 * x, c]]) + np.uint32(curve[source[y1, 2 * x + 1, c]])
                target[y, x, c] = (upper + lower + np.uint32(2)) >> np.uint32(2)
            upper = np.uint32(unit[source[2 * y, 2 * x, 3]]) + np.uint32(unit[source[2 * y, 2 * x + 1, 3]])
            lower = np.uint32(unit[source[2 * y + 1, 2 * x, 3]]) + np.uint32(unit[source[2 * y + 1, 2 * x + 1, 3]])
            target[y, x, 3] = (upper + lower + np.uint32(2)) >> np.uint32(2)


@kernel
def _halve(source, target):
    """Write the next mip level: light u16 [h, w, 4] read bilinearly where the target's texels lie."""
    height, width = source.shape[:2]
    rows, columns = target.shape[:2]
    for row in range(rows):
        y = (row + 0.5) * height / rows - 0.5
        y0 = int(y)
        fy = np.float32(y - y0)
        y1 = min(y0 + 1, height - 1)
        for column in range(columns):
            x = (column + 0.5) * width / columns - 0.5
            x0 = int(x)
            fx = np.float32(x - x0)
            x1 = min(x0 + 1, width - 1)
            wa, wb, wc, wd = (_F1 - fx) * (_F1 - fy), fx * (_F1 - fy), (_F1 - fx) * fy, fx * fy
            for c in range(4):
                value = (
                    np.float32(source[y0, x0, c]) * wa
                    + np.float32(source[y0, x1, c]) * wb
                    + np.float32(source[y1, x0, c]) * wc
                    + np.float32(source[y1, x1, c]) * wd
                )
                target[row, column, c] = np.uint16(value + _FHALF)


@kernel
def _mark_blocks(texels, mixed, seen):
    """Note for each block of texels whether some are not opaque (`mixed`) and some not fully transparent (`seen`)."""
    for y in range(texels.shape[0]):
        for x in range(texels.shape[1]):
            alpha = texels[y, x, 3]
            if alpha < 255:
                mixed[y // 8, x // 8] = 1
            if alpha > 0:
                seen[y // 8, x // 8] = 1


class CpuTextures:
    """The texels of one model's textures, as light: u16 [h, w, 4], 65535 for 1.

    `sizes` i32 [T, 3]: width, height, levels. `texels` i64 [16 T, 3]: address, width and height of level l of texture t
    in row 16 t + l; the address is 0 until `build`. Numbers are handed out by `add`; number 0 is a white texel.
    """

    def __init__(self, linear: bool) -> None:
        self.tables = curves(linear)
        self._kept: dict[int, np.ndarray] = {}
        self._number: dict[TextureImage, int] = {}
        self._images: list[TextureImage] = []
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.sizes = np.zeros((0, 3), np.int32)
        self.texels = np.zeros((0, 3), np.int64)
        self.build(self.add(TextureImage(np.full((1, 1, 4), 255, np.uint8), False)) * LEVELS)

    def add(self, image: TextureImage) -> int:
        """Return the number of a picture."""
        if image not in self._number:
            self._number[image] = len(self._images)
            self._images.append(image)
            height, width = image.texels.shape[:2]
            count = min(LEVELS, int(max(width, height)).bit_length())
            self.sizes = np.append(self.sizes, np.array([[width, height, count]], np.int32), axis=0)
            rows = np.zeros((LEVELS, 3), np.int64)
            for level in range(count):
                rows[level, 1:] = max(1, width >> level), max(1, height >> level)
            self.texels = np.append(self.texels, rows, axis=0)
        return self._number[image]

    def build(self, row: int) -> np.ndarray:
        """Make the level of a row of `texels`; of the finer ones only what is smaller than the picture itself."""
        if row in self._kept:
            return self._kept[row]
        number, level = divmod(row, LEVELS)
        source = np.ascontiguousarray(self._images[number].texels)
        width, height = self.texels[row, 1:].tolist()
        target = np.empty((height, width, 4), np.uint16)
        curve, unit = self.tables[:2]
        if level == 0:
            _decode(source, curve, unit, target)
        elif level == 1 and source.shape[:2] == (2 * height, 2 * width):
            _decode_halved(source, curve, unit, target)
        else:
            _halve(self.build(row - 1), target)
        self._kept[row] = target
        self.texels[row, 0] = target.ctypes.data
        return target

    def hiding(self, number: int, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return up to which mip level triangles see only opaque texels, and only fully transparent ones: i8 [n] each,
        NEVER where they do at no level. `corners` f32 [n, 3, 2] are uv."""
        count = len(corners)
        if number < 0 or not self._images[number].alpha:
            return np.full(count, ALWAYS, np.int8), np.full(count, NEVER, np.int8)
        if number not in self._blocks:
            mixed, seen = self._marked(number)
            self._blocks[number] = (_sums(mixed), _sums(seen))
        width, height, levels = self.sizes[number].tolist()
        results = np.full((2, count), NEVER, np.int8)
        alive = np.ones((2, count), bool)
        low = corners.min(axis=1).astype(np.float64) * (width, height)
        high = corners.max(axis=1).astype(np.float64) * (width, height)
        sane = np.isfinite(low).all(axis=1) & np.isfinite(high).all(axis=1) & (np.abs(low) < 1e9).all(axis=1)
        alive &= sane
        low, high = np.where(sane[:, None], low, 0), np.where(sane[:, None], high, 0)
        for level in range(levels):
            # A bilinear sample of a level reaches a texel and a half far, and that texel was made of its surroundings.
            margin = 3.0 * (1 << level)
            x0, x1, all_x = _block_range(low[:, 0] - margin, high[:, 0] + margin, width)
            y0, y1, all_y = _block_range(low[:, 1] - margin, high[:, 1] + margin, height)
            alive[:, all_x | all_y] = False
            for kind, sums in enumerate(self._blocks[number]):
                marked = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
                alive[kind] &= marked == 0
                results[kind, alive[kind]] = level
            if not alive.any():
                break
        return results[0], results[1]

    def _marked(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        texels = np.ascontiguousarray(self._images[number].texels)
        shape = (-(-texels.shape[0] // _BLOCK), -(-texels.shape[1] // _BLOCK))
        mixed, seen = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        _mark_blocks(texels, mixed, seen)
        return mixed, seen


def _sums(blocks: np.ndarray) -> np.ndarray:
    """Return the sums over all rectangles that begin at the corner, of the blocks twice in both directions."""
    sums = np.zeros((2 * blocks.shape[0] + 1, 2 * blocks.shape[1] + 1), np.int32)
    sums[1:, 1:] = np.tile(blocks, (2, 2)).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    return sums


def _block_range(low: np.ndarray, high: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first and end block i64 [n] of texels low..high, in blocks that repeat once, and where they are all."""
    first = np.floor(low).astype(np.int64)
    last = np.ceil(high).astype(np.int64) - first
    everything = last >= side
    first %= side
    last = np.where(everything, 0, last) + first
    blocks = -(-side // _BLOCK)
    end = np.where(last < side, last // _BLOCK, blocks + (last - side) // _BLOCK) + 1
    return first // _BLOCK, end, everything
