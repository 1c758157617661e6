"""Clears up after a Ray cluster of our own, in a process that has nothing to do with Ray.

The driver cannot be sure to do it by itself: Ray ends it at once when it sees that its daemons have gone, and somebody
may kill it. So this process waits until its input ends, which it does with the driver, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from mmdgen.generate.pool import end_session, read_message, start_python, write_message

TRIES, PAUSE = 20, 0.1  # seconds: a process that was killed may make another file before it is gone


def start(leader: int, folder: str) -> subprocess.Popen:
    """Start a process that ends the session of process `leader` and removes `folder` when its input is closed.

    That is at the latest when this process ends, in whatever way.
    """
    process = start_python("mmdgen.generate.ray_sweeper", None)
    write_message(process.stdin, (leader, folder))  # type: ignore[arg-type]
    return process


def main() -> None:
    """Wait for the end of the standard input, and clear up."""
    inbox = sys.stdin.buffer
    leader, folder = read_message(inbox)
    inbox.read()
    clear_up(leader, folder)


def clear_up(leader: int | None, folder: str, spare: int = 0) -> None:
    """End the session of process `leader`, if any, without process `spare`, and remove `folder`.

    Others may do the same at the same time: what counts is that the folder is gone.
    """
    for _ in range(TRIES):
        if leader is not None:
            end_session(leader, spare)
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(PAUSE)
