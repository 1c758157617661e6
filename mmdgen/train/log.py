"""What a run writes down: log.jsonl, one object a line, and the same numbers for TensorBoard.

Every line has `event` and `examples` (seen in all when it was written). Events: ``start`` (of a process), ``train``
(means over the steps since the last one), ``validation``, ``samples``, ``checkpoint``, ``stop``. A run that goes on
from a checkpoint first forgets the lines that are ahead of it, so the file tells one story, in the order of the
examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdgen.errors import TrainError
from mmdgen.fsio import write_atomic

LOG_NAME = "log.jsonl"
BOARD_FOLDER = "tensorboard"


class RunLog:
    """The log of `run`, going on after `examples`. A context manager. Raises `TrainError` when it cannot be written."""

    def __init__(self, run: Path, examples: int) -> None:
        self._path = run / LOG_NAME
        try:
            keep_until(self._path, examples)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        # Imported here: it takes seconds, and only a run that writes needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(run / BOARD_FOLDER), purge_step=examples + 1 if examples else None)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, event: str, examples: int, values: Mapping[str, Any] | None = None) -> None:
        """Append one line; it is on its way to the disk when this returns. Numbers go to TensorBoard as well."""
        values = values or {}
        line = {"event": event, "examples": examples, **values}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        if event in ("train", "validation"):
            for name, value in flat(values):
                self._board.add_scalar(f"{event}/{name}", value, examples)
            self._board.flush()


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of nested objects with their paths: ``[("loss/l1", 0.1)]``."""
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((prefix + name, float(value)))
    return found


def keep_until(path: Path, examples: int) -> None:
    """Remove the lines that are ahead of `examples` and a torn last line; a log that is not there stays so."""
    if not path.exists():
        return
    old = path.read_bytes()
    new = b"".join(line for line in old.splitlines(keepends=True) if _is_kept(line, examples))
    if new != old:
        write_atomic(path, new)


def _is_kept(line: bytes, examples: int) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        return int(json.loads(line)["examples"]) <= examples
    except (ValueError, KeyError, TypeError):
        return False
