"""Mip maps for the software renderer, which draws its own five times slower than the CPU computes them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import moderngl
import numpy as np

from mmdgen.errors import RenderError
from mmdgen.render.texels import halved

_TEXTURE_2D, _RGBA, _UNSIGNED_BYTE = 0x0DE1, 0x1908, 0x1401
_UNIT = 0

Define = Callable[[int, int, int, int, int, int, int, int, int], None]


def level_definer(context: moderngl.Context) -> Define:
    """Return glTexImage2D, which moderngl calls for the first level only.

    Raises `RenderError` where this moderngl does not give it away: with the driver's own mip maps pictures would
    differ.
    """
    try:
        address = context.mglo._context.load("glTexImage2D")
    except (AttributeError, TypeError):
        address = None
    if not address:
        raise RenderError(
            "this moderngl gives no access to glTexImage2D, which the software renderer needs; "
            "install moderngl 5.12 or 5.13, or use --renderer cpu"
        )
    integer, kind = ctypes.c_int, ctypes.c_uint
    make = ctypes.CFUNCTYPE(None, kind, integer, integer, integer, integer, integer, kind, kind, ctypes.c_void_p)
    return make(address)


def define_levels(define: Define, texture: moderngl.Texture, texels: np.ndarray, kind: int, linear: bool) -> None:
    """Give a `texture` of the internal format `kind`, made from `texels` u8 [H, W, 4], all its smaller levels.

    What GL does itself by the driver's filter: see `texels.halved` for `linear`. Unit 0 has the texture bound then.
    """
    texture.use(_UNIT)
    level = 0
    while max(texels.shape[:2]) > 1:
        texels = halved(texels, linear)
        level += 1
        height, width = texels.shape[:2]
        define(_TEXTURE_2D, level, kind, width, height, 0, _RGBA, _UNSIGNED_BYTE, texels.ctypes.data)
