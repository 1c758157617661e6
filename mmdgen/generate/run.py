"""A whole run: freeze the plan, render what is missing, then the files around the shards, the manifest last.

Whatever interrupts a run (Ctrl-C, kill -9, a full disk, a power cut), the same command goes on with it, and the
finished folder is byte for byte what an uninterrupted run gives. The order of writing is the reason: provenance.jsonl,
plan.json; each shard and then its sidecar in .work; failures.jsonl, README.md, preview.png; manifest.json; .work goes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.manifest import Manifest, make_manifest, read_manifest, sidecar_hashes, write_manifest
from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.schema import (
    CARD_FILE,
    FAILURES_FILE,
    MANIFEST_FILE,
    PLAN_FILE,
    PREVIEW_FILE,
    PROVENANCE_FILE,
    storable_text,
)
from mmdgen.errors import ConfigError, DatasetError, EngineError
from mmdgen.fsio import write_atomic
from mmdgen.generate.backend import DEFAULT_BACKEND
from mmdgen.generate.catalogue import Rejection
from mmdgen.generate.engine import OnProgress, Progress, describe_renderers, render_shards
from mmdgen.generate.freeze import plan_for
from mmdgen.generate.options import command_line
from mmdgen.generate.parts_locks import sole_writer, sweep
from mmdgen.generate.plan import Plan
from mmdgen.generate.provenance import jsonl_bytes
from mmdgen.generate.shard import WORK_FOLDER, Failure, ShardResult, read_sidecar, write_sidecar
from mmdgen.generate.splits import SPLITS
from mmdgen.render.devices import Choice

__all__ = ["Summary", "plan_for", "read_provenance", "run", "summarise"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run leaves: `drawn` images in `seconds` by this start, `images` in all; counts by split and by reason.

    `complete` tells that the dataset was there already and nothing was done.
    """

    out: Path
    images: int
    samples: dict[str, int]
    models: dict[str, int]
    rejected: dict[str, int]
    failed: dict[str, int]
    bytes: int
    drawn: int = 0
    seconds: float = 0.0
    complete: bool = False

    @property
    def preview(self) -> Path:
        return self.out / PREVIEW_FILE

    @property
    def rate(self) -> float:
        """Images a second, end to end."""
        return self.drawn / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "out": str(self.out),
            "preview": str(self.preview),
            "images_per_second": round(self.rate, 2),
            "seconds": round(self.seconds, 3),
        }


def run(
    plan: Plan,
    models: Path,
    out: Path,
    *,
    workers: int | None = None,
    backend: str = DEFAULT_BACKEND,
    device: Choice = None,
    on_progress: OnProgress = lambda progress: None,
) -> Summary:
    """Render what is missing of the plan frozen in `out` and finish the dataset; return what there is then.

    `models` is the folder that the plan's paths are relative to; `device` chooses GPUs, which are no part of the plan
    (see `render.devices`). Raises `DatasetError`, `RenderError`, `EngineError`; after any exception, KeyboardInterrupt
    too, the same call goes on, and no half-written file is left.
    """
    drawn, seconds = 0, 0.0

    def watch(progress: Progress) -> None:
        nonlocal drawn, seconds
        drawn, seconds = progress.drawn, progress.seconds
        on_progress(progress)

    with sole_writer(out):
        manifest = _finished(plan, out)
        if manifest is not None:
            shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
            return summarise(out, manifest, complete=True)
        try:
            sweep(out)
            results = {index: read_sidecar(plan, index, out) for index in range(len(plan.shards))}
            # a model that failed may be back
            todo = [index for index, result in results.items() if result is None or result.failures]
            if todo:
                done = render_shards(
                    plan, todo, models, out, workers=workers, backend=backend, device=device, on_progress=watch
                )
                results.update({result.index: result for result in done})
            manifest = _finish(plan, [results[index] for index in sorted(results)], out)  # type: ignore[misc]
        except BaseException:
            sweep(out)
            raise
        return summarise(out, manifest, drawn=drawn, seconds=seconds)


def _finished(plan: Plan, out: Path) -> Manifest | None:
    """Return the manifest of a finished dataset. One whose shards are missing is taken apart again, to be completed."""
    if not (out / MANIFEST_FILE).exists():
        return None
    manifest = read_manifest(out)
    shards = {shard.file: shard for found in manifest.shards.values() for shard in found}

    def intact(file: str) -> bool:
        path = out / file
        return path.is_file() and path.stat().st_size == shards[file].bytes

    if manifest.files.get(PLAN_FILE) == plan.digest and all(intact(file) for file in shards):
        return manifest
    if manifest.files.get(PLAN_FILE) != plan.digest:
        raise ConfigError(f"{out}: {PLAN_FILE} is not the one that the dataset was made with; give another --out")
    failures = [Failure(**{"id" if key == "sha256" else key: row[key] for key in row}) for row in manifest.failures]
    (out / WORK_FOLDER).mkdir(exist_ok=True)
    for index in range(len(plan.shards)):
        file = plan.header(index).file
        if file in shards and intact(file):
            missed = tuple(failure for failure in failures if failure.shard == file)
            write_sidecar(plan, ShardResult(index, shards[file], missed, dict(manifest.gl)), out)
    (out / MANIFEST_FILE).unlink()
    return None


def _row(record: Rejection | Failure) -> dict[str, Any]:
    """Return a record as manifest.json and failures.jsonl list it."""
    values = {"sha256" if key == "id" else key: value for key, value in asdict(record).items()}
    return {key: storable_text(value) if isinstance(value, str) else value for key, value in values.items()}


def _finish(plan: Plan, results: list[ShardResult], out: Path) -> Manifest:
    """Write everything around the shards, the manifest last. Raises `EngineError` when a split has no picture."""
    shards = [result.info for result in results]
    failures = [failure for result in results for failure in result.failures]
    for split in plan.options.requested():
        if not any(shard.samples for shard in shards if shard.file.startswith(f"{split}/")):
            first = next((f for f in failures if f.shard.startswith(f"{split}/")), None)
            why = f" The first reason: {first.path}: {first.message}" if first else ""
            raise EngineError(f"no model of the {split} split could be drawn, so there is no dataset.{why}")
    rejected = [_row(rejection) for rejection in plan.rejected]
    failed = [_row(failure) for failure in failures]
    rows = [{"stage": "scan", **row} for row in rejected] + [{"stage": "render", **row} for row in failed]
    write_atomic(out / FAILURES_FILE, jsonl_bytes(rows))
    manifest = make_manifest(
        plan.options.dataset_config(),
        shards,
        {model.id: (model.name, model.source) for model in plan.models},
        rejected=rejected,
        failures=failed,
        gl=describe_renderers(results),
        files=sidecar_hashes(out),
    )
    card = dataset_card(manifest, read_provenance(out), command=command_line(plan.options))
    write_atomic(out / CARD_FILE, card.encode("utf-8"))
    write_atomic(out / PREVIEW_FILE, contact_sheet(out, manifest=manifest))
    write_manifest(out, manifest)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    return manifest


def read_provenance(out: Path) -> list[dict[str, Any]]:
    """Return the rows of provenance.jsonl. Raises `DatasetError`."""
    path = out / PROVENANCE_FILE
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; use another --out") from error


def summarise(
    out: Path, manifest: Manifest, *, drawn: int = 0, seconds: float = 0.0, complete: bool = False
) -> Summary:
    """Return the counts of a finished dataset."""
    used = [split for split in SPLITS if manifest.shards.get(split)]
    rests = sum(shard.models for split in used for shard in manifest.shards[split])
    samples = {split: manifest.samples(split) for split in used}
    return Summary(
        out=out,
        images=rests + 2 * sum(samples.values()),
        samples=samples,
        models={split: manifest.model_count(split) for split in used},
        rejected=_count(manifest.rejected),
        failed=_count(manifest.failures),
        bytes=manifest.bytes,
        drawn=drawn,
        seconds=seconds,
        complete=complete,
    )


def _count(rows: Any) -> dict[str, int]:
    return dict(sorted(Counter(row["code"] for row in rows).items(), key=lambda item: (-item[1], item[0])))
