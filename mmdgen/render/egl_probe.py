"""Ask EGL what it can do, with nothing but ctypes: which devices there are and whether OpenGL 4.3 core comes up.

Run as a program it prints one JSON object. It is meant to be run in a process of its own (`gl_setup.probe` does),
because a broken driver may crash, and because libraries once loaded stay loaded. It needs no package, so that
`tools/run` can use it before anything is installed.

Sources: EGL 1.5 and the extensions EGL_EXT_device_enumeration, EGL_EXT_device_query, EGL_EXT_platform_device,
EGL_EXT_device_drm, EGL_EXT_device_drm_render_node, EGL_EXT_device_persistent_id, EGL_NV_device_cuda,
EGL_MESA_device_software.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

GL_VERSION_NEEDED = (4, 3)

_EGL_EXTENSIONS = 0x3055
_EGL_PLATFORM_DEVICE = 0x313F
_EGL_OPENGL_API = 0x30A2
_EGL_DRM_DEVICE_FILE = 0x3233
_EGL_DRM_RENDER_NODE_FILE = 0x3377
_EGL_CUDA_DEVICE = 0x323A
_EGL_DEVICE_UUID = 0x335C
_UUID_BYTES = 16
# EGL_SURFACE_TYPE 0x3033 = 0 (any), EGL_RENDERABLE_TYPE 0x3040 = EGL_OPENGL_BIT, EGL_NONE
_CONFIG = (0x3033, 0, 0x3040, 0x0008, 0x3038)
# EGL_CONTEXT_MAJOR_VERSION 0x3098, MINOR 0x30FB, PROFILE_MASK 0x30FD = core, EGL_NONE
_CONTEXT = (0x3098, GL_VERSION_NEEDED[0], 0x30FB, GL_VERSION_NEEDED[1], 0x30FD, 1, 0x3038)
_GL_STRINGS = {"vendor": 0x1F00, "renderer": 0x1F01, "version": 0x1F02}
_SOFTWARE_RENDERERS = ("llvmpipe", "softpipe", "swrast", "swr ")
_LIBRARY_WORDS = ("libEGL", "libGL", "libgallium", "_dri.so", "libLLVM", "libnvidia", "libglapi")


class _Egl:
    """The EGL entry points used here, with their C signatures."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self._lib = lib
        lib.eglGetProcAddress.restype = ctypes.c_void_p
        lib.eglGetProcAddress.argtypes = [ctypes.c_char_p]
        pointer, integer, attributes = ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
        self.initialize = self._core("eglInitialize", integer, pointer, attributes, attributes)
        self.terminate = self._core("eglTerminate", integer, pointer)
        self.bind_api = self._core("eglBindAPI", integer, ctypes.c_uint)
        self.choose_config = self._core(
            "eglChooseConfig", integer, pointer, attributes, ctypes.POINTER(pointer), integer, attributes
        )
        self.create_context = self._core("eglCreateContext", pointer, pointer, pointer, pointer, attributes)
        self.destroy_context = self._core("eglDestroyContext", integer, pointer, pointer)
        self.make_current = self._core("eglMakeCurrent", integer, pointer, pointer, pointer, pointer)
        self.get_error = self._core("eglGetError", integer)
        self.query_devices = self._extension(
            "eglQueryDevicesEXT", integer, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer)
        )
        self.device_string = self._extension("eglQueryDeviceStringEXT", ctypes.c_char_p, pointer, integer)
        self.device_attribute = self._extension(
            "eglQueryDeviceAttribEXT", integer, pointer, integer, ctypes.POINTER(ctypes.c_ssize_t)
        )
        self.device_binary = self._extension(
            "eglQueryDeviceBinaryEXT", integer, pointer, integer, integer, pointer, attributes
        )
        self.platform_display = self._extension("eglGetPlatformDisplayEXT", pointer, integer, pointer, attributes)

    def _core(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function = getattr(self._lib, name)
        function.restype, function.argtypes = result, list(arguments)
        return function

    def _extension(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
        address = self.address(name)
        return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None

    def address(self, name: str) -> int | None:
        return self._lib.eglGetProcAddress(name.encode())

    def failure(self, call: str) -> str:
        return f"{call} failed (EGL error 0x{self.get_error():04x})"


def _context_report(egl: _Egl, device: int) -> dict[str, Any]:
    """Make an OpenGL context on the device without a surface; return its strings, or ``{"problem": ...}``."""
    if egl.platform_display is None:
        return {"problem": "this EGL has no eglGetPlatformDisplayEXT"}
    display = egl.platform_display(_EGL_PLATFORM_DEVICE, device, None)
    if not display:
        return {"problem": egl.failure("eglGetPlatformDisplayEXT")}
    if not egl.initialize(display, None, None):
        return {"problem": egl.failure("eglInitialize")}
    try:
        if not egl.bind_api(_EGL_OPENGL_API):
            return {"problem": egl.failure("eglBindAPI(EGL_OPENGL_API)")}
        config, count = ctypes.c_void_p(), ctypes.c_int()
        attributes = (ctypes.c_int * len(_CONFIG))(*_CONFIG)
        if not egl.choose_config(display, attributes, ctypes.byref(config), 1, ctypes.byref(count)) or not count.value:
            return {"problem": "no EGL configuration offers OpenGL"}
        attributes = (ctypes.c_int * len(_CONTEXT))(*_CONTEXT)
        context = egl.create_context(display, config, None, attributes)
        if not context:
            return {"problem": egl.failure("eglCreateContext for OpenGL {}.{} core".format(*GL_VERSION_NEEDED))}
        try:
            if not egl.make_current(display, None, None, context):
                return {"problem": egl.failure("eglMakeCurrent without a surface")}
            return _gl_strings(egl)
        finally:
            egl.make_current(display, None, None, None)
            egl.destroy_context(display, context)
    finally:
        egl.terminate(display)


def _gl_strings(egl: _Egl) -> dict[str, Any]:
    address = egl.address("glGetString")
    if not address:
        return {"problem": "eglGetProcAddress does not know glGetString"}
    get_string = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(address)
    strings: dict[str, Any] = {
        key: (get_string(value) or b"").decode("utf-8", "replace") for key, value in _GL_STRINGS.items()
    }
    if not strings["version"]:
        return {"problem": "glGetString returns nothing: the context has no driver behind it"}
    strings["libraries"] = loaded_libraries()  # while the driver is in use: terminating may unload it
    return strings


def _device_report(egl: _Egl, index: int, device: int) -> dict[str, Any]:
    def text(name: int) -> str:
        value = egl.device_string(device, name) if egl.device_string else None
        return value.decode("utf-8", "replace") if value else ""

    extensions = text(_EGL_EXTENSIONS).split()
    report: dict[str, Any] = {
        "index": index,
        "software": "EGL_MESA_device_software" in extensions,
        "drm": text(_EGL_DRM_DEVICE_FILE) if "EGL_EXT_device_drm" in extensions else "",
        "render_node": text(_EGL_DRM_RENDER_NODE_FILE) if "EGL_EXT_device_drm_render_node" in extensions else "",
        "cuda": None,
        "uuid": "",
    }
    if "EGL_NV_device_cuda" in extensions and egl.device_attribute:
        value = ctypes.c_ssize_t(-1)
        if egl.device_attribute(device, _EGL_CUDA_DEVICE, ctypes.byref(value)):
            report["cuda"] = value.value
    if "EGL_EXT_device_persistent_id" in extensions and egl.device_binary:
        found, length = (ctypes.c_ubyte * _UUID_BYTES)(), ctypes.c_int()
        answered = egl.device_binary(device, _EGL_DEVICE_UUID, _UUID_BYTES, found, ctypes.byref(length))
        if answered and length.value == _UUID_BYTES:
            digits = bytes(found).hex()
            report["uuid"] = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return report


def loaded_libraries() -> list[str]:
    """Return the paths of the GL libraries and drivers that this process has mapped."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
    except OSError:
        return []
    paths = {fields[5].rstrip("\n") for fields in lines if len(fields) == 6}
    return sorted(path for path in paths if any(word in path.rpartition("/")[2] for word in _LIBRARY_WORDS))


def query(every_device: bool = False) -> dict[str, Any]:
    """Return what EGL says.

    ``ok`` (a context came up), ``problem`` (why not), ``devices`` (index, software, drm, render_node, cuda, uuid, and
    either vendor, renderer and version or problem), ``libraries`` (paths in use). Stops at the first device that works
    unless `every_device`. CUDA's numbers are those of this process's environment: `gl_setup.probe` takes
    CUDA_VISIBLE_DEVICES out of it.
    """
    report: dict[str, Any] = {"ok": False, "problem": "", "devices": [], "libraries": []}
    for name in ("libGL.so.1", "libEGL.so.1"):
        try:
            lib = ctypes.CDLL(name)
        except OSError as error:
            report["problem"] = f"{name} cannot be loaded: {error}"
            return report
    egl = _Egl(lib)
    if egl.query_devices is None:
        report["problem"] = "this EGL has no eglQueryDevicesEXT"
        return report
    count = ctypes.c_int()
    if not egl.query_devices(0, None, ctypes.byref(count)):
        report["problem"] = egl.failure("eglQueryDevicesEXT")
        return report
    devices = (ctypes.c_void_p * max(count.value, 1))()
    egl.query_devices(count.value, devices, ctypes.byref(count))
    for index in range(count.value):
        device = _device_report(egl, index, devices[index] or 0)
        if every_device or not report["ok"]:
            device.update(_context_report(egl, devices[index] or 0))
            libraries = device.pop("libraries", [])
            if "version" in device:
                device["software"] |= any(word in device["renderer"].lower() for word in _SOFTWARE_RENDERERS)
                report["ok"] = True
                report["libraries"] = sorted({*report["libraries"], *libraries})
        report["devices"].append(device)
    if not report["ok"]:
        reasons = sorted({device.get("problem", "") for device in report["devices"]})
        report["problem"] = "; ".join(reasons) if reasons else "EGL reports no device (no driver is installed)"
    return report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(query("--all" in sys.argv[1:])) + "\n")
