"""Pictures on their way back from a GPU: pixel buffers that stay mapped, fences, and no interpreter lock meanwhile.

moderngl keeps Python's lock in every call, also while it waits for the GPU: threads that load and compress would stand
still for as long. Here the waiting and the copying are done without it. A buffer is taken by one copy at a time and
returned when its pictures were taken, so any number of generators can have copies under way.

Where the functions cannot be had (no GL 4.4, another system than Linux), moderngl's own buffers do, which wait with
the lock held; the pictures are the same.

Sources: OpenGL 4.4 core (sync objects, buffer storage).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import moderngl
import numpy as np

from mmdgen.errors import DeviceLostError, RenderError

_PIXEL_PACK_BUFFER = 0x88EB
# GL_MAP_READ_BIT, GL_MAP_PERSISTENT_BIT, GL_MAP_COHERENT_BIT
_ACCESS = 0x0001 | 0x0040 | 0x0080
_CLIENT_STORAGE = 0x0200
_COMMANDS_COMPLETE = 0x9117
_FLUSH_COMMANDS = 1
_ALREADY_SIGNALED, _TIMEOUT_EXPIRED, _CONDITION_SATISFIED = 0x911A, 0x911B, 0x911C
PATIENCE_S = 60  # a batch takes milliseconds: after this the GPU hangs

_pointer, _integer, _size = ctypes.c_void_p, ctypes.c_uint, ctypes.c_ssize_t
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "glGenBuffers": (None, ctypes.c_int, _pointer),
    "glDeleteBuffers": (None, ctypes.c_int, _pointer),
    "glBindBuffer": (None, _integer, _integer),
    "glBufferStorage": (None, _integer, _size, _pointer, _integer),
    "glMapBufferRange": (_pointer, _integer, _size, _size, _integer),
    "glUnmapBuffer": (ctypes.c_ubyte, _integer),
    "glFenceSync": (_pointer, _integer, _integer),
    "glClientWaitSync": (_integer, _pointer, _integer, ctypes.c_uint64),
    "glDeleteSync": (None, _pointer),
}


def gl_functions(context: moderngl.Context) -> dict[str, Callable[..., Any]] | None:
    """Return the GL functions that moderngl lacks; calling them lets go of the interpreter lock. None without them."""
    if context.version_code < 440 or not sys.platform.startswith("linux"):
        return None
    try:
        find = ctypes.CDLL("libEGL.so.1").eglGetProcAddress
    except (OSError, AttributeError):
        return None
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    addresses = {name: find(name.encode()) for name in _SIGNATURES}
    if not all(addresses.values()):
        return None
    return {name: ctypes.CFUNCTYPE(*_SIGNATURES[name])(address) for name, address in addresses.items() if address}


class Copy:
    """One copy under way. `take` waits for it; `done` gives its buffer back, and may come without `take`."""

    def __init__(self, owner: Readback, buffer: moderngl.Buffer, memory: np.ndarray | None, fence: int | None) -> None:
        self._owner, self._buffer, self._memory, self._fence = owner, buffer, memory, fence
        self._open = True

    def take(self, length: int) -> np.ndarray:
        """Return the first `length` bytes, u8 [length], the caller's own. Raises `DeviceLostError` if the GPU hangs."""
        if self._memory is None:
            return np.frombuffer(self._buffer.read(length), np.uint8)
        self._wait()
        return self._memory[:length].copy()

    def _wait(self) -> None:
        gl, fence, self._fence = self._owner.gl, self._fence, None
        if gl is None or fence is None:
            return
        found = gl["glClientWaitSync"](fence, _FLUSH_COMMANDS, PATIENCE_S * 10**9)
        gl["glDeleteSync"](fence)
        if found not in (_ALREADY_SIGNALED, _CONDITION_SATISFIED):
            why = f"did not finish within {PATIENCE_S} s" if found == _TIMEOUT_EXPIRED else "could not be waited for"
            raise DeviceLostError(f"a batch of pictures {why}: the GPU hangs or was lost")

    def done(self) -> None:
        """Give the buffer back."""
        if self._open:
            self._open = False
            if self._fence is not None and self._owner.gl is not None and not self._owner.released:
                self._owner.gl["glDeleteSync"](self._fence)
            self._fence = None
            self._owner.give_back(self._buffer, self._memory)


class Readback:
    """Pixel buffers of `length` bytes, made as they are needed and used again."""

    def __init__(self, context: moderngl.Context, length: int) -> None:
        self._context, self._length = context, length
        self.gl = gl_functions(context)
        self.released = False
        self._names: dict[moderngl.Buffer, int] = {}
        self._free: list[tuple[moderngl.Buffer, np.ndarray | None]] = []

    @property
    def buffers(self) -> int:
        """How many buffers wait to be used."""
        return len(self._free)

    def start(self, source: moderngl.Framebuffer, width: int, height: int) -> Copy:
        """Begin to copy the first `height` rows of RGBA pixels; the GPU goes on meanwhile. Returns at once."""
        buffer, memory = self._free.pop() if self._free else self._make()
        source.read_into(buffer, viewport=(0, 0, width, height), components=4, alignment=1)
        fence = self.gl["glFenceSync"](_COMMANDS_COMPLETE, 0) if self.gl and memory is not None else None
        return Copy(self, buffer, memory, fence)

    def _make(self) -> tuple[moderngl.Buffer, np.ndarray | None]:
        gl = self.gl
        if gl is None:
            return self._context.buffer(reserve=self._length), None
        name = ctypes.c_uint()
        gl["glGenBuffers"](1, ctypes.byref(name))
        gl["glBindBuffer"](_PIXEL_PACK_BUFFER, name)
        gl["glBufferStorage"](_PIXEL_PACK_BUFFER, self._length, None, _ACCESS | _CLIENT_STORAGE)
        address = gl["glMapBufferRange"](_PIXEL_PACK_BUFFER, 0, self._length, _ACCESS)
        gl["glBindBuffer"](_PIXEL_PACK_BUFFER, 0)
        if not address:
            gl["glDeleteBuffers"](1, ctypes.byref(name))
            raise RenderError(f"OpenGL reports {self._context.error} for a pixel buffer of {self._length} bytes")
        memory = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte)), (self._length,))
        buffer = self._context.external_buffer(name.value, self._length)
        self._names[buffer] = name.value
        return buffer, memory

    def give_back(self, buffer: moderngl.Buffer, memory: np.ndarray | None) -> None:
        """Take a buffer back (`Copy.done` does that); one that comes after `release` is freed."""
        if self.released:
            self._delete(buffer)
        else:
            self._free.append((buffer, memory))

    def _delete(self, buffer: moderngl.Buffer) -> None:
        name = self._names.pop(buffer, None)
        if name is None or self.gl is None:
            buffer.release()
            return
        number = ctypes.c_uint(name)
        self.gl["glDeleteBuffers"](1, ctypes.byref(number))  # which unmaps it

    def release(self) -> None:
        """Free the buffers that are not in use; the others follow when they come back."""
        self.released = True
        for buffer, _ in self._free:
            self._delete(buffer)
        self._free.clear()
