"""Annotations as files: one small JSON per model and kind, named by the model's hash, so that git can merge them.

`head_bounds/<sha256[:16]>.json` and `wink_morphs/<sha256[:16]>.json` in a folder that is `annotations/` in the
checkout. What they hold is in `annotations/README.md` and `annotations/schema.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmdgen import fsio
from mmdgen.annotate import auto
from mmdgen.annotate.records import AUTO, EYE_SLOTS, PERSON, Annotation, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError, DatasetError
from mmdgen.formats.text import is_clean, printable
from mmdgen.model.morphs import SIDES
from mmdgen.model.records import Model, MorphTerm

SCHEMA_VERSION = 1
HEAD_BOUNDS, WINK_MORPHS = "head_bounds", "wink_morphs"
KINDS = (HEAD_BOUNDS, WINK_MORPHS)
MACHINE = "mmdgen"  # the annotator of automatic records
_COMMON = {"schema_version", "sha256", "name", "source", "annotator", "confidence"}
_OPTIONAL = {"time", "note"}
_VALUES = {HEAD_BOUNDS: {"chin_y", "top_y", "center_x"}, WINK_MORPHS: {"eyes", "mouth_open"}}
_TERM = {"morph", "name", "weight", "side"}
# A date, or a second in UTC: as texts these sort by time.
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?")

Record = dict[str, Any]  # the JSON value of one file, as `check` allows it


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored for one model; `rejected` is a person's reason why it must not be used, or empty."""

    bounds: HeadBounds | None = None
    eyes: EyeMorphs | None = None
    rejected: str = ""


def path_of(folder: Path, kind: str, sha256: str) -> Path:
    """Return where the annotation of one `kind` (of `KINDS`) of the model with hash `sha256` lies."""
    return folder / kind / f"{sha256[:16]}.json"


def utc_now() -> str:
    """Return the time for a record: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def resolve(model: Model, folder: Path | None, find: Callable[..., Annotation] = auto.annotate) -> Annotation:
    """Return the annotation to use: stored values first, the automatic ones for what is not stored.

    `find` is what finds them: a function as `auto.annotate`.

    Raises `AnnotationError`: ``rejected`` with the stored reason, ``stale_annotation`` or ``bad_annotation`` for a
    stored file that does not fit the model or the schema, and what `auto.annotate` raises for what is not stored.
    """
    stored = load(model, folder) if folder is not None else Stored()
    if stored.rejected:
        raise AnnotationError("rejected", f"{model.path}: {stored.rejected}")
    return find(model, bounds=stored.bounds, eyes=stored.eyes)


def load(model: Model, folder: Path) -> Stored:
    """Return what `folder` holds for `model`. Raises `AnnotationError` ``stale_annotation`` or ``bad_annotation``."""
    found: dict[str, Record] = {}
    for kind in KINDS:
        value = read_record(folder, kind, model.id)
        if value is None:
            continue
        if "rejected" in value:
            return Stored(rejected=value["rejected"])
        found[kind] = value
    bounds = eyes = None
    if (value := found.get(HEAD_BOUNDS)) is not None:
        bounds = HeadBounds(
            float(value["chin_y"]),
            float(value["top_y"]),
            float(value["center_x"]),
            source=value["source"],
            confidence=float(value["confidence"]),
            reason=f"stored by {value['annotator']}",
        )
    if (value := found.get(WINK_MORPHS)) is not None:
        path = path_of(folder, WINK_MORPHS, model.id)
        eyes = EyeMorphs(
            {slot: _terms(model, value["eyes"][slot], path) for slot in EYE_SLOTS},
            _terms(model, value["mouth_open"], path),
            source=value["source"],
            confidence=float(value["confidence"]),
            reasons=(f"stored by {value['annotator']}",),
        )
    return Stored(bounds, eyes)


def records_of(
    model: Model,
    *,
    annotator: str,
    bounds: HeadBounds | None = None,
    eyes: EyeMorphs | None = None,
    rejected: str = "",
    time: str = "",
) -> dict[str, Record]:
    """Return by kind the checked records of what is given. Raises `AnnotationError` ``bad_annotation``."""
    values: dict[str, Record] = {}
    if rejected:
        values[HEAD_BOUNDS] = {"rejected": rejected, "source": PERSON, "confidence": 1.0}
    if bounds is not None:
        values[HEAD_BOUNDS] = {
            "chin_y": round(float(bounds.chin_y), 5) + 0.0,
            "top_y": round(float(bounds.top_y), 5) + 0.0,
            "center_x": round(float(bounds.center_x), 5) + 0.0,  # never -0.0
            "source": bounds.source,
            "confidence": round(float(bounds.confidence), 3),
        }
    if eyes is not None:
        values[WINK_MORPHS] = {
            "eyes": {slot: [_as_json(model, term) for term in eyes.slots[slot]] for slot in EYE_SLOTS},
            "mouth_open": [_as_json(model, term) for term in eyes.mouth_open],
            "source": eyes.source,
            "confidence": round(float(eyes.confidence), 3),
        }
    for kind, value in values.items():
        value |= {"schema_version": SCHEMA_VERSION, "sha256": model.id, "annotator": annotator}
        value["name"] = printable(model.name)
        if time:
            value["time"] = time
        check(value, kind, Path(f"{kind}/{model.id[:16]}.json"))
    return values


def save(
    model: Model,
    folder: Path,
    *,
    annotator: str,
    bounds: HeadBounds | None = None,
    eyes: EyeMorphs | None = None,
    rejected: str = "",
    time: str = "",
) -> tuple[Path, ...]:
    """Write what is given (bounds, eyes, or a reason to reject the model) and return the files written.

    Files are replaced atomically. `time` is a date or what `utc_now` gives. Raises `AnnotationError`
    ``bad_annotation`` for values that the schema does not allow, before anything is written, and `DatasetError` if a
    file cannot be written.
    """
    values = records_of(model, annotator=annotator, bounds=bounds, eyes=eyes, rejected=rejected, time=time)
    with locked(folder):
        return tuple(_write(folder, kind, value) for kind, value in values.items())


def save_automatic(
    model: Model,
    folder: Path,
    *,
    bounds: HeadBounds | None = None,
    eyes: EyeMorphs | None = None,
    time: str = "",
    dry_run: bool = False,
) -> tuple[Path, ...]:
    """Write the machine's values where no person has decided; return the files written.

    What a person stored stays, and so does an automatic record that already says the same, whatever its time; nothing
    of a rejected model is written. With `dry_run` only say what would be written. Raises as `save` and `load` do.
    """
    values = records_of(model, annotator=MACHINE, bounds=bounds, eyes=eyes, time=time)
    written = []
    with contextlib.nullcontext() if dry_run else locked(folder):
        before = {kind: read_record(folder, kind, model.id) for kind in KINDS}
        if any(found is not None and "rejected" in found for found in before.values()):
            return ()
        for kind, value in values.items():
            old = before[kind]
            if old is not None and (old["source"] == PERSON or {**old, "time": ""} == {**value, "time": ""}):
                continue
            written.append(path_of(folder, kind, model.id) if dry_run else _write(folder, kind, value))
    return tuple(written)


def read_record(folder: Path, kind: str, sha256: str) -> Record | None:
    """Return the checked record of one kind of the model with hash `sha256`, None where nothing is stored.

    Raises `AnnotationError` ``bad_annotation``, or ``stale_annotation`` for the record of another model.
    """
    path = path_of(folder, kind, sha256)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnnotationError("bad_annotation", f"{path}: cannot be read: {error.strerror or error}") from error
    value = parse(data, kind, path)
    if value["sha256"] != sha256:
        raise AnnotationError("stale_annotation", f"{path}: is for the model {value['sha256']}, not {sha256}")
    return value


def write_record(folder: Path, kind: str, value: Record) -> Path:
    """Write a whole record (as `read_record` gives it, for undoing and merging), checked; return its file.

    Raises `AnnotationError` ``bad_annotation`` and `DatasetError`.
    """
    check(value, kind, path_of(folder, kind, str(value.get("sha256", ""))))
    with locked(folder):
        return _write(folder, kind, value)


def remove_record(folder: Path, kind: str, sha256: str) -> bool:
    """Delete the record of one kind of a model; return whether there was one. Raises `DatasetError`."""
    path = path_of(folder, kind, sha256)
    with locked(folder):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DatasetError(f"{path}: cannot be removed: {error.strerror or error}") from error
        fsio.sync_directory(path.parent)
        return True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for reading and writing in one step: a person at the page and `--auto` may write at once.

    Makes the folder. The lock is the folder's own, so that no file is left in it, and the system lets it go when the
    process ends. Not to be nested. Raises `DatasetError` where the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: the folder cannot be made: {error.strerror or error}") from error
    try:
        import fcntl
    except ImportError:  # no such locks on this system: files are still replaced as a whole
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(folder: Path, kind: str, value: Record) -> Path:
    path = path_of(folder, kind, value["sha256"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{path.parent}: the folder cannot be made: {error.strerror or error}") from error
    fsio.write_json(path, value)
    return path


def parse(data: bytes, kind: str, path: Path) -> Record:
    """Return the checked value of one annotation file. Raises `AnnotationError` ``bad_annotation``."""
    value = parse_json(data, path)
    check(value, kind, path)
    return value


def parse_json(data: bytes, path: Path) -> Any:
    """Return the value of a JSON text in which no key stands twice. Raises `AnnotationError` ``bad_annotation``."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise ValueError(f"{', '.join(twice)} stands twice")
        return value

    if re.search(rb"^(<<<<<<<|>>>>>>>) ", data, re.MULTILINE):
        raise AnnotationError(
            "bad_annotation", f"{path}: holds a conflict of git: choose one side and remove the marks"
        )
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except RecursionError:
        raise AnnotationError("bad_annotation", f"{path}: is not JSON of ours: nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise AnnotationError("bad_annotation", f"{path}: is not JSON: {error}") from error


def check(value: Any, kind: str, path: Path) -> None:
    """Check a value against the schema of its `kind`; `AnnotationError` ``bad_annotation`` says what is wrong."""
    try:
        _check(value, kind)
    except ValueError as error:
        raise AnnotationError("bad_annotation", f"{path}: {error}") from None


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check(value: Any, kind: str) -> None:
    _expect(isinstance(value, dict), "must be a JSON object")
    _expect(value.get("schema_version") == SCHEMA_VERSION, f"schema_version must be {SCHEMA_VERSION}")
    wanted = _COMMON | ({"rejected"} if "rejected" in value else _VALUES[kind])
    missing, extra = wanted - value.keys(), value.keys() - wanted - _OPTIONAL
    _expect(not missing, f"lacks {', '.join(sorted(missing))}")
    _expect(not extra, f"has unknown {', '.join(sorted(extra))}")
    sha256 = value["sha256"]
    _expect(
        isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef"), "sha256 is not one"
    )
    for field in ("name", "annotator", *(_OPTIONAL & value.keys())):
        _expect_text(value[field], field)
    _expect(value["annotator"] != "", "annotator is empty")
    _expect(value["source"] in (AUTO, PERSON), f"source must be {AUTO} or {PERSON}")
    _expect(_TIME.fullmatch(value.get("time", "2026-01-01")) is not None, "time must be as 2026-01-31T12:00:00Z")
    _expect(_number(value["confidence"]) and 0 <= value["confidence"] <= 1, "confidence must be in [0, 1]")
    if "rejected" in value:
        _expect_text(value["rejected"], "rejected")
        _expect(value["rejected"] != "", "rejected must be a reason")
    elif kind == HEAD_BOUNDS:
        for field in _VALUES[kind]:
            _expect(_number(value[field]), f"{field} must be a finite number")
        _expect(value["top_y"] > value["chin_y"], "top_y must be above chin_y")
    else:
        eyes = value["eyes"]
        _expect(isinstance(eyes, dict) and set(eyes) == set(EYE_SLOTS), f"eyes must have {', '.join(EYE_SLOTS)}")
        for place, terms in [*eyes.items(), ("mouth_open", value["mouth_open"])]:
            _check_terms(terms, place)


def _check_terms(terms: Any, place: str) -> None:
    _expect(isinstance(terms, list), f"{place} must be a list")
    for term in terms:
        _expect(isinstance(term, dict) and set(term) == _TERM, f"{place}: a term has {', '.join(sorted(_TERM))}")
        _expect(isinstance(term["morph"], int) and not isinstance(term["morph"], bool), f"{place}: morph is no number")
        _expect(term["morph"] >= 0, f"{place}: morph is negative")
        _expect_text(term["name"], f"{place}: name")
        _expect(_number(term["weight"]) and term["weight"] != 0, f"{place}: weight must be a finite number, not 0")
        _expect(term["side"] in SIDES, f"{place}: side must be {', '.join(SIDES)}")


def _expect_text(value: Any, field: str) -> None:
    _expect(isinstance(value, str), f"{field} must be text")
    _expect(is_clean(value), f"{field} has characters that are none (lone surrogates)")


def _number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -1e9 < value < 1e9  # false for NaN and infinities, and for integers that no float can hold


def _as_json(model: Model, term: MorphTerm) -> dict[str, Any]:
    if not 0 <= term.morph < len(model.morphs):
        raise AnnotationError("bad_annotation", f"{model.path}: has no morph {term.morph}")
    name = printable(model.morphs[term.morph].name)
    return {"morph": term.morph, "name": name, "weight": float(term.weight), "side": term.side}


def _terms(model: Model, terms: list[dict[str, Any]], path: Path) -> tuple[MorphTerm, ...]:
    for term in terms:
        number = term["morph"]
        found = printable(model.morphs[number].name) if number < len(model.morphs) else None
        if found != term["name"]:
            now = "does not exist" if found is None else f"is called {found}"
            raise AnnotationError(
                "stale_annotation", f"{path}: morph {number} was {term['name']} and {now} in {model.path}"
            )
    return tuple(MorphTerm(term["morph"], float(term["weight"]), term["side"]) for term in terms)
