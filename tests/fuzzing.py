"""The fuzzer: mutated files by number, checked in worker processes that a limit of time and of memory can end.

Case n of a kind is a function of (seed, kind, n) and of the seeds (`fuzz_seeds.seeds_of`), so it can be made again
anywhere. What must hold is in `fuzz_checks`; here is what makes sure of it:

* time: a worker has `CPU_LIMIT_S` of processor time for one case. The kernel's own timer (SIGPROF, whose default action
  ends the process) enforces it, inside of C code too. One that waits instead of working is killed by the parent after
  `WALL_LIMIT_S` by the clock, which is longer because other programs may take the processor.
* memory: during a case the address space may grow by `fuzz_checks.allowance` bytes (RLIMIT_AS); more is a MemoryError,
  which is found also where a reader turned it into another error.
* crashes: a worker that ends for whatever reason is a finding for the case that it was at; the others go on.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import faulthandler
import functools
import importlib
import io
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from fuzz_checks import FindingError
from fuzz_mutators import Draw, mutate
from fuzz_seed import KINDS
from fuzz_seeds import seeds_of

CHECKOUT = Path(__file__).resolve().parent.parent
CPU_LIMIT_S, WALL_LIMIT_S = 2.0, 20.0
CHUNK = 200  # cases that a worker gets at once
SAVED_PER_CAUSE = 3
_NAME = re.compile(r"(?P<kind>[a-z]+)-seed(?P<seed>-?\d+)-case(?P<number>\d+)")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run does. `target` is ``module:function``, see `fuzz_checks.targets`; `shared` a folder of more seeds."""

    seed: int = 0
    shared: Path | None = None
    target: str = "fuzz_checks:targets"
    allowance: str = "fuzz_checks:allowance"
    cpu_limit_s: float = CPU_LIMIT_S
    wall_limit_s: float = WALL_LIMIT_S


@dataclasses.dataclass(frozen=True)
class Finding:
    """`code` and `where` (a line of the package) tell causes apart; `detail` is a message or a traceback."""

    kind: str
    number: int
    code: str
    where: str
    detail: str

    @property
    def cause(self) -> tuple[str, str, str]:
        return self.kind, self.code, self.where


@dataclasses.dataclass
class Tally:
    """Of the cases of one kind: how they ended, the processor time of all, and the slowest one."""

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest: int = -1

    @property
    def cases(self) -> int:
        return self.outcomes.total()

    @property
    def accepted(self) -> int:
        return self.outcomes["accepted"]

    def add(self, other: Tally) -> None:
        self.outcomes += other.outcomes
        self.seconds += other.seconds
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest = other.slowest_s, other.slowest


@dataclasses.dataclass
class Report:
    settings: Settings
    tallies: dict[str, Tally] = dataclasses.field(default_factory=dict)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    files: list[Path] = dataclasses.field(default_factory=list)
    wall_s: float = 0.0
    peak_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        causes = collections.Counter(finding.cause for finding in self.findings)
        return {
            "seed": self.settings.seed,
            "cases": sum(tally.cases for tally in self.tallies.values()),
            "wall_s": round(self.wall_s, 1),
            "peak_mib": self.peak_bytes >> 20,
            "kinds": {
                kind: {
                    "cases": tally.cases,
                    "accepted": tally.accepted,
                    "findings": sum(finding.kind == kind for finding in self.findings),
                    "mean_ms": round(1000 * tally.seconds / max(tally.cases, 1), 3),
                    "slowest_ms": round(1000 * tally.slowest_s, 1),
                    "slowest_case": tally.slowest,
                    "outcomes": dict(tally.outcomes.most_common()),
                }
                for kind, tally in self.tallies.items()
            },
            "findings": [
                {"kind": kind, "code": code, "where": where, "count": count}
                for (kind, code, where), count in causes.most_common()
            ],
            "files": [str(path) for path in self.files],
        }


# -- one case ----------------------------------------------------------------------------------------------------------


def make_case(settings: Settings, kind: str, number: int) -> bytes:
    """The bytes of case `number`."""
    return mutate(Draw(settings.seed, kind, number), seeds_of(kind, settings.shared))[1]


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class _Limits:
    """Ends the process that takes too long, and fails allocations beyond an allowance, while a case runs."""

    def __init__(self, cpu_limit_s: float) -> None:
        self._cpu_limit_s = cpu_limit_s
        # Without /proc (not Linux) memory is not limited: RLIMIT_AS counts from nothing.
        with contextlib.suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    @contextlib.contextmanager
    def __call__(self, allowance: int) -> Iterator[None]:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hasattr(self, "_statm"):
            held = int(os.pread(self._statm, 64, 0).split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + allowance, hard))
        signal.setitimer(signal.ITIMER_PROF, self._cpu_limit_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _where(error: BaseException) -> str:
    """The innermost line of the package that `error` came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "mmdgen" in Path(f.filename).parts[:-1]]
    inside = [f for f in frames if Path(f.filename).parent.name != "tests"] or frames
    if not inside:
        return ""
    parts = Path(inside[-1].filename).parts
    start = len(parts) - 1 - parts[::-1].index("mmdgen") if "mmdgen" in parts else -1
    return f"{'/'.join(parts[start:])}:{inside[-1].lineno} {inside[-1].name}"


def _code(error: BaseException) -> str:
    if isinstance(error, FindingError):
        return error.code
    return "allocation" if isinstance(error, MemoryError) else f"exception {type(error).__name__}"


def _try(check: Callable[[bytes, int], str], limit: Any, data: bytes, kind: str, number: int) -> str | Finding:
    try:
        with limit:
            return check(data, number)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        detail = io.StringIO()
        traceback.print_exception(error, file=detail, limit=-8)
        return Finding(kind, number, _code(error), _where(error), detail.getvalue())


def _worker(pipe: Any, state: Any, settings: Settings, stderr: str) -> None:
    """Answer jobs until the pipe closes: (kind, first, end) or (kind, number, bytes)."""
    # Image libraries write their opinion of damaged files to the standard error; what crashes leave there is kept.
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("error")
    checks, allowance = _named(settings.target)(), _named(settings.allowance)
    limits = _Limits(settings.cpu_limit_s)
    warm: set[str] = set()
    with contextlib.suppress(EOFError):
        while True:
            kind, first, what = pipe.recv()
            if kind not in warm:  # what is imported and cached on first use is no part of a case
                warm.add(kind)
                if settings.target == Settings.target:
                    for seed in seeds_of(kind, settings.shared):
                        with contextlib.suppress(Exception):
                            checks[kind](seed.data, 0)
            tally, findings = Tally(), []
            for number in range(first, what) if isinstance(what, int) else (first,):
                data = make_case(settings, kind, number) if isinstance(what, int) else what
                limit = limits(allowance(kind, data))
                state[0], state[1] = number, time.monotonic_ns()
                started = time.process_time()
                outcome = _try(checks[kind], limit, data, kind, number)
                seconds = time.process_time() - started
                state[1] = 0
                if isinstance(outcome, Finding):
                    findings.append(outcome)
                    outcome = "finding"
                tally.add(Tally(collections.Counter([outcome]), seconds, seconds, number))
            pipe.send((tally, findings, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


# -- all cases ---------------------------------------------------------------------------------------------------------


class _Hand:
    """The parent's side of one worker."""

    def __init__(self, context: Any, settings: Settings, folder: str, number: int) -> None:
        self.stderr = Path(folder) / f"{number}.log"
        self.state = context.RawArray("q", 2)  # the case at work; since when, 0 for none
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=_worker, args=(other, self.state, settings, str(self.stderr)), daemon=True, name=f"fuzz-{number}"
        )
        self.process.start()
        other.close()
        self.job: tuple[str, int, Any] = ("", 0, 0)
        self.killed = False

    def give(self, job: tuple[str, int, Any]) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # it died idle: `dead` tells
            self.pipe.send(job)

    def end(self) -> None:
        self.pipe.close()
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def epitaph(self, settings: Settings) -> Finding:
        """The finding that the death of the worker is."""
        self.process.join()
        code = self.process.exitcode or 0
        kind, number = self.job[0], int(self.state[0])
        log = self.stderr.read_text("utf-8", "replace")[-3000:] if self.stderr.exists() else ""
        if self.killed:
            return Finding(kind, number, "hang", "", f"still waiting after {settings.wall_limit_s:g} s\n{log}")
        if code == -signal.SIGPROF:
            return Finding(
                kind, number, "hang", "", f"still working after {settings.cpu_limit_s:g} s of processor time"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Finding(kind, number, "crash", "", f"the process ended: {how}\n{log}")


def run(
    mutations: int,
    settings: Settings,
    kinds: Sequence[str] = KINDS,
    *,
    workers: int = 2,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Run `mutations` cases, as many of each kind, and return what came out; findings are saved to the folder `out`."""
    share, more = divmod(mutations, len(kinds))
    counts = {kind: share + (number < more) for number, kind in enumerate(kinds)}
    chunks = {kind: [(kind, a, min(a + CHUNK, n)) for a in range(0, n, CHUNK)] for kind, n in counts.items()}
    # Kinds take turns, so that an interrupted run has seen something of all.
    jobs = [
        job for turn in range(max(map(len, chunks.values()))) for kind in kinds for job in chunks[kind][turn : turn + 1]
    ]
    return run_jobs(jobs, settings, workers=workers, out=out, progress=progress)


def _context() -> Any:
    """A process that has imported what the workers need forks them, so that replacing one takes no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fuzzing"])
    # Some versions of Python do not hand their search path to that process.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path)):
        multiprocessing.forkserver.ensure_running()
    return context


def run_jobs(
    jobs: Sequence[tuple[str, int, Any]],
    settings: Settings,
    *,
    workers: int = 1,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Do jobs of the form (kind, first case, end) or (kind, case, its bytes)."""
    started = time.monotonic()
    report = Report(settings, {job[0]: Tally() for job in jobs})
    queue = collections.deque(jobs)
    total = sum(job[2] - job[1] if isinstance(job[2], int) else 1 for job in jobs)
    done = 0
    context = _context()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        number = 0
        hands: list[_Hand] = []
        try:
            while queue or hands:
                while queue and len(hands) < workers:
                    hands.append(_Hand(context, settings, folder, number))
                    number += 1
                    hands[-1].give(queue.popleft())
                multiprocessing.connection.wait([hand.pipe for hand in hands], timeout=0.1)
                for hand in list(hands):
                    answer, since = None, hand.state[1]  # read once: it changes meanwhile
                    try:
                        if hand.pipe.poll():
                            answer = hand.pipe.recv()
                    except (EOFError, OSError):
                        finding = hand.epitaph(settings)
                        hand.pipe.close()
                        hands.remove(hand)
                        if hand.state[1] == 0:
                            raise RuntimeError(f"a fuzz worker died outside of a case\n{finding.detail}") from None
                        _note(report, finding, hand.job, out)
                        report.tallies[finding.kind].outcomes["finding"] += 1
                        done += 1
                        # What it had done of its job is done again: its counts died with it.
                        kind, first, end = hand.job
                        if isinstance(end, int):
                            rest = [(kind, first, finding.number), (kind, finding.number + 1, end)]
                            queue.extendleft(job for job in reversed(rest) if job[1] < job[2])
                        continue
                    if answer is not None:
                        tally, findings, peak = answer
                        report.tallies[hand.job[0]].add(tally)
                        report.peak_bytes = max(report.peak_bytes, peak)
                        for finding in findings:
                            _note(report, finding, hand.job, out)
                        done += tally.cases
                        if queue:
                            hand.give(queue.popleft())
                        else:
                            hands.remove(hand)
                            hand.end()
                    elif since and time.monotonic_ns() - since > settings.wall_limit_s * 1e9:
                        hand.killed = True
                        hand.process.kill()
                if progress is not None:
                    progress(done, total)
        finally:
            for hand in hands:
                hand.process.kill()
                hand.process.join()
    report.wall_s = time.monotonic() - started
    return report


def _note(report: Report, finding: Finding, job: tuple[str, int, Any], out: Path | None) -> None:
    """Keep a finding, and save what shows it unless enough of its cause are there."""
    report.findings.append(finding)
    if out is None or sum(other.cause == finding.cause for other in report.findings) > SAVED_PER_CAUSE:
        return
    data = make_case(report.settings, finding.kind, finding.number) if isinstance(job[2], int) else job[2]
    out.mkdir(parents=True, exist_ok=True)
    code = re.sub(r"\W+", "_", finding.code)
    path = out / f"{finding.kind}-seed{report.settings.seed}-case{finding.number}-{code}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{finding.code} {finding.where}\n\n{finding.detail}", "utf-8")
    report.files.append(path)


def replay(path: Path, settings: Settings, kind: str | None = None) -> Report:
    """Check the bytes of a saved case again, under the same limits. ValueError where its kind is not known."""
    match = _NAME.match(path.name)
    kind = kind or (match["kind"] if match else None)
    if kind not in KINDS:
        raise ValueError(f"{path}: the name does not begin with a kind; say it with --kinds ({', '.join(KINDS)})")
    return run_jobs([(kind, int(match["number"]) if match else 0, path.read_bytes())], settings)


def drawing(settings: Settings) -> Settings:
    """Settings with which models are drawn instead. Drivers have their own memory, and compile for a while."""
    return dataclasses.replace(
        settings,
        target="fuzz_checks:drawings",
        allowance="fuzz_checks:unlimited",
        cpu_limit_s=10 * settings.cpu_limit_s,
        wall_limit_s=60.0,
    )


@functools.cache
def shared_folder() -> Path | None:
    """The folder with more seeds beside the checkout, if it is there."""
    folder = CHECKOUT.parent / "shared"
    return folder if (folder / "fixtures").is_dir() else None


def table(report: Report) -> str:
    """The counts as lines of text."""
    titles = ("kind", "cases", "accepted", "rejected", "findings", "mean ms", "slowest ms", "case")
    rows: list[tuple[str, ...]] = [titles]
    for kind, tally in report.tallies.items():
        findings = tally.outcomes["finding"]
        rejected = tally.cases - tally.accepted - findings
        mean = 1000 * tally.seconds / max(tally.cases, 1)
        slowest = f"{1000 * tally.slowest_s:.1f}"
        rows.append(
            (
                kind,
                *map(str, (tally.cases, tally.accepted, rejected, findings)),
                f"{mean:.2f}",
                slowest,
                str(tally.slowest),
            )
        )
    totals = [sum(int(row[k]) for row in rows[1:]) for k in range(1, 5)]
    rows.append(("all", *map(str, totals), "", "", ""))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
