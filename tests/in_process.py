"""Worker processes that are none, for tests of what is done with their answers: starting Python takes longest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmdgen.generate.pool import Event
from mmdgen.generate.worker import resolve
from mmdgen.render.renderer import Renderer


class InProcess:
    """Stands in for `mmdgen.generate.pool.Pool`: the handler works here, one task after the other.

    Tasks and answers are handed over as they are, and nothing can crash or hang by itself. A renderer that a handler
    made to check annotations with is released at the end, since a process has one.
    """

    def __init__(self, target: str, config: Any, size: int, logs: Path | None = None) -> None:
        self._had_renderer = Renderer._live
        self._handler = resolve(target)(config)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        checker = getattr(self._handler, "checker", None)
        if checker is not None and checker._renderer is not None and not self._had_renderer:
            checker._renderer.release()

    def run(self, tasks: deque[Any]) -> Iterator[Event]:
        yield Event("ready", 0, None, self._handler.report)
        while tasks:
            task, notes = tasks.popleft(), []
            try:
                kind, value = "done", self._handler.handle(task, notes.append)
            except Exception as error:
                kind, value = "failed", error
            yield from (Event("note", 0, task, note) for note in notes)
            yield Event(kind, 0, task, value)


def work_here(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Give these modules of mmdgen `InProcess` instead of worker processes until the test ends."""
    for module in modules:
        monkeypatch.setattr(module, "Pool", InProcess)
