"""Annotations as files: one small JSON per model and kind, named by the model's hash, so that git can merge them.

`head_bounds/<sha256[:16]>.json` and `wink_morphs/<sha256[:16]>.json` in a folder that is `annotations/` in the
checkout. What they hold is in `annotations/README.md` and `annotations/schema.json`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen import fsio
from mmdgen.annotate import auto
from mmdgen.annotate.records import AUTO, EYE_SLOTS, PERSON, Annotation, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError
from mmdgen.model.morphs import SIDES
from mmdgen.model.records import Model, MorphTerm

SCHEMA_VERSION = 1
HEAD_BOUNDS, WINK_MORPHS = "head_bounds", "wink_morphs"
KINDS = (HEAD_BOUNDS, WINK_MORPHS)
_COMMON = {"schema_version", "sha256", "name", "source", "annotator", "confidence"}
_OPTIONAL = {"time", "note"}
_VALUES = {HEAD_BOUNDS: {"chin_y", "top_y", "center_x"}, WINK_MORPHS: {"eyes", "mouth_open"}}
_TERM = {"morph", "name", "weight", "side"}


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored for one model; `rejected` is a person's reason why it must not be used, or empty."""

    bounds: HeadBounds | None = None
    eyes: EyeMorphs | None = None
    rejected: str = ""


def path_of(folder: Path, kind: str, sha256: str) -> Path:
    """Return where the annotation of one `kind` (of `KINDS`) of the model with hash `sha256` lies."""
    return folder / kind / f"{sha256[:16]}.json"


def resolve(model: Model, folder: Path | None) -> Annotation:
    """Return the annotation to use: stored values first, the automatic ones for what is not stored.

    Raises `AnnotationError`: ``rejected`` with the stored reason, ``stale_annotation`` or ``bad_annotation`` for a
    stored file that does not fit the model or the schema, and what `auto.annotate` raises for what is not stored.
    """
    stored = load(model, folder) if folder is not None else Stored()
    if stored.rejected:
        raise AnnotationError("rejected", f"{model.path}: {stored.rejected}")
    return auto.annotate(model, bounds=stored.bounds, eyes=stored.eyes)


def load(model: Model, folder: Path) -> Stored:
    """Return what `folder` holds for `model`. Raises `AnnotationError` ``stale_annotation`` or ``bad_annotation``."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        path = path_of(folder, kind, model.id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise AnnotationError("bad_annotation", f"{path}: cannot be read: {error.strerror or error}") from error
        value = parse(data, kind, path)
        if value["sha256"] != model.id:
            raise AnnotationError("stale_annotation", f"{path}: is for the model {value['sha256']}, not {model.id}")
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

    Files are replaced atomically. `time` is an ISO 8601 date. Raises `AnnotationError` ``bad_annotation`` for values
    that the schema does not allow, before anything is written, and `DatasetError` if a file cannot be written.
    """
    values: dict[str, dict[str, Any]] = {}
    if rejected:
        values[HEAD_BOUNDS] = {"rejected": rejected, "source": PERSON, "confidence": 1.0}
    if bounds is not None:
        values[HEAD_BOUNDS] = {
            "chin_y": round(float(bounds.chin_y), 5),
            "top_y": round(float(bounds.top_y), 5),
            "center_x": round(float(bounds.center_x), 5),
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
    written = []
    for kind, value in values.items():
        value |= {"schema_version": SCHEMA_VERSION, "sha256": model.id, "name": model.name, "annotator": annotator}
        if time:
            value["time"] = time
        path = path_of(folder, kind, model.id)
        check(value, kind, path)
        written.append((path, value))
    for path, value in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        fsio.write_json(path, value)
    return tuple(path for path, _ in written)


def parse(data: bytes, kind: str, path: Path) -> dict[str, Any]:
    """Return the checked value of one annotation file. Raises `AnnotationError` ``bad_annotation``."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AnnotationError("bad_annotation", f"{path}: is not JSON: {error}") from error
    check(value, kind, path)
    return value


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
        _expect(isinstance(value[field], str), f"{field} must be text")
    _expect(value["annotator"] != "", "annotator is empty")
    _expect(value["source"] in (AUTO, PERSON), f"source must be {AUTO} or {PERSON}")
    _expect(_number(value["confidence"]) and 0 <= value["confidence"] <= 1, "confidence must be in [0, 1]")
    if "rejected" in value:
        _expect(isinstance(value["rejected"], str) and value["rejected"] != "", "rejected must be a reason")
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
        _expect(isinstance(term["name"], str), f"{place}: name must be text")
        _expect(_number(term["weight"]) and term["weight"] != 0, f"{place}: weight must be a finite number, not 0")
        _expect(term["side"] in SIDES, f"{place}: side must be {', '.join(SIDES)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_json(model: Model, term: MorphTerm) -> dict[str, Any]:
    if not 0 <= term.morph < len(model.morphs):
        raise AnnotationError("bad_annotation", f"{model.path}: has no morph {term.morph}")
    name = model.morphs[term.morph].name
    return {"morph": term.morph, "name": name, "weight": float(term.weight), "side": term.side}


def _terms(model: Model, terms: list[dict[str, Any]], path: Path) -> tuple[MorphTerm, ...]:
    for term in terms:
        number = term["morph"]
        found = model.morphs[number].name if number < len(model.morphs) else None
        if found != term["name"]:
            now = "does not exist" if found is None else f"is called {found}"
            raise AnnotationError(
                "stale_annotation", f"{path}: morph {number} was {term['name']} and {now} in {model.path}"
            )
    return tuple(MorphTerm(term["morph"], float(term["weight"]), term["side"]) for term in terms)
