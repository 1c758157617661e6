"""Taking models out of a finished dataset, because their author asks for it or a licence has changed.

The shards that hold a model are written anew without it, as if it had never been planned: the same bytes as the plan
without the model gives. All other shards stay as they are. Nothing of the model stays in any file but its hash, which
manifest and plan list as removed, so that nobody brings it back by accident.

Whatever interrupts it, the same command goes on. `.work/removal.json` says what is being removed and keeps every other
command away; then the manifest moves into `.work`, so that no reader takes the folder for a finished dataset; then
shards, the files around them, the new manifest; `.work` goes last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.manifest import REMOVAL_FILE, Manifest, make_manifest, read_manifest, sidecar_hashes, write_manifest
from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.reader import Shard
from mmdgen.dataset.schema import (
    CARD_FILE,
    FAILURES_FILE,
    MANIFEST_FILE,
    PLAN_FILE,
    PREVIEW_FILE,
    PROVENANCE_FILE,
    SPLITS,
    ShardInfo,
)
from mmdgen.dataset.shard_copy import shard_without
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import sha256_file, sync_directory, write_atomic, write_json
from mmdgen.generate.dataset_report import default_page
from mmdgen.generate.lists import DIGITS, LEAST_DIGITS, HashList
from mmdgen.generate.options import command_line
from mmdgen.generate.parts_locks import LOCK_FILE, sole_writer, sweep
from mmdgen.generate.plan import Part, Plan, ShardPlan, parse_plan, plan_bytes, with_digest
from mmdgen.generate.run import read_provenance
from mmdgen.generate.shard import WORK_FOLDER

MANIFEST_BEFORE = "removal-manifest.json"  # in .work: the manifest that counts until the new one is there

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal takes out of the dataset in `out`: `models` (sha256, sorted), of them `names` where known.

    `samples` are those that go, by split; `shards` the files to be written anew; `rows` how many lines of failures and
    rejections go. `bytes` is the size of those shards, `left` the samples that stay. `already` are models that were
    removed before, `copies` the exports and the report beside the dataset that still show a model.
    """

    out: Path
    models: tuple[str, ...]
    names: dict[str, str]
    samples: dict[str, int]
    shards: tuple[str, ...]
    rows: int
    bytes: int
    left: dict[str, int]
    already: tuple[str, ...] = ()
    copies: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "removed": list(self.models),
            "already_removed": list(self.already),
            "names": self.names,
            "samples": self.samples,
            "shards": list(self.shards),
            "rows": self.rows,
            "bytes": self.bytes,
            "samples_left": self.left,
            "copies": [str(path) for path in self.copies],
        }


def find_removal(out: Path, hashes: Sequence[str]) -> Removal:
    """Return what taking out the models with these hashes (or beginnings of 8 digits or more) means; change nothing.

    What an interrupted removal has begun belongs to it. Raises `ConfigError` for a hash that no model here has, or
    several, and when no sample would be left; `DatasetError` for a dataset that is not finished or damaged.
    """
    manifest, pending = _manifest_before(out), _pending(out)
    asked = {_resolve(text, manifest, pending, out) for text in hashes}
    models = tuple(sorted((asked | set(pending)) - set(manifest.removed)))
    affected = [info for info in _shards(manifest) if not models_of(info).isdisjoint(models)]
    left = {split: 0 for split in SPLITS if manifest.shards.get(split)}
    samples = dict(left)
    for model in manifest.models:
        (samples if model.sha256 in models else left)[model.split] += model.samples
    if models and not any(left.values()):
        raise ConfigError(f"{out}: no sample would be left without these models: delete the whole folder instead")
    rows = (*manifest.rejected, *manifest.failures)
    return Removal(
        out,
        models,
        {model.sha256: model.name for model in manifest.models if model.sha256 in models},
        samples,
        tuple(info.file for info in affected),
        sum(row.get("sha256") in models for row in rows),
        sum(info.bytes for info in affected),
        left,
        tuple(sorted(asked & set(manifest.removed))),
        tuple(_copies_with(out, {*models, *asked})),
    )


def remove_models(out: Path, hashes: Sequence[str], *, progress: Progress | None = None) -> Removal:
    """Take the models with these hashes out of the finished dataset in `out`; return what went.

    `progress(done, total)` is called with shards. After any exception, KeyboardInterrupt too, the same call goes on.
    Raises as `find_removal` does, and `DatasetError` when what has to be written anew is damaged or lies where nothing
    may be written, before anything is changed, or when something cannot be written after all.
    """
    removal = find_removal(out, hashes)
    if not removal.models and not _pending(out) and not (out / WORK_FOLDER).exists():
        return removal
    with sole_writer(out):
        if find_removal(out, hashes) != removal:
            raise ConfigError(f"{out} has just been changed by somebody else; give the same command again")
        before = _manifest_before(out)
        if not removal.models and not _pending(out):  # killed when only the lock was left
            shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
            return removal
        try:
            _check_whole(out, before, removal.models)
            _begin(out, removal.models)
            _finish(out, before, frozenset(removal.models), progress or (lambda done, total: None))
        finally:
            sweep(out)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)  # nothing but the lock is left in it
    return removal


def models_on_list(out: Path, denied: HashList) -> tuple[str, ...]:
    """Return the models of the dataset in `out` (sha256, sorted) that a deny list names and that were not removed yet.

    Those that such a list kept out when the dataset was made are left out. Raises `DatasetError`.
    """
    manifest = _manifest_before(out)
    kept_out = {row.get("sha256") for row in manifest.rejected if row.get("code") == "denied"}
    known = _known(manifest) - kept_out - set(manifest.removed)
    return tuple(sorted(sha256 for sha256 in known if denied.match(sha256) is not None))


def models_of(info: ShardInfo) -> frozenset[str]:
    """Return the models that a shard has in its table, also those without a sample."""
    return frozenset(info.model_samples)


def plan_without(plan: Plan, models: Collection[str]) -> Plan:
    """Return the plan as it would be without these models, all others keeping their samples and shards."""
    place: dict[int, int] = {}
    for index, model in enumerate(plan.models):
        if model.id not in models:
            place[index] = len(place)
    shards = tuple(
        ShardPlan(
            shard.split,
            shard.number,
            tuple(Part(place[part.model], part.first, part.count) for part in shard.parts if part.model in place),
        )
        for shard in plan.shards
    )
    return with_digest(
        replace(
            plan,
            models=tuple(plan.models[index] for index in place),
            rejected=tuple(row for row in plan.rejected if row.id not in models),
            shards=shards,
            removed=tuple(sorted({*plan.removed, *models})),
            origin=plan.origin or plan.digest,
        )
    )


def _pending(out: Path) -> tuple[str, ...]:
    """Return the models of a removal that was interrupted. Raises `DatasetError`."""
    path = out / REMOVAL_FILE
    try:
        return tuple(str(sha256) for sha256 in json.loads(path.read_bytes())["models"])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error!r}; put the dataset back from a copy") from error


def _manifest_before(out: Path) -> Manifest:
    """Return the manifest as it was before an interrupted removal, else the dataset's."""
    if (out / REMOVAL_FILE).exists() and (out / WORK_FOLDER / MANIFEST_BEFORE).exists():
        return read_manifest(out / WORK_FOLDER, MANIFEST_BEFORE)
    return read_manifest(out)


def _resolve(text: str, manifest: Manifest, pending: Iterable[str], out: Path) -> str:
    """Return the sha256 of the one model here whose hash begins with `text`."""
    wanted = text.strip().lower()
    if not LEAST_DIGITS <= len(wanted) <= DIGITS or set(wanted) - set("0123456789abcdef"):
        raise ConfigError(f"a hash has {LEAST_DIGITS} to {DIGITS} hexadecimal digits, found {text[:80]!r}")
    known = _known(manifest) | {*manifest.removed, *pending}
    found = sorted(sha256 for sha256 in known if sha256.startswith(wanted))
    if not found:
        raise ConfigError(
            f"{out}: no model here has a hash that begins with {wanted[:16]}; models are in {MANIFEST_FILE}"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{out}: the hashes of {len(found)} models begin with {wanted}: give more digits "
            f"({', '.join(sha256[:20] for sha256 in found[:3])}, ...)"
        )
    return found[0]


def _known(manifest: Manifest) -> set[str]:
    """Return the sha256 of all models that the manifest tells of."""
    known = {model.sha256 for model in manifest.models}
    known |= {sha256 for info in _shards(manifest) for sha256 in info.model_samples}
    known |= {str(row.get("sha256") or "") for row in (*manifest.rejected, *manifest.failures)}
    return known - {""}


def _shards(manifest: Manifest) -> list[ShardInfo]:
    return [info for split in SPLITS for info in manifest.shards.get(split, ())]


def _check_whole(out: Path, manifest: Manifest, models: Collection[str]) -> None:
    """Raise `DatasetError` unless all that has to be written anew is what the manifest says, and may be written.

    What an interrupted removal has written anew already is left out: it is checked when the work goes on.
    """
    begun = _pending(out)
    for name, sha256 in manifest.files.items():
        path = out / name
        if not begun and not _is_whole(path, sha256):
            raise DatasetError(f"{path}: is missing or was changed, so nothing was done; put it back from a copy")
    if PLAN_FILE in manifest.files:
        parse_plan(out)  # raises when this version cannot read it
    affected = [info for info in _shards(manifest) if not models_of(info).isdisjoint(models)]
    for folder in {out, *((out / info.file).parent for info in affected)}:
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise DatasetError(f"{folder}: nothing may be written there, so nothing was changed")
    for info in affected:
        if not _is_whole(out / info.file, info.sha256) and models_of(info).isdisjoint(begun):
            raise DatasetError(
                f"{out / info.file}: is missing or damaged, so nothing was changed: put it back from a copy, or delete "
                "it and run the render command again to make it"
            )


def _is_whole(path: Path, sha256: str) -> bool:
    """Return whether a file is there and has this SHA-256. Raises `DatasetError` where it cannot be read."""
    try:
        return path.is_file() and sha256_file(path) == sha256
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}; nothing was changed") from error


def _begin(out: Path, models: Collection[str]) -> None:
    """Say what is being removed, then put the manifest aside."""
    write_json(out / REMOVAL_FILE, {"models": sorted({*_pending(out), *models})})
    aside = out / WORK_FOLDER / MANIFEST_BEFORE
    if not aside.exists():
        try:
            (out / MANIFEST_FILE).replace(aside)
            sync_directory(out)
            sync_directory(aside.parent)
        except OSError as error:
            raise DatasetError(f"{out / MANIFEST_FILE}: cannot be moved: {error.strerror or error}") from error


def _finish(out: Path, before: Manifest, models: frozenset[str], progress: Progress) -> None:
    models |= frozenset(_pending(out))
    infos = _shards(before)
    affected = [info for info in infos if not models_of(info).isdisjoint(models)]
    new: dict[str, ShardInfo] = {}
    progress(0, len(affected))
    for done, info in enumerate(affected, 1):
        new[info.file] = _rewrite(out, info, models)
        progress(done, len(affected))
    plan = parse_plan(out) if PLAN_FILE in before.files else None
    if plan is not None:
        plan = plan_without(plan, models)
        write_atomic(out / PLAN_FILE, plan_bytes(plan))
    for name in (PROVENANCE_FILE, FAILURES_FILE):
        if name in before.files:
            write_atomic(out / name, _lines_without(out / name, models))
    made = make_manifest(
        before.config,
        [new.get(info.file, info) for info in infos],
        {model.sha256: (model.name, model.source) for model in before.models if model.sha256 not in models},
        rejected=[row for row in before.rejected if row.get("sha256") not in models],
        failures=[row for row in before.failures if row.get("sha256") not in models],
        gl=before.gl,
        files=sidecar_hashes(out),
        removed=sorted({*before.removed, *models}),
        origin=before.shards_plan,
    )
    manifest = replace(made, code_version=before.code_version)  # the pictures are that version's
    command = command_line(plan.options) if plan is not None else ""
    provenance = read_provenance(out) if PROVENANCE_FILE in before.files else []
    write_atomic(out / CARD_FILE, dataset_card(manifest, provenance, command=command).encode("utf-8"))
    write_atomic(out / PREVIEW_FILE, contact_sheet(out, manifest=manifest))
    for path in _reports(out):
        path.unlink()
    write_manifest(out, manifest)
    _clear_work(out)


def _clear_work(out: Path) -> None:
    """Delete what the work folder holds, the journal last: until it has gone, the same command comes here again."""
    kept = (LOCK_FILE, Path(REMOVAL_FILE).name)
    try:
        for path in (out / WORK_FOLDER).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in kept:
                path.unlink()
        (out / REMOVAL_FILE).unlink()
        sync_directory(out / WORK_FOLDER)
    except OSError as error:
        raise DatasetError(f"{out / WORK_FOLDER}: cannot be emptied: {error.strerror or error}") from error


def _rewrite(out: Path, info: ShardInfo, models: frozenset[str]) -> ShardInfo:
    """Write a shard without the models unless that has been done; return what the manifest lists."""
    path = out / info.file
    with Shard(path) as shard:
        found = shard.model_samples()
    gone = set(info.model_samples) - set(found)
    same = {sha256: samples for sha256, samples in info.model_samples.items() if sha256 not in gone}
    if found != same or not gone <= models:
        raise DatasetError(f"{path}: holds other samples than the manifest says; put it back from a copy")
    if not models.isdisjoint(found):
        write_atomic(path, shard_without(path, models))
    left = {sha256: samples for sha256, samples in found.items() if sha256 not in models}
    return ShardInfo(info.file, sha256_file(path), path.stat().st_size, left)


def _lines_without(path: Path, models: Collection[str]) -> bytes:
    """Return the lines of a JSON-lines file that are not about the models, as they are."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        return b"".join(line for line in lines if json.loads(line).get("sha256") not in models)
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; put it back from a copy") from error


def _reports(out: Path) -> list[Path]:
    """Return the pages of `mmdgen report` in the dataset's folder, which show what is no longer there."""
    found = []
    for path in sorted(out.glob("*.html")):
        with contextlib.suppress(OSError):  # what cannot be read is left alone
            if b"<title>Dataset " in (content := path.read_bytes()) and b"<h1>Dataset " in content:
                found.append(path)
    return found


def _copies_with(out: Path, models: Collection[str]) -> list[Path]:
    """Return the exports beside the dataset that hold one of the models, and the report, which names and shows them."""
    found = []
    for path in sorted(out.absolute().parent.glob("*/export.json")):
        try:
            lines = (path.parent / "models.jsonl").read_bytes().splitlines()
            if any(json.loads(line)["sha256"] in models for line in lines):
                found.append(path.parent)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    with contextlib.suppress(OSError, ConfigError):
        page = default_page(out)
        content = page.read_bytes()
        if any(sha256[:16].encode() in content for sha256 in models):
            found.append(page)
    return found
