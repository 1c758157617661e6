"""The other end of `pool`: the main loop of a worker process."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import pickle
import queue
import signal
import sys
import threading
from typing import IO, Any, NoReturn

from mmdgen.errors import DeviceLostError, EngineError, MmdgenError
from mmdgen.generate.pool import DEVICE_LOST, read_message, write_message

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def resolve(target: str) -> Any:
    """Return what "package.module:name" names. Raises `EngineError`."""
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise EngineError(f"{target!r} cannot be imported: {error}") from error


def main() -> None:
    """Serve the parent on the standard streams until it closes them."""
    inbox, outbox = private_streams()
    faulthandler.enable(sys.stderr)  # a segmentation fault leaves its Python stack in the log
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    target, config, parent = read_message(inbox)
    _die_with_parent(parent)
    # Where scipy is installed, numba imports all of its linear algebra for the first kernel: 0.4 s for nothing.
    sys.modules["scipy.linalg.cython_blas"] = None  # type: ignore[assignment]
    tasks: queue.Queue = queue.Queue()
    threading.Thread(target=_receive, args=(inbox, tasks), daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with lock:
            try:
                write_message(outbox, (kind, value))
            except OSError:  # nobody listens any more
                os._exit(1)

    try:
        handler = resolve(target)(config)
        send("ready", handler.report)
    except Exception as error:
        send("unusable", portable(error))
        return
    while True:
        task = tasks.get()
        try:
            result = handler.handle(task, lambda value: send("note", value))
        except Exception as error:
            send("failed", portable(error))
        else:
            send("done", result)


def private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Take the standard streams for the protocol; whatever else reads or prints gets nothing and the log."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return inbox, outbox


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends, even by kill -9 and even in the middle of a GL call."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request
        os._exit(1)


def _receive(inbox: IO[bytes], tasks: queue.Queue) -> None:
    """Hand tasks over; when the parent has gone, go too, whatever is being drawn."""
    try:
        while True:
            tasks.put(read_message(inbox))
    except (EOFError, OSError):
        os._exit(1)


def end_without_device(error: DeviceLostError) -> NoReturn:
    """End this process, because what it draws with was lost; the log says how. Who started it starts another one."""
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    os._exit(DEVICE_LOST)  # at once: tidying up would call the dead driver


def portable(error: Exception) -> Exception:
    """Return an exception that survives the way to another process: itself, or an `EngineError` that describes it."""
    try:
        if isinstance(error, MmdgenError) and str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # its class cannot be pickled or built again: describe it
        pass
    return EngineError(f"{type(error).__name__}: {error}")
