"""Where a dataset is made and where it goes: a local folder, or an object store with a local folder for staging.

A `Place` is what a run and its workers use. For a local folder nothing has to be moved. For an object store
(`RemotePlace`) every shard is made in the staging folder, uploaded by the process that made it, read back, noted by
its sidecar and removed here; plan and sidecars lie in the store as well, so that any machine can go on, from an empty
staging folder too. The manifest is uploaded last. Object stores have no locks: two runs at once do work twice, and
write the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from mmdgen.dataset.manifest import Manifest, read_manifest
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import (
    CARD_FILE,
    FAILURES_FILE,
    MANIFEST_FILE,
    PLAN_FILE,
    PREVIEW_FILE,
    PROVENANCE_FILE,
)
from mmdgen.errors import ConfigError, DatasetError, EngineError
from mmdgen.fsio import process_name, write_atomic, write_json
from mmdgen.generate import freeze
from mmdgen.generate.catalogue import Catalogue
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.parts import PartOf
from mmdgen.generate.parts_locks import parts_begun
from mmdgen.generate.plan import Plan, check_same, plan_bytes, read_plan
from mmdgen.generate.shard import (
    WORK_FOLDER,
    Failure,
    ShardResult,
    parse_sidecar,
    read_sidecar,
    sidecar_bytes,
    sidecar_path,
    write_sidecar,
)
from mmdgen.generate.splits import SPLITS

REMOTE_FILE = "remote.json"  # in .work of a staging folder: whose it is


class Place:
    """A local folder in which a dataset is made. `folder` is where files are written, `root` where they are read."""

    root: Path | RemotePath

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.root)

    def plan_for(self, options: RenderOptions, scan: Callable[[], Catalogue], *, keep: bool = True) -> Plan:
        """Return the frozen plan, or make and (with `keep`) freeze one; see `freeze.plan_for`."""
        return freeze.plan_for(self.folder, options, scan, keep=keep)

    def worker_plan(self, digest: str) -> Plan:
        """Return the plan for a worker. Raises `EngineError` when it is not the one with this digest."""
        plan = read_plan(self.folder)
        if plan is None or plan.digest != digest:
            raise EngineError(f"{self.name}: the plan changed while the run was starting")
        return plan

    def adopt(self, plan: Plan, content: bytes, provenance: bytes) -> None:
        """Freeze a plan that another folder holds, `content` being its plan.json. Raises `ConfigError`."""
        if read_plan(self.folder) is None:
            freeze.check_folder(self.folder)
            freeze.write_plan_once(plan, content, provenance, self.folder)
        frozen = read_plan(self.folder)
        if frozen is None or frozen.digest != plan.digest:
            raise ConfigError(f"{self.name} holds the plan of another dataset; give another --out")
        freeze.place_provenance(plan, self.folder)

    def results(self, plan: Plan, indices: Iterable[int]) -> dict[int, ShardResult | None]:
        """Return the results of these shards, None for those that are not finished."""
        return results_in(self.root, plan, indices)

    def count(self, plan: Plan) -> int:
        """Return how many shards of the whole plan are finished."""
        return sum(result is not None for result in self.results(plan, range(len(plan.shards))).values())

    def keep(self, plan: Plan, result: ShardResult) -> None:
        """Bring a shard that lies in `folder` with its sidecar to where it belongs; called where it was made."""

    def begin_part(self, part: PartOf) -> None:
        """Note that a part was begun."""

    def parts(self) -> list[PartOf]:
        """Return the parts that were begun."""
        return parts_begun(self.folder)

    def finished(self, plan: Plan, *, reopen: bool = True, retry_failed: bool = False) -> Manifest | None:
        """Return the manifest of a finished dataset; None when it is not finished.

        One whose shards are missing is taken apart again, to be completed, or refused without `reopen`; one from which
        models were left out only with `retry_failed`. Raises `ConfigError` when the dataset was made with another plan.
        """
        if not (self.root / MANIFEST_FILE).exists():
            return None
        manifest = read_manifest(self.root)  # type: ignore[arg-type]
        if manifest.files.get(PLAN_FILE) != plan.digest:
            raise ConfigError(
                f"{self.name}: {PLAN_FILE} is not the one that the dataset was made with; give another --out"
            )
        shards = {shard.file: shard for found in manifest.shards.values() for shard in found}
        sizes = self.sizes(shards)
        lost = sorted(file for file, shard in shards.items() if sizes.get(file) != shard.bytes)
        if not lost and not (retry_failed and manifest.failures):
            return manifest
        if not reopen:
            raise ConfigError(
                f"{self.name} was finished and has lost {len(lost)} shards since ({lost[0]}); the same command without "
                "--part makes them again"
            )
        for result in manifest_results(plan, manifest).values():
            if result.info.file not in lost:
                self.write_sidecar(plan, result)
        self.remove(MANIFEST_FILE)
        return None

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those files that are there."""
        found = {}
        for file in files:
            with contextlib.suppress(OSError):
                found[file] = (self.folder / file).stat().st_size
        return found

    def write_sidecar(self, plan: Plan, result: ShardResult) -> None:
        (self.folder / WORK_FOLDER).mkdir(exist_ok=True)
        write_sidecar(plan, result, self.folder)

    def remove(self, file: str) -> None:
        (self.folder / file).unlink(missing_ok=True)

    def publish(self) -> None:
        """Bring the files around the shards, the manifest last, to where they belong."""

    def clear(self) -> None:
        """Remove what only an unfinished dataset needs."""
        shutil.rmtree(self.folder / WORK_FOLDER, ignore_errors=True)


class RemotePlace(Place):
    """An object store, with a local folder for staging that holds nothing but what is under way."""

    def __init__(self, root: RemotePath, staging: Path) -> None:
        super().__init__(staging)
        self.root: RemotePath = root

    def plan_for(self, options: RenderOptions, scan: Callable[[], Catalogue], *, keep: bool = True) -> Plan:
        """Return the store's frozen plan, or make one; with `keep` it is frozen there and copied to the staging folder.

        That the store can be written is tried before anything is scanned. Raises `ConfigError`, `DatasetError`.
        """
        if keep:
            self._try_writing()  # first: where that fails nothing is left here either
            self._claim()
        plan = read_plan(self.root)  # type: ignore[arg-type]  RemotePath reads like a Path
        if plan is not None:
            check_same(plan, options, self.root)  # type: ignore[arg-type]
            if keep:
                self.bring_plan(plan)
            return plan
        self._check_empty()
        local = read_plan(self.folder) if keep else None
        if local is not None and not local.options.differences(options):  # a start that got no further than that
            with contextlib.suppress(OSError):
                return self._freeze(local, freeze.kept_provenance(local, self.folder).read_bytes())
        plan, provenance = freeze.plan_of(options, scan())
        return self._freeze(plan, provenance) if keep else plan

    def _freeze(self, plan: Plan, provenance: bytes) -> Plan:
        """Freeze a plan in the store, or take the one that another machine has just frozen there."""
        kept = freeze.kept_provenance(plan, self.folder)
        write_atomic(kept, provenance)
        (self.root / WORK_FOLDER / kept.name).write_bytes(provenance)
        (self.root / PLAN_FILE).create_once(plan_bytes(plan))
        frozen = read_plan(self.root)  # type: ignore[arg-type]
        if frozen is None:
            raise DatasetError(f"{self.name}: {PLAN_FILE} was written, and is not there")
        freeze.check_frozen(plan, frozen, self.name)
        self.bring_plan(frozen)
        return frozen

    def adopt(self, plan: Plan, content: bytes, provenance: bytes) -> None:
        self._try_writing()
        self._claim()
        if read_plan(self.root) is None:  # type: ignore[arg-type]
            self._check_empty()
            kept = freeze.kept_provenance(plan, self.folder)
            (self.root / WORK_FOLDER / kept.name).write_bytes(provenance)
            (self.root / PLAN_FILE).create_once(content)
        frozen = read_plan(self.root)  # type: ignore[arg-type]
        if frozen is None or frozen.digest != plan.digest:
            raise ConfigError(f"{self.name} holds the plan of another dataset; give another --out")
        self.bring_plan(frozen)

    def bring_plan(self, plan: Plan) -> None:
        """Copy the frozen plan and its provenance from the store to the staging folder."""
        local = read_plan(self.folder)
        if local is None or local.digest != plan.digest:
            write_atomic(self.folder / PLAN_FILE, (self.root / PLAN_FILE).read_bytes())
        kept = freeze.kept_provenance(plan, self.folder)
        if not kept.exists():
            write_atomic(kept, provenance_in(self.root, plan))
        freeze.place_provenance(plan, self.folder)

    def worker_plan(self, digest: str) -> Plan:
        plan = read_plan(self.folder)
        if plan is None or plan.digest != digest:  # a worker on a machine that has another folder here, or none
            self._claim()
            plan = read_plan(self.root)  # type: ignore[arg-type]
        if plan is None or plan.digest != digest:
            raise EngineError(f"{self.name}: the plan changed while the run was starting")
        return plan

    def results(self, plan: Plan, indices: Iterable[int]) -> dict[int, ShardResult | None]:
        """Return the results of these shards; what an earlier start has made and not uploaded is uploaded first."""
        indices = list(indices)
        for index in indices:
            result = read_sidecar(plan, index, self.folder)
            if result is not None:
                self.keep(plan, result)
        return results_in(self.root, plan, indices)

    def count(self, plan: Plan) -> int:
        sizes = self.root.sizes()
        notes = (sidecar_path(plan, index, self.folder).name for index in range(len(plan.shards)))
        return sum(f"{WORK_FOLDER}/{name}" in sizes for name in notes)

    def keep(self, plan: Plan, result: ShardResult) -> None:
        """Upload a shard, then its sidecar, then remove both here. Raises `DatasetError`, and keeps the shard."""
        local, note = self.folder / result.info.file, sidecar_path(plan, result.index, self.folder)
        remote = self.root / WORK_FOLDER / note.name
        with contextlib.suppress(DatasetError):  # a note about an earlier content must not outlive it
            remote.unlink(missing_ok=True)
        try:
            (self.root / result.info.file).upload(local, result.info.sha256)
        except DatasetError as error:
            raise DatasetError(f"{error}. The shard is kept in {self.folder}") from error
        remote.write_bytes(sidecar_bytes(plan, result))
        local.unlink(missing_ok=True)
        note.unlink(missing_ok=True)

    def begin_part(self, part: PartOf) -> None:
        (self.root / WORK_FOLDER / part.lock_name).write_bytes(f"{part}\n".encode())

    def parts(self) -> list[PartOf]:
        names = sorted(set((self.root / WORK_FOLDER).names()))
        return [part for part in map(PartOf.of_lock, names) if part is not None]

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        found = self.root.sizes()
        return {file: found[file] for file in files if file in found}

    def write_sidecar(self, plan: Plan, result: ShardResult) -> None:
        name = sidecar_path(plan, result.index, self.folder).name
        (self.root / WORK_FOLDER / name).write_bytes(sidecar_bytes(plan, result))

    def remove(self, file: str) -> None:
        (self.root / file).unlink(missing_ok=True)

    def publish(self) -> None:
        for name in (PROVENANCE_FILE, FAILURES_FILE, CARD_FILE, PREVIEW_FILE, MANIFEST_FILE):
            (self.root / name).write_bytes((self.folder / name).read_bytes())

    def clear(self) -> None:
        """Remove .work from the store and all that is ours from the staging folder; it is no error where that fails."""
        with contextlib.suppress(DatasetError, OSError):
            work = self.root / WORK_FOLDER
            for name in work.names():
                (work / name).unlink(missing_ok=True)
        for name in (PLAN_FILE, PROVENANCE_FILE, FAILURES_FILE, CARD_FILE, PREVIEW_FILE, MANIFEST_FILE):
            (self.folder / name).unlink(missing_ok=True)
        for folder in (*SPLITS, WORK_FOLDER):
            shutil.rmtree(self.folder / folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _claim(self) -> None:
        """Make the staging folder, or see that it is one for this place. Raises `ConfigError`, `DatasetError`."""
        owner = remote_of(self.folder)
        if owner == self.root.url:
            return
        if owner:
            raise ConfigError(f"{self.folder} is the staging folder of {owner}; give another --staging")
        try:
            (self.folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
            foreign = sorted(path.name for path in self.folder.iterdir() if path.name != WORK_FOLDER)
        except OSError as error:
            raise DatasetError(f"{self.folder}: cannot be made: {error.strerror or error}") from error
        if remote_of(self.folder) == self.root.url:  # another task of the same array has just claimed it for all
            return
        if foreign:
            raise ConfigError(f"{self.folder} is not empty ({foreign[0]}, ...); --staging names a folder of its own")
        write_json(self.folder / WORK_FOLDER / REMOTE_FILE, {"url": self.root.url})

    def _try_writing(self) -> None:
        if self.root.protocol == "memory":
            raise ConfigError(f"{self.name} lives in one process only, and worker processes write: give another --out")
        probe = self.root / WORK_FOLDER / f"access-{process_name()}"
        probe.write_bytes(b"this place can be written\n")
        with contextlib.suppress(DatasetError):  # who may write, but not remove, can still make a dataset
            probe.unlink(missing_ok=True)

    def _check_empty(self) -> None:
        foreign = [name for name in self.root.names() if name not in (WORK_FOLDER, PROVENANCE_FILE, PLAN_FILE)]
        if foreign:
            more = ", ..." if len(foreign) > 3 else ""
            raise ConfigError(
                f"{self.name} is not empty and holds no {PLAN_FILE} of a run to go on with "
                f"({', '.join(foreign[:3])}{more}); give another --out"
            )


def results_in(root: Path | RemotePath, plan: Plan, indices: Iterable[int]) -> dict[int, ShardResult | None]:
    """Return the results of these shards of an unfinished dataset in `root`, None for those that are not finished."""
    if isinstance(root, Path):
        return {index: read_sidecar(plan, index, root) for index in indices}
    sizes = root.sizes()
    names = {index: f"{WORK_FOLDER}/{sidecar_path(plan, index, Path()).name}" for index in indices}
    notes = root.read_many(name for name in names.values() if name in sizes)
    return {
        index: parse_sidecar(plan, index, notes[name], sizes.get(plan.file(index))) if name in notes else None
        for index, name in names.items()
    }


def manifest_results(plan: Plan, manifest: Manifest) -> dict[int, ShardResult]:
    """Return the results of the shards of a finished dataset, by their indices in its plan."""
    shards = {shard.file: shard for found in manifest.shards.values() for shard in found}
    failures = [Failure(**{"id" if key == "sha256" else key: row[key] for key in row}) for row in manifest.failures]
    results = {}
    for index in range(len(plan.shards)):
        file = plan.file(index)
        if file in shards:
            missed = tuple(failure for failure in failures if failure.shard == file)
            results[index] = ShardResult(index, shards[file], missed, dict(manifest.gl))
    return results


def provenance_in(root: Path | RemotePath, plan: Plan) -> bytes:
    """Return the provenance of the plan in `root`, of a finished dataset or another. Raises `DatasetError`."""
    kept = freeze.kept_provenance(plan, Path())
    for path in (root / WORK_FOLDER / kept.name, root / PROVENANCE_FILE):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise DatasetError(f"{root}: {PROVENANCE_FILE} is missing")


def place_at(folder: Path, url: str) -> Place:
    """Return the place of a worker: the folder, which is for staging where there is an URL."""
    return RemotePlace(RemotePath(url), folder) if url else Place(folder)


def remote_of(folder: Path) -> str:
    """Return the URL that a folder is the staging folder of, "" for any other folder."""
    try:
        return str(json.loads((folder / WORK_FOLDER / REMOTE_FILE).read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
