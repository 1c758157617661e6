"""The local engine: hands shard numbers to worker processes and decides what to do when one dies.

A shard whose worker died is tried again in a fresh process, this time one model after the other, so that when that
process dies as well the model at fault is known: it is recorded as ``crashed`` and left out.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdgen.errors import EngineError
from mmdgen.generate.backend import DEFAULT_BACKEND
from mmdgen.generate.plan import Plan
from mmdgen.generate.pool import Death, Pool
from mmdgen.generate.shard import WORK_FOLDER, ShardResult, ShardTask
from mmdgen.render.devices import Choice, resolve

HARDWARE_WORKERS = 4  # processes that share one GPU: enough to keep it busy while the others load and compress

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Progress:
    """`images` of `total` are done, `drawn` of them now, in `seconds` since drawing began; `event` says what is new.

    `event` is ``start``, ``device`` (which one draws is not what one expects), ``images``, ``shard`` (finished),
    ``failure`` (a model was left out) or ``retry`` (a worker died); `message` is a line for people, empty for plain
    progress.
    """

    event: str
    images: int
    total: int
    drawn: int
    seconds: float
    message: str = ""

    @property
    def rate(self) -> float:
        """Images a second since drawing began."""
        return self.drawn / self.seconds if self.seconds > 0 else 0.0


OnProgress = Callable[[Progress], None]


@dataclass(slots=True)
class _Tally:
    """Counts pictures: those of finished shards and, per task under way, those announced so far."""

    total: int
    finished: int
    on_progress: OnProgress
    started: float = field(default_factory=time.monotonic)
    credited: int = 0
    drawn: int = 0
    under_way: dict[int, int] = field(default_factory=dict)

    def tell(self, event: str, message: str = "") -> None:
        now = sum(self.under_way.values())
        images = min(self.total, self.finished + self.credited + now)
        self.on_progress(
            Progress(event, images, self.total, self.drawn + now, time.monotonic() - self.started, message)
        )


def default_workers() -> int:
    """Return how many cores this process may use: as many workers suit the software renderer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _container_cores(CPU_QUOTA) or cores))


def _container_cores(path: Path) -> int | None:
    """Return the cores that a container may use (cgroup v2: "quota period" or "max period"), None for no limit."""
    try:
        quota, period = path.read_text("ascii").split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def render_shards(
    plan: Plan,
    indices: Sequence[int],
    models: Path,
    out: Path,
    *,
    workers: int | None = None,
    backend: str = DEFAULT_BACKEND,
    device: Choice = None,
    on_progress: OnProgress = lambda progress: None,
) -> list[ShardResult]:
    """Render the shards `indices` of the plan frozen in `out`; return their results, in the order of the plan.

    `workers` None takes one a core for the software renderer and `HARDWARE_WORKERS` at most for each GPU. `device`
    chooses the GPUs (`render.devices`), over which the workers are spread. Raises what ends a run: `DatasetError` (a
    full disk), `RenderError` (no GL context), `EngineError`. The workers are ended first, on a KeyboardInterrupt too.
    """
    config = {"models": str(models), "out": str(out), "plan": plan.digest, "backend": backend}
    size = min(workers or default_workers(), max(1, len(indices)))
    tasks = deque(ShardTask(index) for index in indices)
    results: dict[int, ShardResult] = {}
    finished = sum(shard.images for shard in plan.shards) - sum(plan.shards[index].images for index in indices)
    tally = _Tally(plan.images, finished, on_progress)
    tally.tell("start")
    announced: dict[int, tuple[str, int]] = {}
    devices = resolve(device, lambda line: tally.tell("device", line))
    variants = [{} if index is None else {"device": index} for index in devices]
    hardware = HARDWARE_WORKERS * len(variants)
    probing = workers is None and size > hardware
    with Pool(
        "mmdgen.generate.shard:ShardWorker", config, hardware if probing else size, out / WORK_FOLDER, variants
    ) as pool:
        for event in pool.run(tasks):
            task: ShardTask | None = event.task
            if event.kind == "ready":
                if probing and event.value.get("software"):
                    pool.size = size
                probing = False
            elif task is None:
                raise EngineError(f"a worker sent {event.kind} without a task")
            elif event.kind == "note":
                _note(event.value, task, announced, tally)
            elif event.kind == "done":
                results[task.index] = event.value
                _finish(plan, event.value, tally)
            elif event.kind == "failed":
                raise event.value
            else:
                tally.under_way.pop(task.index, None)
                retry, message = after_death(plan, task, event.value, announced.pop(task.index, None))
                tasks.appendleft(retry)
                tally.tell("retry", message)
    return [results[index] for index in indices]


def _note(value: tuple[str, int], task: ShardTask, announced: dict[int, tuple[str, int]], tally: _Tally) -> None:
    kind, number = value
    if kind == "images":
        tally.under_way[task.index] = tally.under_way.get(task.index, 0) + number
        tally.tell("images")
    else:
        announced[task.index] = (kind, number)


def _finish(plan: Plan, result: ShardResult, tally: _Tally) -> None:
    shard = plan.shards[result.index]
    tally.under_way.pop(result.index, None)
    tally.credited += shard.images
    tally.drawn += shard.images - sum(2 * failure.samples + 1 for failure in result.failures)
    for failure in result.failures:
        tally.tell("failure", f"{failure.path}: left out ({failure.code}): {failure.message}")
    tally.tell("shard")


def after_death(plan: Plan, task: ShardTask, death: Death, announced: tuple[str, int] | None) -> tuple[ShardTask, str]:
    """Return what to do about a task whose worker died, and a line for people. Raises `EngineError` when at a loss."""
    name = f"{plan.shards[task.index].split} shard {plan.shards[task.index].number}"
    if not task.careful:
        return ShardTask(task.index, careful=True, crashed=task.crashed), (
            f"a worker died while making {name}: {death.how}; the shard is tried again"
        )
    if announced is None or announced[0] not in ("load", "draw"):
        doing = "writing" if announced else "starting"
        raise EngineError(f"a worker died twice while {doing} {name}: {death.how}. {_last_words(death)}".strip())
    doing, model = announced
    if model in dict(task.crashed):
        raise EngineError(f"a worker died again while making {name}: {death.how}. {_last_words(death)}".strip())
    verb = "loading" if doing == "load" else "drawing"
    message = f"{verb} it ends the process: {death.how}"
    retry = ShardTask(task.index, careful=True, crashed=(*task.crashed, (model, message)))
    return retry, f"{plan.models[model].path}: {message}; {name} goes on without it"


def _last_words(death: Death) -> str:
    lines = [line for line in death.log.splitlines() if line.strip()]
    return f"Its last words: {' / '.join(lines[-3:])}" if lines else ""


def describe_renderers(results: Sequence[ShardResult]) -> dict[str, Any]:
    """Return what drew the shards: the one report, or, when a run was finished on another machine, all of them."""
    reports: list[dict[str, Any]] = []
    for result in results:
        if result.renderer not in reports:
            reports.append(result.renderer)
    if len(reports) == 1:
        return reports[0]
    return {"several": sorted(reports, key=lambda report: sorted((key, str(item)) for key, item in report.items()))}
