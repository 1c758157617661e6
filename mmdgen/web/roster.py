"""All models of a folder with the machine's findings, which come in while people work already.

Findings that the cache has are there at once; the others are made by worker processes in the background.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdgen import fsio
from mmdgen.errors import EngineError
from mmdgen.formats.text import printable
from mmdgen.generate.catalogue import find_models
from mmdgen.generate.checking import Checker
from mmdgen.generate.pool import Pool
from mmdgen.generate.splits import source_folder
from mmdgen.model.load import load_model
from mmdgen.web.finding import Cache, Finding, look_at_model, no_finding, plain_reason
from mmdgen.web.subject import Subject, make_subject

FLUSH_EVERY = 32  # findings
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A model: `path` is the server's own knowledge, the page has the id. `finding` is None until there is one."""

    sha256: str
    relative: str
    path: Path
    finding: Finding | None = None

    @property
    def id(self) -> str:
        return self.sha256[:16]

    @property
    def name(self) -> str:
        return printable(self.finding.name if self.finding else self.path.stem)


def _no_status(_: Item) -> dict[str, dict[str, Any]]:
    return {"status": {}, "confidence": {}, "reason": {}}


class Roster:
    """The models below `root`. `start` begins to find and look at them; `close` ends that.

    `status_of` gives the part of a row that depends on stored annotations. `listen` is called with each row that is new
    or has changed, from any thread.
    """

    def __init__(self, root: Path, cache: Cache, *, workers: int = 1) -> None:
        self._root, self._cache, self._workers = root, cache, workers
        self._paths = find_models(root)
        self._lock = threading.RLock()
        self._waiting: list[str] = []
        self._items: dict[str, Item] = {}
        self._rows: dict[str, Row] = {}
        self._listeners: list[Callable[[Row], None]] = []
        self._closing = threading.Event()
        self._pool: Pool | None = None
        self._thread = threading.Thread(target=self._work, name="roster", daemon=True)
        self.found: Callable[[str], None] = lambda model: (
            None
        )  # told of each model that was looked at in the background
        self.status_of: Callable[[Item], dict[str, dict[str, Any]]] = _no_status
        self.complete = threading.Event()  # every file has been looked at

    def start(self) -> None:
        """Take what the cache has, then begin with the rest in the background."""
        for relative in self._paths:
            finding = self._cache.get(self._root / relative)
            if finding is None:
                self._waiting.append(relative)
            else:
                self._add(relative, finding)
        self._thread.start()

    def close(self) -> None:
        """End the background work; what was found is kept in the cache."""
        self._closing.set()
        with self._lock:
            pool = self._pool
        if pool is not None:
            pool.kill()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def listen(self, listener: Callable[[Row], None]) -> None:
        self._listeners.append(listener)

    # Rows

    def ids(self) -> list[str]:
        """Return the ids of all models known so far."""
        with self._lock:
            return list(self._items)

    def get(self, model: str) -> Item | None:
        """Return the model with this id."""
        return self._items.get(model)

    def row(self, model: str) -> Row:
        """Return a model's row as it was told last."""
        return self._rows[model]

    def rows(self) -> list[Row]:
        """Return all rows, least certain first; models that cannot be used at all come last."""
        with self._lock:
            rows = list(self._rows.values())
        return sorted(rows, key=_order)

    def update(self, model: str) -> Row:
        """Make a model's row anew from its files, tell everybody where it changed, and return it."""
        item = self._items[model]
        finding = item.finding
        row = {
            "id": item.id,
            "name": item.name,
            "file": printable(item.path.name),
            "folder": printable(source_folder(item.relative)),
            "vertices": finding.vertices if finding else 0,
            "usable": finding.usable if finding else True,
            **self.status_of(item),
        }
        with self._lock:
            changed = self._rows.get(model) != row
            self._rows[model] = row
        if changed:
            for listener in self._listeners:
                listener(row)
        return row

    def subject(self, model: str) -> Subject:
        """Load a model for the page. Raises `LookupError` with a text for the page, without folders."""
        item = self._items.get(model)
        if item is None:
            raise LookupError("there is no such model")
        try:
            loaded = load_model(item.path)
        except Exception as error:
            raise LookupError(f"{item.name}: {plain_reason(error, item.path)}") from None
        if loaded.id != item.sha256:
            raise LookupError(f"{item.name}: its file has changed since the annotator was started; start it again")
        finding = item.finding
        if finding is None:
            # Whoever is ahead of the background work gets what is known without pictures, for the time being.
            finding = look_at_model(loaded, Checker(check=False).find)
        if not finding.usable:
            raise LookupError(f"{item.name}: {finding.problem}")
        return make_subject(loaded, finding)

    # Background

    def _add(self, relative: str, finding: Finding | None, sha256: str = "") -> None:
        sha256 = finding.sha256 if finding else sha256
        with self._lock:
            known = self._items.get(sha256[:16])
            if known is None:
                known = Item(sha256, relative, self._root / relative)
            elif known.relative != relative:
                return  # the same file a second time: the first path counts
            self._items[known.id] = replace(known, finding=finding or known.finding)
        self.update(known.id)

    def _learn(self, relative: str, finding: Finding, keep: bool) -> None:
        if keep:
            self._cache.put(self._root / relative, finding)
        self._add(relative, finding)
        self.found(finding.id)

    def _work(self) -> None:
        try:
            tasks = self._hashed()
            if tasks and not self._closing.is_set():
                self._find_all(tasks)
        finally:
            self._cache.flush()
            self.complete.set()

    def _hashed(self) -> deque[str]:
        """Give each waiting file its row, so that people may begin with it; return those to be looked at."""
        tasks: deque[str] = deque()
        for relative in self._waiting:
            if self._closing.is_set():
                break
            try:
                sha256 = fsio.sha256_file(self._root / relative)
            except OSError:
                continue  # gone again, or not ours to read
            if sha256[:16] not in self._items:
                self._add(relative, None, sha256)
                tasks.append(str(self._root / relative))
        return tasks

    def _find_all(self, tasks: deque[str]) -> None:
        prefix = len(str(self._root / "x")) - 1
        crashed: set[str] = set()
        with self._lock:
            self._pool = Pool("mmdgen.web.finding:FindingWorker", None, max(1, min(self._workers, len(tasks))))
        try:
            for count, event in enumerate(self._pool.run(tasks)):
                if self._closing.is_set():
                    return
                if event.kind == "done" and event.value[0] is not None:
                    self._learn(event.task[prefix:], *event.value)
                elif event.kind in ("died", "failed") and event.task is not None:
                    if event.kind == "died" and event.task not in crashed:
                        crashed.add(event.task)
                        tasks.append(event.task)
                    else:
                        self._unusable(event.task[prefix:])
                if count % FLUSH_EVERY == 0:
                    self._cache.flush()
        except EngineError:
            return  # no process can be started, or they were ended: models are looked at when they are opened
        finally:
            self._pool.kill()

    def _unusable(self, relative: str) -> None:
        """A file that ends the process that reads it: never read it here."""
        item = next((item for item in self._items.values() if item.relative == relative), None)
        if item is not None:
            self._add(relative, no_finding(item.sha256, item.path, "reading this file ends the process that reads it"))


def _order(row: Row) -> tuple[bool, float, str]:
    return (not row["usable"], min(row["confidence"].values(), default=0.0), row["id"])
