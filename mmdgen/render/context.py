"""The GL context: one a process, owned by the thread that made it.

Objects that are made while another context is current read back zeros without any error, so nobody else makes contexts.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import moderngl

from mmdgen.errors import RenderError

REQUIRED_VERSION = 430  # shader storage buffers in the vertex shader

_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software rasterizer", "microsoft basic render")


def create_context(device: int | None = None) -> moderngl.Context:
    """Return a new offscreen GL 4.3 core context, through EGL on Linux (no display is needed).

    `device` is an EGL device index (`mmdgen doctor` lists them); None takes the first. Raises `RenderError` saying what
    to install.
    """
    options: dict[str, Any] = {"standalone": True, "require": REQUIRED_VERSION}
    if sys.platform.startswith("linux"):
        # Named, lest glcontext searches with ldconfig or gcc, which a small machine may not have.
        options.update(backend="egl", libgl="libGL.so.1", libegl="libEGL.so.1")
        if device is not None:
            options["device_index"] = device
    # One process a core draws fastest with llvmpipe in the calling thread; it has to be set before the driver loads.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        return moderngl.create_context(**options)
    except Exception as error:  # moderngl and glcontext raise bare Exception, ValueError and ImportError alike
        raise RenderError(
            f"no OpenGL 4.3 context could be made: {error}. `mmdgen doctor` says what is missing; on Debian and Ubuntu "
            "it is usually: apt-get install libegl1 libgl1 libgl1-mesa-dri"
        ) from error


def is_software(context: moderngl.Context) -> bool:
    """Return whether the context draws on the CPU."""
    return any(word in context.info["GL_RENDERER"].lower() for word in _SOFTWARE)


def check_errors(context: moderngl.Context, doing: str) -> None:
    """Raise `RenderError` if GL has noted an error, such as GL_OUT_OF_MEMORY, since the last check."""
    error = context.error
    if error != "GL_NO_ERROR":
        raise RenderError(f"OpenGL reports {error} after {doing} on {context.info['GL_RENDERER']}")


def describe(context: moderngl.Context) -> dict[str, Any]:
    """Return what drew the pictures, for reports and manifests: vendor, renderer, version, software."""
    info = context.info
    return {
        "vendor": info["GL_VENDOR"],
        "renderer": info["GL_RENDERER"],
        "version": info["GL_VERSION"],
        "software": is_software(context),
    }
