"""What the tests of parts, merging and object stores share: planning and rendering in this process, with the fakes."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_backend as fake

from mmdgen.generate.engine import Tally, worker_config
from mmdgen.generate.parts import PartOf
from mmdgen.generate.plan import Plan
from mmdgen.generate.remote import Place
from mmdgen.generate.run import PartSummary, Summary, run, run_part
from mmdgen.generate.shard import ShardResult, ShardTask, ShardWorker


def make_models(root: Path) -> Path:
    """Nine good models in four source folders and two that cannot be used."""
    for index in range(9):
        fake.write_model(root / f"source{index % 4}" / f"m{index}" / "m.pmx", f"モデル {index}")
    fake.write_model(root / "source0" / "mute" / "X.PMX", "mute", "no-mouth")
    fake.write_model(root / "source1" / "twin" / "m.pmx", "モデル 3")
    (root / "source0" / "m0" / "りどみ.txt").write_bytes("商用利用は禁止です。".encode("cp932"))
    return root


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a worker from doing in this process what is right in one of its own.

    The fake backend prints on standard output; and looking for garbage after each shard takes long beside pytest.
    """
    write, collect = os.write, gc.collect
    os.write = lambda handle, data: len(data) if handle == 1 else write(handle, data)  # type: ignore[assignment]
    gc.collect = lambda generation=2: 0
    try:
        yield
    finally:
        os.write, gc.collect = write, collect


def here(
    plan: Plan,
    indices: Any,
    models: Path,
    out: Path,
    *,
    workers: int | None = None,
    backend: str = "",
    device: Any = None,
    on_progress: Callable[[Any], None] = lambda progress: None,
) -> list[ShardResult]:
    """An engine: `engine.render_shards` with the fake renderer and without processes."""
    tally = Tally.of(plan, indices, on_progress)
    tally.tell("start")
    with quiet():
        worker = ShardWorker(worker_config(plan, models, out, fake.BACKEND))
        results = []
        for index in indices:
            results.append(worker.handle(ShardTask(index), lambda value: None))
            tally.credited += plan.shards[index].images
            tally.drawn += plan.shards[index].images
            tally.tell("shard")
    return results


def place_of(out: Path | Place) -> Place:
    return out if isinstance(out, Place) else Place(out)


def plan_in(models: Path, out: Path | Place, **changes: Any) -> Plan:
    return place_of(out).plan_for(fake.options(**changes), lambda: fake.catalogue(models))


def go(models: Path, out: Path | Place, engine: Any = here, **changes: Any) -> Summary:
    """Plan (or go on) and run to the end."""
    return run(plan_in(models, out, **changes), models, out, engine=engine)


def go_part(models: Path, out: Path | Place, part: str, engine: Any = here, **settings: Any) -> PartSummary:
    """Plan (or go on) and make one part."""
    number, _, count = part.partition("/")
    watch = settings.pop("on_progress", lambda progress: None)
    plan = plan_in(models, out, **settings)
    return run_part(plan, models, out, PartOf(int(number), int(count)), engine=engine, on_progress=watch)


def never(*args: Any, **settings: Any) -> list[ShardResult]:
    """An engine for when nothing is left to make."""
    raise AssertionError("there was nothing to render")


def no_scan() -> Any:
    """A scan for when there is a plan already, or there is no place for one."""
    raise AssertionError("there was no need to look at the models")


def main() -> None:
    """Wait for a line on standard input, so that several start at once; then make a part, or plan only, or merge.

    Arguments: models, out, what ("plan", "merge" or i/n). Slowed down and killed by the variables of `fake_backend`.
    """
    models, out, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    found = fake.catalogue(models)
    os.write(1, b"ready\n")
    sys.stdin.readline()
    fake.kill_at_write()
    plan = Place(out).plan_for(fake.options(), lambda: found)
    if what != "plan":
        number, _, count = what.partition("/")
        run_part(plan, models, out, PartOf(int(number), int(count)), engine=here)
    os.write(2, f"plan {plan.digest}\n".encode())


if __name__ == "__main__":
    main()
