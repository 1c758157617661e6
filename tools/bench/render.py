"""Times dataset rendering end to end, beside the naive way, in the same run.

    python tools/bench/render.py [--models DIR] [--poses-per-model 63] [--repeats 3] [--workers N] [--json]

mmdgen: the whole of `run` (load, draw, compress, write, contact sheet, manifest) into a temporary folder. Naive: load
each model and, image by image, skin with numpy, upload, draw, read back and write gzip'ed HDF5 (see naive.py); fewer
--naive-poses save time but make it load more often for each image. "naive" is one process with the driver's own
threads; "naive in parallel" as many processes as mmdgen has workers, each with a share of the models. All alternate, so
that a noisy machine disturbs all. Prints medians and spread of images/s and the ratios pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

from mmdgen.dataset.manifest import read_manifest  # noqa: E402
from mmdgen.generate.catalogue import scan  # noqa: E402
from mmdgen.generate.options import RenderOptions  # noqa: E402
from mmdgen.generate.plan import Plan, read_plan  # noqa: E402
from mmdgen.generate.run import plan_for, run  # noqa: E402
from mmdgen.generate.shard import view_of  # noqa: E402
from mmdgen.model.load import load_model  # noqa: E402
from mmdgen.pose.binding import PoseBinding  # noqa: E402
from mmdgen.pose.sampling import sample_poses  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402


def ours(models: Path, options: RenderOptions, out: Path, workers: int) -> float:
    """Return images/s of one whole run."""
    catalogue = scan(models)
    plan = plan_for(out, options, lambda: catalogue)
    start = time.perf_counter()
    summary = run(plan, models, out, workers=workers)
    return summary.images / (time.perf_counter() - start)


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


def naive(folder: Path, models: Path, out: Path, workers: int, poses: int) -> float:
    """Return images/s of `workers` naive processes side by side."""
    start = time.perf_counter()
    # One process has the driver draw on all cores; several draw on one each.
    environment = {**os.environ, "LP_NUM_THREADS": str(os.cpu_count() or 1) if workers == 1 else "0"}
    command = [sys.executable, str(HERE / "render.py"), "--naive-part", str(folder), str(models), str(out)]
    running = [
        subprocess.Popen(
            [*command, str(part), str(workers), str(poses)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for part in range(workers)
    ]
    total = 0
    for process in running:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the naive renderer failed with {process.returncode}")
        total += int(output)
    return total / (time.perf_counter() - start)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=HERE.parents[2] / "shared" / "models")
    parser.add_argument("--poses-per-model", type=int, default=63, help="as the article: 500,000 poses of 7,881 models")
    parser.add_argument("--naive-poses", type=int, default=63, help="poses a model for the naive way")
    parser.add_argument("--repeats", type=int, choices=range(1, 100), metavar="N", default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--naive-part", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.naive_part:
        folder, models, out, part, parts, poses = arguments.naive_part
        naive_part(Path(folder), Path(models), Path(out), int(part), int(parts), int(poses))
        return
    if not arguments.models.is_dir():
        parser.error(f"{arguments.models} is no folder; name one with --models")
    usable = len(scan(arguments.models).models)
    options = RenderOptions(poses={"train": usable * arguments.poses_per_model}, shard_size=arguments.poses_per_model)
    rates: dict[str, list[float]] = {"mmdgen": [], "naive": [], "naive in parallel": []}
    with tempfile.TemporaryDirectory(prefix="mmdgen-bench-") as temporary:
        for repeat in range(arguments.repeats):
            out = Path(temporary) / f"out-{repeat}"
            rates["mmdgen"].append(ours(arguments.models, options, out, arguments.workers))
            for name, processes in (("naive", 1), ("naive in parallel", arguments.workers)):
                poses = arguments.naive_poses
                rates[name].append(naive(out, arguments.models, Path(temporary), processes, poses))
        report = read_manifest(Path(temporary) / "out-0").gl
    ratios = {
        name: [a / b for a, b in zip(rates["mmdgen"], values, strict=True)]
        for name, values in rates.items()
        if name != "mmdgen"
    }
    result = {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "renderer": dict(report),
        },
        "models": usable,
        "poses_per_model": arguments.poses_per_model,
        "naive_poses_per_model": arguments.naive_poses,
        "samples_per_pixel": options.samples,
        "workers": arguments.workers,
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "ratio": {name: spread(values) for name, values in ratios.items()},
    }
    if arguments.json:
        print(json.dumps(result, indent=2, sort_keys=True))
        return
    poses, workers, repeats = arguments.poses_per_model, arguments.workers, arguments.repeats
    print(f"{usable} models, {poses} poses each, {workers} workers, {repeats} runs")
    for name, values in rates.items():
        print(f"  {name:18s} {statistics.median(values):6.1f} images/s  ({min(values):.1f} .. {max(values):.1f})")
    for name, values in ratios.items():
        print(f"  times {name:18s} {statistics.median(values):4.1f}     ({min(values):.1f} .. {max(values):.1f})")


if __name__ == "__main__":
    main()
