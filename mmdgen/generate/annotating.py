"""Annotating a whole folder without a person: what the machine finds, how surely, and storing it.

What people have stored plays no part in what is found and is never overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen.annotate.records import SURE, Annotation
from mmdgen.annotate.store import HEAD_BOUNDS, KINDS, WINK_MORPHS, save_automatic
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.formats.text import one_line
from mmdgen.generate.catalogue import OK, Rejection, examine_all, find_models, hash_or_nothing, reason
from mmdgen.generate.checking import Checker
from mmdgen.generate.pool import Pool
from mmdgen.model.load import load_model
from mmdgen.model.records import MorphTerm

UNSURE, REJECTED = "unsure", "rejected"
SIDES = {"both": "whole", "left": "left", "right": "right"}  # as the list calls the whole of a morph


@dataclass(frozen=True, slots=True)
class Found:
    """What was found about the file `path` (relative, with /). `status` is

    ``ok`` (all of it is sure), ``unsure`` (`reason` says what is not, and why) or ``rejected`` (nothing was found:
    `reason` begins with the code). `sha256` is empty where the file could not be read. `stored` are the kinds that were
    written, or would have been.
    """

    path: str
    sha256: str
    status: str
    reason: str
    annotation: Annotation | None = None
    stored: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the row of the list that ``mmdgen annotate --auto --json`` prints; lengths in MMD units."""
        row: dict[str, Any] = {
            "path": one_line(self.path),
            "sha256": self.sha256,
            "status": self.status,
            "reason": self.reason,
            "head_bounds": None,
            "eyes": None,
            "mouth_open": None,
        }
        if self.annotation is None:
            return row
        bounds, eyes = self.annotation.bounds, self.annotation.eyes
        row["head_bounds"] = {
            "chin_y": round(float(bounds.chin_y), 5),
            "top_y": round(float(bounds.top_y), 5),
            "center_x": round(float(bounds.center_x), 5),
            "confidence": round(float(bounds.confidence), 4),
        }
        row["eyes"] = {
            shape: {
                **{side: _terms(eyes.slots[f"{shape}_{side}"]) for side in ("left", "right", "both")},
                "confidence": round(float(eyes.confidence), 4),
            }
            for shape in ("normal", "smile")
        }
        row["mouth_open"] = _terms(eyes.mouth_open)
        return row


def _terms(terms: tuple[MorphTerm, ...]) -> list[dict[str, Any]] | None:
    return [{"morph": t.morph, "side": SIDES[t.side], "weight": round(float(t.weight), 6)} for t in terms] or None


def doubts(annotation: Annotation) -> dict[str, str]:
    """Return by kind why an annotation is not sure, in words; empty where all of it is."""
    bounds, eyes = annotation.bounds, annotation.eyes
    said = {
        HEAD_BOUNDS: (bounds.confidence, f"head bounds sure to {bounds.confidence:.2f}: {bounds.reason}"),
        WINK_MORPHS: (eyes.confidence, f"eyes and mouth sure to {eyes.confidence:.2f}: {'; '.join(eyes.reasons)}"),
    }
    return {kind: one_line(text) for kind, (confidence, text) in said.items() if confidence < SURE}


class AutoWorker:
    """The pool's handler: a task is a relative path, the result a `Found`."""

    report: dict[str, Any] = {}  # noqa: RUF012  part of the handler's interface, never changed

    def __init__(self, config: dict[str, Any]) -> None:
        self.root = Path(config["root"])
        self.out = Path(config["out"]) if config["out"] else None
        self.kinds: tuple[str, ...] = tuple(config["kinds"])
        self.all, self.dry_run, self.time = bool(config["all"]), bool(config["dry_run"]), str(config["time"])
        self.checker = Checker(check=bool(config["check"]))

    def handle(self, task: str, note: Callable[[Any], None]) -> Found:
        path = self.root / task
        try:
            model = load_model(path)
            annotation = self.checker.find(model)
            if self.checker.problem:
                note(("unchecked", self.checker.problem))
            unsure = doubts(annotation)
            stored: list[str] = []
            if self.out is not None:
                values = {HEAD_BOUNDS: {"bounds": annotation.bounds}, WINK_MORPHS: {"eyes": annotation.eyes}}
                for kind in self.kinds:
                    if self.all or kind not in unsure:
                        written = save_automatic(model, self.out, **values[kind], time=self.time, dry_run=self.dry_run)
                        stored += [kind] * len(written)
        except DatasetError:  # a full disk is no model's fault: the run ends with it
            raise
        except Exception as error:
            code, message = reason(error, self.root)
            return Found(task, hash_or_nothing(path), REJECTED, one_line(f"{code}: {message}"))
        text = "; ".join(unsure.values())
        return Found(task, model.id, UNSURE if unsure else OK, text, annotation, tuple(stored))


def annotate_folder(
    root: Path,
    out: Path | None,
    *,
    kinds: tuple[str, ...] = KINDS,
    everything: bool = False,
    dry_run: bool = False,
    check: bool = True,
    workers: int = 2,
    limit: int | None = None,
    time: str = "",
    on_progress: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> list[Found]:
    """Annotate every model below `root` and return what was found, by path.

    With `out`, a folder of annotations, sure results of the `kinds` are stored there with the `time`, unsure ones too
    with `everything`; what a person stored stays, and with `dry_run` nothing is written. Without `check` nothing is
    drawn. Raises `ConfigError` where `root` is no folder or has no model files.
    """
    paths = find_models(root)[:limit]
    if not paths:
        raise ConfigError(f"no .pmx or .pmd file lies below {root}")
    config = {
        "root": str(root),
        "out": str(out or ""),
        "kinds": list(kinds),
        "all": everything,
        "dry_run": dry_run,
        "check": check,
        "time": time,
    }
    results: dict[str, Found] = {}
    warned: list[str] = []

    def learn(path: str, result: Found | Rejection) -> None:
        if isinstance(result, Rejection):  # its process ended
            text = one_line(f"{result.code}: {result.message}")
            result = Found(path, hash_or_nothing(root / path), REJECTED, text)
        results[path] = result
        if on_progress:
            on_progress(len(results), len(paths))

    def warn(message: str) -> None:
        if on_warning and not warned:
            on_warning(message)
        warned.append(message)

    with Pool("mmdgen.generate.annotating:AutoWorker", config, max(1, min(workers, len(paths)))) as pool:
        examine_all(pool, paths, learn, warn)
    return [results[path] for path in paths]
