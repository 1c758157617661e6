"""What a dataset took to make, beside it and never in it: a dataset's bytes must not depend on the machine.

`OUT-timings.jsonl` lies next to the folder `OUT` and has one line for each shard that was made, by every start. Lines
are appended by the process that made the shard, in one write each, so engines and parallel parts need not know of it.
It is nothing that anybody needs: where it cannot be written, or was left behind, only the report has less to tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from mmdgen.generate.backend import DrawnScene

# Threads work side by side, so the stages may add up to more than the shard's seconds. `wait` is how long drawing
# stood still because no model was ready.
STAGES = ("load", "wait", "upload", "draw", "encode", "write")
MAX_LINE = 1 << 16


def timings_file(out: Path) -> Path | None:
    """Return where the timings of the dataset in the folder `out` are kept; None for the root of a file system."""
    folder = out.absolute()
    return folder.with_name(f"{folder.name}-timings.jsonl") if folder.name else None


class Stopwatch:
    """Adds up seconds by stage, from several threads. `started` are seconds that the process took to get ready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what happens inside to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def call(self, stage: str, function: Callable[..., Any], *values: Any) -> Any:
        """Return `function(*values)`, counted to `stage`."""
        with self.timed(stage):
            return function(*values)

    def executor(self, stage: str, threads: int) -> ThreadPoolExecutor:
        """Return an executor whose work counts to `stage`."""
        return _TimedExecutor(self, stage, threads)

    @contextlib.contextmanager
    def scene(self, scene: AbstractContextManager[DrawnScene]) -> Iterator[DrawnScene]:
        """Enter a scene whose pictures count to ``draw``."""
        with scene as drawn:
            yield _TimedScene(drawn, self)

    def row(self, **facts: Any) -> dict[str, Any]:
        """Return a line of the timings file for what was done since this was made."""
        return {
            "at": round(time.time(), 3),
            "start": f"{platform.node()}-{os.getppid()}",
            "worker": os.getpid(),
            **facts,
            "total": round(time.perf_counter() - self._began, 4),
            "cpu": round(time.process_time() - self._cpu, 4),
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "memory": resident_bytes(),
        }


class _TimedExecutor(ThreadPoolExecutor):
    def __init__(self, watch: Stopwatch, stage: str, threads: int) -> None:
        super().__init__(threads, stage)
        self._watch, self._stage = watch, stage

    def submit(self, function: Callable[..., Any], /, *values: Any, **named: Any) -> Future[Any]:
        def work() -> Any:
            with self._watch.timed(self._stage):
                return function(*values, **named)

        return super().submit(work)


class _TimedScene:
    def __init__(self, scene: DrawnScene, watch: Stopwatch) -> None:
        self._scene, self._watch = scene, watch

    def rest(self) -> np.ndarray:
        return self._watch.call("draw", self._scene.rest)

    def expressions(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        return self._each(self._scene.expressions(poses))

    def posed(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        return self._each(self._scene.posed(poses))

    def flows(self, poses: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self._each(self._scene.flows(poses))

    def _each(self, pictures: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (picture := self._watch.call("draw", next, pictures, end)) is not end:
            yield picture


def resident_bytes() -> int:
    """Return how much memory this process holds now, 0 where the system does not say."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def release_memory() -> None:
    """Collect garbage and give free memory back to the system, where the C library keeps it otherwise (glibc).

    Models come and go in arrays of all sizes, made by several threads: without this, what a process holds creeps up.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def append_timing(out: Path, row: dict[str, Any]) -> None:
    """Append a line to the timings of the dataset in `out`, if that is possible."""
    path = timings_file(out)
    line = (json.dumps(row, sort_keys=True) + "\n").encode("ascii")
    if path is None or len(line) > MAX_LINE:
        return
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


def read_timings(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a dataset's timings file in their order, without damaged ones; [] where there is no file."""
    path = timings_file(out)
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().split(b"\n") if path else []
    except OSError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
            numbers = [row["at"], row["total"], row["cpu"], row["images"], row["memory"], row["bytes"], row["samples"]]
            numbers += [row["seconds"][stage] for stage in STAGES]
            if all(isinstance(number, int | float) and number >= 0 for number in numbers):
                rows.append(
                    {**row, "start": str(row["start"]), "worker": str(row["worker"]), "shard": str(row["shard"])}
                )
        except (ValueError, KeyError, TypeError):
            continue
    return rows
