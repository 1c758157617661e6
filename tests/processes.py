"""Other processes, seen through /proc, and waiting for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def stat(pid: int) -> list[str]:
    """Return state, parent, group, session, ... of a process; nothing where there is none."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    return bool(found := stat(pid)) and found[0] != "Z"


def session(leader: int) -> list[int]:
    """Return the living processes of a session."""
    return _living(3, leader)


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    return _living(1, pid)


def _living(field: int, value: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (found := stat(pid)) and found[0] != "Z" and int(found[field]) == value]


def command(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait until `condition` returns something true, and return it; a test that waits in vain fails."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found
