"""The manifest: the list of what a finished dataset consists of.

It is written last, so a folder with a manifest is a finished dataset. It depends only on what was made: no times, no
absolute paths, no number of workers. Equal datasets have equal manifests, byte for byte.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdgen import __version__
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import (
    FAILURES_FILE,
    MANIFEST_FILE,
    PLAN_FILE,
    PROVENANCE_FILE,
    SCHEMA,
    SCHEMA_VERSIONS,
    SPLITS,
    DatasetConfig,
    ShardInfo,
    storable_text,
)
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import sha256_file, write_json

# Below the dataset's folder: which models are being taken out of it. While it exists nothing may be rendered there.
REMOVAL_FILE = ".work/removal.json"


# What becomes of an URL that is taken for a path.
_MANGLED_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/+(.+)")


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One model of the dataset: identity, name, source folder, its split and its number of samples there."""

    sha256: str
    name: str
    source: str
    split: str
    samples: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`shards` by split in the order of reading; `models` sorted by split and sha256.

    `rejected` and `failures` are rows of JSON (a model's identity and a reason code at least) and `gl` the report on
    the renderer, as the caller gave them. `files` maps the names of the files beside it to their SHA-256: plan.json,
    provenance.jsonl, failures.jsonl, as far as they exist. `removed` are the sha256 of models that were taken out of
    the finished dataset, and `origin` is then the SHA-256 of plan.json as it was before the first one went: the shards
    name that one.
    """

    config: DatasetConfig
    shards: Mapping[str, tuple[ShardInfo, ...]]
    models: tuple[ModelSummary, ...]
    rejected: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    gl: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    code_version: str = __version__
    removed: tuple[str, ...] = ()
    origin: str = ""

    def samples(self, split: str) -> int:
        return sum(shard.samples for shard in self.shards.get(split, ()))

    def model_count(self, split: str) -> int:
        return sum(model.split == split for model in self.models)

    @property
    def bytes(self) -> int:
        """The size of all shards."""
        return sum(shard.bytes for shards in self.shards.values() for shard in shards)

    @property
    def shards_plan(self) -> str:
        """The SHA-256 of the plan that the shards name; empty when the dataset has none."""
        return self.origin or self.files.get(PLAN_FILE, "")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of manifest.json."""
        # only where there are any, so that all other manifests are the bytes that they always were
        removed = {"removed": {"models": list(self.removed), "plan": self.origin}} if self.removed else {}
        return {
            **removed,
            "schema": SCHEMA,
            "schema_version": self.config.schema_version,
            "code_version": self.code_version,
            "config": self.config.to_json(),
            "splits": {
                split: {
                    "samples": self.samples(split),
                    "models": self.model_count(split),
                    "shards": [_shard_json(shard) for shard in shards],
                }
                for split, shards in self.shards.items()
            },
            "models": [
                {"sha256": m.sha256, "name": m.name, "source": m.source, "split": m.split, "samples": m.samples}
                for m in self.models
            ],
            "rejected": [dict(row) for row in self.rejected],
            "failures": [dict(row) for row in self.failures],
            "gl": dict(self.gl),
            "files": dict(self.files),
        }


def make_manifest(
    config: DatasetConfig,
    shards: Iterable[ShardInfo],
    models: Mapping[str, tuple[str, str]],
    *,
    rejected: Iterable[Mapping[str, Any]] = (),
    failures: Iterable[Mapping[str, Any]] = (),
    gl: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    removed: Iterable[str] = (),
    origin: str = "",
) -> Manifest:
    """Return the manifest of finished `shards` (any order); `models` maps a sha256 to the model's (name, source).

    Models without a sample are left out. Raises `DatasetError` when a model is in two splits or has no name.
    """
    by_split: dict[str, tuple[ShardInfo, ...]] = dict.fromkeys(SPLITS, ())
    for shard in sorted(shards, key=lambda shard: shard.file):
        split = shard.file.partition("/")[0]
        if split not in by_split:
            raise DatasetError(f"{shard.file}: a shard lies in one of {', '.join(SPLITS)}")
        by_split[split] += (shard,)
    split_of: dict[str, str] = {}
    summaries: list[ModelSummary] = []
    for split, members in by_split.items():
        counts: Counter[str] = Counter()
        for shard in members:
            counts.update(shard.model_samples)
        for sha256, samples in sorted(counts.items()):
            if samples == 0:
                continue
            if split_of.setdefault(sha256, split) != split:
                raise DatasetError(f"model {sha256[:16]} is in the splits {split_of[sha256]} and {split}")
            if sha256 not in models:
                raise DatasetError(f"model {sha256[:16]} of split {split} has no name")
            name, source = models[sha256]
            summaries.append(ModelSummary(sha256, storable_text(name), storable_text(source), split, samples))
    return Manifest(
        config,
        by_split,
        tuple(summaries),
        tuple(rejected),
        tuple(failures),
        dict(gl or {}),
        dict(files or {}),
        removed=tuple(removed),
        origin=origin,
    )


def sidecar_hashes(out: Path) -> dict[str, str]:
    """Return the SHA-256 of plan.json, provenance.jsonl and failures.jsonl in `out`, of those that exist."""
    names = (PLAN_FILE, PROVENANCE_FILE, FAILURES_FILE)
    return {name: sha256_file(out / name) for name in names if (out / name).is_file()}


def write_manifest(out: Path, manifest: Manifest) -> Path:
    """Write `out`/manifest.json atomically; return its path. Only for a dataset that is complete otherwise."""
    path = out / MANIFEST_FILE
    write_json(path, manifest.to_json())
    return path


def read_manifest(out: Path | RemotePath, name: str = MANIFEST_FILE) -> Manifest:
    """Read `out`/manifest.json, or a manifest by another name.

    Raises `DatasetError`: missing (the run did not finish), damaged, another version.
    """
    path = out / name
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(_missing(out)) from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path}: is damaged: {error}. Delete it and run the render command again.") from error
    if isinstance(value, dict):
        check_schema(path, value.get("schema"), value.get("schema_version"))
    try:
        return _from_json(value)
    except KeyError as error:
        raise DatasetError(f"{path}: is damaged: {error} is missing. Run the render command again.") from error
    except (TypeError, ValueError, AttributeError, ConfigError) as error:
        raise DatasetError(f"{path}: is damaged: {error}. Run the render command again.") from error


def check_schema(path: Path | RemotePath, schema: Any, version: Any) -> None:
    """Raise `DatasetError` unless a file says that it follows this schema in a known version."""
    if schema != SCHEMA:
        raise DatasetError(f"{path}: is not part of an mmdgen dataset: its schema is {schema!r}, not {SCHEMA!r}")
    if version not in SCHEMA_VERSIONS:
        known = " and ".join(map(str, SCHEMA_VERSIONS))
        raise DatasetError(
            f"{path}: has schema version {version}, and mmdgen {__version__} reads versions {known}: "
            "read it with the version of mmdgen that made it, or render it again"
        )


def check_no_removal(out: Path) -> None:
    """Raise `ConfigError` while models are being taken out of the dataset in `out`, or when that was interrupted."""
    # not for object stores: models are taken out of local folders only
    if isinstance(out, Path) and (out / REMOVAL_FILE).exists():
        raise ConfigError(_removing(out))


def _removing(out: Path | RemotePath) -> str:
    try:
        models = [str(sha256)[:16] for sha256 in json.loads((out / REMOVAL_FILE).read_bytes())["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        models = ["HASH"]
    return (
        f"{out}: models are being taken out of this dataset, or that was interrupted: "
        f"`mmdgen remove-model {shlex.quote(str(out))} {' '.join(models)}` goes on with it"
    )


def _missing(out: Path | RemotePath) -> str:
    if not out.is_dir():
        url = _MANGLED_URL.match(str(out))
        copy = f". Copy it here first: mmdgen merge --out FOLDER {url[1]}://{url[2]}" if url else ""
        return f"{out}: there is no such dataset folder{copy}"
    if (out / REMOVAL_FILE).exists():
        return _removing(out)
    if any((out / split).is_dir() for split in SPLITS) or (out / PLAN_FILE).exists():
        return (
            f"{out}: {MANIFEST_FILE} is missing: the dataset is not finished. "
            f"Run the same render command again (--out {out}): it goes on where it stopped."
        )
    return f"{out}: {MANIFEST_FILE} is missing: this folder is not a dataset. `mmdgen render --out {out}` makes one."


def _shard_json(shard: ShardInfo) -> dict[str, Any]:
    return {
        "file": shard.file,
        "sha256": shard.sha256,
        "bytes": shard.bytes,
        "samples": shard.samples,
        "models": shard.models,
        # pairs, because their order is that of the shard's model table
        "model_samples": [[sha256, samples] for sha256, samples in shard.model_samples.items()],
    }


def _from_json(value: Any) -> Manifest:
    shards: dict[str, tuple[ShardInfo, ...]] = {}
    for split in (*SPLITS, *sorted(set(value["splits"]) - set(SPLITS))):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}")
        entry = value["splits"][split]
        shards[split] = tuple(_shard_from_json(split, shard) for shard in entry["shards"])
        _same(f"splits.{split}.samples", sum(shard.samples for shard in shards[split]), entry["samples"])
    models = tuple(
        ModelSummary(str(m["sha256"]), str(m["name"]), str(m["source"]), str(m["split"]), int(m["samples"]))
        for m in value["models"]
    )
    for split in SPLITS:
        found = sum(model.split == split for model in models)
        _same(f"splits.{split}.models", found, value["splits"][split]["models"])
    return Manifest(
        DatasetConfig.from_json(value["config"]),
        shards,
        models,
        tuple(dict(row) for row in value["rejected"]),
        tuple(dict(row) for row in value["failures"]),
        dict(value["gl"]),
        {str(name): str(sha256) for name, sha256 in value["files"].items()},
        str(value["code_version"]),
        tuple(str(sha256) for sha256 in value["removed"]["models"]) if "removed" in value else (),
        str(value["removed"]["plan"]) if "removed" in value else "",
    )


def _shard_from_json(split: str, value: Any) -> ShardInfo:
    model_samples = {str(sha256): int(samples) for sha256, samples in value["model_samples"]}
    shard = ShardInfo(str(value["file"]), str(value["sha256"]), int(value["bytes"]), model_samples)
    parts = shard.file.split("/")
    if len(parts) != 2 or parts[0] != split or parts[1] in ("", ".", ".."):  # a manifest never leads out of its folder
        raise ValueError(f"shard {shard.file!r} is not a file in {split}/")
    _same(f"{shard.file}: samples", shard.samples, value["samples"])
    _same(f"{shard.file}: models", shard.models, value["models"])
    return shard


def _same(what: str, counted: int, stated: Any) -> None:
    if counted != stated:
        raise ValueError(f"{what} says {stated}, and its parts add up to {counted}")
