"""What a person does to the annotations, action by action: shown, stored at once, taken back, done again.

The files are the truth, and others may write them at any time (a second person, git, ``--auto``): each action reads
them anew under the folder's lock and refuses, saying so, where they are not what was shown. Undo restores a file's very
bytes, or that there was none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen import fsio
from mmdgen.annotate import store
from mmdgen.annotate.records import EYE_SLOTS, PERSON, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError, DatasetError
from mmdgen.formats.text import printable
from mmdgen.web import protocol
from mmdgen.web.finding import bounds_json, eyes_json, plain_reason, terms_json
from mmdgen.web.roster import Item, Roster, Row
from mmdgen.web.subject import Subject

MOST_UNDO = 1000
WATCH_S = 2.0


class SessionError(Exception):
    """An action that was not done. The text is for the page: it names models, never files."""


@dataclass(frozen=True, slots=True)
class _Write:
    """A file's bytes before and after an action; None where there is no file."""

    kind: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class _Step:
    model: str
    kind: str
    writes: tuple[_Write, ...]


class Session:
    """One start of the annotator: what one person does, whichever of their windows it comes from.

    Methods may be called from any thread and may raise `SessionError`.
    """

    def __init__(self, roster: Roster, annotations: Path, annotator: str) -> None:
        self._roster, self._folder, self.annotator = roster, annotations, annotator
        self._lock = threading.RLock()
        self._shown: dict[tuple[str, str], bytes | None] = {}  # by (model, kind): the file that was shown
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._center: dict[str, float] = {}
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        roster.status_of = self.status

    def start(self) -> None:
        """Begin to watch the annotations: rows follow what others write."""
        self._watcher.start()

    def close(self) -> None:
        """End watching."""
        self._closing.set()
        if self._watcher.is_alive():
            self._watcher.join(timeout=10)

    def _watch(self) -> None:
        seen = self._files()
        while not self._closing.wait(WATCH_S):
            now = self._files()
            for name in {name for _, name in dict(seen.items() ^ now.items())}:
                if self.knows(name):
                    self._roster.update(name)
            seen = now

    def _files(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return when each annotation was written and how long it is, by kind and id."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for kind in protocol.KINDS:
            with contextlib.suppress(OSError), os.scandir(self._folder / kind) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # gone between
                        status = entry.stat(follow_symlinks=False)
                        found[kind, entry.name.removesuffix(".json")] = (status.st_mtime_ns, status.st_size)
        return found

    def listen(self, listener: Callable[[Row], None]) -> None:
        """Call `listener`, from any thread, with each row that is new or has changed."""
        self._roster.listen(listener)

    def knows(self, model: str) -> bool:
        """Return whether there is a model with this id."""
        return self._roster.get(model) is not None

    def plain(self, model: str, error: Exception) -> str:
        """Return an error's text for the page: it names models, never files."""
        item = self._roster.get(model)
        return plain_reason(error, item.path) if item else str(error)

    # What is shown

    def state(self) -> dict[str, Any]:
        """Return the page's first answer: who annotates and all rows, least certain first."""
        return {"annotator": self.annotator, "kinds": list(protocol.KINDS), "models": self._roster.rows()}

    def center_x(self, subject: Subject) -> float:
        """Return the middle of the face at the moment, MU: one-sided terms divide there."""
        return self._center.get(subject.finding.id, subject.bounds.center_x)

    def describe(self, subject: Subject) -> dict[str, Any]:
        """Return all that the page needs to show a model, from its files as they are now."""
        finding = subject.finding
        with self._lock:
            for kind in protocol.KINDS:
                self._shown[finding.id, kind] = self._read(finding.sha256, kind)
            stored, problem = self._stored(subject)
        bounds = stored.bounds or finding.bounds or finding.guess
        eyes = stored.eyes or finding.eyes
        self._center[finding.id] = bounds.center_x
        machine = {"bounds": bounds_json(finding.bounds)} if finding.bounds else {"bounds": None}
        machine |= _eyes(finding.eyes)
        reasons = list(eyes.reasons) if eyes else [finding.problem]
        return {
            "id": finding.id,
            "name": finding.name,
            "bounds": bounds_json(bounds)
            | ({"reason": problem or finding.problem} if problem or not bounds.reason else {}),
            "suggested": machine,
            **_eyes(eyes),
            "eyes_reasons": [*([problem] if problem else []), *reasons],
            "morphs": list(subject.morphs),
            **subject.views,
            "rejected": stored.rejected,
            "row": self._roster.update(finding.id),
        }

    def status(self, item: Item) -> dict[str, dict[str, Any]]:
        """Return ``status``, ``confidence`` and ``reason`` by kind for a row, from the files as they are now."""
        finding = item.finding
        result: dict[str, dict[str, Any]] = {"status": {}, "confidence": {}, "reason": {}}
        rejected = ""
        for kind in protocol.KINDS:
            found = None
            if finding is not None:
                found = finding.bounds if kind == store.HEAD_BOUNDS else finding.eyes
            status, confidence, reason = "auto", 0.0, "not looked at yet"
            if found is not None:
                reasons = (found.reason,) if isinstance(found, HeadBounds) else found.reasons
                confidence, reason = float(found.confidence), "; ".join(reasons)
            elif finding is not None:
                status, reason = "error", finding.problem
            try:
                record = store.read_record(self._folder, kind, item.sha256)
            except AnnotationError as error:
                status, confidence, reason, record = "error", 0.0, self._plain(error), None
            if record is not None and "rejected" in record:
                rejected = record["rejected"]
            elif record is not None and record["source"] == PERSON:
                status = "mine" if record["annotator"] == self.annotator else "other"
                confidence, reason = 1.0, f"stored by {record['annotator']}"
            elif record is not None:
                status, confidence = "auto", float(record["confidence"])
            result["status"][kind], result["confidence"][kind], result["reason"][kind] = status, confidence, reason
        if rejected:
            for kind in protocol.KINDS:
                result["status"][kind], result["reason"][kind] = "rejected", rejected
        return result

    # What is done

    def save(self, subject: Subject, message: protocol.Save) -> dict[str, Any]:
        """Store a person's value and return the row."""
        value = message.value
        if isinstance(value, protocol.BoundsValue):
            bounds = HeadBounds(value.chin_y, value.top_y, value.center_x, source=PERSON)
            return self._keep(subject, bounds=bounds)
        return self._keep(subject, eyes=EyeMorphs(value.eyes, value.mouth_open, source=PERSON))

    def accept(self, subject: Subject, kind: str) -> dict[str, Any]:
        """Store what is shown, whoever found it, as this person's and return the row."""
        with self._lock:
            stored, problem = self._stored(subject)
            if problem:
                raise SessionError(problem)
            if kind == store.HEAD_BOUNDS:
                bounds = stored.bounds or subject.finding.bounds
                if bounds is None:
                    raise SessionError(f"{subject.finding.name}: there are no head bounds to accept; place them first")
                return self._keep(
                    subject, bounds=HeadBounds(bounds.chin_y, bounds.top_y, bounds.center_x, source=PERSON)
                )
            eyes = stored.eyes or subject.finding.eyes
            if eyes is None:
                raise SessionError(f"{subject.finding.name}: there are no morphs to accept; choose them first")
            return self._keep(subject, eyes=EyeMorphs(dict(eyes.slots), eyes.mouth_open, source=PERSON))

    def _keep(
        self, subject: Subject, *, bounds: HeadBounds | None = None, eyes: EyeMorphs | None = None
    ) -> dict[str, Any]:
        try:
            records = store.records_of(
                subject.model, annotator=self.annotator, bounds=bounds, eyes=eyes, time=store.utc_now()
            )
        except AnnotationError as error:
            raise SessionError(self._plain(error)) from None
        ((kind, record),) = records.items()
        with self._lock:
            if (reason := self._rejection(subject.finding.sha256)) is not None:
                raise SessionError(f"{subject.finding.name} is rejected ({reason}); take that back first")
            row = self._change(subject.finding.id, kind, {kind: fsio.json_bytes(record)})
        if bounds is not None:
            self._center[subject.finding.id] = bounds.center_x
        return row

    def reject(self, model: str, reason: str) -> dict[str, Any]:
        """Store that a model must not be used and return the row. Its file need not be readable."""
        item = self._item(model)
        record = {
            "rejected": reason,
            "source": PERSON,
            "confidence": 1.0,
            "schema_version": store.SCHEMA_VERSION,
            "sha256": item.sha256,
            "annotator": self.annotator,
            "name": printable(item.name),
            "time": store.utc_now(),
        }
        try:
            store.check(record, store.HEAD_BOUNDS, Path(model))
        except AnnotationError as error:
            raise SessionError(self._plain(error)) from None
        return self._change(model, store.HEAD_BOUNDS, {store.HEAD_BOUNDS: fsio.json_bytes(record)})

    def unreject(self, model: str) -> dict[str, Any]:
        """Take a rejection back, with what was stored before it where this session knows that, and return the row."""
        item = self._item(model)
        with self._lock:
            contents: dict[str, bytes | None] = {}
            for kind in protocol.KINDS:
                now = self._read(item.sha256, kind)
                if now is not None and _is_rejection(now, kind):
                    contents[kind] = self._before(model, kind, now)
            if not contents:
                return self._roster.update(model)
            return self._change(model, next(iter(contents)), contents)

    def undo(self) -> dict[str, Any] | None:
        """Take the last action back; returns its ``model``, ``kind`` and ``row``, or None where there is none."""
        return self._again(self._done, self._undone, backwards=True)

    def redo(self) -> dict[str, Any] | None:
        """Do again what was undone last."""
        return self._again(self._undone, self._done, backwards=False)

    # Files

    def _change(self, model: str, kind: str, contents: dict[str, bytes | None]) -> dict[str, Any]:
        """Write files (None: remove), note the step and return the row."""
        item = self._item(model)
        with self._lock:
            writes = []
            with self._locked():
                for one, after in contents.items():
                    before = self._read(item.sha256, one)
                    if self._shown.get((model, one), before) != before:
                        self._shown.pop((model, one))
                        self._roster.update(model)
                        raise SessionError(f"{item.name}: somebody else has changed this meanwhile; look at it again")
                    if before is not None and not _is_record(before, one):
                        raise SessionError(f"{item.name}: its stored annotation is damaged; repair or remove it first")
                    writes.append(_Write(one, before, after))
                self._write_all(item, [(write.kind, write.after) for write in writes])
            if any(write.before != write.after for write in writes):
                self._done.append(_Step(model, kind, tuple(writes)))
                del self._done[:-MOST_UNDO]
                self._undone.clear()
            return self._roster.update(model)

    def _again(self, source: list[_Step], target: list[_Step], *, backwards: bool) -> dict[str, Any] | None:
        with self._lock:
            if not source:
                return None
            step = source.pop()
            item = self._item(step.model)
            with self._locked():
                for write in step.writes:
                    expected = write.after if backwards else write.before
                    if self._read(item.sha256, write.kind) != expected:
                        self._shown.pop((step.model, write.kind), None)
                        self._roster.update(step.model)
                        raise SessionError(f"{item.name}: somebody else has changed this meanwhile; it stays as it is")
                try:
                    self._write_all(
                        item, [(write.kind, write.before if backwards else write.after) for write in step.writes]
                    )
                except SessionError:
                    source.append(step)
                    raise
            target.append(step)
            return {"model": step.model, "kind": step.kind, "row": self._roster.update(step.model)}

    def _locked(self):
        try:
            return store.locked(self._folder)
        except DatasetError as error:
            raise SessionError(self._plain(error)) from None

    def _write_all(self, item: Item, contents: list[tuple[str, bytes | None]]) -> None:
        """Write or remove the files of one model. The folder is locked."""
        for kind, content in contents:
            path = store.path_of(self._folder, kind, item.sha256)
            try:
                if content is None:
                    path.unlink(missing_ok=True)
                    if path.parent.is_dir():
                        fsio.sync_directory(path.parent)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    fsio.write_atomic(path, content)
            except (OSError, DatasetError) as error:
                raise SessionError(f"{item.name}: not stored: {self._plain(error)}") from None
            self._shown[item.id, kind] = content

    def _read(self, sha256: str, kind: str) -> bytes | None:
        try:
            return store.path_of(self._folder, kind, sha256).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SessionError(f"the stored annotation cannot be read: {error.strerror or error}") from None

    def _stored(self, subject: Subject) -> tuple[store.Stored, str]:
        """Return what is stored, and what is wrong with it."""
        try:
            return store.load(subject.model, self._folder), ""
        except AnnotationError as error:
            return store.Stored(), self._plain(error)

    def _rejection(self, sha256: str) -> str | None:
        for kind in protocol.KINDS:
            try:
                record = store.read_record(self._folder, kind, sha256)
            except AnnotationError:
                continue
            if record is not None and "rejected" in record:
                return record["rejected"]
        return None

    def _before(self, model: str, kind: str, now: bytes) -> bytes | None:
        """What this session replaced by the rejection `now`."""
        for step in reversed(self._done):
            for write in step.writes:
                if step.model == model and write.kind == kind and write.after == now:
                    return write.before
        return None

    def _item(self, model: str) -> Item:
        item = self._roster.get(model)
        if item is None:
            raise SessionError("there is no such model")
        return item

    def _plain(self, error: Exception) -> str:
        """An error's text without folders: files are called by their kind and name."""
        text = plain_reason(error, self._folder / "annotations")
        for place in {str(self._folder), str(self._folder.resolve())}:
            text = text.replace(place + "/", "")
        return text


def _is_record(content: bytes, kind: str) -> bool:
    try:
        store.parse(content, kind, Path("record"))
    except AnnotationError:
        return False
    return True


def _is_rejection(content: bytes, kind: str) -> bool:
    try:
        return "rejected" in store.parse(content, kind, Path("record"))
    except AnnotationError:
        return False


def _eyes(eyes: EyeMorphs | None) -> dict[str, Any]:
    """The six slots and the mouth as the page has them; empty ones where nothing is known."""
    if eyes is None:
        return {
            "eyes": {slot: [] for slot in EYE_SLOTS},
            "mouth_open": [],
            "eyes_source": "auto",
            "eyes_confidence": 0.0,
            "eyes_reasons": [],
        }
    value = eyes_json(eyes)
    return {
        "eyes": value["slots"],
        "mouth_open": terms_json(eyes.mouth_open),
        "eyes_source": eyes.source,
        "eyes_confidence": value["confidence"],
        "eyes_reasons": value["reasons"],
    }
