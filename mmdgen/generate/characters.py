"""Procedural characters as the default input: made side by side, kept for the next time."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdgen.errors import EngineError
from mmdgen.fsio import TEMPORARY_MARK
from mmdgen.generate.catalogue import OK, Catalogue, UsableModel
from mmdgen.generate.pool import Pool
from mmdgen.samples.library import existing_model, folder_name, write_characters

STALE_SECONDS = 3600.0


class CharacterWorker:
    """The pool's handler: a task is a seed, the result the path of that character's model."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.report: dict[str, Any] = {}

    def handle(self, task: int, note: Callable[[Any], None]) -> Path:
        return write_characters(self.folder, 1, task)[0]


def make_characters(
    folder: Path, count: int, *, workers: int = 1, on_progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Write the characters 0 .. count - 1 below `folder`, but for those that are there; return their models' paths.

    The paths are relative to `folder`, with /. `on_progress(done, total)` counts characters. Raises `DatasetError` when
    they cannot be written, `EngineError` when a process dies.
    """
    _sweep(folder)
    paths = {seed: existing_model(folder, seed) for seed in range(count)}
    tasks = deque(seed for seed, path in paths.items() if path is None)
    done = count - len(tasks)
    if tasks:
        with Pool("mmdgen.generate.characters:CharacterWorker", str(folder), min(workers, len(tasks))) as pool:
            for event in pool.run(tasks):
                if event.kind == "done":
                    paths[event.task] = event.value
                    done += 1
                    if on_progress:
                        on_progress(done, count)
                elif event.kind == "failed":
                    raise event.value
                elif event.kind == "died":
                    raise EngineError(f"making character {event.task} ended the process: {event.value.how}")
    return [path.relative_to(folder).as_posix() for path in paths.values() if path is not None]


def _sweep(folder: Path) -> None:
    """Remove half-made characters that an interrupted start left long ago; a fresh one may be another start's."""
    for path in folder.glob(f"*{TEMPORARY_MARK}*"):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def foreseen(count: int) -> Catalogue:
    """Return what a scan of `count` characters will find, as far as counting needs it, without making them."""
    return Catalogue(
        tuple(
            UsableModel(
                id=f"{seed:064x}",
                path=f"{folder_name(seed)}/character.pmx",
                source=folder_name(seed),
                name=f"character {seed}",
                status=OK,
                vertices=0,
                confidence=1.0,
                neck=0,
                head=0,
                chin_y=0.0,
                top_y=1.0,
                center_x=0.0,
                terms={},
                textures="",
            )
            for seed in range(count)
        ),
        (),
    )
