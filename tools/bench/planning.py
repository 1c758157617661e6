"""What does it cost to plan a large dataset, and to go on with one?

    python tools/bench/planning.py [--models 8000] [--poses 1000000] [--shard-size 0] [--repeats 3] [--json]

Makes up a catalogue (nothing is loaded or drawn) and times, in seconds of processor time, the lowest and the median of
the repeats: the plan itself, freezing it as plan.json (write), a later start (read, which every worker does, too), the
look at every shard's note when all are finished (resume), and the manifest with the card at the end. Writing to disk
waits for the disk and is told apart (`wall`). `memory` is what the process holds with one plan, in MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import machine, show_json, spread

from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.manifest import make_manifest, read_manifest, write_manifest
from mmdgen.dataset.schema import ShardInfo
from mmdgen.generate.catalogue import Catalogue, UsableModel
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.plan import Plan, make_plan, read_plan, write_plan
from mmdgen.generate.provenance import jsonl_bytes, provenance_row
from mmdgen.generate.run import read_provenance
from mmdgen.generate.shard import ShardResult, read_sidecar, write_sidecar
from mmdgen.generate.timings import resident_bytes
from mmdgen.model.records import MorphTerm

FOLDERS = 40


def made_up(count: int) -> Catalogue:
    """Return a catalogue of so many models, with as many words in each as real ones have."""
    models = []
    for number in range(count):
        path = f"folder {number % FOLDERS}/作者 {number % 300}/モデル {number}/model {number}.pmx"
        identity = f"{number:064x}"
        models.append(
            UsableModel(
                id=identity,
                path=path,
                source=f"folder {number % FOLDERS}",
                name=f"名前 {number}",
                status="repaired",
                vertices=30_000 + number,
                confidence=0.93,
                neck=7,
                head=8,
                chin_y=15.1 + number / 7,
                top_y=18.7 + number / 7,
                center_x=-0.01,
                terms={
                    "left_eye": (MorphTerm(3, 1.0, "left"),),
                    "right_eye": (MorphTerm(3, 1.0, "right"), MorphTerm(4, 0.5)),
                    "mouth": (MorphTerm(1),),
                },
                textures="0" * 32,
                diagnostics={"normal_length": 2, "texture_missing": 1},
                notes=("the mouth is opened by あ",),
                hints=("no_commercial",),
                provenance=provenance_row(identity, path, f"名前 {number}", "モデル製作: 誰か\n再配布禁止", ()),
            )
        )
    return Catalogue(tuple(sorted(models, key=lambda model: model.path)), ())


def finished(plan: Plan, out: Path) -> None:
    """Leave what a run leaves whose shards are all there; the shards themselves are a few bytes."""
    for split in plan.options.requested():
        (out / split).mkdir()
    (out / ".work").mkdir()
    for index, shard in enumerate(plan.shards):
        samples = {plan.models[part.model].id: part.count for part in shard.parts}
        (out / plan.file(index)).write_bytes(b"hdf5")
        write_sidecar(plan, ShardResult(index, ShardInfo(plan.file(index), "ab" * 32, 4, samples), (), {}), out)


def measure(models: int, poses: int, shard_size: int, repeats: int) -> dict[str, Any]:
    catalogue = made_up(models)
    options = RenderOptions(poses={"train": poses}, shard_size=shard_size)
    cpu: dict[str, list[float]] = {}
    wall: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        start, began = time.process_time(), time.perf_counter()
        result = function()
        cpu.setdefault(name, []).append(time.process_time() - start)
        wall.setdefault(name, []).append(time.perf_counter() - began)
        return result

    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            before = resident_bytes()
            plan = timed("plan", lambda: make_plan(options, catalogue))
            facts.setdefault("memory_mb", round((resident_bytes() - before) / 1e6, 1))
            timed("write", lambda plan=plan, out=out: write_plan(plan, out))
            (out / "provenance.jsonl").write_bytes(jsonl_bytes([model.provenance for model in catalogue.models]))
            plan = timed("read", lambda out=out: read_plan(out))
            timed("dry-run summary", plan.summary)
            finished(plan, out)

            def resume(plan: Plan = plan, out: Path = out) -> list[ShardResult]:
                found = [read_sidecar(plan, index, out) for index in range(len(plan.shards))]
                return [result for result in found if result is not None]

            results = timed("resume", resume)
            names = {model.id: (model.name, model.source) for model in plan.models}

            def manifest(results: list[ShardResult] = results, out: Path = out, names: Any = names) -> None:
                found = make_manifest(options.dataset_config(), [result.info for result in results], names)
                (out / "README.md").write_text(dataset_card(found, read_provenance(out)), "utf-8")
                write_manifest(out, found)
                read_manifest(out)

            timed("manifest and card", manifest)
            facts |= {
                "models": len(plan.models),
                "samples": plan.summary()["samples"],
                "shards": len(plan.shards),
                "plan_mb": round((out / "plan.json").stat().st_size / 1e6, 2),
                "card_kb": round((out / "README.md").stat().st_size / 1e3, 1),
            }
    return {
        **facts,
        "cpu_seconds": {name: spread(values) for name, values in cpu.items()},
        "wall_seconds": {name: spread(values) for name, values in wall.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=int, default=8000)
    parser.add_argument("--poses", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.models, given.poses, given.shard_size, given.repeats)
    if given.json:
        show_json({"machine": machine(), **result})
        return
    print(json.dumps({key: value for key, value in result.items() if not key.endswith("seconds")}))
    for name, values in result["cpu_seconds"].items():
        waited = result["wall_seconds"][name]["min"]
        print(f"{name:<20}{values['min']:>8.2f} s cpu (median {values['median']:.2f}), {waited:.2f} s wall")


if __name__ == "__main__":
    main()
