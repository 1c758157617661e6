"""What is done to every texel of a model's textures before it is drawn, compiled."""

from __future__ import annotations

import numpy as np

from mmdgen.model.png_jit import kernel


@kernel
def multiply_alpha(texels, table):
    """Replace the colours of `texels` u8 [H, W, 4] by those that `table` u8 [256, 256] has for (alpha, colour)."""
    for y in range(texels.shape[0]):
        row = texels[y]
        for x in range(row.shape[0]):
            alpha = row[x, 3]
            if alpha == 0:
                row[x, 0], row[x, 1], row[x, 2] = np.uint8(0), np.uint8(0), np.uint8(0)
            elif alpha != 255:
                products = table[alpha]
                row[x, 0] = products[row[x, 0]]
                row[x, 1] = products[row[x, 1]]
                row[x, 2] = products[row[x, 2]]
