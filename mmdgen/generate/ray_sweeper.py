"""Clears up after a Ray cluster of our own, in a process that has nothing to do with Ray.

The driver cannot be sure to do it by itself: Ray ends it at once when it sees that its daemons have gone, and somebody
may kill it. So this process waits until its input ends, which it does with the driver, however that ends.
"""

from __future__ import annotations

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
    for _ in range(TRIES):
        end_session(leader)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(PAUSE)
        else:
            return
