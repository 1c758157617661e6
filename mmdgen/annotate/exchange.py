"""Whole folders of annotations: checked, merged, and as one JSON or CSV file and back, exactly.

Two people annotate at once in folders (or branches) of their own; `merge` brings the folders together. A spreadsheet
can show and change the CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen import fsio
from mmdgen.annotate import store
from mmdgen.annotate.records import EYE_SLOTS, PERSON
from mmdgen.annotate.store import HEAD_BOUNDS, KINDS, WINK_MORPHS, Record
from mmdgen.errors import AnnotationError

Key = tuple[str, str]  # kind, sha256
JSON_FORMAT, CSV_FORMAT = "json", "csv"
FORMATS = (JSON_FORMAT, CSV_FORMAT)
FIRST, LAST = "first", "last"
_TEXTS = ("name", "source", "annotator", "time", "note", "rejected")
_NUMBERS = ("confidence", "chin_y", "top_y", "center_x")
_LISTS = (*EYE_SLOTS, "mouth_open")
COLUMNS = ("kind", "sha256", *_TEXTS, *_NUMBERS, *_LISTS)
# What a spreadsheet takes for a formula when it stands first, with the wide forms that Japanese ones accept as well.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_QUOTE = "'"  # put in front of such a text, and of those that begin with it, so that it can be taken away again
_ABOUT = ("annotator", "confidence", "time", "note", "name", "source")  # about the values, not the values
_MAX_CELL = 1 << 22


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one file (a path below the folder, with /) or with the folder itself (``.``)."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One record that two folders have with different values: which `winner` (of `sides`), and why.

    `winner` is -1 where nothing decides between them; then nothing is written for this record.
    """

    key: Key
    sides: tuple[tuple[str, Record], ...]
    winner: int
    why: str


@dataclass(frozen=True, slots=True)
class Merged:
    """`records` is what results; `choices` are all records with different values, `conflicts` the undecided ones."""

    records: dict[Key, Record]
    choices: tuple[Choice, ...]

    @property
    def conflicts(self) -> tuple[Choice, ...]:
        return tuple(choice for choice in self.choices if choice.winner < 0)


# --- folders ----------------------------------------------------------------------------------------------------------


def read_folder(folder: Path) -> tuple[dict[Key, Record], list[Fault]]:
    """Return all records of a folder of annotations, and everything that is wrong with it, sorted by path.

    Checked are the schema, that the name of each file is its hash, that no two files are for one model, that what two
    files say about one model agrees, and that nothing else lies in the folders.
    """
    if not folder.is_dir():
        return {}, [Fault(".", f"{folder} is no folder")]
    records: dict[Key, Record] = {}
    faults: list[Fault] = []
    for kind in KINDS:
        place = folder / kind
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            relative = f"{kind}/{path.name}"
            if path.name.startswith(".") and fsio.TEMPORARY_MARK not in path.name:
                continue  # .gitkeep, .DS_Store
            if fsio.TEMPORARY_MARK in path.name:
                faults.append(Fault(relative, "was left by a write that was interrupted: delete it"))
                continue
            try:
                record = _read(path, kind)
            except AnnotationError as error:
                faults.append(Fault(relative, _said(error, path)))
                continue
            wanted = store.path_of(folder, kind, record["sha256"]).name
            if path.name != wanted:
                faults.append(Fault(relative, f"is for {record['sha256']}, so its name must be {wanted}"))
            if (kind, record["sha256"]) in records:
                faults.append(Fault(relative, f"another file of {kind} is for the same model"))
            elif path.name == wanted:
                records[kind, record["sha256"]] = record
    faults += _disagreements(records)
    return records, sorted(faults, key=lambda fault: (fault.path, fault.message))


def _said(error: AnnotationError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _read(path: Path, kind: str) -> Record:
    if not path.is_file() or path.suffix != ".json":
        raise AnnotationError("bad_annotation", f"{path}: does not belong here")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError("bad_annotation", f"{path}: cannot be read: {error.strerror or error}") from error
    return store.parse(data, kind, path)


def _disagreements(records: Mapping[Key, Record]) -> list[Fault]:
    """What records of one model say that cannot be true together."""
    faults = []
    heads = {sha256[:16]: sha256 for kind, sha256 in records if kind == HEAD_BOUNDS}
    for (kind, sha256), record in records.items():
        path = f"{kind}/{sha256[:16]}.json"
        if kind == WINK_MORPHS and "rejected" not in record:
            names: dict[int, str] = {}
            for term in (term for place in _LISTS for term in _terms_at(record, place)):
                if names.setdefault(term["morph"], term["name"]) != term["name"]:
                    faults.append(Fault(path, f"calls morph {term['morph']} {names[term['morph']]} and {term['name']}"))
        other = records.get((HEAD_BOUNDS, sha256))
        if kind != HEAD_BOUNDS and other is not None and other["name"] != record["name"]:
            faults.append(Fault(path, f"calls the model {record['name']}, the {HEAD_BOUNDS} {other['name']}"))
        if kind != HEAD_BOUNDS and other is None and heads.get(sha256[:16], sha256) != sha256:
            faults.append(Fault(path, f"is for {sha256}, the {HEAD_BOUNDS} of this name for {heads[sha256[:16]]}"))
    return faults


def check_names(records: Mapping[Key, Record], sha256: str, morphs: Sequence[str]) -> list[Fault]:
    """Return what the eye and mouth morphs stored for a model do not agree about with its `morphs`' names, in order."""
    record = records.get((WINK_MORPHS, sha256))
    if record is None or "rejected" in record:
        return []
    faults = []
    for place in _LISTS:
        for term in _terms_at(record, place):
            number = term["morph"]
            found = morphs[number] if number < len(morphs) else None
            if found != term["name"]:
                now = "does not exist" if found is None else f"is called {found}"
                faults.append(
                    Fault(f"{WINK_MORPHS}/{sha256[:16]}.json", f"{place}: morph {number} ({term['name']}) {now}")
                )
    return faults


def _terms_at(record: Record, place: str) -> list[dict[str, Any]]:
    return record["mouth_open"] if place == "mouth_open" else record["eyes"][place]


def write_folder(folder: Path, records: Mapping[Key, Record], *, dry_run: bool = False) -> int:
    """Write the records that differ from what `folder` has, in order; return how many. Raises `DatasetError`.

    With `dry_run` they are only counted.
    """
    count = 0
    for (kind, sha256), record in sorted(records.items()):
        path = store.path_of(folder, kind, sha256)
        if not path.is_file() or path.read_bytes() != fsio.json_bytes(record):
            if not dry_run:
                store.write_record(folder, kind, record)
            count += 1
    return count


# --- merging ----------------------------------------------------------------------------------------------------------


def merge(sides: Sequence[tuple[str, Mapping[Key, Record]]], prefer: str = "") -> Merged:
    """Return the union of the sides, each with a name for messages.

    Of two records for one model and kind, a person's beats an automatic one, then the newer beats the older. Where that
    does not decide and the values differ there is a conflict, and the record is left out, unless `prefer` is ``first``
    or ``last``: then the earlier or later side wins.
    """
    by_key: dict[Key, list[tuple[str, Record]]] = {}
    for name, records in sides:
        for key, record in records.items():
            by_key.setdefault(key, []).append((name, record))
    result: dict[Key, Record] = {}
    choices: list[Choice] = []
    for key, found in sorted(by_key.items()):
        best = max(_rank(record) for _, record in found)
        leaders = [place for place, (_, record) in enumerate(found) if _rank(record) == best]
        winner, why = leaders[0], "a person's" if best[0] > min(_rank(record)[0] for _, record in found) else "newer"
        if any(values_of(found[place][1]) != values_of(found[winner][1]) for place in leaders):
            winner, why = {FIRST: (leaders[0], FIRST), LAST: (leaders[-1], LAST)}.get(prefer, (-1, "neither is newer"))
        elif len(leaders) > 1:  # equal values, told by several: the same choice whatever the order of the sides
            winner = min(leaders, key=lambda place: fsio.json_bytes(found[place][1]))
        if winner >= 0:
            result[key] = found[winner][1]
        if any(values_of(record) != values_of(found[0][1]) for _, record in found):
            choices.append(Choice(key, tuple(found), winner, why))
    return Merged(result, tuple(choices))


def _rank(record: Record) -> tuple[bool, str]:
    return record["source"] == PERSON, record.get("time", "")


def values_of(record: Record) -> Record:
    """Return what a record says about the model, without who said it, when and how surely."""
    return {key: value for key, value in record.items() if key not in _ABOUT}


# --- one file ---------------------------------------------------------------------------------------------------------


def to_json(records: Mapping[Key, Record]) -> bytes:
    """Return all records as one JSON file: ``{"annotations": {kind: [record, ...]}, "schema_version": 1}``."""
    value = {kind: [record for (k, _), record in sorted(records.items()) if k == kind] for kind in KINDS}
    return fsio.json_bytes({"annotations": value, "schema_version": store.SCHEMA_VERSION})


def from_json(data: bytes, path: Path) -> dict[Key, Record]:
    """Return the records of `to_json`'s file. Raises `AnnotationError` ``bad_annotation``."""
    value = store.parse_json(data.removeprefix(b"\xef\xbb\xbf"), path)
    if not isinstance(value, dict) or set(value) != {"annotations", "schema_version"}:
        raise AnnotationError("bad_annotation", f"{path}: must be an object with annotations and schema_version")
    if value["schema_version"] != store.SCHEMA_VERSION or not isinstance(value["annotations"], dict):
        raise AnnotationError("bad_annotation", f"{path}: schema_version must be {store.SCHEMA_VERSION}")
    rows: list[tuple[str, Any, str]] = []
    for kind, items in value["annotations"].items():
        if kind not in KINDS or not isinstance(items, list):
            raise AnnotationError("bad_annotation", f"{path}: annotations must have lists for {', '.join(KINDS)}")
        rows += [(kind, item, f"{kind}, number {number}") for number, item in enumerate(items)]
    return _collect(rows, path)


def to_csv(records: Mapping[Key, Record]) -> str:
    """Return all records as CSV with a header: one row a record, lists of terms as JSON, empty where there is nothing.

    A text that a spreadsheet would run as a formula has a ``'`` in front, which `from_csv` takes away again.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for (kind, sha256), record in sorted(records.items()):
        row: dict[str, str] = {"kind": kind, "sha256": sha256}
        row |= {field: _safe(record[field]) for field in _TEXTS if field in record}
        row |= {field: json.dumps(record[field]) for field in _NUMBERS if field in record}
        if "mouth_open" in record:
            row |= {place: json.dumps(_terms_at(record, place), ensure_ascii=False) for place in _LISTS}
        writer.writerow([row.get(column, "") for column in COLUMNS])
    return stream.getvalue()


def from_csv(text: str, path: Path) -> dict[Key, Record]:
    """Return the records of `to_csv`'s text; the columns may stand in any order. Raises `AnnotationError`."""
    before = csv.field_size_limit(_MAX_CELL)
    try:
        table = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))
    except csv.Error as error:
        raise AnnotationError("bad_annotation", f"{path}: is not CSV: {error}") from error
    finally:
        csv.field_size_limit(before)
    header = table[0] if table else []
    if sorted(header) != sorted(COLUMNS):
        raise AnnotationError("bad_annotation", f"{path}: its columns must be {', '.join(COLUMNS)}")
    rows = []
    for number, cells in enumerate(table[1:], 2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise AnnotationError("bad_annotation", f"{path}: row {number} has {len(cells)} cells, not {len(header)}")
        row = dict(zip(header, cells, strict=True))
        try:
            rows.append((row["kind"], _record(row, path), f"row {number}"))
        except AnnotationError as error:
            raise AnnotationError("bad_annotation", f"{path}: row {number}: {_said(error, path)}") from error
    return _collect(rows, path)


def _safe(text: str) -> str:
    # an empty text is told from one that is not there
    return _QUOTE + text if text == "" or text.startswith((*_FORMULA, _QUOTE)) else text


def _record(row: dict[str, str], path: Path) -> Record:
    record: Record = {"sha256": row["sha256"], "schema_version": store.SCHEMA_VERSION}
    record |= {field: row[field].removeprefix(_QUOTE) for field in _TEXTS if row[field] != ""}
    record.setdefault("name", "")  # a spreadsheet may drop the mark of an empty text
    for field in _NUMBERS:
        if row[field] != "":
            record[field] = store.parse_json(row[field].encode("utf-8"), path)
    if any(row[place] != "" for place in _LISTS):
        lists = {place: store.parse_json((row[place] or "[]").encode("utf-8"), path) for place in _LISTS}
        record |= {"mouth_open": lists.pop("mouth_open"), "eyes": lists}
    return record


def _collect(rows: Iterable[tuple[str, Any, str]], path: Path) -> dict[Key, Record]:
    records: dict[Key, Record] = {}
    for kind, record, where in rows:
        if kind not in KINDS:
            raise AnnotationError("bad_annotation", f"{path}: {where}: the kind must be {' or '.join(KINDS)}")
        try:
            store.check(record, kind, path)
        except AnnotationError as error:
            raise AnnotationError(
                "bad_annotation", f"{path}: {where}: {str(error).removeprefix(f'{path}: ')}"
            ) from None
        if (kind, record["sha256"]) in records:
            raise AnnotationError("bad_annotation", f"{path}: {where}: stands twice: {kind} of {record['sha256']}")
        records[kind, record["sha256"]] = record
    return records
