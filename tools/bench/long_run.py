"""Does memory stay flat over thousands of models, and what does a long run take?

    python tools/bench/long_run.py memory [--models 60] [--rounds 4] [--size 32] [--every N] [--json]
    python tools/bench/long_run.py render --out DIR [--characters 2000] [--poses 20000] [--size 64] [--workers N]
        [--interval 5] [--keep] [--json]

`memory` draws procedural characters one after the other with one renderer in this process, each round from folders of
new names, and counts after the first round and at the end: GL objects of every kind (GL itself is asked for every small
name), Python objects that the garbage collector knows, resident memory. `--every N` prints the memory after N models.

`render` runs the command itself, first with --dry-run and then for real, and looks at the resident memory of the
command and of its workers every `--interval` seconds. It prints the images/s and the memory over the run in tenths of
its images, of which the first is warm-up. The dataset is removed at the end, unless --keep; the characters stay in
mmdgen's cache.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from common import machine, say, show_json  # noqa: E402

# GL's kinds of objects, as its questions glIs... call them.
KINDS = ("Buffer", "Texture", "Framebuffer", "Renderbuffer", "VertexArray", "Program", "Shader", "Sampler", "Query")
NAMES = 4000  # drivers give small names, and names that are free again


def living() -> dict[str, int]:
    """Return how many objects of each kind the current GL context has."""
    library = ctypes.CDLL("libGL.so.1")
    counts = {}
    for kind in KINDS:
        ask = getattr(library, f"glIs{kind}")
        ask.restype, ask.argtypes = ctypes.c_ubyte, [ctypes.c_uint]
        counts[kind] = sum(ask(name) for name in range(1, NAMES))
    return counts


def draw(renderer: Any, path: Path, poses: Any, size: int) -> None:
    """Load, prepare and draw one character, as a shard does: rest, expressions, posed pictures and flows."""
    from mmdgen.generate.characters import exact_annotation
    from mmdgen.model.load import load_model
    from mmdgen.pose.binding import PoseBinding
    from mmdgen.pose.vocabulary import THA1
    from mmdgen.render.prepare import prepare_model
    from mmdgen.render.view import View

    model = load_model(path)
    found = exact_annotation(model)
    bounds = found.bounds
    binding = PoseBinding(THA1, int(found.neck), int(found.head), found.parameter_terms(), bounds.center_x)
    view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, size=size)
    with renderer.scene(prepare_model(model, binding, view)) as scene:
        scene.rest()
        for pictures in (scene.expressions(poses), scene.posed(poses), scene.flows(poses)):
            for _ in pictures:
                pass


def memory(models: int, rounds: int, size: int, every: int) -> dict[str, Any]:
    """Return the counts after the first round, which warms up, and after the last one."""
    from mmdgen.generate.timings import release_memory, resident_bytes
    from mmdgen.model import resolve
    from mmdgen.pose.sampling import sample_poses
    from mmdgen.pose.vocabulary import THA1
    from mmdgen.render.renderer import Renderer
    from mmdgen.samples.library import write_characters

    poses = sample_poses(THA1, 0, "", 0, 2)

    def state() -> dict[str, Any]:
        resolve.forget_folders()  # a cache of bounded size, which is not full yet
        release_memory()
        return {"gl": living(), "python": len(gc.get_objects()), "memory": resident_bytes()}

    states, drawn = [], 0
    with tempfile.TemporaryDirectory() as folder, Renderer() as renderer:
        originals = Path(folder) / "originals"
        paths = write_characters(originals, models, 0)
        for number in range(rounds):
            for path in paths:
                place = Path(folder) / f"round {number}" / path.parent.name
                shutil.copytree(path.parent, place)
                draw(renderer, place / path.name, poses, size)
                shutil.rmtree(place)
                drawn += 1
                if every and drawn % every == 0:
                    before = resident_bytes()
                    release_memory()  # as a worker does after each shard
                    say(f"{drawn} models: {before / 1e6:.0f} MB, {resident_bytes() / 1e6:.0f} MB in use")
            if number in (0, rounds - 1):
                states.append(state())
    first, last = states[0], states[-1]
    return {
        "models": models * rounds,
        "after": models,
        "gl_before": first["gl"],
        "gl_growth": {kind: last["gl"][kind] - first["gl"][kind] for kind in KINDS},
        "python_growth": last["python"] - first["python"],
        "memory_mb": round(last["memory"] / 1e6, 1),
        "memory_growth_mb": round((last["memory"] - first["memory"]) / 1e6, 1),
    }


class Watch(threading.Thread):
    """Notes the resident memory of a process and the largest of its children's, with the images done."""

    def __init__(self, pid: int, interval: float) -> None:
        super().__init__(daemon=True)
        self.pid, self.interval = pid, interval
        self.images = 0
        self.rows: list[tuple[int, int, int]] = []  # images, bytes of the command, of its largest worker
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(self.interval):
            sizes = {pid: resident(pid) for pid in [self.pid, *children(self.pid)]}
            workers = [size for pid, size in sizes.items() if pid != self.pid]
            if sizes[self.pid] and workers:
                self.rows.append((self.images, sizes[self.pid], max(workers)))


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text("ascii").split()]
    except (OSError, ValueError):
        return []


def render(given: argparse.Namespace) -> dict[str, Any]:
    """Run the command, first dry, and return what was found."""
    program = "from mmdgen.cli.main import main; main()"
    command = [sys.executable, "-c", program, "render", "--characters", str(given.characters)]
    command += ["--poses", str(given.poses), "--size", str(given.size), "--out", str(given.out), "--json"]
    command += ["--workers", str(given.workers)] if given.workers else []
    start = time.perf_counter()
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    dry_seconds = time.perf_counter() - start
    plan = json.loads(dry.stdout)
    say(f"dry run: {dry_seconds:.1f} s: {plan['images']:,} images of {plan['models']:,} models")
    start = time.perf_counter()
    stages: dict[str, float] = {}
    process = subprocess.Popen(
        [*command, "--progress", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    watch = Watch(process.pid, given.interval)
    watch.start()
    told = start
    try:
        for line in process.stderr or ():
            row = json.loads(line)
            stages[row["stage"]] = time.perf_counter() - start
            watch.images = row["done"] if row["stage"] == "render" else 0
            if row.get("message"):
                say(row["message"])
            if time.perf_counter() - told > 30:
                told = time.perf_counter()
                say(f"{told - start:.0f} s: {row['stage']} {row['done']:,} of {row['total']:,}")
        summary = json.loads((process.stdout.read() if process.stdout else "") or "{}")
    finally:
        watch.over.set()
        process.kill()
        process.wait()
    rows = [row for row in watch.rows if row[0]]
    tenths = []
    for tenth in range(10):
        low, high = plan["images"] * tenth / 10, plan["images"] * (tenth + 1) / 10
        part = [row for row in rows if low < row[0] <= high]
        if part:
            tenths.append([tenth + 1, max(row[1] for row in part) / 1e6, max(row[2] for row in part) / 1e6])
    return {
        "models": plan["models"],
        "images": plan["images"],
        "dry_run_seconds": round(dry_seconds, 2),
        "seconds": round(time.perf_counter() - start, 1),
        "seconds_until_end_of": {stage: round(seconds, 1) for stage, seconds in stages.items()},
        "images_per_second": summary.get("images_per_second"),
        "failed": summary.get("failed"),
        "memory_mb_by_tenth": [[n, round(parent, 1), round(worker, 1)] for n, parent, worker in tenths],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    one = modes.add_parser("memory", help="one renderer in this process")
    one.add_argument("--models", type=int, default=60)
    one.add_argument("--rounds", type=int, default=4)
    one.add_argument("--size", type=int, default=32)
    one.add_argument("--every", type=int, default=0)
    two = modes.add_parser("render", help="the command, with its workers")
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--characters", type=int, default=2000)
    two.add_argument("--poses", type=int, default=20_000)
    two.add_argument("--size", type=int, default=64)
    two.add_argument("--workers", type=int)
    two.add_argument("--interval", type=float, default=5.0)
    two.add_argument("--keep", action="store_true")
    for mode in (one, two):
        mode.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.mode == "memory":
        result = memory(given.models, given.rounds, given.size, given.every)
    else:
        result = render(given)
        if not given.keep:
            shutil.rmtree(given.out)
    if given.json:
        show_json({"machine": machine(), **result})
        return
    for name, value in result.items():
        if name == "memory_mb_by_tenth":
            print("memory over the run, MB (tenth of the images: command, largest worker):")
            for tenth, parent, worker in value:
                print(f"  {tenth:>2}: {parent:>7.1f} {worker:>8.1f}")
        else:
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
