"""What the machine says about one model, in a form that can be kept: found once, then read from the user's cache.

A finding depends on the model's file and on mmdgen's own code alone, so it is stored by both.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen import fsio
from mmdgen.annotate.bones import find_bones, vertex_share
from mmdgen.annotate.records import AUTO, EYE_SLOTS, Annotation, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError, MmdgenError
from mmdgen.generate.checking import Checker
from mmdgen.model.load import load_model
from mmdgen.model.records import Model, MorphTerm

# What a finding depends on; the rest of mmdgen may change without making one stale.
_CODE = (
    *("errors.py", "geometry.py", "formats", "model", "pose", "render", "annotate"),
    *("generate/checking.py", "web/finding.py"),
)
Finder = Callable[[Model], Annotation]


@dataclass(frozen=True, slots=True)
class Finding:
    """`sha256` is of the model's file. `bounds` and `eyes` are None where the machine found none; `problem` says why.

    `usable` is False for a file that is no model or cannot be drawn. `neck` and `head` are bone indices. `guess` stands
    in for the bounds as a start for a person.
    """

    sha256: str
    name: str
    vertices: int
    usable: bool
    neck: int
    head: int
    guess: HeadBounds
    bounds: HeadBounds | None
    eyes: EyeMorphs | None
    problem: str = ""

    @property
    def id(self) -> str:
        return self.sha256[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "sha256": self.sha256,
            "name": self.name,
            "vertices": self.vertices,
            "usable": self.usable,
            "neck": self.neck,
            "head": self.head,
            "guess": bounds_json(self.guess),
            "bounds": bounds_json(self.bounds) if self.bounds else None,
            "eyes": eyes_json(self.eyes) if self.eyes else None,
            "problem": self.problem,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Finding:
        """Return the finding of `to_json`. Raises KeyError, TypeError or ValueError."""
        eyes = value["eyes"]
        return cls(
            **{
                **value,
                "guess": HeadBounds(**value["guess"]),
                "bounds": HeadBounds(**value["bounds"]) if value["bounds"] else None,
                "eyes": EyeMorphs(
                    {slot: terms_from_json(eyes["slots"][slot]) for slot in EYE_SLOTS},
                    terms_from_json(eyes["mouth_open"]),
                    eyes["source"],
                    float(eyes["confidence"]),
                    tuple(eyes["reasons"]),
                )
                if eyes
                else None,
            }
        )


def terms_json(terms: tuple[MorphTerm, ...]) -> list[dict[str, Any]]:
    """Return terms as the page has them."""
    return [{"morph": term.morph, "weight": float(term.weight), "side": term.side} for term in terms]


def terms_from_json(rows: list[dict[str, Any]]) -> tuple[MorphTerm, ...]:
    return tuple(MorphTerm(int(row["morph"]), float(row["weight"]), str(row["side"])) for row in rows)


def eyes_json(eyes: EyeMorphs) -> dict[str, Any]:
    return {
        "slots": {slot: terms_json(eyes.slots[slot]) for slot in EYE_SLOTS},
        "mouth_open": terms_json(eyes.mouth_open),
        "source": eyes.source,
        "confidence": float(eyes.confidence),
        "reasons": list(eyes.reasons),
    }


def bounds_json(bounds: HeadBounds) -> dict[str, Any]:
    """Return head bounds as JSON values."""
    return {
        "chin_y": float(bounds.chin_y),
        "top_y": float(bounds.top_y),
        "center_x": float(bounds.center_x),
        "source": bounds.source,
        "confidence": float(bounds.confidence),
        "reason": bounds.reason,
    }


def plain_reason(error: BaseException, path: Path) -> str:
    """Return an error's message without the place of the file: a page is told names, never folders."""
    message = str(error) or type(error).__name__
    for text in (str(path), str(path.resolve()), str(path.parent.resolve()), str(path.parent)):
        if len(text) > 1:
            message = message.replace(text + ": ", "").replace(text, path.name)
    return message if isinstance(error, MmdgenError) else f"{type(error).__name__}: {message}"


def look_at_model(model: Model, finder: Finder) -> Finding:
    """Return what `finder` (as `Checker.find`) finds in a model; what it cannot find is told, not raised."""
    name = model.name or model.name_en or model.path.stem
    neck = head = 0
    guess = _whole_model(model)
    try:
        bones = find_bones(model)
        neck, head = bones.neck, bones.head
        guess = _around_bone(model, head, vertex_share(model, bones.share)) or guess
        annotation = finder(model)
    except AnnotationError as error:
        problem = plain_reason(error, model.path)
        usable = len(model.face) > 0 and len(model.skeleton.parent) > 0
        return Finding(model.id, name, len(model.position), usable, neck, head, guess, None, None, problem)
    bounds, eyes = annotation.bounds, annotation.eyes
    return Finding(model.id, name, len(model.position), True, annotation.neck, annotation.head, guess, bounds, eyes)


def _whole_model(model: Model) -> HeadBounds:
    if not len(model.position):
        return HeadBounds(0.0, 1.0, 0.0, AUTO, 0.0, "nothing is known")
    low, high = model.position.min(axis=0), model.position.max(axis=0)
    top = float(high[1])
    height = max(float(high[1] - low[1]) / 7, 1e-2)
    return HeadBounds(top - height, top, float((low[0] + high[0]) / 2), AUTO, 0.0, "a guess from the whole model")


def _around_bone(model: Model, head: int, share) -> HeadBounds | None:
    """A start for a person: from the head bone up to where the vertices that it carries end."""
    x, y = (float(value) for value in model.skeleton.rest[head, :2])
    carried = model.position[share > 0.5, 1]
    above = carried[carried > y]
    if len(above) < 8:
        return None
    top = float(sorted(above)[int(0.9 * (len(above) - 1))])
    return HeadBounds(y, max(top, y + 0.1), x, AUTO, 0.0, "a guess from the head bone")


def find(path: Path, finder: Finder) -> Finding:
    """Return what the machine says about the model in the file `path`; a file that cannot be used gives a problem.

    Raises OSError where the file cannot be read at all.
    """
    try:
        return look_at_model(load_model(path), finder)
    except Exception as error:  # whatever a file does, it is told and the others go on
        return no_finding(fsio.sha256_file(path), path, plain_reason(error, path))


def no_finding(sha256: str, path: Path, problem: str) -> Finding:
    """Return the finding of a file that cannot be used."""
    return Finding(sha256, path.stem, 0, False, 0, 0, HeadBounds(0.0, 1.0, 0.0, AUTO, 0.0, ""), None, None, problem)


class FindingWorker:
    """The handler of `generate.pool`: a task is a path, the result (finding, whether to keep it).

    The finding is None where the file cannot be read. One that was to be checked in pictures and could not be is not
    kept: the next start may have what it takes.
    """

    def __init__(self, config: Any) -> None:
        self.report: dict[str, Any] = {}
        self._checker = Checker()
        if hasattr(os, "nice"):
            os.nice(10)  # the page comes first
        os.environ["LP_NUM_THREADS"] = "0"  # not the server's own threads, which it would inherit

    def handle(self, task: str, note: Callable[[Any], None]) -> tuple[Finding | None, bool]:
        try:
            found = find(Path(task), self._checker.find)
        except OSError:
            return None, False
        return found, not self._checker.problem


def code_version() -> str:
    """Return a hash of the code that findings depend on."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for place in _CODE:
        path = root / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


class Cache:
    """Findings on disk, below `folder`: ``<code version>/<sha256>.json`` and an index of files seen.

    A damaged or missing entry is as none. Nothing is raised where the disk refuses: the work is only done again.
    """

    def __init__(self, folder: Path, version: str | None = None) -> None:
        self._folder = folder / (version or code_version())
        self._index_path = folder / "files.json"
        self._index = self._read_index()

    def _read_index(self) -> dict[str, list[Any]]:
        try:
            value = json.loads(self._index_path.read_bytes())
            return {str(k): [int(v[0]), int(v[1]), str(v[2])] for k, v in value.items()}
        except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError):
            return {}

    def get(self, path: Path) -> Finding | None:
        """Return the finding of the file `path` if the file is the one that was looked at."""
        try:
            status = path.stat()
            size, changed, sha256 = self._index[str(path)]
            if (size, changed) != (status.st_size, status.st_mtime_ns):
                return None
            found = Finding.from_json(json.loads((self._folder / f"{sha256}.json").read_bytes()))
            return found if found.sha256 == sha256 else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, path: Path, finding: Finding) -> None:
        """Keep a finding."""
        try:
            status = path.stat()
            self._folder.mkdir(parents=True, exist_ok=True)
            target = self._folder / f"{finding.sha256}.json"
            # Not synced: a cache that is lost is only made again. Renamed, so that no reader sees half of it.
            temporary = target.with_name(f"{target.name}{fsio.TEMPORARY_MARK}{id(self)}")
            temporary.write_bytes(fsio.json_bytes(finding.to_json()))
            temporary.replace(target)
        except (OSError, ValueError):
            return
        self._index[str(path)] = [status.st_size, status.st_mtime_ns, finding.sha256]

    def flush(self) -> None:
        """Write the index."""
        try:
            self._index_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._index_path.with_name(f"{self._index_path.name}{fsio.TEMPORARY_MARK}{id(self)}")
            temporary.write_bytes(fsio.json_bytes(self._index))
            temporary.replace(self._index_path)
        except OSError:
            return
