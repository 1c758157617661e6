"""Times what a model costs before its first picture, stage by stage, in seconds of processor time.

    python tools/bench/setup.py [--models DIR ...] [--renderer gl|cpu|none] [--rounds 3] [--limit N] [--sure]
        [--shading phong|mmd] [--per-model] [--json]

Set-up is all between a model's path in the plan and its first picture: what a backend's `prepare` and `scene` do (read
the file, parse, assemble, find and check its textures, reduce it to a rig, decode, premultiply, upload, mip maps, draw
lists), and what the first picture costs more than the third (drivers compile and upload late, mip maps may be made
late). The real functions run; clocks are put around them, and time in one counts for its stage only ("other": in none).
One process, one thread: LP_NUM_THREADS=0 has the software renderer draw in the caller's.

All models are set up once to warm caches (files, compiled kernels, shaders) and then --rounds times, in turn; of each
model and stage the smallest time counts, so that other work on the machine disturbs less. Prints median, mean, 90th
percentile and greatest over the models. `--renderer none` ends with what `prepare` gives. With --sure only models whose
heads are sure are taken, as by `mmdgen render`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "0")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
from common import Clock, machine, say, show_json  # noqa: E402

from mmdgen.generate.catalogue import UsableModel, scan  # noqa: E402
from mmdgen.model import textures  # noqa: E402
from mmdgen.pose.sampling import sample_poses  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402
from mmdgen.render.view import View  # noqa: E402

BACKENDS = {"gl": "mmdgen.generate.gl_backend:GlBackend", "cpu": "mmdgen.generate.cpu_backend:CpuBackend"}
# Stage -> functions, "module:name" or "module:Class.name". Those that a version does not have are left out.
TIMED = {
    "read and hash": ("mmdgen.generate.gl_backend:load_model",),
    "parse": tuple(
        f"mmdgen.model.load:{name}" for name in ("read_pmx", "read_pmd", "draft_from_pmx", "draft_from_pmd")
    ),
    "assemble": ("mmdgen.model.load:assemble",),
    "find textures": ("mmdgen.model.assemble:resolve",),
    "fingerprint": ("mmdgen.generate.gl_backend:texture_fingerprint",),
    "rig": ("mmdgen.render.prepare:build_rig",),
    "needed levels": ("mmdgen.render.prepare:_spare", "mmdgen.render.sharpness:_least"),
    "decode": ("mmdgen.render.prepare:decode_texture",),
    "premultiply": tuple(f"mmdgen.render.{name}" for name in ("prepare:has_alpha", "texels:premultiply_own")),
    "reduce": ("mmdgen.render.texels:halved",),
    "upload and mips": ("mmdgen.render.upload:Textures.get",),
}
STAGES = (*TIMED, "other", "scene", "first picture")


def put_clocks(clock: Clock, finish: Callable[[], None] | None) -> None:
    """Time the functions of `TIMED`; `finish` waits for the driver after an upload."""

    def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with clock.of(stage):
                result = function(*args, **kwargs)
                if finish is not None and stage.startswith("upload"):
                    finish()
                return result

        return call

    for stage, places in TIMED.items():
        for place in places:
            module, _, path = place.partition(":")
            owner: Any = importlib.import_module(module)
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            if hasattr(owner, name):
                setattr(owner, name, timed(getattr(owner, name), stage))


def set_up(backend: Any, path: Path, model: UsableModel, view: View, clock: Clock, draw: bool) -> float:
    """Set one model up; return the megapixels that were prepared. The seconds by stage are in `clock.cpu`."""
    clock.cpu.clear()
    with clock.of("other"):
        prepared = backend.prepare(path, model, THA1, view)
    kept = sum(image.texels.size / 4e6 for image in set(prepared.images.values()))
    if draw:
        poses = sample_poses(THA1, 1, model.id, 0, 2)
        with clock.of("scene"):
            scene = backend.scene(prepared)
        times = []
        with scene:
            for pose in (THA1.rest[None], *poses[:, None]):
                start = time.thread_time()
                next(iter(scene.posed(pose)))
                times.append(time.thread_time() - start)
        clock.cpu["first picture"] = max(0.0, times[0] - times[2])
    return kept


def measure(jobs: list[tuple[Path, UsableModel]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the JSON object: machine, models, a row for each stage, decoding by format, each model's stages."""
    draw = options.renderer != "none"
    module, _, name = BACKENDS[options.renderer if draw else "gl"].partition(":")
    kind = getattr(importlib.import_module(module), name)
    # what `prepare` does needs no renderer
    backend = kind() if draw else kind.__new__(kind)
    clock = Clock()
    decoded: list[tuple[str, float, float]] = []
    watch_decoding(decoded)
    put_clocks(clock, backend._renderer.context.finish if options.renderer == "gl" else None)
    best: list[dict[str, float]] = [{} for _ in jobs]
    totals = [float("inf")] * len(jobs)
    pixels, kept = [0.0] * len(jobs), [0.0] * len(jobs)
    fastest: dict[tuple[int, int], tuple[str, float, float]] = {}
    for round_ in range(options.rounds + 1):
        for number, (path, model) in enumerate(jobs):
            view = View.of_head(model.chin_y, model.top_y, model.center_x, shading=options.shading)
            decoded.clear()
            kept[number] = set_up(backend, path, model, view, clock, draw)
            pixels[number] = sum(megapixels for _, megapixels, _ in decoded)
            if round_ == 0:
                continue  # warms files, kernels and shaders
            totals[number] = min(totals[number], sum(clock.cpu.values()))
            for stage, value in clock.cpu.items():
                best[number][stage] = min(best[number].get(stage, float("inf")), value)
            for place, found in enumerate(decoded):
                fastest[number, place] = min(fastest.get((number, place), found), found, key=lambda row: row[2])
        say(f"round {round_} of {options.rounds}: {sum(clock.cpu.values()):.2f} s for the last model")
    return {
        "machine": machine(renderer=backend.report() if draw else None),
        "shading": options.shading,
        "models": len(jobs),
        "rounds": options.rounds,
        "megapixels": summary(pixels),
        "megapixels_kept": summary(kept),
        "cpu_seconds": {
            "total": summary(totals),
            **{stage: summary([row.get(stage, 0.0) for row in best]) for stage in STAGES},
        },
        "decoding": by_format(list(fastest.values())),
        "per_model": [
            {
                "path": str(path),
                "total": round(total, 4),
                "megapixels": round(mpx, 2),
                "kept": round(few, 2),
                "stages": {stage: round(row[stage], 4) for stage in STAGES if stage in row},
            }
            for (path, _), total, mpx, few, row in zip(jobs, totals, pixels, kept, best, strict=True)
        ],
    }


def watch_decoding(decoded: list[tuple[str, float, float]]) -> None:
    """Have each texture that is decoded added to `decoded`: format, megapixels in the file, seconds."""
    plain = textures.decode_image

    def decode_image(data: bytes, *args: Any, **kwargs: Any) -> np.ndarray:
        start = time.thread_time()
        image = plain(data, *args, **kwargs)
        decoded.append((format_of(data), image.shape[0] * image.shape[1] / 1e6, time.thread_time() - start))
        return image

    textures.decode_image = decode_image


def by_format(decoded: list[tuple[str, float, float]]) -> dict[str, dict[str, float]]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for kind, megapixels, seconds in decoded:
        for place, value in enumerate((1, megapixels, seconds)):
            sums[kind][place] += value
    return {
        kind: {"textures": n, "megapixels": round(mpx, 2), "cpu_ms_per_megapixel": round(1e3 * seconds / mpx, 2)}
        for kind, (n, mpx, seconds) in sorted(sums.items())
    }


def format_of(data: bytes) -> str:
    """Name a texture's format, for PNG with colour type, depth and interlacing."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        colors = {0: "grey", 2: "RGB", 3: "palette", 4: "grey+alpha", 6: "RGBA"}
        return f"PNG {colors.get(data[25], '?')} {data[24]} bits{' interlaced' if data[28] else ''}"
    if data[:2] == b"BM":
        return f"BMP {int.from_bytes(data[28:30], 'little')} bits"
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:4] in (b"DDS ", b"RIFF", b"GIF8", b"II*\0", b"MM\0*"):
        return data[:4].decode().strip(" \0*")
    return f"TGA {data[16]} bits{' runs' if data[2] & 8 else ''}"


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "mean": round(statistics.fmean(values), 4),
        "p90": round(float(np.percentile(values, 90)), 4),
        "max": round(max(values), 4),
    }


def show(result: dict[str, Any], per_model: bool) -> None:
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']}, {about['packages']}")
    print(f"{result['models']} models, least of {result['rounds']} rounds, shading {result['shading']}")
    print(f"{'':16} {'median':>8} {'mean':>8} {'p90':>8} {'max':>8}")
    for name in ("megapixels", "megapixels_kept"):
        print(f"{name:16} " + " ".join(f"{value:8.2f}" for value in result[name].values()))
    for stage, row in result["cpu_seconds"].items():
        if row["max"]:
            print(f"{stage:16} " + " ".join(f"{1e3 * value:8.1f}" for value in row.values()) + "  ms")
    for kind, row in result["decoding"].items():
        print(
            f"  {kind:28} {row['textures']:4} textures {row['megapixels']:8.2f} Mpx "
            f"{row['cpu_ms_per_megapixel']:7.2f} ms/Mpx"
        )
    for row in sorted(result["per_model"], key=lambda row: -row["total"]) if per_model else ():
        stages = ", ".join(f"{name} {1e3 * value:.0f}" for name, value in row["stages"].items() if value >= 5e-4)
        print(
            f"{1e3 * row['total']:7.0f} ms {row['megapixels']:6.1f} -> {row['kept']:5.1f} Mpx  {row['path']}: {stages}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checkout = HERE.parents[1]
    parser.add_argument("--models", type=Path, nargs="+", default=[checkout.parent / "shared" / "models"])
    parser.add_argument("--renderer", choices=(*BACKENDS, "none"), default="gl")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", default=3)
    parser.add_argument("--limit", type=int, help="usable models of each folder")
    parser.add_argument("--sure", action="store_true", help="only models about whose heads the machine is sure")
    parser.add_argument("--shading", choices=("phong", "mmd"), default="phong")
    parser.add_argument("--per-model", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    stored = checkout / "annotations"
    annotations = stored if stored.is_dir() else None
    jobs: list[tuple[Path, UsableModel]] = []
    for folder in options.models:
        if not folder.is_dir():
            parser.error(f"{folder} is no folder; name one with --models")
        found = scan(folder, annotations, include_unsure=not options.sure, limit=options.limit).models
        jobs += [(folder / model.path, model) for model in found]
    if not jobs:
        parser.error(f"no usable model in {', '.join(map(str, options.models))}")
    result = measure(jobs, options)
    if options.json:
        show_json(result)
    else:
        show(result, options.per_model)


if __name__ == "__main__":
    main()
