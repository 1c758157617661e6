"""Times dataset rendering end to end and stage by stage, beside the naive way and other programs, in the same run.

    python tools/bench/render.py [--models DIR] [--poses-per-model 63] [--repeats 3] [--workers N] [--renderer auto]
        [--bpy-python PATH] [--pyrender-python PATH] [--limit N] [--seconds S] [--json]

* mmdgen: the whole of `run` (load, set-up, draw, read back, compress, write, contact sheet, manifest) into a temporary
  folder, with each renderer that is there: `gl` (OpenGL, on a GPU or llvmpipe) and `cpu` (mmdgen's own rasteriser).
* naive: load each model and, image by image, skin with numpy, upload, draw, read back and write gzip'ed HDF5
  (naive.py). "naive" is one process with the driver's own threads; "naive in parallel" as many processes as mmdgen has
  workers, each with a share of the models. --naive-poses fewer than --poses-per-model save time but make it load more
  often for each image.
* peers (peers.py): bpy's Workbench and pyrender, where they are installed: drawing alone, without loading, deforming,
  compressing or writing; in one process, and in as many as mmdgen has workers. Left out with --no-peers.
* stages (stages.py): where a worker's time goes, in milliseconds of processor and wall an image.

All alternate, so that a noisy machine disturbs all. Prints medians and spread of images/s and the ratios round by
round. On two quiet cores with the default models about 3 minutes a round (the naive way takes most of it) and a minute
before; --repeats 1 --limit 4 is a quick look.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

import peers  # noqa: E402
import stages  # noqa: E402
from common import alternate, cores, machine, processor_seconds, ratios, say, show_json, spreads, usable  # noqa: E402

from mmdgen.dataset.manifest import read_manifest  # noqa: E402
from mmdgen.generate.catalogue import Catalogue  # noqa: E402
from mmdgen.generate.options import RenderOptions  # noqa: E402
from mmdgen.generate.plan import Plan, read_plan  # noqa: E402
from mmdgen.generate.run import plan_for, run  # noqa: E402
from mmdgen.generate.shard import view_of  # noqa: E402
from mmdgen.model.load import load_model  # noqa: E402
from mmdgen.pose.binding import PoseBinding  # noqa: E402
from mmdgen.pose.sampling import sample_poses  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402
from mmdgen.render.devices import AUTO  # noqa: E402

FEW_MODELS = 32


def renderers(wanted: str) -> dict[str, str]:
    """Return the backends to measure by name: the one wanted, or (auto) all that there are."""
    there = {
        name: backend
        for name, backend in stages.BACKENDS.items()
        if importlib.util.find_spec(backend.partition(":")[0]) is not None
    }
    if wanted == "auto":
        return there
    if wanted not in there:
        raise SystemExit(f"this checkout has no renderer {wanted}")
    return {wanted: there[wanted]}


class Bench:
    """The models, the plan that all draw, and a temporary folder."""

    def __init__(self, arguments: argparse.Namespace, temporary: Path) -> None:
        self.arguments, self.temporary, self.models = arguments, temporary, arguments.models
        self.catalogue: Catalogue = usable(arguments.models, arguments.limit)
        poses, count = arguments.poses_per_model, len(self.catalogue.models)
        # A few models make a few large shards, which would leave workers without work: then a model a shard.
        size = poses if count < FEW_MODELS else 0
        self.options = RenderOptions(poses={"train": count * poses}, shard_size=size)
        self.plan_folder = temporary / "plan"
        self.plan = plan_for(self.plan_folder, self.options, lambda: self.catalogue)
        self.reports: dict[str, Any] = {}
        self.cpu_ms: dict[str, list[float]] = {}  # processor time an image by name, of all processes
        self._runs = 0

    def ours(self, name: str, backend: str) -> float:
        """Return images/s of one whole run."""
        self._runs += 1
        out = self.temporary / f"out-{self._runs}"
        plan = plan_for(out, self.options, lambda: self.catalogue)
        device = self.arguments.device if name == "gl" else None
        start, cpu = time.perf_counter(), processor_seconds()
        summary = run(plan, self.models, out, workers=self.arguments.workers, backend=backend, device=device)
        seconds = time.perf_counter() - start
        self.note_cpu(f"mmdgen {name}", cpu, summary.images)
        self.reports[name] = dict(read_manifest(out).gl)
        return summary.images / seconds

    def note_cpu(self, name: str, before: float, images: int) -> None:
        self.cpu_ms.setdefault(name, []).append(1e3 * (processor_seconds() - before) / images)

    def naive(self, processes: int) -> float:
        """Return images/s of so many naive processes side by side."""
        start, cpu = time.perf_counter(), processor_seconds()
        # One process has the driver draw on all cores; several draw on one each.
        environment = {**os.environ, "LP_NUM_THREADS": str(cores()) if processes == 1 else "0"}
        command = [sys.executable, str(HERE / "render.py"), "--naive-part"]
        command += [str(self.plan_folder), str(self.models), str(self.temporary)]
        running = [
            subprocess.Popen(
                [*command, str(part), str(processes), str(self.arguments.naive_poses)],
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for part in range(processes)
        ]
        total = 0
        for process in running:
            output, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"the naive renderer failed with {process.returncode}")
            total += int(output)
        self.note_cpu("naive" if processes == 1 else "naive in parallel", cpu, total)
        return total / (time.perf_counter() - start)

    def peer(self, name: str, peer: peers.Peer, files: list[Path], processes: int) -> float:
        """Return images/s of a peer."""
        speed, cpu_ms = peers.rate(peer, files, processes)
        self.cpu_ms.setdefault(name, []).append(cpu_ms)
        return speed

    def stages(self, name: str) -> dict[str, Any]:
        """Return the stages of one worker with a renderer, measured in a process of its own."""
        command = [sys.executable, str(HERE / "stages.py"), "--plan", str(self.plan_folder), "--models"]
        command += [str(self.models), "--renderer", name, "--shards", str(len(self.plan.shards))]
        environment = {**os.environ, "LP_NUM_THREADS": "0"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {"problem": f"it ended with {done.returncode}"}


def naive_part(folder: Path, models: Path, out: Path, part: int, parts: int, poses: int) -> None:
    """Render every `parts`-th model's first `poses` poses the naive way; print the number of images."""
    from naive import NaiveScene

    from mmdgen.render.context import create_context

    plan = read_plan(folder)
    if not isinstance(plan, Plan):
        raise SystemExit(f"no plan in {folder}")
    context = create_context()
    count = 0
    with h5py.File(out / f"naive-{part}.h5", "w") as file:
        for number, model in enumerate(plan.models[part::parts]):
            loaded = load_model(models / model.path)
            binding = PoseBinding(THA1, model.neck, model.head, model.terms, model.center_x)
            scene = NaiveScene(context, loaded, binding, view_of(plan, model))
            vectors = sample_poses(THA1, plan.options.seed, model.id, 0, poses)
            still = vectors.copy()
            still[:, :3] = 0
            images = [scene.image(pose) for pose in (THA1.rest, *still, *vectors)]
            data = np.stack(images)
            file.create_dataset(f"{number}", data=data, chunks=(1, *data.shape[1:]), compression="gzip")
            count += len(images)
            scene.release()
    print(count)


def peer_cases(bench: Bench, problems: dict[str, str]) -> dict[str, Callable[[], float]]:
    """Return what to time of the peers that are there; note in `problems` why the others are not."""
    arguments = bench.arguments
    cases: dict[str, Callable[[], float]] = {}
    if arguments.no_peers:
        return cases
    pythons = {"bpy Workbench": arguments.bpy_python, "pyrender": arguments.pyrender_python}
    found = [peers.find(name, python) for name, python in pythons.items()]
    problems.update({peer.name: peer.problem for peer in found if peer.problem})
    found = [peer for peer in found if not peer.problem]
    if not found:
        return cases
    say(f"packing models for {', '.join(f'{peer.name} {peer.version}' for peer in found)}")
    packed = bench.temporary / "packed"
    packed.mkdir()
    files = peers.pack(bench.models, bench.plan, packed, arguments.peer_poses, arguments.peer_models)
    for peer in found:
        counts = {peer.name: 1}
        if arguments.workers > 1:
            counts[f"{peer.name} in parallel"] = min(arguments.workers, len(files))
        for name, processes in counts.items():
            cases[name] = lambda name=name, peer=peer, count=processes: bench.peer(name, peer, files, count)
    return cases


def measure(arguments: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    """Return the whole result."""
    bench = Bench(arguments, temporary)
    ours = renderers(arguments.renderer)
    before = machine()
    say(f"{len(bench.catalogue.models)} models, {bench.plan.images} images; load {before['load']}")
    problems: dict[str, str] = {}
    cases: dict[str, Callable[[], float]] = {
        f"mmdgen {name}": lambda name=name, backend=backend: bench.ours(name, backend) for name, backend in ours.items()
    }
    if not arguments.no_naive:
        cases["naive"] = lambda: bench.naive(1)
        if arguments.workers > 1:
            cases["naive in parallel"] = lambda: bench.naive(arguments.workers)
    cases |= peer_cases(bench, problems)
    where = {} if arguments.no_stages else {name: bench.stages(name) for name in ours}
    rates = alternate(cases, arguments.repeats, arguments.seconds, say)
    return {
        "machine": {**before, "load_after": machine()["load"], "renderers": bench.reports},
        "models": len(bench.catalogue.models),
        "poses_per_model": arguments.poses_per_model,
        "naive_poses_per_model": arguments.naive_poses,
        "image_size": bench.options.size,
        "samples_per_pixel": bench.options.samples,
        "peers": {
            "models": arguments.peer_models,
            "poses_per_model": arguments.peer_poses,
            "anti_aliasing": peers.SAMPLES,
            "missing": problems,
        },
        "workers": arguments.workers,
        "rounds": len(next(iter(rates.values()))),
        "images_per_second": spreads(rates),
        "cpu_ms_per_image": spreads(bench.cpu_ms),
        "ratio": {f"{name} over": ratios(rates, f"mmdgen {name}") for name in ours},
        "stages": where,
    }


def show(result: dict[str, Any]) -> None:
    """Print a result for people."""
    about = result["machine"]
    print(
        f"{about['cpu']}, {about['cores']} cores, {', '.join(about['gpus']) or 'no NVIDIA GPU'}, load {about['load']}"
    )
    print(f"{result['models']} models, {result['poses_per_model']} poses each, {result['workers']} workers")
    print(f"\nimages/s, median of {result['rounds']} (slowest .. fastest), and least processor time an image")
    for name, found in result["images_per_second"].items():
        cpu = result["cpu_ms_per_image"][name]["min"]
        print(f"  {name:28s} {found['median']:8.1f}  ({found['min']:.1f} .. {found['max']:.1f}) {cpu:8.1f} ms")
    for name, reason in result["peers"]["missing"].items():
        print(f"  {name:28s} not measured: {reason}")
    for name, others in result["ratio"].items():
        print(f"\nmmdgen {name}, times")
        for other, found in others.items():
            print(f"  {other:28s} {found['median']:8.2f}  ({found['min']:.2f} .. {found['max']:.2f})")
    for name, found in result["stages"].items():
        if "problem" in found:
            print(f"\nstages of {name}: {found['problem']}")
            continue
        print(f"\nstages, {name}: {found['report']['renderer']}; ms an image in one process")
        print(f"  {'':18s} {'processor':>10s} {'wall':>8s}")
        for stage, times in found["stages"].items():
            print(f"  {stage:18s} {times['cpu_ms']:10.2f} {times['wall_ms']:8.2f}")
        print(f"  {'all':18s} {found['cpu_ms']:10.2f} {found['wall_ms']:8.2f}")
        print(f"  loading and set-up: {found['setup_cpu_s_per_model']:.3f} processor seconds a model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=HERE.parents[2] / "shared" / "models")
    parser.add_argument("--poses-per-model", type=int, default=63, help="as the article: 500,000 poses of 7,881 models")
    parser.add_argument("--limit", type=int, help="look at so many models at most")
    parser.add_argument("--naive-poses", type=int, default=63, help="poses a model for the naive way")
    parser.add_argument("--repeats", type=int, choices=range(1, 100), metavar="N", default=3)
    parser.add_argument("--seconds", type=float, default=1200, help="begin no round that would end later")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--renderer", choices=("auto", *stages.BACKENDS), default="auto", help="auto: all there are")
    parser.add_argument("--device", default=AUTO, help="the GPU or GPUs, as for mmdgen render")
    parser.add_argument("--bpy-python", help="the interpreter that has bpy [this one]")
    parser.add_argument("--pyrender-python", help="the interpreter that has pyrender [this one]")
    parser.add_argument("--peer-models", type=int, default=4, help="models that the peers draw")
    parser.add_argument("--peer-poses", type=int, default=8, help="pictures of each that the peers draw")
    for name in ("naive", "peers", "stages"):
        parser.add_argument(f"--no-{name}", action="store_true", help=f"leave out {name}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--naive-part", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.naive_part:
        folder, models, out, part, parts, poses = arguments.naive_part
        naive_part(Path(folder), Path(models), Path(out), int(part), int(parts), int(poses))
        return
    if not arguments.models.is_dir():
        parser.error(f"{arguments.models} is no folder; name one with --models")
    with tempfile.TemporaryDirectory(prefix="mmdgen-bench-") as temporary:
        result = measure(arguments, Path(temporary))
    (show_json if arguments.json else show)(result)


if __name__ == "__main__":
    main()
