"""What a picture's bytes go through before compression and after it, compiled by numba.

Only `codec` imports this module, and only when such a picture is met: numba takes half a second to import. Everything
is integer arithmetic that wraps around, so nothing depends on the machine.
"""

from __future__ import annotations

import numpy as np

from mmdgen.jit import kernel


@kernel
def split_planes(image, planes):
    """Fill `planes`, u8 [4, H, W], from `image`, u8 [H, W, 4]: r - g, g, b - g, a, and of each row what it differs from
    the row above it."""
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            green = image[y, x, 1]
            red, blue, alpha = image[y, x, 0] - green, image[y, x, 2] - green, image[y, x, 3]
            if y > 0:
                above = image[y - 1, x, 1]
                red -= image[y - 1, x, 0] - above
                blue -= image[y - 1, x, 2] - above
                green -= above
                alpha -= image[y - 1, x, 3]
            planes[0, y, x] = red
            planes[1, y, x] = green
            planes[2, y, x] = blue
            planes[3, y, x] = alpha


@kernel
def join_planes(planes, pixels):
    """Fill `pixels`, u32 [H, W] with red in the lowest byte, from what `split_planes` made: u8 [4, H, W]."""
    height, width = pixels.shape
    sums = np.zeros((4, width), np.uint8)
    for y in range(height):
        for x in range(width):  # one loop without branches, which the compiler turns into vector instructions
            green = np.uint8(sums[1, x] + planes[1, y, x])
            red = np.uint8(sums[0, x] + planes[0, y, x])
            blue = np.uint8(sums[2, x] + planes[2, y, x])
            alpha = np.uint8(sums[3, x] + planes[3, y, x])
            sums[0, x] = red
            sums[1, x] = green
            sums[2, x] = blue
            sums[3, x] = alpha
            pixels[y, x] = (
                np.uint32(np.uint8(red + green))
                | (np.uint32(green) << np.uint32(8))
                | (np.uint32(np.uint8(blue + green)) << np.uint32(16))
                | (np.uint32(alpha) << np.uint32(24))
            )


@kernel
def sum_flow(shuffled, flow, step):
    """Fill `flow`, f32 [H, W, 2], from `shuffled`, u8 [2 or 4, H * W * 2]: the integers' lowest bytes first.

    Each row of integers holds differences; their sums, which wrap around at the integers' width, are times `step`, f32.
    """
    height, width = flow.shape[:2]
    sums = np.empty((width, 2), np.int32)
    for y in range(height):
        start = 2 * y * width
        right, down = np.int32(0), np.int32(0)
        if len(shuffled) == 2:
            low, high = shuffled[0], shuffled[1]
            for x in range(width):
                place = start + 2 * x
                right += np.int32(low[place]) + (np.int32(high[place]) << 8)
                down += np.int32(low[place + 1]) + (np.int32(high[place + 1]) << 8)
                sums[x, 0] = np.int16(right)
                sums[x, 1] = np.int16(down)
        else:
            for x in range(width):
                place = start + 2 * x
                for byte in range(4):
                    right += np.int32(shuffled[byte, place]) << (8 * byte)
                    down += np.int32(shuffled[byte, place + 1]) << (8 * byte)
                sums[x, 0] = right
                sums[x, 1] = down
        for x in range(width):
            flow[y, x, 0] = np.float32(sums[x, 0]) * step
            flow[y, x, 1] = np.float32(sums[x, 1]) * step
