"""Exports: a finished dataset as PNG files, WebDataset tar files or Parquet files with Hugging Face pictures.

What an export consists of is a function of (manifest, options). Each job's file appears when it is complete and is then
noted in `.work`; `export.json` is written last, so a folder that has it is a finished export. After any interruption
the same call goes on, and the result is the same, byte for byte.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdgen import __version__
from mmdgen.dataset.export_card import export_card, statement, used_provenance, write_models
from mmdgen.dataset.export_parquet import ParquetExporter
from mmdgen.dataset.export_png import PngExporter
from mmdgen.dataset.export_rows import Exporter, FileInfo, Job, JobResult, Watch, run_job
from mmdgen.dataset.export_webdataset import WebDatasetExporter
from mmdgen.dataset.manifest import Manifest, read_manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import RemotePath, file_sha256
from mmdgen.dataset.schema import CARD_FILE, MANIFEST_FILE, PROVENANCE_FILE, SPLITS
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import TEMPORARY_MARK, json_bytes, remove_temporaries, write_atomic, write_json

PNG, WEBDATASET, PARQUET = FORMATS = ("png", "webdataset", "parquet")
EXPORT_FILE = "export.json"
MODELS_FILE = "models.jsonl"
WORK_FOLDER = ".work"
SCHEMA, SCHEMA_VERSION = "mmdgen-export", 1

_OPTIONS = {"format": "the format", "splits": "--split", "limit": "--limit", "shard_size": "--shard-size"}
_INTERVAL = 0.25  # seconds between two looks at how far the jobs are

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported: of each of `splits` (empty: all that have samples) the first `limit` samples (None: all).

    `shard_size` is samples a file, 0 for files as the dataset's shards are. Raises `ConfigError`.
    """

    format: str
    splits: tuple[str, ...] = ()
    limit: int | None = None
    shard_size: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"an export is one of {', '.join(FORMATS)}, found {self.format!r}")
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown:
            raise ConfigError(f"a split is one of {', '.join(SPLITS)}, found {unknown[0]!r}")
        if self.shard_size < 0 or (self.limit is not None and self.limit < 1):
            raise ConfigError(f"limit and shard size must be at least 1, found {self.limit} and {self.shard_size}")
        if self.shard_size and self.format == PNG:
            raise ConfigError(f"the export {PNG} has one file a picture and no shards: leave out the shard size")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "splits": [split for split in SPLITS if split in self.splits]}


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export will consist of. `identity` is what must be the same for it to go on."""

    manifest: Manifest
    options: ExportOptions
    jobs: tuple[Job, ...]
    identity: Mapping[str, Any]

    @property
    def samples(self) -> dict[str, int]:
        """Samples by split, of the splits that are exported."""
        counts: dict[str, int] = {}
        for job in self.jobs:
            counts[job.split] = counts.get(job.split, 0) + job.samples
        return counts


@dataclass(frozen=True, slots=True)
class Summary:
    """What an export leaves; `files` are those that export.json lists.

    `made` samples in `seconds` by this call; `complete`: it was there already.
    """

    out: Path
    format: str
    samples: dict[str, int]
    models: int
    files: int
    bytes: int
    made: int = 0
    seconds: float = 0.0
    complete: bool = False

    def to_json(self) -> dict[str, Any]:
        rate = self.made / self.seconds if self.seconds > 0 else 0.0
        return {
            **asdict(self),
            "out": str(self.out),
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(rate, 2),
        }


def plan_export(dataset: Path | RemotePath, options: ExportOptions) -> Plan:
    """Return what the export will consist of. Raises `DatasetError` for an unfinished dataset, `ConfigError`."""
    manifest = read_manifest(dataset)
    splits = [split for split in SPLITS if manifest.samples(split) and (not options.splits or split in options.splits)]
    empty = [split for split in options.splits if split not in splits]
    if empty or not splits:
        raise ConfigError(f"{dataset}: there is no sample to export" + (f" in the split {empty[0]}" if empty else ""))
    jobs = [job for split in splits for job in _jobs(manifest, split, options)]
    identity = {
        **options.to_json(),
        "dataset": file_sha256(dataset / MANIFEST_FILE),
        "code_version": __version__,
    }
    return Plan(manifest, options, tuple(jobs), identity)


def _jobs(manifest: Manifest, split: str, options: ExportOptions) -> Iterator[Job]:
    total = min(manifest.samples(split), options.limit or manifest.samples(split))
    if options.shard_size:
        count = -(-total // options.shard_size)
        edges = [total * number // count for number in range(count + 1)]
        models: list[frozenset[str]] = [frozenset()] * count
    else:
        edges, models, seen = [0], [], set()
        for shard in manifest.shards[split]:
            if shard.samples and edges[-1] < total:
                here = {sha256 for sha256, samples in shard.model_samples.items() if samples}
                edges.append(min(total, edges[-1] + shard.samples))
                models.append(frozenset(here - seen))
                seen |= here
        count = len(models)
    for number in range(count):
        yield Job(split, number, count, edges[number], edges[number + 1], models[number])


def export_dataset(
    dataset: Path | RemotePath,
    out: Path,
    options: ExportOptions,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> Summary:
    """Export the finished dataset in `dataset` into the folder `out`; go on with an export begun there.

    `workers` threads work side by side. `progress(done, total)` is called with samples, in this thread. Raises
    `ConfigError` when `out` lies in the dataset or holds something else, `DatasetError` when something cannot be read
    or written; after any exception, KeyboardInterrupt too, the same call goes on.
    """
    plan = plan_export(dataset, options)
    finished = look_at(dataset, out, plan)
    if finished is not None:
        return finished
    exporter = make_exporter(plan)
    used_provenance(dataset / PROVENANCE_FILE, {})  # raises where it is damaged: now, not after hours
    with _sole_writer(out, plan):
        try:
            _sweep(out)
            results = {number: _read_note(plan, exporter, number, out) for number in range(len(plan.jobs))}
            todo = [number for number, result in results.items() if result is None]
            started = time.monotonic()
            source = _Source(dataset, plan, workers)
            results.update(_work(plan, exporter, source, todo, out, workers, progress or (lambda done, total: None)))
            made, seconds = sum(plan.jobs[number].samples for number in todo), time.monotonic() - started
            done = [result for _, result in sorted(results.items()) if result is not None]
            summary = _finish(plan, exporter, dataset, done, out)
        except BaseException:
            _sweep(out)
            raise
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    return Summary(**{**_fields(summary), "made": made, "seconds": seconds})


def look_at(dataset: Path | RemotePath, out: Path, plan: Plan) -> Summary | None:
    """Return the summary of an export that is finished in `out`; None for one to begin or to go on with.

    Nothing is changed. Raises as `export_dataset` does where it would refuse to begin.
    """
    check_place(dataset, out)
    finished = _finished(plan, out)
    if finished is None:
        _check_begun(plan, out)
    return finished


def make_exporter(plan: Plan) -> Exporter:
    """Return what writes the plan's format. Raises `ConfigError` where a package is missing."""
    config = plan.manifest.config
    if plan.options.format == PNG:
        return PngExporter(config.vocabulary.names)
    if plan.options.format == WEBDATASET:
        return WebDatasetExporter(config.vocabulary.names)
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("the export parquet needs pyarrow: pip install 'mmdgen[export]'")
    return ParquetExporter(config, statement(plan.manifest))


def default_out(dataset: Path | RemotePath, format: str) -> Path:
    """Return the folder beside the dataset's own that an export goes to: ``out/d`` -> ``out/d-parquet``.

    Of a dataset in an object store it is a folder here.
    """
    if isinstance(dataset, RemotePath):
        return Path(f"{dataset.name}-{format}")
    folder = Path(os.path.abspath(dataset))
    if not folder.name:
        raise ConfigError(f"{dataset} is the root of a file system: say where the export goes with --out")
    return (dataset.parent if dataset.name and dataset.name != ".." else folder.parent) / f"{folder.name}-{format}"


def check_place(dataset: Path | RemotePath, out: Path) -> None:
    """Raise `ConfigError` when `out` is the dataset's folder, lies in it, or is a file."""
    target = out.resolve()
    if isinstance(dataset, Path) and dataset.resolve() in (target, *target.parents):
        raise ConfigError(f"{out} lies in the dataset {dataset}: an export goes beside it, give another --out")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out names the folder of the export")


class _Source:
    """The splits of the dataset, each opened once for all threads."""

    def __init__(self, dataset: Path | RemotePath, plan: Plan, workers: int) -> None:
        # few open files, because each keeps decoded rest images; one that a thread still uses stays open
        self._splits = {
            split: Dataset(dataset, split, manifest=plan.manifest, max_open=workers + 1) for split in plan.samples
        }

    def of(self, job: Job) -> Dataset:
        return self._splits[job.split]


def _work(
    plan: Plan, exporter: Exporter, source: _Source, todo: list[int], out: Path, workers: int, progress: Progress
) -> dict[int, JobResult]:
    """Do the jobs `todo` on threads, noting each that is finished; stop all at the first error."""
    watch, total = Watch(), sum(plan.samples.values())
    before = total - sum(plan.jobs[number].samples for number in todo)
    results: dict[int, JobResult] = {}

    def do(number: int) -> JobResult:
        result = run_job(exporter, source.of(plan.jobs[number]), plan.jobs[number], out, watch)
        write_json(_note_file(plan, number, out), {"export": dict(plan.identity), **result.to_json()})
        return result

    progress(before, total)
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="export") as pool:
        waiting: dict[Future[JobResult], int] = {pool.submit(do, number): number for number in todo}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=_INTERVAL, return_when=FIRST_COMPLETED)
                for future in done:
                    results[waiting.pop(future)] = future.result()
                progress(before + watch.done, total)
        except BaseException:
            watch.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _finish(plan: Plan, exporter: Exporter, dataset: Path | RemotePath, results: list[JobResult], out: Path) -> Summary:
    """Write what belongs to all jobs together, export.json last."""
    together = exporter.finish(list(plan.jobs), results, out)
    samples = plan.samples
    models = write_models(plan.jobs, results, out / MODELS_FILE)
    provenance = used_provenance(dataset / PROVENANCE_FILE, models)
    write_atomic(out / PROVENANCE_FILE, b"".join(line for line, _ in provenance))
    rows = [row for _, row in provenance]
    files = [file for result in results for file in result.files] + list(together)
    size = sum(result.bytes for result in results)
    made = {split: sum(file.samples for file in _of(files, plan, exporter, split)) for split in samples}
    card = export_card(plan.manifest, plan.options.format, samples, models, size, rows)
    write_atomic(out / CARD_FILE, card.encode("utf-8"))
    if exporter.sharded and made != samples:
        raise DatasetError(f"{out}: the files hold {made} samples where {samples} were to be exported")
    value = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "identity": dict(plan.identity),
        "samples": samples,
        "models": len(models),
        "flow": plan.manifest.config.flow,
        "files": [asdict(file) for file in files],
        "bytes": size,
        "terms": statement(plan.manifest),
    }
    write_json(out / EXPORT_FILE, value)
    return _summary(value, out)


def _of(files: list[FileInfo], plan: Plan, exporter: Exporter, split: str) -> list[FileInfo]:
    names = {exporter.file_name(job) for job in plan.jobs if job.split == split}
    return [file for file in files if file.file in names]


def _summary(value: Mapping[str, Any], out: Path, **changes: Any) -> Summary:
    return Summary(
        out,
        value["identity"]["format"],
        {split: int(value["samples"][split]) for split in SPLITS if split in value["samples"]},
        int(value["models"]),
        len(value["files"]),
        int(value["bytes"]),
        **changes,
    )


def _fields(summary: Summary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in Summary.__slots__}


def _finished(plan: Plan, out: Path) -> Summary | None:
    """Return the summary of a finished export; None where there is none, or it lacks files. Raises `ConfigError`."""
    path = out / EXPORT_FILE
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: is damaged: {error}; delete {out} and export again") from error
    try:
        _check_same(plan, value["identity"], out)
        intact = all((out / file["file"]).stat().st_size == file["bytes"] for file in value["files"])
        if intact:
            shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
            return _summary(value, out, complete=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: is damaged: {error!r}; delete {out} and export again") from error
    except OSError:
        pass
    raise DatasetError(
        f"{out}: files of the finished export are missing or changed; delete the folder and export again"
    )


def _check_same(plan: Plan, before: Mapping[str, Any], out: Path) -> None:
    differences = [
        f"{what} was {json.dumps(before.get(key))}, now {json.dumps(plan.identity[key])}"
        for key, what in _OPTIONS.items()
        if before.get(key) != plan.identity[key]
    ]
    if before.get("dataset") != plan.identity["dataset"]:
        differences.append("the dataset has changed since")
    if before.get("code_version") != __version__:
        differences.append(f"it was made with mmdgen {before.get('code_version')}, this is {__version__}")
    if differences:
        raise ConfigError(f"{out} holds another export: {'; '.join(differences)}. Give another --out, or delete it")


@contextlib.contextmanager
def _sole_writer(out: Path, plan: Plan) -> Iterator[None]:
    """Begin the export in `out`, or go on with it, as the only one. Raises `ConfigError` while another does."""
    begun = out / WORK_FOLDER / EXPORT_FILE
    try:
        begun.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(begun.parent / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written: {error.strerror or error}") from error
    try:
        with contextlib.suppress(ImportError):  # without such locks two exports at once are the user's to avoid
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(f"another export is working on {out}; wait for it or give another --out") from error
        write_atomic(begun, json_bytes(dict(plan.identity)))
        yield
    finally:
        os.close(handle)


def _check_begun(plan: Plan, out: Path) -> None:
    """Raise `ConfigError` unless `out` holds nothing, or this export as an earlier start has begun it."""
    begun = out / WORK_FOLDER / EXPORT_FILE
    try:
        identity = json.loads(begun.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        foreign = [] if not out.exists() else [p.name for p in out.iterdir() if p.name != WORK_FOLDER]
        foreign = sorted(name for name in foreign if TEMPORARY_MARK not in name)
        if foreign:
            raise ConfigError(
                f"{out} is not empty and holds no export to go on with ({', '.join(foreign[:3])}"
                f"{', ...' if len(foreign) > 3 else ''}); give another --out"
            ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{begun}: cannot be read: {error}; delete {out} and export again") from error
    else:
        _check_same(plan, identity, out)


def _sweep(out: Path) -> None:
    """Remove what interrupted writes left; the lock keeps other writers away."""
    for folder in (out, out / WORK_FOLDER, out / "data", *(out / split for split in SPLITS)):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                remove_temporaries(folder)


def _note_file(plan: Plan, number: int, out: Path) -> Path:
    job = plan.jobs[number]
    return out / WORK_FOLDER / f"{job.split}-{job.number:06d}.json"


def _read_note(plan: Plan, exporter: Exporter, number: int, out: Path) -> JobResult | None:
    """Return the result of a job that an earlier start has finished, None otherwise."""
    try:
        value = json.loads(_note_file(plan, number, out).read_bytes())
        if value["export"] != dict(plan.identity):
            return None
        result = JobResult.from_json(value)
        if not (out / exporter.file_name(plan.jobs[number])).is_file():
            return None
        intact = all((out / file.file).stat().st_size == file.bytes for file in result.files)
        return result if intact else None
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
