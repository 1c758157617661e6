"""The corpus report: every model file of a folder with its judgement, times and pictures, as one page and as JSON.

    OUT/index.html        the page (see `report_page`)
    OUT/report.json       the same numbers for programs
    OUT/pictures/*.png    the pictures, with transparency

Worker processes look at the files one by one (`report_worker`): what crashes or hangs costs its own row, nothing else.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mmdgen import rng
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.formats.text import one_line
from mmdgen.fsio import write_atomic, write_json
from mmdgen.generate.catalogue import OK, REPAIRED, Rejection, UsableModel, find_models
from mmdgen.generate.pool import Death, Pool
from mmdgen.generate.report_page import page

REJECTED = "rejected"
DEFAULT_WORKER = "mmdgen.generate.report_worker:ReportWorker"
PICTURES = "pictures"  # the folder beside the page
STAGES = ("parse", "assemble", "annotate", "prepare", "draw")
TIME_LIMIT_S = 120.0
_OURS = re.compile(r"\d{5}-[a-z-]+\.png")


@dataclass(frozen=True, slots=True)
class Picture:
    """`file` is relative to the report's folder; `ruled` pictures have the chin at 3H/4 and the skull's top at H/4."""

    file: str
    caption: str
    ruled: bool = False


@dataclass(slots=True)
class Look:
    """What was found out about one file beside the judgement; what could not be is empty or None.

    `diagnostics` are (code, how often, where and what first); `confidence` by part; `terms` the morphs of each
    parameter in words; `missing` the used textures whose file was not found; `white` those drawn white in the picture,
    for whatever reason; `seconds` by stage; `doubts` what the pictures themselves make doubtful; `problem` why there
    are no pictures (or fewer) although there should be.
    """

    sha256: str = ""
    name: str = ""
    vertices: int | None = None
    materials: int | None = None
    bones: int | None = None
    morphs: int | None = None
    diagnostics: list[tuple[str, int, str]] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    terms: dict[str, list[str]] = field(default_factory=dict)
    textures: int = 0
    missing: list[str] = field(default_factory=list)
    white: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    problem: str = ""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes, if it ends well."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: the judgement (`status`, and for a rejection `code` and `message`), and what a `Look` found.

    All texts are printable. `number` names the row's pictures and its place on the page.
    """

    number: int
    path: str
    status: str
    code: str
    message: str
    look: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """All entries, sorted by path; `renderer` is what drew."""

    root: str
    annotations: str
    view: dict[str, Any]
    renderer: dict[str, Any]
    entries: tuple[Entry, ...]

    def summary(self) -> dict[str, Any]:
        """Return counts by status, reason and diagnostic, and each stage's median, 90th percentile and maximum."""
        reasons = Counter(entry.code for entry in self.entries if entry.status == REJECTED)
        files: Counter[str] = Counter()
        found: Counter[str] = Counter()
        for entry in self.entries:
            for code, count, _ in entry.look["diagnostics"]:
                files[code] += 1
                found[code] += count
        return {
            "files": len(self.entries),
            "status": {name: sum(e.status == name for e in self.entries) for name in (OK, REPAIRED, REJECTED)},
            "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            "diagnostics": {code: {"files": files[code], "found": found[code]} for code in sorted(files)},
            "with pictures": sum(bool(entry.look["pictures"]) for entry in self.entries),
            "with missing textures": sum(bool(entry.look["missing"]) for entry in self.entries),
            "doubtful": sum(bool(entry.look["doubts"]) for entry in self.entries),
            "problems": sum(bool(entry.look["problem"]) for entry in self.entries),
            "seconds": {stage: _spread(self._seconds(stage)) for stage in STAGES},
        }

    def _seconds(self, stage: str) -> list[float]:
        return [entry.look["seconds"][stage] for entry in self.entries if stage in entry.look["seconds"]]

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object. Only what is called ``seconds`` differs between two runs."""
        return {**asdict(self), "entries": [asdict(entry) for entry in self.entries], "summary": self.summary()}


def _spread(values: list[float]) -> dict[str, float | int]:
    """Return median, 90th percentile (nearest rank) and maximum of `values`, and how many there are."""
    if not values:
        return {"count": 0, "median": 0.0, "p90": 0.0, "max": 0.0}
    values = sorted(values)
    rank = -(-9 * len(values) // 10) - 1
    return {"count": len(values), "median": statistics.median(values), "p90": values[rank], "max": values[-1]}


def make_report(
    root: Path,
    out: Path,
    annotations: Path | None = None,
    *,
    workers: int = 1,
    limit: int | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    view: dict[str, Any] | None = None,
    worker: str = DEFAULT_WORKER,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Look at every model file below `root`, write the report into the folder `out` and return it.

    `annotations` is the folder of stored annotations, None to judge the automatic ones. With `limit` only so many files
    are looked at, in an order that mixes the folders. `view` are settings of `render.view.View` (size, samples, ...).
    A file that takes longer than `time_limit_s` is ``timed_out``, one that ends its process twice ``crashed``.
    `on_progress(done, total, path)` is called after each file. What an earlier report left in `out` is replaced.
    Raises `ConfigError` for a bad `root` or `limit`, `RenderError` where nothing can be drawn at all, `DatasetError`
    where `out` cannot be written.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit must be at least 1 file, found {limit}")
    if not time_limit_s > 0:
        raise ConfigError(f"the time limit must be positive, found {time_limit_s:g} s")
    paths = find_models(root)
    if limit is not None:
        mixed = sorted(paths, key=lambda path: (rng.fraction(0, "limit", one_line(path)), path))
        paths = sorted(mixed[:limit])
    try:
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be made: {error.strerror or error}") from error
    settings = view or {}
    config = {
        "root": str(root),
        "out": str(out),
        "annotations": str(annotations or ""),
        "view": settings,
        "seconds": time_limit_s,
    }
    found, renderer = _look_at_all(paths, worker, config, workers, on_progress)
    entries = _mark_duplicates([_entry(number, path, *found[path]) for number, path in enumerate(paths, 1)])
    report = Report(one_line(str(root)), one_line(str(annotations or "")), settings, renderer, tuple(entries))
    _remove_old_pictures(out, report)
    write_json(out / "report.json", report.to_json())
    write_atomic(out / "index.html", page(report.to_json()).encode("utf-8"))
    return report


_Judgement = UsableModel | Rejection


def _look_at_all(
    paths: list[str],
    worker: str,
    config: dict[str, Any],
    workers: int,
    on_progress: Callable[[int, int, str], None] | None,
) -> tuple[dict[str, tuple[_Judgement, Look | None, str]], dict[str, Any]]:
    """Return for each path the judgement, the `Look` (None where the process ended) and what went wrong in words."""
    tasks = deque(enumerate(paths, 1))
    found: dict[str, tuple[_Judgement, Look | None, str]] = {}
    judged: dict[str, _Judgement] = {}
    stage: dict[str, str] = {}
    started: dict[str, float] = {}
    crashed: set[str] = set()
    renderer: dict[str, Any] = {}

    def learn(path: str, judgement: _Judgement, look: Look | None, problem: str) -> None:
        found[path] = judgement, look, problem
        if on_progress:
            on_progress(len(found), len(paths), path)

    with Pool(worker, config, max(1, min(workers, len(paths)))) as pool:
        for event in pool.run(tasks):
            if event.kind == "ready":
                renderer = event.value
                continue
            path = event.task[1] if event.task else ""
            if event.kind == "note":
                kind, value = event.value
                if kind == "judged":
                    judged[path] = value
                else:
                    stage[path] = value
                    if value == "scan":
                        started[path] = time.monotonic()
            elif event.kind == "done":
                learn(path, judged[path], event.value, "")
            elif event.kind == "failed":
                raise event.value  # the handler itself turns errors of models into results
            elif event.kind == "died":
                death: Death = event.value
                # The watchdog leaves with 1; its clock was started just after ours, by another process.
                late = death.code == 1 and time.monotonic() - started.get(path, 0.0) > 0.9 * config["seconds"]
                if not late and path not in crashed:
                    crashed.add(path)  # it may have been another process's fault: a second try
                    tasks.append(event.task)
                    continue
                code = "timed_out" if late else "crashed"
                how = f"it took more than {config['seconds']:g} s" if late else f"the process ended: {death.how}"
                if stage.get(path, "scan") == "scan" or path not in judged:
                    words = {"timed_out": f"reading it took more than {config['seconds']:g} s"}
                    message = words.get(code, f"reading it ends the process: {death.how}")
                    learn(path, Rejection(path, code, message), None, "")
                else:
                    learn(path, judged[path], None, f"{code}: {stage[path]}: {how}")
    return found, renderer


def _entry(number: int, path: str, judgement: _Judgement, look: Look | None, problem: str) -> Entry:
    facts = asdict(look or Look(problem=problem))
    facts["sha256"] = judgement.id or facts["sha256"]
    if isinstance(judgement, UsableModel):
        if look is None:
            facts |= {"name": judgement.name, "vertices": judgement.vertices}
        # The scan's counts are the ones that count: it may find more than loading does.
        messages = {code: message for code, _, message in facts["diagnostics"]}
        facts["diagnostics"] = [(code, n, messages.get(code, "")) for code, n in judgement.diagnostics.items()]
    if isinstance(judgement, Rejection):
        code, message = judgement.code, one_line(judgement.message)
        return Entry(number, one_line(path), REJECTED, code, message, _one_line_all(facts))
    return Entry(number, one_line(path), judgement.status, "", "", _one_line_all(facts))


def _mark_duplicates(entries: list[Entry]) -> list[Entry]:
    """Reject usable files of equal content but the first, as a scan does; they keep their pictures."""
    first: dict[str, str] = {}
    result = []
    for entry in entries:
        if entry.status != REJECTED:
            original = first.setdefault(entry.look["sha256"], entry.path)
            if original != entry.path:
                entry = replace(entry, status=REJECTED, code="duplicate", message=f"the same file as {original}")
        result.append(entry)
    return result


def _remove_old_pictures(out: Path, report: Report) -> None:
    wanted = {picture["file"] for entry in report.entries for picture in entry.look["pictures"]}
    for path in (out / PICTURES).iterdir():
        if _OURS.fullmatch(path.name) and f"{PICTURES}/{path.name}" not in wanted:
            path.unlink(missing_ok=True)


def _one_line_all(value: Any) -> Any:
    """Return nested lists and dicts with all texts printable, tuples as lists."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(key): _one_line_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_one_line_all(item) for item in value]
    return value
