"""Which models there are, which of them can be used, and why not the others.

A scan never stops at a bad model: what mmdgen refuses has the error's reason code, what nobody foresaw is
``internal_error``, and a file that crashes the process reading it is ``crashed`` (it gets a second try alone first).

What people have stored about a model is used first, then what was found automatically and is sure; a model about which
the machine is not sure is left out, with the reason, unless it is asked for.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdgen import rng
from mmdgen.errors import ConfigError, FormatError, MmdgenError
from mmdgen.formats.text import one_line
from mmdgen.fsio import TEMPORARY_MARK
from mmdgen.generate.checking import Checker
from mmdgen.generate.pool import Death, Pool
from mmdgen.generate.provenance import provenance_row, terms_beside
from mmdgen.generate.splits import source_folder
from mmdgen.model.records import Diagnostic, MorphTerm

if TYPE_CHECKING:
    from mmdgen.generate.lists import Gate

OK, REPAIRED = "ok", "repaired"
MODEL_SUFFIXES = (".pmx", ".pmd")
SKIPPED_FOLDERS = ("__MACOSX",)  # holds AppleDouble files with the models' names; hidden folders are skipped too
_NOT_PLANNED = ("provenance", "repairs", "reasons")
MISSING = "texture_missing"
PER_WORKER = 4  # models; the start of a process takes as long as looking at so many
DEFAULT_EXAMINER = "mmdgen.generate.catalogue:examine"


@dataclass(frozen=True, slots=True)
class UsableModel:
    """One model with all that rendering it needs, so that nothing has to be found out again.

    `path` is relative to the models' folder, with /; `source` its source folder. `neck` and `head` are bone indices,
    `chin_y`, `top_y`, `center_x` the head bounds in MMD units, `terms` per morph parameter the (morph, weight, side)
    triples. `textures` is a hash of the textures' names and sizes: with `id`, what tells that the model has changed.
    `hints` are what words in its author's texts hint at; `provenance` is its row of provenance.jsonl. `diagnostics`
    counts what was repaired by code, `repairs` lists it. `sources`, `confidences` and `reasons` say for each kind of
    annotation who found it (``auto``, ``person``, ``truth``), how surely, and why; `confidence` is the least of them.
    """

    id: str
    path: str
    source: str
    name: str
    status: str
    vertices: int
    confidence: float
    neck: int
    head: int
    chin_y: float
    top_y: float
    center_x: float
    terms: dict[str, tuple[MorphTerm, ...]]
    textures: str
    diagnostics: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    repairs: tuple[Diagnostic, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    confidences: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan's row: all but the provenance, which has a file of its own, and the long texts."""
        # not asdict: its deep copies take seconds for thousands of models
        row = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _NOT_PLANNED}
        row["terms"] = {name: [[t.morph, t.weight, t.side] for t in terms] for name, terms in self.terms.items()}
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> UsableModel:
        """Return the model of a plan's row. Raises KeyError, TypeError or ValueError."""
        terms = {
            name: tuple(MorphTerm(int(morph), float(weight), str(side)) for morph, weight, side in found)
            for name, found in row["terms"].items()
        }
        return cls(**{**row, "terms": terms, "notes": tuple(row["notes"]), "hints": tuple(row["hints"])})


@dataclass(frozen=True, slots=True)
class Rejection:
    """A model that is not used: `code` is a stable reason, `id` its sha256 or "" where the file could not be read."""

    path: str
    code: str
    message: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a scan found, both sorted by path."""

    models: tuple[UsableModel, ...]
    rejected: tuple[Rejection, ...]

    def reasons(self) -> dict[str, int]:
        """Return how many models were rejected for each reason, most frequent first."""
        counts: dict[str, int] = {}
        for rejection in self.rejected:
            counts[rejection.code] = counts.get(rejection.code, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def find_models(root: Path) -> list[str]:
    """Return the paths of all model files below `root`, relative and with /, sorted the same way on every system.

    Links to folders are followed, once each; hidden files and folders are left out. Raises `ConfigError` when `root`
    is no folder.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ConfigError(f"the models' folder {root} {what}")
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        key = (status.st_dev, status.st_ino)
        if key in seen and key[1] != 0:  # a link back up; some systems have no inode numbers
            folders.clear()
            continue
        seen.add(key)
        folders[:] = sorted(name for name in folders if not _is_skipped(name))
        relative = Path(folder).relative_to(root)
        found += [
            (relative / name).as_posix()
            for name in files
            if name.lower().endswith(MODEL_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _is_skipped(folder: str) -> bool:
    return folder.startswith(".") or folder in SKIPPED_FOLDERS or TEMPORARY_MARK in folder


def texture_fingerprint(textures: Sequence[Any]) -> str:
    """Return a hash of the textures' names and sizes: cheap, yet it changes when a file is lost or replaced."""
    digest = hashlib.sha256()
    for texture in textures:
        size = -1
        if texture.path is not None:
            try:
                size = texture.path.stat().st_size
            except OSError:
                size = -2
        digest.update(f"{texture.name}\0{size}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def examine(
    path: Path, relative: str, root: Path, annotations: Path | None, find: Callable[..., Any] | None = None
) -> UsableModel:
    """Load one model and resolve its annotation. Raises `MmdgenError` when it cannot be used.

    `find` finds what is not stored, as `annotate.auto.annotate` does, which is used without it. Textures that are
    damaged count as missing: in the head they reject the model, elsewhere they are diagnosed.
    """
    # here, so that only the processes that scan load these packages
    from mmdgen.annotate.auto import annotate
    from mmdgen.annotate.store import resolve
    from mmdgen.model.load import load_model

    model = load_model(path)
    return describe(model, resolve(model, annotations, find or annotate), path, relative, root)


def describe(model: Any, annotation: Any, path: Path, relative: str, root: Path) -> UsableModel:
    """Return what the plan needs of a loaded model and its annotation. Raises `AnnotationError`."""
    from mmdgen.annotate.headtextures import require_head_textures
    from mmdgen.annotate.store import HEAD_BOUNDS, WINK_MORPHS

    codes: dict[str, int] = {}
    for diagnostic in model.diagnostics:
        codes[diagnostic.code] = codes.get(diagnostic.code, 0) + 1
    for lost in require_head_textures(model, annotation):
        if lost.code != MISSING:  # which loading, too, has found
            codes[MISSING] = codes.get(MISSING, 0) + 1
    name = model.name or model.name_en or path.stem
    bounds, eyes = annotation.bounds, annotation.eyes
    provenance = provenance_row(model.id, relative, name, model.comment, terms_beside(path, root))
    return UsableModel(
        id=model.id,
        path=relative,
        source=source_folder(relative),
        name=name,
        status=REPAIRED if codes else OK,
        vertices=len(model.position),
        confidence=round(min(bounds.confidence, eyes.confidence), 4),
        neck=int(annotation.neck),
        head=int(annotation.head),
        chin_y=float(bounds.chin_y),
        top_y=float(bounds.top_y),
        center_x=float(bounds.center_x),
        terms=annotation.parameter_terms(),
        textures=texture_fingerprint(model.textures),
        diagnostics=dict(sorted(codes.items())),
        notes=tuple(annotation.notes),
        hints=tuple(provenance["hints"]),
        provenance=provenance,
        repairs=model.diagnostics,
        sources={HEAD_BOUNDS: bounds.source, WINK_MORPHS: eyes.source},
        confidences={HEAD_BOUNDS: round(bounds.confidence, 4), WINK_MORPHS: round(eyes.confidence, 4)},
        reasons={HEAD_BOUNDS: bounds.reason, WINK_MORPHS: "; ".join(eyes.reasons)},
    )


def unsure(model: UsableModel) -> Rejection | None:
    """Return why a model must not be used without a person: what was found automatically about it is not sure."""
    from mmdgen.annotate.records import AUTO, SURE
    from mmdgen.annotate.store import HEAD_BOUNDS, WINK_MORPHS

    doubtful = [kind for kind, found in model.confidences.items() if found < SURE and model.sources[kind] == AUTO]
    if not doubtful:
        return None
    titles = {HEAD_BOUNDS: "the head bounds", WINK_MORPHS: "the eye and mouth morphs"}
    said = [f"{titles[kind]} are sure to {model.confidences[kind]:.2f}: {model.reasons[kind]}" for kind in doubtful]
    code = "unsure_head_bounds" if HEAD_BOUNDS in doubtful else "unsure_eyes"
    return Rejection(model.path, code, one_line("; ".join(said)), model.id)


def reason(error: BaseException, root: Path) -> tuple[str, str]:
    """Return the stable code and the message of why a model failed, without the place of the models' folder."""
    if isinstance(error, MemoryError):
        return "out_of_memory", "there was not enough memory for this model"
    message = str(error) or type(error).__name__
    for prefix in {str(root), os.path.abspath(root), os.path.realpath(root)}:
        message = message.replace(prefix + os.sep, "")
    if not isinstance(error, MmdgenError):
        return "internal_error", f"{type(error).__name__}: {message}"
    if isinstance(error, FormatError):  # whichever kind of damage it is
        return "format_error", message
    code = getattr(error, "code", "")
    return code or f"{type(error).__name__.removesuffix('Error').lower()}_error", message


class ScanWorker:
    """The pool's handler: a task is a relative path, the result a `UsableModel` or a `Rejection`.

    With `check` in its configuration automatic eye and mouth morphs are checked in pictures; it notes why where nothing
    can be drawn. With `include_unsure` models about which the machine is not sure are usable, too. A file that the
    `gate` keeps out is not even loaded.
    """

    report: dict[str, Any] = {}  # noqa: RUF012  part of the handler's interface, never changed

    def __init__(self, config: dict[str, Any], renderer: Any = None) -> None:
        from mmdgen.generate.worker import resolve

        self.root = Path(config["root"])
        self.annotations = Path(config["annotations"]) if config["annotations"] else None
        self.examine = resolve(config["examiner"])
        self.include_unsure = bool(config.get("include_unsure"))
        self.gate: Gate | None = config.get("gate")
        # another examiner brings its own annotation
        own = config["examiner"] == DEFAULT_EXAMINER
        self.checker = Checker(check=bool(config.get("check")), renderer=renderer) if own else None

    def handle(self, task: str, note: Callable[[Any], None]) -> UsableModel | Rejection:
        path = self.root / task
        if self.gate is not None and self.gate.needs_hash:
            sha256 = hash_or_nothing(path)
            refused = self.gate.refuse_file(task, sha256) if sha256 else None  # else loading says what is wrong
            if refused is not None:
                return refused
        try:
            if self.checker is None:
                found = self.examine(path, task, self.root, self.annotations)
            else:
                found = self.examine(path, task, self.root, self.annotations, self.checker.find)
                if self.checker.problem:
                    note(("unchecked", self.checker.problem))
            refused = self.gate.refuse_terms(found) if self.gate is not None else None
            return refused or (found if self.include_unsure else unsure(found) or found)
        except Exception as error:
            code, message = reason(error, self.root)
            return Rejection(task, code, message, hash_or_nothing(path))


def hash_or_nothing(path: Path) -> str:
    """Return the SHA-256 of a file, or "" where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def scan(
    root: Path,
    annotations: Path | None = None,
    *,
    workers: int = 2,
    limit: int | None = None,
    paths: Sequence[str] | None = None,
    examiner: str = DEFAULT_EXAMINER,
    include_unsure: bool = False,
    check: bool = False,
    gate: Gate | None = None,
    on_progress: Callable[[int, int, UsableModel | Rejection], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Catalogue:
    """Examine every model below `root` (or the relative `paths`); the result does not depend on how many `workers`.

    `annotations` is the folder of stored annotations. With `limit` only so many usable models are looked for, in an
    order that mixes the folders. `on_progress(done, total, result)` is called after each model. Of files with equal
    content the first path counts, the others are rejected as ``duplicate``.

    Models whose automatic annotation is not sure are rejected unless `include_unsure`. Automatic eye and mouth morphs
    are sure only after a `check` in pictures; `on_warning` is told once where nothing can be drawn. Models that the
    `gate` keeps out are rejected as ``denied``, ``not_allowed`` or ``denied_terms``. Raises `ConfigError` for a bad
    `root`.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit must be at least 1 model, found {limit}")
    paths = find_models(root) if paths is None else list(paths)
    if limit is not None:
        paths.sort(key=lambda path: (rng.fraction(0, "limit", path), path))
    results: dict[str, UsableModel | Rejection] = {}
    config = {
        "root": str(root),
        "annotations": str(annotations or ""),
        "examiner": examiner,
        "include_unsure": include_unsure,
        "check": check,
        "gate": gate,
    }

    def learn(path: str, result: UsableModel | Rejection) -> None:
        results[path] = result
        if on_progress:
            on_progress(len(results), len(paths), result)

    warned: set[str] = set()

    def warn(message: str) -> None:
        if on_warning and not warned:
            on_warning(message)
        warned.add(message)

    useful = math.ceil(len(paths) / PER_WORKER)
    with Pool("mmdgen.generate.catalogue:ScanWorker", config, max(1, min(workers, useful))) as pool:
        step = len(paths) if limit is None else max(8, 2 * limit)
        for start in range(0, len(paths), max(1, step)):
            examine_all(pool, paths[start : start + step], learn, warn)
            usable = {result.id for result in results.values() if isinstance(result, UsableModel)}
            if limit is not None and len(usable) >= limit:
                break
    return _collect(paths, results, limit)


def examine_all(
    pool: Pool,
    paths: list[str],
    learn: Callable[[str, Any], None],
    warn: Callable[[str], None],
) -> None:
    """Hand all `paths` to the pool and what comes back to `learn`; what ends the process twice is ``crashed``."""
    tasks = deque(paths)
    crashed: set[str] = set()
    for event in pool.run(tasks):
        if event.kind == "done":
            learn(event.task, event.value)
        elif event.kind == "note":
            warn(f"eye and mouth morphs are not checked in pictures: {event.value[1]}")
        elif event.kind == "failed":
            raise event.value  # the handler itself turns errors of models into results
        elif event.kind == "died":
            death: Death = event.value
            if event.task in crashed:
                learn(event.task, Rejection(event.task, "crashed", f"reading it ends the process: {death.how}"))
            else:
                crashed.add(event.task)
                tasks.append(event.task)


def _collect(paths: list[str], results: dict[str, UsableModel | Rejection], limit: int | None) -> Catalogue:
    """Sort, find duplicates, apply the limit: in the order of `paths` first, so that the limit is a fixed choice."""
    models: list[UsableModel] = []
    rejected: list[Rejection] = []
    by_id: dict[str, list[UsableModel]] = {}
    for path in paths:
        result = results.get(path)
        if isinstance(result, Rejection):
            rejected.append(result)
        elif result is not None:
            by_id.setdefault(result.id, []).append(result)
    for twins in by_id.values():
        first, *others = sorted(twins, key=lambda model: model.path)
        models.append(first)
        rejected += [Rejection(model.path, "duplicate", f"the same file as {first.path}", model.id) for model in others]
    if limit is not None:
        models = models[:limit]
    return Catalogue(tuple(sorted(models, key=lambda model: model.path)), tuple(sorted(rejected, key=lambda r: r.path)))


def changed_since(planned: UsableModel, model_id: str, textures: str) -> str | None:
    """Return what is no longer as planned, or None."""
    if model_id != planned.id:
        return f"the file has changed since the plan was made: sha256 {model_id[:16]}, planned {planned.id[:16]}"
    if textures != planned.textures:
        return "its textures have changed since the plan was made"
    return None
