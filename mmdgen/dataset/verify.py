"""Verification: is a dataset what its manifest says, and is every sample in it usable?

Shards are checked side by side in threads (hashing and decoding release the interpreter lock), an image at a time.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen.dataset.manifest import Manifest, read_manifest
from mmdgen.dataset.remote import RemotePath, file_sha256, location
from mmdgen.dataset.schema import PLAN_FILE, SPLITS, shard_file
from mmdgen.dataset.shard_check import Problem, ShardCheck
from mmdgen.fsio import TEMPORARY_MARK

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`problems` in the order of the files, and what was looked at: shards, samples, models, decoded images, bytes."""

    problems: tuple[Problem, ...]
    shards: int
    samples: dict[str, int]
    models: int
    images: int
    bytes: int
    quick: bool

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "quick": self.quick,
            "shards": self.shards,
            "samples": self.samples,
            "models": self.models,
            "images_decoded": self.images,
            "bytes": self.bytes,
            "problems": [
                {"file": p.file, "what": p.what, "expected": p.expected, "found": p.found} for p in self.problems
            ],
        }


def verify_dataset(
    path: str | Path | RemotePath, quick: bool = False, *, workers: int = 2, progress: Progress | None = None
) -> VerifyReport:
    """Check a dataset's folder; return all problems.

    Checked: the files are those of the manifest, with its sizes and SHA-256; every shard opens with plain h5py and has
    the right datasets, types, shapes and chunks; counts, models and splits agree; poses are finite and in range; every
    image decodes, is not empty and has no color under alpha 0. `quick` hashes no shard and decodes only the first and
    the last images of each. `progress(done, total)` is called with samples, in this thread. Raises `DatasetError` when
    there is no readable manifest.
    """
    out = location(path)
    manifest = read_manifest(out)
    listed = [(split, info) for split in SPLITS for info in manifest.shards[split]]
    total = sum(info.samples for _, info in listed)
    problems = list(_check_files(out, manifest))
    results: dict[int, ShardCheck] = {}
    stop = threading.Event()
    done = 0
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="verify") as pool:
        try:
            futures = {
                pool.submit(ShardCheck(out, split, info, manifest, quick, stop).run): number
                for number, (split, info) in enumerate(listed)
            }
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                done += listed[futures[future]][1].samples
                if progress is not None:
                    progress(done, total)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for number in range(len(listed)):
        problems += results[number].problems
    problems += _check_models(manifest, [results[number] for number in range(len(listed))])
    return VerifyReport(
        tuple(problems),
        len(listed),
        {split: manifest.samples(split) for split in SPLITS},
        len(manifest.models),
        sum(result.images for result in results.values()),
        manifest.bytes,
        quick,
    )


def _check_files(out: Path | RemotePath, manifest: Manifest) -> Iterator[Problem]:
    """Yield problems with files other than the content of shards: strays, leftovers, changed or broken sidecars."""
    for name, expected in sorted(manifest.files.items()):
        path = out / name
        if Path(name).name != name or not path.is_file():
            yield Problem(name, "the file is missing")
            continue
        found = file_sha256(path)
        if found != expected:
            yield Problem(name, "was changed after the manifest was written: its SHA-256 differs", expected, found)
        yield from _json_problems(path)
        if name == PLAN_FILE:
            yield from _plan_problems(path, manifest)
    files = Counter(info.file for shards in manifest.shards.values() for info in shards)
    for file, times in files.items():
        if times > 1:
            yield Problem(file, "the manifest lists the shard more than once", "1", str(times))
    for path in sorted(out.iterdir()):
        if TEMPORARY_MARK in path.name:
            yield Problem(path.name, "is a temporary file that an interrupted run left: delete it")
        elif path.suffix == ".h5":
            yield Problem(path.name, "is not in the manifest: a shard outside the splits' folders")
        elif path.name in SPLITS and path.is_dir():
            for member in sorted(path.iterdir()):
                name = f"{path.name}/{member.name}"
                if TEMPORARY_MARK in member.name:
                    yield Problem(name, "is a temporary file that an interrupted run left: delete it")
                elif name not in files:
                    yield Problem(name, "is not in the manifest")


def _json_problems(path: Path | RemotePath) -> Iterator[Problem]:
    """Yield the first line of a JSON or JSON-lines file that is not JSON."""
    try:
        text = path.read_bytes().decode("utf-8")
        for number, line in enumerate(text.splitlines() if path.suffix == ".jsonl" else [text], 1):
            try:
                json.loads(line)
            except ValueError as error:
                yield Problem(path.name, f"line {number} is not JSON: {error}")
                return
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(path.name, f"cannot be read: {error}")


def _plan_problems(path: Path | RemotePath, manifest: Manifest) -> Iterator[Problem]:
    """Yield where the manifest's shards are not the planned ones.

    Of plan.json only `shards` is read: rows of [split, number, [[model, first sample, count], ...]].
    """
    try:
        planned = {
            shard_file(split, number): sum(count for _, _, count in parts)
            for split, number, parts in json.loads(path.read_bytes())["shards"]
        }
    except (KeyError, TypeError, ValueError) as error:
        yield Problem(path.name, f"does not list shards that could be compared with the manifest's: {error!r}")
        return
    listed = {info.file: info.samples for shards in manifest.shards.values() for info in shards}
    for file in sorted(set(listed) - set(planned)):
        yield Problem(file, f"is in the manifest but not in {path.name}")
    for file in sorted(set(planned) - set(listed)):
        yield Problem(file, f"is planned but not in the manifest ({planned[file]} samples)")
    for file in sorted(set(planned) & set(listed)):
        # A model that failed takes its samples with it; the manifest's failures say which.
        if listed[file] > planned[file] or (listed[file] < planned[file] and not manifest.failures):
            yield Problem(
                file, f"has another number of samples than {path.name}", str(planned[file]), str(listed[file])
            )


def _check_models(manifest: Manifest, results: list[ShardCheck]) -> Iterator[Problem]:
    """Yield what is wrong with models over the whole dataset: two splits, other names or counts than the manifest's."""
    listed = {model.sha256: model for model in manifest.models}
    if len(listed) != len(manifest.models):
        yield Problem("manifest.json", "models: a model is listed twice")
    removed = set(manifest.removed)
    for sha256 in sorted(removed & set(listed)):
        yield Problem("manifest.json", f"model {sha256[:16]} is listed, and called removed")
    splits: dict[str, dict[str, str]] = {}
    named: set[str] = set()
    for result in results:
        for sha256, name, source in result.models:
            if sha256 in removed:
                yield Problem(result.info.file, f"model {sha256[:16]} is there, which the manifest calls removed")
            splits.setdefault(sha256, {}).setdefault(result.split, result.info.file)
            summary = listed.get(sha256)
            if summary is None:
                yield Problem(result.info.file, f"model {sha256[:16]} ({name}) is not in the manifest's models")
            elif (name, source) != (summary.name, summary.source) and sha256 not in named:
                named.add(sha256)
                expected, found = f"{summary.name} from {summary.source}", f"{name} from {source}"
                yield Problem(
                    result.info.file, f"model {sha256[:16]} is named otherwise in the manifest", expected, found
                )
    for sha256, files in sorted(splits.items()):
        if len(files) > 1:
            where = ", ".join(files[split] for split in SPLITS if split in files)
            yield Problem(
                "manifest.json", f"model {sha256[:16]} is in {len(files)} splits ({where})", "1 split", f"{len(files)}"
            )
        elif sha256 in listed and listed[sha256].split not in files:
            yield Problem(
                next(iter(files.values())), f"model {sha256[:16]} is in the wrong split", listed[sha256].split, *files
            )
    counts: Counter[str] = Counter()
    for shards in manifest.shards.values():
        for info in shards:
            counts.update(info.model_samples)
    for model in manifest.models:
        if counts[model.sha256] != model.samples:
            yield Problem(
                "manifest.json",
                f"model {model.sha256[:16]} ({model.name}) has another number of samples in the shards",
                str(model.samples),
                str(counts[model.sha256]),
            )
