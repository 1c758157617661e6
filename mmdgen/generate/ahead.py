"""How much may be prepared ahead of its use: not so many models only, but so many bytes."""

from __future__ import annotations

import threading

# Preparing goes on while what waits to be drawn holds at most this. One model more, as large as they get
# (`render.prepare.MAX_TEXELS`), may come on top.
MAX_WAITING = 128 << 20


class ByteGate:
    """Counts the bytes that one thread has prepared and another has not yet taken, in the same order.

    Nobody waits for ever: while what comes next is not prepared nothing waits to be taken, and the gate is open.
    """

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit, self._waiting, self._closed = limit, 0, False
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Return as soon as little enough waits, or the gate is closed: before each thing is prepared."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting <= self._limit)

    def prepared(self, count: int) -> None:
        """Note that `count` bytes are prepared."""
        with self._changed:
            self._waiting += count

    def taken(self, count: int) -> None:
        """Note that `count` bytes, which were prepared, no longer wait."""
        with self._changed:
            self._waiting -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Let everything through from now on: nothing will be taken any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def size_of(prepared: object) -> int:
    """Return how many bytes a backend's prepared model holds, where it says so (`nbytes`), else 0."""
    return int(getattr(prepared, "nbytes", 0))
