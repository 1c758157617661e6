"""A whole run: freeze the plan, render what is missing, then the files around the shards, the manifest last.

Whatever interrupts a run (Ctrl-C, kill -9, a full disk, a power cut), the same command goes on with it, and the
finished folder is byte for byte what an uninterrupted run gives. The order of writing is the reason: provenance.jsonl,
plan.json; each shard and then its sidecar in .work; failures.jsonl, README.md, preview.png; manifest.json; .work goes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.manifest import Manifest, make_manifest, sidecar_hashes, write_manifest
from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import (
    CARD_FILE,
    FAILURES_FILE,
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
from mmdgen.generate.parts import PartOf
from mmdgen.generate.parts_locks import one_part, sole_writer, sweep, sweep_files, sweep_logs
from mmdgen.generate.plan import Plan
from mmdgen.generate.provenance import jsonl_bytes
from mmdgen.generate.remote import Place
from mmdgen.generate.shard import Failure, ShardResult, sidecar_path
from mmdgen.generate.splits import SPLITS
from mmdgen.render.devices import Choice

__all__ = ["ENGINES", "PartSummary", "Summary", "finish", "plan_for", "run", "run_part", "summarise"]

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
Engine = Callable[..., list[ShardResult]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run leaves: `drawn` images in `seconds` by this start, `images` in all; counts by split and by reason.

    `complete` tells that the dataset was there already and nothing was done.
    """

    out: Path | RemotePath
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
    def preview(self) -> Path | RemotePath:
        return self.out / PREVIEW_FILE

    @property
    def rate(self) -> float:
        """Images a second, end to end."""
        return self.drawn / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            **{item.name: getattr(self, item.name) for item in fields(self)},
            "out": str(self.out),
            "preview": str(self.preview),
            "images_per_second": round(self.rate, 2),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What a part leaves: `done` of `shards` shards of the dataset are there, `own` of them this part's.

    `images`, `samples` (by split), `failed` (by reason) and `bytes` are this part's. `complete` tells that all its
    shards were there already; `dataset_complete` that the dataset has been finished.
    """

    out: str
    part: PartOf
    own: int
    done: int
    shards: int
    images: int
    samples: dict[str, int]
    failed: dict[str, int]
    bytes: int
    drawn: int = 0
    seconds: float = 0.0
    complete: bool = False
    dataset_complete: bool = False

    @property
    def rate(self) -> float:
        """Images a second, end to end."""
        return self.drawn / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "out": self.out,
            "part": str(self.part),
            "shards": self.own,
            "dataset_shards": self.shards,
            "dataset_shards_done": self.done,
            "dataset_complete": self.dataset_complete,
            "images": self.images,
            "samples": self.samples,
            "failed": self.failed,
            "bytes": self.bytes,
            "drawn": self.drawn,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.rate, 2),
            "complete": self.complete,
        }


def run(
    plan: Plan,
    models: Path,
    out: Path | Place,
    *,
    workers: int | None = None,
    backend: str = DEFAULT_BACKEND,
    device: Choice = None,
    engine: str | Engine = LOCAL,
    retry_failed: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> Summary:
    """Render what is missing of the plan frozen in `out` and finish the dataset; return what there is then.

    `models` is the folder that the plan's paths are relative to; `device` chooses GPUs (see `render.devices`) and
    `engine` who works (one of `ENGINES`, or a function like `engine.render_shards`), which are no part of the plan.
    With `retry_failed` a finished dataset's shards are made again from which models were left out.
    Raises `DatasetError`, `RenderError`, `EngineError`; after any exception, KeyboardInterrupt too, the same call goes
    on, and no half-written file is left.
    """
    place = out if isinstance(out, Place) else Place(out)
    watch = _Watch(on_progress)
    render = partial(engine_named(engine), workers=workers, backend=backend, device=device, on_progress=watch)
    with sole_writer(place.folder, place.name):
        manifest = place.finished(plan, retry_failed=retry_failed)
        if manifest is not None:
            place.clear()
            return summarise(place, manifest, complete=True)
        try:
            sweep(place.folder)
            sweep_logs(place.folder)
            results, _ = _complete(plan, range(len(plan.shards)), models, place, render)
            manifest = finish(plan, results, place)
        except BaseException:
            sweep(place.folder)
            raise
        return summarise(place, manifest, drawn=watch.drawn, seconds=watch.seconds)


def run_part(
    plan: Plan,
    models: Path,
    out: Path | Place,
    part: PartOf,
    *,
    workers: int | None = None,
    backend: str = DEFAULT_BACKEND,
    device: Choice = None,
    engine: str | Engine = LOCAL,
    on_progress: OnProgress = lambda progress: None,
) -> PartSummary:
    """Render what is missing of one part of the plan frozen in `out`, beside other parts; the dataset is not finished.

    `merge.merge` or `run` finishes it. The arguments, and what is raised, are those of `run`; progress counts the
    part's own images.
    """
    place = out if isinstance(out, Place) else Place(out)
    indices = part.indices(len(plan.shards))
    images = sum(plan.shards[index].images for index in indices)
    watch = _Watch(on_progress, plan.images - images)
    render = partial(engine_named(engine), workers=workers, backend=backend, device=device, on_progress=watch)
    if place.finished(plan, reopen=False) is not None:
        return _summarise_part(place, plan, part, [], len(plan.shards), dataset_complete=True)
    with one_part(place.folder, part, len(plan.shards), place.name):
        own = [place.folder / plan.file(index) for index in indices]
        own += [sidecar_path(plan, index, place.folder) for index in indices]
        try:
            sweep_files(own)
            place.begin_part(part)
            results, complete = _complete(plan, indices, models, place, render)
        except BaseException:
            sweep_files(own)
            raise
        done = place.count(plan)
    return _summarise_part(place, plan, part, results, done, watch.drawn, watch.seconds, complete=complete)


@dataclass(slots=True)
class _Watch:
    """Passes progress on, without the `outside` images that are not this start's to make; keeps what was drawn."""

    on_progress: OnProgress
    outside: int = 0
    drawn: int = 0
    seconds: float = 0.0

    def __call__(self, progress: Progress) -> None:
        self.drawn, self.seconds = progress.drawn, progress.seconds
        if self.outside:
            progress = replace(progress, images=progress.images - self.outside, total=progress.total - self.outside)
        self.on_progress(progress)


def engine_named(name: str | Engine) -> Engine:
    """Return the function that renders shards (see `engine.render_shards`). Raises `ConfigError`."""
    if callable(name):
        return name
    if name == LOCAL:
        return render_shards
    if name == RAY:
        from mmdgen.generate import ray_engine

        return ray_engine.render_shards
    raise ConfigError(f"an engine is one of {', '.join(ENGINES)}, found {name!r}")


def _complete(
    plan: Plan, indices: Iterable[int], models: Path, place: Place, render: Engine
) -> tuple[list[ShardResult], bool]:
    """Return the results of these shards, in order, and whether all were there; those that are not are made.

    Shards with failures are made again: a model may be back.
    """
    found = place.results(plan, indices)
    there = {index: result for index, result in found.items() if result is not None and not result.failures}
    if missing := [index for index in found if index not in there]:
        there.update((result.index, result) for result in render(plan, missing, models, place.folder))
    return [there[index] for index in sorted(there)], not missing


def _summarise_part(
    place: Place,
    plan: Plan,
    part: PartOf,
    results: Sequence[ShardResult],
    done: int,
    drawn: int = 0,
    seconds: float = 0.0,
    *,
    complete: bool = True,
    dataset_complete: bool = False,
) -> PartSummary:
    samples: Counter[str] = Counter()
    for result in results:
        samples[plan.shards[result.index].split] += result.info.samples
    return PartSummary(
        out=place.name,
        part=part,
        own=len(part.indices(len(plan.shards))),
        done=done,
        shards=len(plan.shards),
        images=sum(result.info.models + 2 * result.info.samples for result in results),
        samples=dict(samples),
        failed=_count([asdict(failure) for result in results for failure in result.failures]),
        bytes=sum(result.info.bytes for result in results),
        drawn=drawn,
        seconds=seconds,
        complete=complete,
        dataset_complete=dataset_complete,
    )


def _row(record: Rejection | Failure) -> dict[str, Any]:
    """Return a record as manifest.json and failures.jsonl list it."""
    values = {"sha256" if key == "id" else key: value for key, value in asdict(record).items()}
    return {key: storable_text(value) if isinstance(value, str) else value for key, value in values.items()}


def finish(plan: Plan, results: list[ShardResult], place: Place) -> Manifest:
    """Write everything around the shards, the manifest last. Raises `EngineError` when a split has no picture."""
    out = place.folder
    shards = [result.info for result in results]
    failures = [failure for result in results for failure in result.failures]
    # all models of a split may have been taken out since
    planned = {shard.split for shard in plan.shards if shard.samples}
    for split in plan.options.requested():
        drawn = any(shard.samples for shard in shards if shard.file.startswith(f"{split}/"))
        if split in planned and not drawn:
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
        removed=plan.removed,
        origin=plan.origin,
    )
    card = dataset_card(manifest, read_provenance(out), command=command_line(plan.options))
    write_atomic(out / CARD_FILE, card.encode("utf-8"))
    write_atomic(out / PREVIEW_FILE, contact_sheet(place.root, manifest=manifest))
    write_manifest(out, manifest)
    place.publish()
    place.clear()
    return manifest


def read_provenance(out: Path) -> list[dict[str, Any]]:
    """Return the rows of provenance.jsonl. Raises `DatasetError`."""
    path = out / PROVENANCE_FILE
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; use another --out") from error


def summarise(
    place: Place, manifest: Manifest, *, drawn: int = 0, seconds: float = 0.0, complete: bool = False
) -> Summary:
    """Return the counts of a finished dataset."""
    used = [split for split in SPLITS if manifest.shards.get(split)]
    rests = sum(shard.models for split in used for shard in manifest.shards[split])
    samples = {split: manifest.samples(split) for split in used}
    return Summary(
        out=place.root,
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
