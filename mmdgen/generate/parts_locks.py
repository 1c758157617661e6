"""Who may write where: one run for the whole folder, or several parts beside each other.

A whole run holds `.work/lock` alone; parts share it, and each holds the lock of its own number besides. The system lets
go of them when a process ends, however it ends. Network file systems may have no such locks: then two runs at once are
the user's to avoid. They could not damage anything (files appear whole, everybody makes the same ones), only do work
twice, or stop with an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import TEMPORARY_MARK, remove_temporaries
from mmdgen.generate.parts import PartOf
from mmdgen.generate.shard import WORK_FOLDER
from mmdgen.generate.splits import SPLITS

LOCK_FILE = "lock"
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def sole_writer(out: Path, name: str = "") -> Iterator[None]:
    """Hold the folder for a whole run. Raises `ConfigError` while another run or part is at work in it.

    `name` is what messages call the folder. The lock then says whose it is: workers on other machines that outlive
    their run, or run where there are no locks, see that and stop (`shard.read_lock`).
    """
    name = name or str(out)
    with _open(out, LOCK_FILE) as handle:
        if not _take(handle, shared=False):
            raise ConfigError(f"another run is working on {name}; wait for it or give another --out")
        os.ftruncate(handle, 0)
        os.write(handle, f"{platform.node()} {os.getpid()} {time.time_ns()}".encode("ascii", "backslashreplace"))
        yield


@contextlib.contextmanager
def one_part(out: Path, part: PartOf, shards: int, name: str = "") -> Iterator[None]:
    """Hold one part of a plan with so many `shards`, beside others. Raises `ConfigError` when somebody works on it.

    That is a whole run, the same part, or a part of another division (2/3 beside 1/2) with shards in common.
    """
    name = name or str(out)
    with _open(out, LOCK_FILE) as whole, _open(out, part.lock_name) as own:
        if not _take(whole, shared=True):
            raise ConfigError(f"another run is working on all of {name}; wait for it or give another --out")
        if not _take(own, shared=False):
            raise ConfigError(f"another run is working on part {part} of {name}; wait for it")
        mine = set(part.indices(shards))
        for other in parts_begun(out):
            if other.count == part.count or mine.isdisjoint(other.indices(shards)):
                continue
            with _open(out, other.lock_name) as handle:
                if not _take(handle, shared=False):
                    raise ConfigError(
                        f"part {other} of {name} is being made, with shards in common with part {part}; wait for it, "
                        f"or divide by {other.count} as well"
                    )
        yield


def parts_begun(out: Path) -> list[PartOf]:
    """Return the parts that were begun in a folder."""
    try:
        names = sorted(path.name for path in (out / WORK_FOLDER).iterdir())
    except OSError:
        return []
    return [part for part in map(PartOf.of_lock, names) if part is not None]


@contextlib.contextmanager
def _open(out: Path, name: str) -> Iterator[int]:
    work = out / WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work / name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written: {error.strerror or error}") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _take(handle: int, *, shared: bool) -> bool:
    """Take a lock and return True, also where there are no locks; False when somebody else has it."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _BUSY
    return True


def sweep(out: Path) -> None:
    """Remove what interrupted writes left anywhere in the folder, and nothing else. Only for its sole writer."""
    for folder in (out, out / WORK_FOLDER, *(out / split for split in SPLITS)):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                remove_temporaries(folder)


def sweep_logs(out: Path) -> None:
    """Remove what the workers of earlier starts have said. Only for the folder's sole writer."""
    for path in (out / WORK_FOLDER).glob("worker-*.log"):
        with contextlib.suppress(OSError):
            path.unlink()


def sweep_files(paths: Iterable[Path]) -> None:
    """Remove what interrupted writes of these files left. For a part: all others' temporary files stay."""
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder, names in by_folder.items():
        with contextlib.suppress(OSError):
            for path in folder.glob(f"*{TEMPORARY_MARK}*"):
                if path.name.partition(TEMPORARY_MARK)[0] in names:
                    path.unlink(missing_ok=True)
