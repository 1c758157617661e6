"""Joining the parts of a dataset: from their folders into a new one, or in place where all wrote into one folder.

What is joined must have been made from the same plan; every shard must be there, with the bytes that its sidecar
states; a shard that is in several folders must be the same in all. Then the files around the shards are written as a
single run writes them, so the result is byte for byte that run's. The folders that are joined are only read; an
interrupted merge can be given again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdgen import __version__
from mmdgen.dataset.manifest import read_manifest
from mmdgen.dataset.remote import RemotePath, file_sha256
from mmdgen.dataset.schema import MANIFEST_FILE, PLAN_FILE, PROVENANCE_FILE
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import NO_LINKS, sync_directory, temporary_file, unwritable
from mmdgen.generate.parts import PartOf, parts_to_repeat
from mmdgen.generate.parts_locks import parts_begun, sole_writer, sweep
from mmdgen.generate.plan import Plan, read_plan
from mmdgen.generate.remote import (
    Place,
    RemotePlace,
    manifest_results,
    provenance_in,
    results_in,
)
from mmdgen.generate.run import Summary, finish, summarise
from mmdgen.generate.shard import WORK_FOLDER, ShardResult, write_sidecar

NAMED = 5  # so many shards are named in a message
PIECE = 4 << 20

OnMerged = Callable[[int, int], None]


class MissingShardsError(DatasetError):
    """Shards of the plan are in none of the folders. `files` are theirs, `parts` those to run again, where known."""

    def __init__(self, files: Sequence[str], total: int, parts: Sequence[PartOf]) -> None:
        self.files, self.total, self.parts = tuple(files), total, tuple(parts)
        again = f"run again part {', '.join(map(str, parts))}" if parts else "render them, and merge again"
        super().__init__(f"{len(files)} of {total} shards are missing: {_some(files)}; {again}. Nothing was changed")

    def __reduce__(self):
        return (MissingShardsError, (self.files, self.total, self.parts))


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder to join, and the results of the shards that it holds, by their indices."""

    root: Path | RemotePath
    results: dict[int, ShardResult]


def merge(
    roots: Sequence[Path | RemotePath], place: Place, *, on_progress: OnMerged = lambda done, total: None
) -> Summary:
    """Join what the folders `roots` hold into `place`, which may be one of them, and finish the dataset there.

    What `place` holds of the same plan counts, too. `on_progress(done, total)` counts shards. Raises `ConfigError` for
    folders that do not belong together or a place that holds something else, `MissingShardsError`, and `DatasetError`
    for shards that are damaged or differ.
    """
    if not any(_is_same(root, place.root) for root in roots) and read_plan(place.root) is not None:  # type: ignore[arg-type]
        roots = [*roots, place.root]
    plan, content = _common_plan(roots)
    provenance = _common_provenance(roots, plan)
    sources = [_Source(root, _results(root, plan)) for root in roots]
    chosen = _choose(plan, sources)
    place.adopt(plan, content, provenance)
    with sole_writer(place.folder, place.name):
        manifest = place.finished(plan)
        if manifest is not None:
            place.clear()
            return summarise(place, manifest, complete=True)
        try:
            sweep(place.folder)
            there = place.results(plan, chosen)
            for done, (index, holders) in enumerate(chosen.items()):
                on_progress(done, len(chosen))
                _bring(plan, index, holders, there[index], place)
            on_progress(len(chosen), len(chosen))
            results = [holders[0].results[index] for index, holders in sorted(chosen.items())]
            manifest = finish(plan, results, place)
        except BaseException:
            sweep(place.folder)
            raise
        return summarise(place, manifest)


def _common_plan(roots: Sequence[Path | RemotePath]) -> tuple[Plan, bytes]:
    """Return the plan that all folders hold, and its bytes. Raises `ConfigError`."""
    plans = []
    for root in roots:
        plan = read_plan(root)  # type: ignore[arg-type]  RemotePath reads like a Path
        if plan is None:
            raise ConfigError(f"{root} holds no {PLAN_FILE}: it is no dataset, and no part of one")
        plans.append(plan)
    first = plans[0]
    for root, plan in zip(roots, plans, strict=True):
        if plan.digest == first.digest:
            continue
        differences = first.options.differences(plan.options)
        if plan.version != first.version:
            differences.append(f"one was begun with mmdgen {first.version}, the other with {plan.version}")
        if not differences:
            differences.append(
                f"the options are the same, the models or annotations are not ({len(first.models)} models, "
                f"{len(first.rejected)} rejected, against {len(plan.models)} and {len(plan.rejected)})"
            )
        raise ConfigError(f"{root} does not belong to {roots[0]}: {'; '.join(differences)}")
    if first.version != __version__:
        raise ConfigError(
            f"{roots[0]} was begun with mmdgen {first.version}, this is {__version__}: merge it with that"
        )
    return first, (roots[0] / PLAN_FILE).read_bytes()


def _common_provenance(roots: Sequence[Path | RemotePath], plan: Plan) -> bytes:
    found = [provenance_in(root, plan) for root in roots]
    for root, content in zip(roots, found, strict=True):
        if content != found[0]:
            raise ConfigError(
                f"{root} does not belong to {roots[0]}: {PROVENANCE_FILE} differs: other texts lay beside the models"
            )
    return found[0]


def _results(root: Path | RemotePath, plan: Plan) -> dict[int, ShardResult]:
    """Return the results of the shards in a folder, of a part or of a finished dataset."""
    if (root / MANIFEST_FILE).exists():
        manifest = read_manifest(root)  # type: ignore[arg-type]
        if manifest.files.get(PLAN_FILE) != plan.digest:
            raise ConfigError(f"{root}: {PLAN_FILE} is not the one that the dataset was made with")
        sizes = (
            root.sizes() if isinstance(root, RemotePath) else Place(root).sizes(map(plan.file, range(len(plan.shards))))
        )
        return {
            index: result
            for index, result in manifest_results(plan, manifest).items()
            if sizes.get(result.info.file) == result.info.bytes
        }
    found = results_in(root, plan, range(len(plan.shards)))
    return {index: result for index, result in found.items() if result is not None}


def _choose(plan: Plan, sources: Sequence[_Source]) -> dict[int, list[_Source]]:
    """Return who holds each shard. Raises `MissingShardsError`, and `DatasetError` where two hold different ones."""
    chosen: dict[int, list[_Source]] = {}
    for index in range(len(plan.shards)):
        holders = [source for source in sources if index in source.results]
        if holders:
            chosen[index] = holders
        for other in holders[1:]:
            first = holders[0].results[index]
            if other.results[index].info.sha256 != first.info.sha256:
                raise DatasetError(
                    f"{plan.file(index)} is not the same in {holders[0].root}{_failures(first)} and in "
                    f"{other.root}{_failures(other.results[index])}; remove one of the two files and merge again"
                )
    missing = [index for index in range(len(plan.shards)) if index not in chosen]
    if missing:
        begun = [part for source in sources for part in _begun(source.root)]
        parts = parts_to_repeat(missing, begun)
        raise MissingShardsError([plan.file(index) for index in missing], len(plan.shards), parts)
    return chosen


def _begun(root: Path | RemotePath) -> list[PartOf]:
    if isinstance(root, Path):
        return parts_begun(root)
    return [part for part in map(PartOf.of_lock, (root / WORK_FOLDER).names()) if part is not None]


def _failures(result: ShardResult) -> str:
    return f" (where {len(result.failures)} models failed)" if result.failures else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _bring(plan: Plan, index: int, holders: Sequence[_Source], there: ShardResult | None, place: Place) -> None:
    """Bring a shard to its place, and check every copy of it; one that an earlier start has brought stays."""
    result = holders[0].results[index]
    target = place.folder / result.info.file
    others = [source for source in holders if not _is_same(source.root, place.root)]
    if len(others) < len(holders) and (there is None or there.info != result.info):
        raise DatasetError(f"{place.name}: {result.info.file} was changed while it was merged; merge again")
    arrived = there is not None and there.info == result.info
    # What lies in a store was read back when it was uploaded; what lies here is read again.
    if arrived and not isinstance(place, RemotePlace) and not _same(target, result):
        if not others:
            raise _damaged(target)
        arrived = False
    for source in others if arrived else others[1:]:
        if not _same(source.root / result.info.file, result):
            raise _damaged(source.root / result.info.file)
    if arrived:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (place.folder / WORK_FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{target.parent}: cannot be made: {error.strerror or error}") from error
    _copy(others[0].root / result.info.file, target, result)
    write_sidecar(plan, result, place.folder)
    place.keep(plan, result)


def _is_same(one: Path | RemotePath, other: Path | RemotePath) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return one == other


def _same(path: Path | RemotePath, result: ShardResult) -> bool:
    """Return whether a file has the SHA-256 that its result states. Raises `DatasetError` when it cannot be read."""
    try:
        return file_sha256(path) == result.info.sha256
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error


def _damaged(path: Path | RemotePath) -> DatasetError:
    return DatasetError(
        f"{path} is damaged: its SHA-256 is not the one it was written with; remove it, make it again with the render "
        "command that made it, and merge again"
    )


def _copy(source: Path | RemotePath, target: Path, result: ShardResult) -> None:
    """Make `target` of `source`, by a hard link where that is possible. Raises `DatasetError`."""
    if isinstance(source, RemotePath):
        if source.download(target) != result.info.sha256:
            target.unlink(missing_ok=True)
            raise _damaged(source)
        return
    if not _same(source, result):
        raise _damaged(source)
    temporary = None
    try:
        temporary, stream = temporary_file(target)
        with stream:
            if not _linked(source, temporary):
                with source.open("rb") as original:
                    for piece in iter(lambda: original.read(PIECE), b""):
                        stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
        if not _same(temporary, result):  # it was changed since it was checked
            raise _damaged(source)
        temporary.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise unwritable(target, error, result.info.bytes) from error
    finally:
        if temporary is not None:  # also where both were links to one file: then a rename does nothing
            temporary.unlink(missing_ok=True)


def _linked(source: Path, temporary: Path) -> bool:
    """Exchange a new, empty file for a hard link to `source`; return whether that is possible."""
    link = temporary.with_name(temporary.name + "-link")
    try:
        os.link(source.resolve(), link)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    link.replace(temporary)
    return True
