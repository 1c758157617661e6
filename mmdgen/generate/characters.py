"""Procedural characters as the default input: made side by side, kept for the next time."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdgen.errors import AnnotationError, EngineError
from mmdgen.fsio import TEMPORARY_MARK
from mmdgen.generate.catalogue import OK, Catalogue, UsableModel, describe
from mmdgen.generate.pool import Pool
from mmdgen.samples.library import TRUTH_FILE, existing_model, folder_name, write_characters

if TYPE_CHECKING:
    from mmdgen.annotate.records import Annotation
    from mmdgen.model.records import Model

STALE_SECONDS = 3600.0
EXAMINER = "mmdgen.generate.characters:examine_character"
TRUTH = "truth"  # the source of what needs nobody to find it


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


def exact_annotation(model: Model) -> Annotation:
    """Return what is exactly known about a character that `make_characters` or `write_characters` made.

    Raises `AnnotationError` ``bad_annotation`` where the truth beside the model cannot be read.
    """
    from mmdgen.annotate.auto import annotate
    from mmdgen.annotate.records import EYE_SLOTS, EyeMorphs, HeadBounds
    from mmdgen.model.records import MorphTerm

    place = model.path.parent / TRUTH_FILE
    try:
        truth = json.loads(place.read_bytes())
        slots = {slot: tuple(MorphTerm(*term) for term in truth["slots"][slot]) for slot in EYE_SLOTS}
        for shape, side in (("normal", "left"), ("normal", "right"), ("smile", "left"), ("smile", "right")):
            both = slots[f"{shape}_both"]
            slots[f"{shape}_{side}"] = slots[f"{shape}_{side}"] or tuple(
                MorphTerm(t.morph, t.weight, side) for t in both
            )
        mouth = tuple(MorphTerm(*term) for term in truth["mouth_open"])
        bounds = HeadBounds(truth["chin_y"], truth["top_y"], truth["center_x"], TRUTH, reason="known exactly")
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{place}: does not say what is known about the character: {error}"
        raise AnnotationError("bad_annotation", message) from error
    return annotate(model, bounds=bounds, eyes=EyeMorphs(slots, mouth, TRUTH, reasons=("known exactly",)))


def examine_character(path: Path, relative: str, root: Path, annotations: Path | None) -> UsableModel:
    """Load a character that `make_characters` made, with what is exactly known about it: nothing has to be found.

    Stored annotations play no part. Raises `MmdgenError` as `catalogue.examine` does.
    """
    from mmdgen.model.load import load_model

    model = load_model(path)
    return describe(model, exact_annotation(model), path, relative, root)


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
