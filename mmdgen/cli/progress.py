"""Progress for people (a bar on a terminal), for programs (JSON lines) or none; always on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from mmdgen.generate.engine import Progress
    from mmdgen.train.start import Progress as TrainProgress

KINDS = ("auto", "json", "none")
JSON_INTERVAL = 0.5  # seconds between lines that bring nothing but a new count

option = click.option(
    "--progress",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    help="On stderr: a bar on a terminal (and only warnings elsewhere), one JSON object a line, or nothing.",
)


class ProgressView:
    """Shows how far something is, one stage after the other. Use as a context manager, so that the bar is cleared."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._terminal = kind == "auto" and sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._last = 0.0

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Clear the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def scan(self, done: int, total: int, _result: object = None) -> None:
        """Show that `done` of `total` models have been looked at."""
        self._count("scan", "models", done, total)

    def annotate(self, done: int, total: int) -> None:
        """Show that `done` of `total` models have been annotated."""
        self._count("annotate", "models", done, total)

    def prepare(self, done: int, total: int) -> None:
        """Show that `done` of `total` procedural characters have been made."""
        self._count("characters", "characters", done, total)

    def merge(self, done: int, total: int) -> None:
        """Show that `done` of `total` shards have been joined."""
        self._count("merge", "shards", done, total)

    def report(self, done: int, total: int) -> None:
        """Show that `done` of `total` shards of a dataset have been looked into."""
        self._count("report", "shards", done, total)

    def verify(self, done: int, total: int) -> None:
        """Show that `done` of `total` samples of a dataset have been checked."""
        self._count("verify", "samples", done, total)

    def remove(self, done: int, total: int) -> None:
        """Show that `done` of `total` shards were written without a model."""
        self._count("remove", "shards", done, total)

    def export(self, done: int, total: int) -> None:
        """Show that `done` of `total` samples of a dataset have been exported."""
        self._count("export", "samples", done, total)

    def evaluate(self, done: int, total: int) -> None:
        """Show that `done` of `total` samples have been scored."""
        self._count("evaluate", "samples", done, total)

    def render(self, progress: Progress) -> None:
        """Show the state of a rendering; a message is told whatever the count."""
        left = (progress.total - progress.images) / progress.rate if progress.rate else None
        extra = {
            "event": progress.event,
            "images_per_second": round(progress.rate, 2),
            "seconds_left": None if left is None else round(left, 1),
        }
        if progress.message:
            extra["message"] = progress.message
        self._count("render", "images", progress.images, progress.total, extra)
        if progress.message and self._kind == "auto":
            self.warn(progress.message)

    def train(self, progress: TrainProgress) -> None:
        """Show the state of a training."""
        left = progress.seconds_left
        extra = {
            "examples_per_second": round(progress.rate, 2),
            "seconds_left": None if left is None else round(left, 1),
            "loss": progress.loss,
        }
        self._count("train", "examples", progress.examples, progress.total, extra)
        if self._bar is not None and progress.loss is not None:
            self._bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)

    def warn(self, message: str) -> None:
        """Tell people about something that did not go well; the JSON lines carry it by themselves."""
        if self._bar is not None:
            self._bar.write(f"mmdgen: {message}", file=sys.stderr)
        elif self._kind == "auto":
            click.echo(f"mmdgen: {message}", err=True)

    def _count(self, stage: str, unit: str, done: int, total: int, extra: dict[str, Any] | None = None) -> None:
        if self._kind == "json":
            now = time.monotonic()
            plain = not extra or extra.get("event", "images") == "images"
            if plain and done < total and now - self._last < JSON_INTERVAL:
                return
            self._last = now
            line = {"stage": stage, "done": done, "total": total, "unit": unit, **(extra or {})}
            click.echo(json.dumps(line, ensure_ascii=False), err=True)
        elif self._terminal:
            if self._bar is None or self._bar.desc != stage:
                self.close()
                self._bar = tqdm(desc=stage, unit=f" {unit}", leave=False, file=sys.stderr, smoothing=0.1, initial=done)
                self._bar.desc = stage  # tqdm adds a colon, and this tells the stages apart
            self._bar.total = total
            self._bar.update(done - self._bar.n)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C, and a second one of either end the process at once.

    The first raises KeyboardInterrupt where the work is, which ends the worker processes and removes temporary files.
    """
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(130)  # the workers notice that their parent has gone
        asked = True
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
