"""The plan: what a dataset will consist of, decided once before anything is drawn.

A plan is a pure function of (options, catalogue) and is frozen as plan.json when a run starts. It holds every model's
bones, bounds and morphs, so that a later start neither scans again nor depends on the annotation code, and nothing of
the machine: no absolute paths, no number of workers. Any shard is then a function of (plan, shard).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmdgen import __version__, rng
from mmdgen.dataset.manifest import check_no_removal
from mmdgen.dataset.schema import DEFLATE, PLAN_FILE, ZSTD, ShardHeader, shard_file
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import write_atomic
from mmdgen.generate.catalogue import Catalogue, Rejection, UsableModel
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.provenance import json_line
from mmdgen.generate.splits import assign

PLAN_SCHEMA = "mmdgen-plan-1"

# For estimates only, at 256 x 256. Measured on 48 real heads (tools/bench/storage.py): bytes of a posed or rest picture
# and of an expression picture, by codec and --compact; of a flow with its visibility; and pictures a second of one core
# with a software renderer.
ESTIMATED_BYTES = {
    (DEFLATE, False): (62_500, 61_000),
    (DEFLATE, True): (46_500, 5_000),
    (ZSTD, False): (57_500, 56_000),
    (ZSTD, True): (44_000, 4_000),
}
ESTIMATED_FLOW_BYTES = {DEFLATE: 28_000, ZSTD: 25_000}
ESTIMATED_RATE = 50.0


@dataclass(frozen=True, slots=True)
class Part:
    """Samples `first` .. `first + count` of model `model` (an index into the plan's models)."""

    model: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard: its split, its number there, and its parts in order."""

    split: str
    number: int
    parts: tuple[Part, ...]

    @property
    def samples(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def images(self) -> int:
        """How many pictures drawing it takes: a rest image a part, and an expression and a posed image a sample."""
        return len(self.parts) + 2 * self.samples


@dataclass(frozen=True, slots=True)
class Plan:
    """`models` that have samples, `rejected` ones, and all `shards`; `digest` is the SHA-256 of plan.json.

    `removed` are the sha256 of models that were taken out later (`removal`), and `origin` is then the digest of the
    plan as it was first frozen, which the shards name, those too that nobody had to change.
    """

    options: RenderOptions
    models: tuple[UsableModel, ...]
    rejected: tuple[Rejection, ...]
    shards: tuple[ShardPlan, ...]
    warnings: tuple[str, ...] = ()
    version: str = __version__
    digest: str = field(default="", compare=False)
    removed: tuple[str, ...] = ()
    origin: str = ""

    def header(self, index: int) -> ShardHeader:
        """Return the header of shard `index` (an index into `shards`)."""
        shard = self.shards[index]
        return ShardHeader(self.options.dataset_config(), shard.split, shard.number, self.origin or self.digest)

    def file(self, index: int) -> str:
        """Return the path of shard `index` below the dataset's folder, without making a header."""
        return shard_file(self.shards[index].split, self.shards[index].number)

    @property
    def images(self) -> int:
        return sum(shard.images for shard in self.shards)

    def summary(self) -> dict[str, Any]:
        """Return counts and a rough size: models, samples and shards a split, images and bytes in all."""
        splits = {}
        for split in self.options.requested():
            shards = [shard for shard in self.shards if shard.split == split]
            splits[split] = {
                "models": len({part.model for shard in shards for part in shard.parts}),
                "samples": sum(shard.samples for shard in shards),
                "shards": len(shards),
            }
        samples = sum(entry["samples"] for entry in splits.values())
        scale = (self.options.size / 256) ** 2
        picture, expression = ESTIMATED_BYTES[self.options.codec, self.options.compact]
        flow = ESTIMATED_FLOW_BYTES[self.options.codec] if self.options.flow else 0
        size = (samples * (expression + flow) + (self.images - samples) * picture) * scale
        return {"splits": splits, "samples": samples, "images": self.images, "estimated_bytes": int(size)}


def make_plan(options: RenderOptions, catalogue: Catalogue) -> Plan:
    """Return the plan of a dataset. Raises `ConfigError` when no model is usable or a split gets none."""
    if not catalogue.models:
        reasons = ", ".join(f"{code} {count}" for code, count in catalogue.reasons().items())
        raise ConfigError(
            f"no usable model was found ({reasons or 'no .pmx or .pmd file'}); `mmdgen scan` says why for each"
        )
    by_path = {model.path: index for index, model in enumerate(catalogue.models)}
    assignment = assign(list(by_path), options.requested(), options.splits)
    chosen: list[int] = []
    shards: list[tuple[str, int, list[tuple[int, int, int]]]] = []
    for split in options.requested():
        members = [by_path[path] for path, found in assignment.split_of.items() if found == split]
        members.sort(key=lambda index: (rng.fraction(options.seed, "order", split, catalogue.models[index].id), index))
        base, extra = divmod(options.poses[split], len(members))
        counts = [(index, base + (place < extra)) for place, index in enumerate(members) if base or place < extra]
        chosen += [index for index, _ in counts]
        for number, parts in enumerate(_pack(counts, options.samples_per_shard())):
            shards.append((split, number, parts))
    place = {index: new for new, index in enumerate(sorted(chosen))}
    return with_digest(
        Plan(
            options,
            tuple(catalogue.models[index] for index in place),
            catalogue.rejected,
            tuple(
                ShardPlan(split, number, tuple(Part(place[index], first, count) for index, first, count in parts))
                for split, number, parts in shards
            ),
            assignment.warnings,
        )
    )


def _pack(counts: list[tuple[int, int]], size: int) -> list[list[tuple[int, int, int]]]:
    """Distribute (model, samples) over shards of about `size` samples: whole models where they fit, in the order given.

    The counts differ by one at most. A model with far more samples than a shard is cut into equal parts, one a shard.
    """
    pieces: list[tuple[int, int, int]] = []
    largest = 0
    for model, count in counts:
        cuts = max(1, (count + size // 2) // size)
        edges = [count * cut // cuts for cut in range(cuts + 1)]
        pieces += [(model, low, high - low) for low, high in pairwise(edges)]
        largest = max(largest, -(-count // cuts))
    together = max(1, (size + largest // 2) // largest) if all(first == 0 for _, first, _ in pieces) else 1
    shards = -(-len(pieces) // together)
    edges = [len(pieces) * shard // shards for shard in range(shards + 1)]
    return [pieces[low:high] for low, high in pairwise(edges)]


def plan_bytes(plan: Plan) -> bytes:
    """Return plan.json: sorted keys, one line a model, rejection and shard."""

    def rows(items: list[Any]) -> str:
        return "[" + ",".join("\n" + json_line(item) for item in items) + "\n]"

    shards = [[s.split, s.number, [[p.model, p.first, p.count] for p in s.parts]] for s in plan.shards]
    members = {
        "models": rows([model.to_json() for model in plan.models]),
        "options": json_line(plan.options.to_json()),
        "rejected": rows([asdict(rejection) for rejection in plan.rejected]),
        "schema": json_line(PLAN_SCHEMA),
        "shards": rows(shards),
        "version": json_line(plan.version),
        "warnings": json_line(list(plan.warnings)),
    }
    if plan.removed:
        members["removed"] = json_line({"models": list(plan.removed), "plan": plan.origin})
    text = "{\n" + ",\n".join(f"{json_line(key)}: {value}" for key, value in members.items()) + "\n}\n"
    return text.encode("utf-8")


def with_digest(plan: Plan) -> Plan:
    """Return the plan with the digest of its own bytes."""
    return replace(plan, digest=hashlib.sha256(plan_bytes(plan)).hexdigest())


def write_plan(plan: Plan, out: Path) -> None:
    """Freeze the plan as `out`/plan.json. Raises `DatasetError`."""
    write_atomic(out / PLAN_FILE, plan_bytes(plan))


def read_plan(out: Path) -> Plan | None:
    """Return the plan frozen in `out`, or None where there is none.

    Raises `DatasetError` for a damaged one and `ConfigError` while models are being taken out of the dataset.
    """
    check_no_removal(out)
    return parse_plan(out)


def parse_plan(out: Path) -> Plan | None:
    """`read_plan` for who takes models out."""
    path = out / PLAN_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        value = json.loads(content)
        if value["schema"] != PLAN_SCHEMA:
            raise ValueError(f"its schema is {value['schema']!r}, not {PLAN_SCHEMA!r}")
        return Plan(
            RenderOptions.from_json(value["options"]),
            tuple(UsableModel.from_json(row) for row in value["models"]),
            tuple(Rejection(**row) for row in value["rejected"]),
            tuple(
                ShardPlan(split, number, tuple(Part(*part) for part in parts))
                for split, number, parts in value["shards"]
            ),
            tuple(value["warnings"]),
            value["version"],
            hashlib.sha256(content).hexdigest(),
            tuple(str(sha256) for sha256 in value["removed"]["models"]) if "removed" in value else (),
            str(value["removed"]["plan"]) if "removed" in value else "",
        )
    except (KeyError, TypeError, ValueError, IndexError, ConfigError) as error:
        raise DatasetError(f"{path}: is damaged ({error}); use another folder, or delete this one") from error


def check_same(plan: Plan, options: RenderOptions, out: Path) -> None:
    """Raise `ConfigError`, naming each difference, unless `plan` was made with these options by this version."""
    differences = plan.options.differences(options)
    if plan.version != __version__:
        differences.append(f"it was begun with mmdgen {plan.version}, this is {__version__}")
    if differences:
        listed = any(difference.startswith("--deny ") for difference in differences)
        removing = " (mmdgen remove-model OUT --deny FILE takes models out of a finished dataset.)" if listed else ""
        raise ConfigError(
            f"{out} was begun with other options: {'; '.join(differences)}. Repeat the first command to go on with it, "
            f"or give another --out.{removing}"
        )
