"""What the benchmarks share: the machine in words, medians with spread, clocks, and rounds that alternate.

    from common import Clock, alternate, machine, spread

Not a benchmark itself. It imports no package at import time, so that a benchmark's peers can run without mmdgen.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "moderngl", "glcontext", "pillow", "h5py", "isal", "numba", "zstandard", "torch", "ray")


def cores() -> int:
    """Return how many cores this process may use, by its affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed, without importing any."""
    found: dict[str, str] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def gpus() -> list[str]:
    """Return the names, memory and drivers of NVIDIA's GPUs, as nvidia-smi lists them; none where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def machine(**more: Any) -> dict[str, Any]:
    """Return what a result has to say about where it was measured; `more` is added.

    ``load`` are the averages of the last 1, 5 and 15 minutes when asked: on a quiet machine the first is below 0.5.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions(),
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        **more,
    }


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return median, min and max of at least one value, to so many significant digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.{digits}g}") for name, value in found.items()}


def spreads(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    return {name: spread(found) for name, found in values.items()}


def ratios(values: Mapping[str, Sequence[float]], over: str) -> dict[str, dict[str, float]]:
    """Return how many times `over` is faster than each other one, round by round: rates in the order of the rounds."""
    return {
        name: spread([a / b for a, b in zip(values[over], found, strict=True)])
        for name, found in values.items()
        if name != over
    }


def alternate(
    cases: Mapping[str, Callable[[], float]],
    repeats: int,
    seconds: float = float("inf"),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float]]:
    """Return each case's values of up to `repeats` rounds, in which the cases take turns; at least one round is made.

    A noisy machine then disturbs all alike. No round begins that would probably end after `seconds`.
    """
    found: dict[str, list[float]] = {name: [] for name in cases}
    start = time.monotonic()
    for number in range(repeats):
        spent = time.monotonic() - start
        if number and spent + spent / number > seconds:
            say(f"stopped after {number} of {repeats} rounds: {spent:.0f} s of {seconds:.0f} s are over")
            break
        for name, case in cases.items():
            value = case()
            found[name].append(value)
            say(f"round {number + 1} of {repeats}: {name} {value:.4g}")
    return found


class Clock:
    """Adds up wall seconds and processor seconds by name, from several threads.

    Processor time is the calling thread's. What is timed within something that is timed counts for itself only.
    """

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._lock = threading.Lock()
        self._open = threading.local()  # the seconds that nested ones took, for each open one of this thread

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count the time spent in the `with` block as `name`."""
        if not hasattr(self._open, "stack"):
            self._open.stack = []
        stack: list[list[float]] = self._open.stack
        stack.append([0.0, 0.0])
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            inside = stack.pop()
            if stack:
                stack[-1][0] += wall
                stack[-1][1] += cpu
            with self._lock:
                self.wall[name] = self.wall.get(name, 0.0) + wall - inside[0]
                self.cpu[name] = self.cpu.get(name, 0.0) + cpu - inside[1]
                self.calls[name] = self.calls.get(name, 0) + 1


def processor_seconds() -> float:
    """Return the processor time of this process and of all its children that have ended and were waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def usable(models: Path, limit: int | None = None) -> Any:
    """Return the catalogue of a folder of models, with the checkout's annotations where there are some.

    Models about which the automatic annotation is not sure are used as well: this is about speed.
    """
    from mmdgen.generate.catalogue import scan

    stored = Path(__file__).resolve().parents[2] / "annotations"
    return scan(models, stored if stored.is_dir() else None, limit=limit, include_unsure=True)


def say(line: str) -> None:
    """Tell people how far a benchmark is; results alone go to standard output."""
    print(line, file=sys.stderr, flush=True)


def show_json(result: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(result, indent=2, ensure_ascii=False))
