"""A whole run: freeze the plan, render what is missing, then the files around the shards, the manifest last.

Whatever interrupts a run (Ctrl-C, kill -9, a full disk, a power cut), the same command goes on with it, and the
finished folder is byte for byte what an uninterrupted run gives. The order of writing is the reason: provenance.jsonl,
plan.json; each shard and then its sidecar in .work; failures.jsonl, README.md, preview.png; manifest.json; .work goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
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
from mmdgen.fsio import TEMPORARY_MARK, remove_temporaries, write_atomic
from mmdgen.generate.backend import DEFAULT_BACKEND
from mmdgen.generate.catalogue import Catalogue, Rejection
from mmdgen.generate.engine import OnProgress, Progress, describe_renderers, render_shards
from mmdgen.generate.options import RenderOptions, command_line
from mmdgen.generate.plan import Plan, check_same, make_plan, read_plan, write_plan
from mmdgen.generate.provenance import jsonl_bytes
from mmdgen.generate.shard import WORK_FOLDER, Failure, ShardResult, read_sidecar, write_sidecar
from mmdgen.generate.splits import SPLITS
from mmdgen.render.devices import Choice


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


def plan_for(out: Path, options: RenderOptions, scan: Callable[[], Catalogue], *, keep: bool = True) -> Plan:
    """Return the plan frozen in `out` when its options are `options`, else make one (`scan` is called only then).

    With `keep` a new plan is frozen: `out` is made, provenance.jsonl and plan.json are written. Raises `ConfigError`
    when `out` holds something else or was begun with other options.
    """
    plan = read_plan(out)
    if plan is not None:
        check_same(plan, options, out)
        return plan
    check_folder(out)
    catalogue = scan()
    plan = make_plan(options, catalogue)
    if keep:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"{out}: cannot be made: {error.strerror or error}") from error
        provenance = {model.id: model.provenance for model in catalogue.models}
        write_atomic(out / PROVENANCE_FILE, jsonl_bytes([provenance[model.id] for model in plan.models]))
        write_plan(plan, out)
        plan = read_plan(out) or plan  # what a later start will read, from the first start on
    return plan


def check_folder(out: Path) -> None:
    """Raise `ConfigError` when `out` is a file or holds what no run of ours has left there."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; --out names the folder of the dataset")
    ours = (WORK_FOLDER, PROVENANCE_FILE)  # left when a run ended before its plan was frozen
    foreign = sorted(p.name for p in out.iterdir() if p.name not in ours and TEMPORARY_MARK not in p.name)
    if foreign:
        more = ", ..." if len(foreign) > 3 else ""
        raise ConfigError(
            f"{out} is not empty and holds no {PLAN_FILE} of a run to go on with ({', '.join(foreign[:3])}{more}); "
            "give another --out"
        )


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

    with _sole_writer(out):
        manifest = _finished(plan, out)
        if manifest is not None:
            shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
            return summarise(out, manifest, complete=True)
        try:
            _sweep(out)
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
            _sweep(out)
            raise
        return summarise(out, manifest, drawn=drawn, seconds=seconds)


@contextlib.contextmanager
def _sole_writer(out: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system lets go when this process ends however it ends."""
    work = out / WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written: {error.strerror or error}") from error
    try:
        try:
            import fcntl
        except ImportError:  # no such locks on this system: two runs at once are the user's to avoid
            pass
        else:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(f"another run is working on {out}; wait for it or give another --out") from error
        yield
    finally:
        os.close(handle)


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


def _sweep(out: Path) -> None:
    """Remove what interrupted writes left, and nothing else. The lock keeps other writers away."""
    for folder in (out, out / WORK_FOLDER, *(out / split for split in SPLITS)):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                remove_temporaries(folder)


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
