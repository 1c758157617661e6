"""How fast is a dataset exported, by format and number of threads, and how large is what comes out?

    python tools/bench/export.py [--data DIR | --models DIR] [--poses 63] [--limit 1000] [--workers 1,2,4] [--repeats 3]
        [--seconds S] [--json]

Exports --limit samples of each split of a rendered dataset (--data; without it, mmdgen renders one as
tools/bench/storage.py does) into a temporary folder, in every format and with each number of threads; rounds in which
all take turns. `wall`: pictures in a second on the clock, with syncing. `cpu`: in a second of the process's time, all
threads together. A sample counts as two pictures; its rest image, made once a model, is not counted. `memory` is how
far, in MB, a process grew at most that made this one export (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

from common import alternate, machine, say, show_json, spread, versions  # noqa: E402
from storage import rendered  # noqa: E402

from mmdgen.dataset.export import FORMATS, PARQUET, ExportOptions, export_dataset  # noqa: E402


def once(data: Path, out: Path, format: str, limit: int, workers: int) -> dict[str, float]:
    """Export; return pictures per second on the clock and of processor time, and KiB a sample."""
    shutil.rmtree(out, ignore_errors=True)
    wall, cpu = time.perf_counter(), time.process_time()
    summary = export_dataset(data, out, ExportOptions(format, limit=limit), workers=workers)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    samples = sum(summary.samples.values())
    return {"wall": 2 * samples / wall, "cpu": 2 * samples / cpu, "kib": summary.bytes / samples / 1024}


def memory(data: Path, out: Path, format: str, limit: int, workers: int) -> float:
    """Return by how many MB a process grows that makes this one export."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--alone", json.dumps([str(data), str(out), format, limit, workers])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def alone(words: list[Any]) -> None:
    data, out, format, limit, workers = words
    if format == PARQUET:
        import pyarrow.parquet  # noqa: F401  (its code is not what grows with a dataset)
    before = peak()
    once(Path(data), Path(out), format, limit, workers)
    print(peak() - before)


def peak() -> float:
    """Return the most memory that this process has held, in MB. (getrusage would tell of its parent's.)"""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def measure(data: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the JSON object: machine, and a row for each format and number of threads."""
    formats = [name for name in FORMATS if name != PARQUET or versions(["pyarrow"])]
    ways = [(name, int(count)) for name in formats for count in options.workers.split(",")]
    found: dict[tuple[str, int], list[dict[str, float]]] = {way: [] for way in ways}

    def case(way: tuple[str, int]) -> float:
        found[way].append(once(data, folder / "export", way[0], options.limit, way[1]))
        return found[way][-1]["wall"]

    alternate(
        {f"{name}, {count} threads": partial(case, (name, count)) for name, count in ways},
        options.repeats,
        options.seconds,
        say,
    )
    return {
        "machine": machine(**versions(["pyarrow"])),
        "samples": options.limit,
        "unit": "expression and posed pictures in a second",
        "results": [
            {
                "format": name,
                "threads": count,
                "wall": spread([one["wall"] for one in rounds]),
                "cpu": spread([one["cpu"] for one in rounds]),
                "kib_a_sample": round(rounds[0]["kib"], 1),
                "memory_mb": round(memory(data, folder / "export", name, options.limit, count), 1),
            }
            for (name, count), rounds in found.items()
        ],
    }


def show(result: dict[str, Any]) -> None:
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']}; {result['unit']}: median (lowest .. highest)")
    for row in result["results"]:
        wall, cpu = row["wall"], row["cpu"]
        print(
            f"{row['format']:12}{row['threads']:3} threads "
            f"{wall['median']:7.0f} ({wall['min']:.0f} .. {wall['max']:.0f}) on the clock, "
            f"{cpu['median']:6.0f} ({cpu['min']:.0f} .. {cpu['max']:.0f}) of processor time, "
            f"{row['kib_a_sample']:.1f} KiB a sample, {row['memory_mb']} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="a rendered dataset")
    source.add_argument("--models", type=Path, help="models to render; without it and --data, procedural characters")
    parser.add_argument("--poses", type=int, default=63, help="samples a model, where pictures are rendered")
    parser.add_argument("--limit", type=int, default=1000, help="export so many samples of each split")
    parser.add_argument("--workers", default=f"1,{os.cpu_count() or 1}", help="numbers of threads, with commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so long")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        alone(options.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or rendered(options.models, options.poses, Path(folder) / "rendered")
        result = measure(data, Path(folder), options)
    show_json(result) if options.json else show(result)


if __name__ == "__main__":
    main()
