"""The report on a dataset: what is in it and what looks wrong, as one HTML page that needs nothing else.

Poses and sizes are read in full, pictures are sampled evenly. An unfinished dataset is reported as far as it is there;
shards that cannot be read are told and do not stop the report.
"""

from __future__ import annotations

import base64
import json
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdgen.dataset.credits import by_source, credit_line, hint_counts, is_silent
from mmdgen.dataset.manifest import Manifest, make_manifest, read_manifest
from mmdgen.dataset.reader import Shard
from mmdgen.dataset.schema import MANIFEST_FILE, PLAN_FILE, PROVENANCE_FILE, SPLITS, ShardInfo
from mmdgen.dataset.sizes import stored_sizes
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import write_atomic
from mmdgen.generate.dataset_report_page import page
from mmdgen.generate.dataset_statistics import PictureStatistics, has_moved, pose_statistics, smaller
from mmdgen.generate.plan import Plan, read_plan
from mmdgen.generate.reasons import explain
from mmdgen.generate.shard import Failure, read_sidecar
from mmdgen.generate.timings import STAGES, read_timings
from mmdgen.png import encode_png

PICTURES = 600  # samples that are decoded, over all splits: some seconds at 256 pixels
SHOWN = {"train": 12, "validation": 6, "test": 6}
TILE = 160  # pixels a side, at most, of pictures on the page
MODELS_LISTED = 1000
SOURCES_LISTED = 60
EXAMPLES = 5
KINDS = ("rest", "expression", "posed")


@dataclass(slots=True)
class _State:
    """What is there: the manifest, or one of what is finished so far, and the plan where there is one."""

    manifest: Manifest
    plan: Plan | None
    finished: bool
    failures: list[dict[str, Any]]
    digest: str


@dataclass(slots=True)
class _Looks:
    """What pictures look like, by kind, and whose rest images have been looked at."""

    kinds: dict[str, PictureStatistics] = field(default_factory=lambda: {kind: PictureStatistics() for kind in KINDS})
    rested: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Split:
    """What was found in the shards of one split."""

    poses: list[np.ndarray] = field(default_factory=list)
    sheet: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def default_page(out: Path) -> Path:
    """Return where the report on the dataset in `out` goes: beside it, so that the dataset stays as it is."""
    folder = out.absolute()
    if not folder.name:
        raise ConfigError(f"{out} is the root of a file system; say with --out where the report goes")
    return folder.with_name(f"{folder.name}-report.html")


def write_report(out: Path, target: Path, *, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the report on the dataset in `out` as the HTML page `target`; return its facts, without the pictures.

    `on_progress(done, total)` counts shards. Raises `DatasetError` where there is neither a dataset nor the beginning
    of one, or the page cannot be written.
    """
    facts = gather(out, on_progress=on_progress)
    write_atomic(target, page(facts).encode("utf-8"))
    return without_pictures(facts)


def without_pictures(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts for programs: what `gather` found but for the inline pictures."""
    sheets = {
        split: [{key: value for key, value in sample.items() if key != "pictures"} for sample in samples]
        for split, samples in facts["sheets"].items()
    }
    return {**facts, "sheets": sheets}


def gather(out: Path, *, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return all that the page says, as JSON; pictures are PNG files in base64. Raises `DatasetError`."""
    state = _state_of(out)
    manifest = state.manifest
    total = sum(len(manifest.shards.get(split, ())) for split in SPLITS)
    looks = _Looks()
    sizes: dict[str, list[int]] = {}
    found = {split: _Split() for split in SPLITS}
    samples = sum(manifest.samples(split) for split in SPLITS)
    most = max(60, int(PICTURES * min(1.0, (256 / manifest.config.image_size) ** 2)))
    done = 0
    for split in SPLITS:
        infos = manifest.shards.get(split, ())
        count = manifest.samples(split)
        wanted = _even(count, min(count, -(-most * count // max(1, samples))))
        shown = set(_even(count, SHOWN[split]).tolist())
        wanted = sorted({*wanted.tolist(), *shown})
        start = 0
        for info in infos:
            here = [number for number in wanted if start <= number < start + info.samples]
            _look_into(out / info.file, split, start, here, shown, found[split], looks)
            _add_sizes(out, info, sizes, found[split].problems)
            start += info.samples
            done += 1
            if on_progress:
                on_progress(done, total)
    return {
        "name": out.absolute().name,
        "finished": state.finished,
        "code_version": manifest.code_version,
        "config": manifest.config.to_json(),
        "renderer": dict(manifest.gl),
        "splits": _splits(state),
        "bytes": manifest.bytes,
        "fields": {
            name: {"rows": rows, "bytes": size, "each": size / rows if rows else 0.0}
            for name, (rows, size) in sorted(sizes.items(), key=lambda item: -item[1][1])
        },
        "poses": {split: _poses(found[split], manifest) for split in SPLITS if manifest.shards.get(split)},
        "pictures": {kind: look.to_json() for kind, look in looks.kinds.items()},
        "sheets": {split: found[split].sheet for split in SPLITS if found[split].sheet},
        "problems": [problem for split in SPLITS for problem in found[split].problems],
        "failures": _failures(state),
        "models": _models(out, manifest),
        "timings": _timings(out, state.digest),
    }


def _state_of(out: Path) -> _State:
    if (out / MANIFEST_FILE).exists():
        manifest = read_manifest(out)
        rows = [{"stage": "scan", **row} for row in manifest.rejected]
        rows += [{"stage": "render", **row} for row in manifest.failures]
        return _State(manifest, None, True, rows, manifest.files.get(PLAN_FILE, ""))
    plan = read_plan(out)
    if plan is None:
        read_manifest(out)  # says what is missing
        raise DatasetError(f"{out}: {MANIFEST_FILE} came while the report was being made; try again")
    results = [read_sidecar(plan, index, out) for index in range(len(plan.shards))]
    there = [result for result in results if result is not None]
    names = {model.id: (model.name, model.source) for model in plan.models}
    renderer = there[0].renderer if there else {}
    manifest = make_manifest(plan.options.dataset_config(), [result.info for result in there], names, gl=renderer)
    rows = [
        {"stage": "scan", "path": row.path, "code": row.code, "message": row.message, "sha256": row.id}
        for row in plan.rejected
    ]
    rows += [{"stage": "render", **_failure(failure)} for result in there for failure in result.failures]
    return _State(manifest, plan, False, rows, plan.digest)


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "path": failure.path,
        "code": failure.code,
        "message": failure.message,
        "shard": failure.shard,
        "samples": failure.samples,
    }


def _even(length: int, count: int) -> np.ndarray:
    """Return up to `count` evenly spaced numbers below `length`."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(int)) if length else np.arange(0)


def _look_into(
    path: Path, split: str, start: int, numbers: list[int], shown: set[int], found: _Split, looks: _Looks
) -> None:
    """Read a shard's poses and look at the samples `numbers`, `start` being its first; those of `shown` are kept."""
    try:
        with Shard(path) as shard:
            found.poses.append(shard.pose)
            for number in numbers:
                _look_at(shard, split, number, number - start, number in shown, found, looks)
    except (DatasetError, ConfigError) as error:
        found.problems.append(str(error))


def _look_at(shard: Shard, split: str, number: int, row: int, show: bool, found: _Split, looks: _Looks) -> None:
    sample = shard.sample(row, number)
    name = f"{sample.model.name} ({split} {number})"
    if sample.model.sha256 not in looks.rested:
        looks.rested.add(sample.model.sha256)
        looks.kinds["rest"].add(sample.rest, f"{sample.model.name} ({sample.model.sha256[:8]})")
    for kind, image in (("expression", sample.expression), ("posed", sample.posed)):
        looks.kinds[kind].add(image, name)
    face, head = has_moved(sample.pose, shard.header.config.vocabulary)
    if face and np.array_equal(sample.expression, sample.rest):
        looks.kinds["expression"].note("as at rest although eyes or mouth move", name)
    if head and np.array_equal(sample.posed, sample.expression):
        looks.kinds["posed"].note("as the expression although the head turns", name)
    if show:
        tiles = [smaller(image, TILE) for image in (sample.rest, sample.expression, sample.posed)]
        names = shard.header.config.vocabulary.names
        found.sheet.append(
            {
                "number": number,
                "model": sample.model.name,
                "source": sample.model.source,
                "sha256": sample.model.sha256,
                "pose": {name: round(float(value), 2) for name, value in zip(names, sample.pose, strict=True)},
                "pictures": [base64.b64encode(encode_png(tile)).decode("ascii") for tile in tiles],
            }
        )


def _add_sizes(out: Path, info: ShardInfo, sizes: dict[str, list[int]], problems: list[str]) -> None:
    try:
        for name, (rows, size) in stored_sizes(out / info.file).items():
            entry = sizes.setdefault(name, [0, 0])
            entry[0] += rows
            entry[1] += size
    except DatasetError as error:
        if not problems or str(out / info.file) not in problems[-1]:
            problems.append(str(error))


def _splits(state: _State) -> dict[str, Any]:
    manifest, plan = state.manifest, state.plan
    rows: dict[str, Any] = {}
    for split in SPLITS:
        shards = manifest.shards.get(split, ())
        planned = [shard for shard in plan.shards if shard.split == split] if plan else []
        if not shards and not planned:
            continue
        each = sorted(model.samples for model in manifest.models if model.split == split)
        rows[split] = {
            "samples": manifest.samples(split),
            "models": len(each),
            "shards": len(shards),
            "bytes": sum(shard.bytes for shard in shards),
            "images": sum(shard.models + 2 * shard.samples for shard in shards),
            "samples_per_model": [each[0], statistics.median(each), each[-1]] if each else [],
        }
        if plan:
            rows[split] |= {"planned_samples": sum(s.samples for s in planned), "planned_shards": len(planned)}
    return rows


def _poses(found: _Split, manifest: Manifest) -> dict[str, Any]:
    width = len(manifest.config.vocabulary.parameters)
    poses = np.concatenate([np.empty((0, width), np.float32), *found.poses])
    return {"samples": len(poses), "parameters": pose_statistics(poses, manifest.config.vocabulary)}


def _failures(state: _State) -> list[dict[str, Any]]:
    """Return what went wrong by stage and code, most frequent first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in state.failures:
        groups.setdefault((str(row["stage"]), str(row.get("code") or "unknown")), []).append(row)
    return [
        {
            "stage": stage,
            "code": code,
            "models": len({str(row.get("path", "")) for row in rows}),
            "samples": sum(int(row.get("samples") or 0) for row in rows),
            "meaning": explain(code)[0],
            "remedy": explain(code)[1],
            "examples": [f"{row.get('path', '')}: {row.get('message', '')}" for row in rows[:EXAMPLES]],
        }
        for (stage, code), rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _models(out: Path, manifest: Manifest) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    try:
        for line in (out / PROVENANCE_FILE).read_bytes().split(b"\n"):
            if line:
                row = json.loads(line)
                rows[str(row["sha256"])] = row
    except (OSError, ValueError, KeyError, TypeError):
        rows = {}
    used = [rows[model.sha256] for model in manifest.models if model.sha256 in rows]
    sources = by_source(manifest.models, rows)
    return {
        "count": len(manifest.models),
        "known": len(used),
        "silent": sum(is_silent(row) for row in used),
        "hints": dict(sorted(hint_counts(used).items())),
        "sources": len(sources),
        "by_source": [
            {
                "source": entry.source,
                "split": entry.split,
                "models": entry.models,
                "samples": entry.samples,
                "hints": dict(sorted(entry.hints.items())),
                "silent": entry.silent,
                "credits": [line for line, _ in entry.lines.most_common(2)],
            }
            for entry in sources[:SOURCES_LISTED]
        ],
        "listed": [
            {
                "name": model.name,
                "source": model.source,
                "split": model.split,
                "samples": model.samples,
                "sha256": model.sha256,
                "hints": [str(hint) for hint in rows.get(model.sha256, {}).get("hints") or ()],
                "credit": credit_line(rows.get(model.sha256, {})),
            }
            for model in manifest.models[:MODELS_LISTED]
        ],
    }


def _timings(out: Path, digest: str) -> dict[str, Any] | None:
    """Return what the shards of this plan took, start by start; None where nobody noted it."""
    rows = [row for row in read_timings(out) if row.get("plan") == digest]
    if not rows:
        return None
    starts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        starts.setdefault(row["start"], []).append(row)
    return {
        "shards": len(rows),
        "images": sum(row["images"] for row in rows),
        "cpu": sum(row["cpu"] for row in rows),
        "total": sum(row["total"] for row in rows),
        "stages": {stage: sum(row["seconds"][stage] for row in rows) for stage in STAGES},
        "starts": [_start(part) for part in sorted(starts.values(), key=lambda part: part[0]["at"])],
        "repeated": sum(count - 1 for count in Counter(row["shard"] for row in rows).values()),
    }


def _start(rows: list[dict[str, Any]]) -> dict[str, Any]:
    began = min(row["at"] - row["total"] for row in rows)
    seconds = max(row["at"] for row in rows) - began
    images = sum(row["images"] for row in rows)
    workers: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        workers.setdefault(row["worker"], []).append(row)
    return {
        "began": began,
        "seconds": seconds,
        "images": images,
        "images_per_second": images / seconds if seconds > 0 else 0.0,
        "workers": [
            {
                "shards": len(part),
                "images": sum(row["images"] for row in part),
                "seconds": sum(row["total"] for row in part),
                "cpu": sum(row["cpu"] for row in part),
                "memory": max(row["memory"] for row in part),
                "course": [[row["at"] - began, row["memory"]] for row in part],
            }
            for part in workers.values()
        ],
    }
