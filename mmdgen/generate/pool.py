"""Worker processes that may die: tasks out, events in.

`Pool` starts fresh Python processes (nothing is forked, so GL and threads are safe), gives each one task at a time and
reports all that happens as events, the death of a process among them; it takes no decision about a failed task.
Messages are pickles over the process's standard streams; what a library prints there goes to the worker's log file, so
it can neither break the protocol nor the progress bar. A worker leaves when its parent does, whatever ends the parent.

    handler = Handler(config)          in the worker, once;   handler.report -> dict
    handler.handle(task, note)         for every task; `note(value)` sends an event on the way
    handler.close()
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mmdgen.errors import EngineError
from mmdgen.fsio import process_name

_LENGTH = struct.Struct("<Q")
_BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
LOG_TAIL = 2000
STILLBORN = 5  # so many processes in a row that somebody ended before they were ready are no accident
DEVICE_LOST = 75  # the exit status of a worker whose GL context was lost (sysexits.h: try again)

# One process a core: neither the software rasteriser nor numpy may start threads of their own in every one of them.
WORKER_ENVIRONMENT = {"LP_NUM_THREADS": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def write_message(stream: IO[bytes], value: Any) -> None:
    """Write one pickled message with its length in front."""
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Read one message. Raises EOFError when the other side has gone, also in the middle of a message."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in worker `worker`. `kind` is

    ``ready`` (value: the handler's report), ``note`` (value: what the handler sent), ``done`` (value: the result),
    ``failed`` (value: the exception that the handler raised) or ``died`` (value: a `Death`). `task` is the task given
    back, None where there was none. What people should know is ``told`` (value: an event's kind and a line).
    """

    kind: str
    worker: int
    task: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: `code` as subprocess gives it, `how` in words, the end of its `log`.

    `lost` says what it went with where nobody saw its end: ``machine`` (or the way there), ``keeper`` (the process that
    looked after it), else "".
    """

    code: int
    how: str
    log: str
    lost: str = ""

    @property
    def from_outside(self) -> bool:
        """Whether somebody ended it, rather than what it did."""
        return bool(self.lost) or self.code in (-9, DEVICE_LOST)


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen
    log: Path | None
    variant: int
    task: Any = None
    busy: bool = False
    ready: bool = False
    retired: bool = False
    thread: threading.Thread | None = field(default=None)


class Pool:
    """Up to `size` processes of the handler class named by `target` ("package.module:Class"), each made with `config`.

    Each one's config has one of `variants` on top: the one that the fewest living workers have, so that all are spread
    over several GPUs, those that replace others too. `logs` is a folder for the workers' output, or None to drop it.
    Use as a context manager: no process outlives it.
    """

    def __init__(
        self,
        target: str,
        config: Any,
        size: int,
        logs: Path | None = None,
        variants: Sequence[Mapping[str, Any]] = ({},),
    ) -> None:
        self.target, self.config, self.size, self.logs, self.variants = target, config, size, logs, variants
        self._workers: dict[int, _Worker] = {}
        self._started = 0
        self._stillborn = 0
        self._inbox: queue.Queue[tuple[int, str, Any]] = queue.Queue()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def run(self, tasks: deque) -> Iterator[Event]:
        """Yield events until `tasks` is empty and nothing is under way. The caller may add tasks between events.

        A worker that died is replaced while there are tasks. One that dies before it is ready raises `EngineError`,
        unless somebody else has ended it: then only the last of `STILLBORN` in a row does.
        """
        while tasks or any(worker.busy for worker in self._workers.values()):
            self._fill(tasks)
            try:
                number, kind, value = self._inbox.get(timeout=1.0)  # a time limit keeps signals prompt on every system
            except queue.Empty:
                continue
            worker = self._workers.get(number)
            if worker is None:
                continue
            task = worker.task
            if kind == "died":
                del self._workers[number]
                event = Event("died", number, task, self._death(worker))
                if not worker.ready:
                    self._stillborn += 1
                    if not event.value.from_outside or self._stillborn >= STILLBORN:
                        raise EngineError(
                            f"a worker process could not start: {event.value.how}{_quote(event.value.log)}"
                        )
                    line = f"a worker process could not start: {event.value.how}; another one is started"
                    yield Event("told", number, None, ("retry", line))
                elif worker.busy:
                    yield event
                continue
            if kind == "unusable":
                raise value
            if kind == "ready":
                worker.ready, self._stillborn = True, 0
            elif kind in ("done", "failed"):
                worker.task, worker.busy = None, False
            yield Event(kind, number, task, value)

    def wake(self) -> None:
        """Have `run` look at its tasks now; for threads that add some while it waits."""
        self._inbox.put((-1, "wake", None))

    def _fill(self, tasks: deque) -> None:
        for worker in list(self._workers.values()):
            if tasks and worker.ready and not worker.busy:
                worker.task, worker.busy = tasks.popleft(), True
                # a broken pipe: its death is on its way through the inbox, and gives the task back
                with contextlib.suppress(OSError):
                    write_message(worker.process.stdin, worker.task)  # type: ignore[arg-type]
        starting = sum(not worker.ready for worker in self._workers.values())
        while len(self._workers) < self.size and starting < len(tasks):
            self._start()
            starting += 1

    def _start(self) -> None:
        number, self._started = self._started, self._started + 1
        log = self.logs / f"worker-{process_name()}-{number}.log" if self.logs else None
        process = start_python("mmdgen.generate.worker", log)
        taken = [worker.variant for worker in self._workers.values()]
        variant = min(range(len(self.variants)), key=taken.count)
        config = {**self.config, **self.variants[variant]} if self.variants[variant] else self.config
        worker = _Worker(number, process, log, variant)
        self._workers[number] = worker
        worker.thread = threading.Thread(target=self._listen, args=(number, process), daemon=True)
        worker.thread.start()
        with contextlib.suppress(OSError):
            write_message(process.stdin, (self.target, config, os.getpid()))  # type: ignore[arg-type]

    def _listen(self, number: int, process: subprocess.Popen) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                kind, value = read_message(process.stdout)  # type: ignore[arg-type]
                self._inbox.put((number, kind, value))
        self._inbox.put((number, "died", None))

    def _death(self, worker: _Worker) -> Death:
        try:
            code = worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its stream but lives: it is of no use
            worker.process.kill()
            code = worker.process.wait()
        self._close_streams(worker)
        log = worker.log.read_bytes()[-LOG_TAIL:].decode("utf-8", "backslashreplace") if worker.log else ""
        return Death(code, describe_exit(code), log.strip())

    def kill(self) -> None:
        """End every process at once and wait for it. What they wrote atomically stays, the rest is theirs to lose.

        Another thread may be in `run`: what that starts afterwards is its own to end.
        """
        workers = list(self._workers.values())
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.process.kill()
        for worker in workers:
            worker.process.wait()
            if worker.thread:
                worker.thread.join(timeout=5)
            self._close_streams(worker)
        self._workers.clear()

    @staticmethod
    def _close_streams(worker: _Worker) -> None:
        for stream in (worker.process.stdin, worker.process.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()


def start_python(module: str, log: Path | None) -> subprocess.Popen:
    """Start `module`.main() in a Python that finds modules as this one does; its errors go to the file `log`.

    It leads a session of its own, so that Ctrl-C in the terminal is for this process alone.
    """
    paths = [os.path.abspath(path) for path in sys.path]  # "" is the current folder
    with log.open("wb") if log else open(os.devnull, "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP.format(module=module), json.dumps(paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**WORKER_ENVIRONMENT, **os.environ},
            start_new_session=os.name != "nt",
        )


def end_session(leader: int, spare: int = 0) -> None:
    """End every process of the session that process `leader` of ours began, and thus what those have started.

    A process `spare` is left alone. Where /proc is missing it is the process group that ends, with `spare`.
    """
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(leader, signal.SIGKILL)
        return
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == spare:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # after the name, which may hold anything: state, parent, group, session
            if int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[3]) == leader:
                os.kill(int(entry.name), signal.SIGKILL)


def describe_exit(code: int) -> str:
    """Say in words how a process ended."""
    if code == DEVICE_LOST:
        return "it lost its OpenGL context: the driver was reset, or the GPU is gone"
    if code >= 0:
        return f"it ended with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = {"SIGKILL": ": the system may have run out of memory", "SIGSEGV": ": a crash in native code"}.get(name, "")
    return f"it was ended by {name}{hint}"


def _quote(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return f". It said: {' / '.join(lines[-3:])}" if lines else ""
