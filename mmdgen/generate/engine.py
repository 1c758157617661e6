"""What all engines have in common, and the local one: shard numbers go to workers, and what to do when one dies.

A shard whose worker died is tried again in a fresh process, this time one model after the other, so that when that
process dies as well the model at fault is known: it is recorded as ``crashed`` and left out. Deaths that come from
outside (kill -9, a machine that is gone) put a model under suspicion only when they come twice.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmdgen.errors import EngineError
from mmdgen.generate.backend import DEFAULT_BACKEND, devices_for
from mmdgen.generate.plan import Plan
from mmdgen.generate.pool import DEVICE_LOST, Death, Event, Pool
from mmdgen.generate.remote import remote_of
from mmdgen.generate.shard import WORK_FOLDER, ShardResult, ShardTask, read_lock
from mmdgen.render.devices import Choice

# Processes that share one GPU, at most. Each has a thread that draws (and mostly waits for the GPU), one that loads and
# one that compresses: about two cores' work (docs/performance.md has the arithmetic).
HARDWARE_WORKERS = 8
CORES_PER_HARDWARE_WORKER = 2

WORKER = "mmdgen.generate.shard:ShardWorker"

# A shard that was lost so often together with the machine that made it is no accident.
MACHINES_LOST = 5

# So many models in a row that take the driver down, with no shard finished between them: it is not the models.
DEVICE_LOST_WITH = 4

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Progress:
    """`images` of `total` are done, `drawn` of them now, in `seconds` since drawing began; `event` says what is new.

    `event` is ``start``, ``device`` (which one draws is not what one expects), ``images``, ``shard`` (finished),
    ``failure`` (a model was left out), ``retry`` (a worker died) or ``wait`` (a cluster has no place yet); `message` is
    a line for people, empty for plain progress.
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


class Crew(Protocol):
    """Workers, wherever they are: `Pool` on this machine, or a cluster's."""

    def run(self, tasks: deque[ShardTask]) -> Iterator[Event]:
        """Yield what happens (see `Event`) until `tasks` is empty and nothing is under way; tasks may be added."""
        ...


@dataclass(slots=True)
class Tally:
    """Counts pictures: those of finished shards and, per task under way, those announced so far."""

    total: int
    finished: int
    on_progress: OnProgress
    started: float = field(default_factory=time.monotonic)
    credited: int = 0
    drawn: int = 0
    under_way: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, indices: Sequence[int], on_progress: OnProgress) -> Tally:
        """Return the tally of a start that has the shards `indices` to make."""
        return cls(plan.images, plan.images - sum(plan.shards[index].images for index in indices), on_progress)

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


def hardware_workers(gpus: int = 1) -> int:
    """Return how many processes draw with so many GPUs: two cores each, at least two for a GPU."""
    share = default_workers() // (CORES_PER_HARDWARE_WORKER * gpus)
    return gpus * max(2, min(share, HARDWARE_WORKERS))


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

    `workers` None takes one a core for the software renderer and `hardware_workers` for GPUs. `device` chooses the GPUs
    (`render.devices`), over which the workers are spread. Raises what ends a run: `DatasetError` (a full disk),
    `RenderError` (no GL context), `EngineError`. The workers are ended first, on a KeyboardInterrupt too.
    """
    config = worker_config(plan, models, out, backend)
    size = min(workers or default_workers(), max(1, len(indices)))
    tally = Tally.of(plan, indices, on_progress)
    tally.tell("start")
    devices = devices_for(backend, device, lambda line: tally.tell("device", line))
    variants = [{} if index is None else {"device": index} for index in devices]
    hardware = hardware_workers(len(variants))
    probing = workers is None and size > hardware

    def ready(event: Event) -> None:
        nonlocal probing
        if probing and event.value.get("software"):
            pool.size = size
        probing = False

    with Pool(WORKER, config, hardware if probing else size, out / WORK_FOLDER, variants) as pool:
        return supervise(plan, indices, pool, tally, ready)


def worker_config(plan: Plan, models: Path, out: Path, backend: str) -> dict[str, Any]:
    """Return what a `ShardWorker` is made with. It may write as long as `out` has the lock that it has now."""
    return {
        "models": str(models),
        "out": str(out),
        "plan": plan.digest,
        "backend": backend,
        "lock": read_lock(out),
        "remote": remote_of(out),
    }


def supervise(
    plan: Plan, indices: Sequence[int], crew: Crew, tally: Tally, on_ready: Callable[[Event], None]
) -> list[ShardResult]:
    """Have `crew` make the shards `indices`; return their results in this order. `on_ready` sees workers that came.

    Shards whose workers died are tried again as `Retries` says. Raises what ends a run.
    """
    tasks = deque(ShardTask(index) for index in indices)
    results: dict[int, ShardResult] = {}
    announced: dict[int, tuple[str, int]] = {}
    retries = Retries(plan)
    for event in crew.run(tasks):
        task: ShardTask | None = event.task
        if event.kind == "ready":
            on_ready(event)
        elif event.kind == "told":
            tally.tell(*event.value)
        elif task is None:
            raise EngineError(f"a worker sent {event.kind} without a task")
        elif event.kind == "note":
            _note(event.value, task, announced, tally)
        elif event.kind == "done":
            results[task.index] = event.value
            retries.finished()
            _finish(plan, event.value, tally)
        elif event.kind == "failed":
            raise event.value
        else:
            tally.under_way.pop(task.index, None)
            retry, message = retries.after_death(task, event.value, announced.pop(task.index, None))
            tasks.appendleft(retry)
            tally.tell("retry", message)
    return [results[index] for index in indices]


def _note(value: tuple[str, int], task: ShardTask, announced: dict[int, tuple[str, int]], tally: Tally) -> None:
    kind, number = value
    if kind == "images":
        tally.under_way[task.index] = tally.under_way.get(task.index, 0) + number
        tally.tell("images")
    else:
        announced[task.index] = (kind, number)


def _finish(plan: Plan, result: ShardResult, tally: Tally) -> None:
    shard = plan.shards[result.index]
    tally.under_way.pop(result.index, None)
    tally.credited += shard.images
    tally.drawn += shard.images - sum(2 * failure.samples + 1 for failure in result.failures)
    for failure in result.failures:
        tally.tell("failure", f"{failure.path}: left out ({failure.code}): {failure.message}")
    tally.tell("shard")


@dataclass(slots=True)
class Retries:
    """What to do about tasks whose workers died. It remembers what deaths from outside have interrupted."""

    plan: Plan
    suspected: Counter[tuple[int, tuple[str, int] | None]] = field(default_factory=Counter)
    machines: Counter[int] = field(default_factory=Counter)
    without_device: int = 0  # models left out for it since a shard was finished

    def finished(self) -> None:
        """Note that a shard was finished: what draws can draw."""
        self.without_device = 0

    def after_death(self, task: ShardTask, death: Death, announced: tuple[str, int] | None) -> tuple[ShardTask, str]:
        """Return what to try instead of a task and a line for people. Raises `EngineError` when at a loss.

        `announced` is what its worker was doing: ("load", model), ("draw", model), ("write", shard), None: nothing yet.
        """
        name = f"{self.plan.shards[task.index].split} shard {self.plan.shards[task.index].number}"
        if death.lost == "machine":
            self.machines[task.index] += 1
            if self.machines[task.index] < MACHINES_LOST:
                return task, f"{name} was lost: {death.how}; it is made again"
            raise EngineError(
                f"{name} was lost {MACHINES_LOST} times together with what made it, the last time while "
                f"{self._doing(announced)}: {death.how}"
            )
        if not task.careful:
            return ShardTask(task.index, careful=True, crashed=task.crashed), (
                f"a worker died while making {name}: {death.how}; the shard is tried again"
            )
        if death.from_outside and not self.suspected[task.index, announced]:
            self.suspected[task.index, announced] += 1
            return task, f"a worker died while {self._doing(announced)}: {death.how}; {name} is tried again"
        if announced is None or announced[0] not in ("load", "draw"):
            doing = "writing" if announced else "starting"
            raise EngineError(f"a worker died twice while {doing} {name}: {death.how}. {_last_words(death)}".strip())
        doing, model = announced
        if model in dict(task.crashed):
            raise EngineError(f"a worker died again while making {name}: {death.how}. {_last_words(death)}".strip())
        self.without_device += death.code == DEVICE_LOST
        if self.without_device >= DEVICE_LOST_WITH:
            raise EngineError(
                f"with {DEVICE_LOST_WITH} models in a row workers lost their OpenGL context, the last one being "
                f"{self.plan.models[model].path}: the driver or the GPU is at fault. `mmdgen doctor` tries it. "
                f"{_last_words(death)}".strip()
            )
        verb = "loading" if doing == "load" else "drawing"
        message = f"{verb} it ends the process: {death.how}"
        retry = ShardTask(task.index, careful=True, crashed=(*task.crashed, (model, message)))
        return retry, f"{self.plan.models[model].path}: {message}; {name} goes on without it"

    def _doing(self, announced: tuple[str, int] | None) -> str:
        if announced is None:
            return "starting"
        doing, number = announced
        return f"{doing}ing {self.plan.models[number].path}" if doing in ("load", "draw") else "writing the shard"


def _last_words(death: Death) -> str:
    lines = [line for line in death.log.splitlines() if line.strip()]
    return f"Its last words: {' / '.join(lines[-3:])}" if lines else ""


def describe_renderers(results: Sequence[ShardResult]) -> dict[str, Any]:
    """Return what drew the shards: the one report, or, when a run was finished on another machine, all of them."""
    reports: list[dict[str, Any]] = []
    for result in results:
        for report in result.renderer.get("several", (result.renderer,)):  # a list: of a finished dataset
            if report not in reports:
                reports.append(report)
    if len(reports) == 1:
        return reports[0]
    return {"several": sorted(reports, key=lambda report: sorted((key, str(item)) for key, item in report.items()))}
