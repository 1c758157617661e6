"""Where the time of a dataset goes, stage by stage, in one process.

    python tools/bench/stages.py --plan DATASET_FOLDER --models DIR [--renderer gl|cpu] [--shards N]

Runs mmdgen's own `render_shard` over shards of a plan, as a worker does, with clocks around the functions that the
stages consist of: nothing is copied, and a clock whose function is gone is an error. Prints JSON: processor and wall
seconds an image. `render.py` calls this for each renderer.

Processor seconds are those of the thread that works, so loading and compressing, which have threads of their own, add
up with drawing to what the process took; `other` is the rest of it. Wall seconds of different threads overlap. A nested
stage counts for itself only. The driver is made to finish after every picture or batch, so that drawing counts as
drawing and not as reading back; on a GPU that costs the overlap of the two. The first shard is made once before,
uncounted: programs are compiled, and numba's kernels.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

from common import Clock  # noqa: E402

GL, CPU = "mmdgen.generate.gl_backend:GlBackend", "mmdgen.generate.cpu_backend:CpuBackend"
BACKENDS = {"gl": GL, "cpu": CPU}

# Stage -> functions. A leading "~" marks a generator; a class is timed when it is made.
COMMON = {
    "load": ("mmdgen.model.load:load_model", "mmdgen.generate.catalogue:changed_since"),
    "set-up: rig": ("mmdgen.pose.rig:build_rig",),
    "set-up: textures": ("mmdgen.render.prepare:decode_images",),
    "compress": ("mmdgen.dataset.codec:encode_image",),
    "write": ("mmdgen.dataset.writer:ShardBuilder.write", "mmdgen.generate.shard:write_sidecar"),
}
DRAWING = {
    "gl": {
        "set-up: upload": ("mmdgen.render.scene:Scene.__init__", "mmdgen.render.draws:DrawLists.get"),
        "draw": ("mmdgen.render.scene:Scene._draw", "mmdgen.render.scene:Scene._write_instances"),
        "read back": (
            "mmdgen.render.target:Target.read",
            "mmdgen.render.target:Target.start_read",
            "~mmdgen.render.target:Target.finish_read",
        ),
    },
    "cpu": {
        "set-up: upload": ("mmdgen.generate.cpu_backend:CpuBackend.scene",),
        "draw": (),  # all that its scenes yield, see `_time_pictures`
    },
}
STAGES = ("load", "set-up: rig", "set-up: textures", "set-up: upload", "draw", "read back", "compress", "write")


def _timed(function: Callable[..., Any], clock: Clock, stage: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        with clock.of(stage):
            return function(*values, **named)

    return call


def _timed_generator(function: Callable[..., Any], clock: Clock, stage: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Iterator[Any]:
        items, end = function(*values, **named), object()
        while True:
            with clock.of(stage):
                item = next(items, end)
            if item is end:
                return
            yield item

    return call


@contextlib.contextmanager
def clocks(clock: Clock, renderer: str) -> Iterator[None]:
    """Time the functions of all stages while the `with` block runs, wherever mmdgen has imported them."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, value)

    try:
        for stage, targets in {**COMMON, **DRAWING[renderer]}.items():
            for target in targets:
                wrap = _timed_generator if target.startswith("~") else _timed
                module, _, path = target.removeprefix("~").partition(":")
                owner, names = importlib.import_module(module), path.split(".")
                for name in names[:-1]:
                    owner = getattr(owner, name)
                original = owner.__dict__[names[-1]]
                replacement = wrap(original, clock, stage)
                if len(names) > 1:
                    put(owner, names[-1], replacement)
                    continue
                for found in [module for name, module in sys.modules.items() if name.startswith("mmdgen")]:
                    for name in [key for key, value in vars(found).items() if value is original]:
                        put(found, name, replacement)
        if renderer == "gl":
            _finish_after_drawing(put)
        else:
            _time_pictures(put, clock)
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def _finish_after_drawing(put: Callable[[Any, str, Any], None]) -> None:
    """Make the driver end each picture or batch within `draw` (it is timed already: this goes inside)."""
    from mmdgen.render.target import Target

    resolve = Target.resolve

    def finished(self: Any, *values: Any, **named: Any) -> None:
        resolve(self, *values, **named)
        self._context.finish()

    put(Target, "resolve", finished)


def _time_pictures(put: Callable[[Any, str, Any], None], clock: Clock) -> None:
    """Count all that a scene of the CPU's renderer does as `draw`: there is nothing to read back."""
    backend = importlib.import_module("mmdgen.generate.cpu_backend").CpuBackend
    scene = backend.scene

    class Timed:
        def __init__(self, drawn: Any) -> None:
            self._drawn = drawn

        def rest(self) -> Any:
            return _timed(self._drawn.rest, clock, "draw")()

        def expressions(self, poses: Any) -> Iterator[Any]:
            return _timed_generator(self._drawn.expressions, clock, "draw")(poses)

        def posed(self, poses: Any) -> Iterator[Any]:
            return _timed_generator(self._drawn.posed, clock, "draw")(poses)

    @contextlib.contextmanager
    def timed(self: Any, prepared: Any) -> Iterator[Any]:
        with scene(self, prepared) as drawn:
            yield Timed(drawn)

    put(backend, "scene", timed)


def measure(plan_folder: Path, models: Path, renderer: str, shards: int) -> dict[str, Any]:
    """Return where the time goes in the first `shards` shards of the plan in a folder; they are written elsewhere."""
    from mmdgen.generate.plan import read_plan
    from mmdgen.generate.shard import WORK_FOLDER, ShardTask, render_shard
    from mmdgen.generate.worker import resolve

    plan = read_plan(plan_folder)
    if plan is None:
        raise SystemExit(f"no plan in {plan_folder}")
    clock = Clock()
    backend = resolve(BACKENDS[renderer])()
    with tempfile.TemporaryDirectory(prefix="mmdgen-stages-") as temporary:
        out = Path(temporary) / "out"
        (out / WORK_FOLDER).mkdir(parents=True)

        def shard(index: int) -> Any:
            return render_shard(plan, ShardTask(index), models, out, backend, lambda value: None)

        shard(0)
        images = count = 0
        failures: list[str] = []
        with clocks(clock, renderer):
            wall, cpu = time.perf_counter(), time.process_time()
            for index in range(min(shards, len(plan.shards))):
                result = shard(index)
                images += result.info.models + 2 * result.info.samples
                count += result.info.models
                failures += [f"{failure.path}: {failure.message}" for failure in result.failures]
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not images:
        raise SystemExit(f"no model could be drawn: {failures[:1]}")
    stages = {
        stage: {"cpu_ms": 1e3 * clock.cpu[stage] / images, "wall_ms": 1e3 * clock.wall[stage] / images}
        for stage in STAGES
        if stage in clock.cpu
    }
    stages["other"] = {"cpu_ms": 1e3 * (cpu - sum(clock.cpu.values())) / images, "wall_ms": 0.0}
    setup = sum(clock.cpu.get(stage, 0.0) for stage in STAGES if stage == "load" or stage.startswith("set-up"))
    return {
        "renderer": renderer,
        "report": backend.report(),
        "images": images,
        "models": count,
        "failed": len(failures),
        "cpu_ms": 1e3 * cpu / images,
        "wall_ms": 1e3 * wall / images,
        "setup_cpu_s_per_model": setup / count,
        "stages": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="a dataset's folder, finished or not")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--renderer", choices=tuple(BACKENDS), default="gl")
    parser.add_argument("--shards", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("LP_NUM_THREADS", "0")
    print(json.dumps(measure(arguments.plan, arguments.models, arguments.renderer, arguments.shards), indent=2))


if __name__ == "__main__":
    main()
