"""The annotators in a real browser: the server as a process of its own, Chromium through Playwright, pages that watch
themselves for errors."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.samples.library import write_characters

CHECKOUT = Path(__file__).resolve().parent.parent
ANNOTATOR = "browser test"
EVIL_NAME = "<img src=x onerror=alert(1)>"
WAIT_MS = 60_000  # for anything that the page does; a machine that is loaded and fresh is slow
SMALL, LARGE = (1280, 720), (2560, 1440)
_START_S = 90.0
_MAIN = "from mmdgen.cli.main import main; main()"

# Runs in every page before its own scripts: violations of the content security policy are kept for the test's end.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


def make_models(folder: Path, count: int = 4) -> list[Path]:
    """Write `count` procedural characters; the last one gets a name that is markup. Return their PMX files."""
    paths = write_characters(folder, count)
    last = paths[-1]
    named = dataclasses.replace(read_pmx(last.read_bytes()), name=EVIL_NAME, name_en="<b>bold</b>")
    last.write_bytes(write_pmx(named))
    return paths


class Server:
    """An mmdgen command that serves a page, as a process; `url` is the address with its secret."""

    def __init__(self, *words: object, **environment: str) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *map(str, words), "--no-browser"],
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._address()

    def _read(self) -> None:
        with self.process.stdout as stream:  # type: ignore[union-attr]
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def _address(self) -> str:
        printed = []
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get(timeout=_START_S)) is not None:
                printed.append(line)
                if found := re.search(r"http://\S+", line):
                    return found[0]
        self.stop()
        raise RuntimeError(f"the server printed no address: {''.join(printed)}")

    @property
    def port(self) -> int:
        found = re.search(r":(\d+)/", self.url)
        return int(found[1]) if found else 0

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)


@contextlib.contextmanager
def serving(*words: object, **environment: str) -> Iterator[Server]:
    server = Server(*words, **environment)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def annotating(models: Path, annotations: Path, cache: Path, *, port: int = 0) -> Iterator[Server]:
    """`mmdgen annotate` for `ANNOTATOR`."""
    words = ("annotate", "--models", models, "--annotations", annotations, "--annotator", ANNOTATOR, "--port", port)
    with serving(*words, XDG_CACHE_HOME=str(cache)) as server:
        yield server


class Tab:
    """A page of the annotators. `errors` collects what must not happen; `shots` is where its pictures are kept."""

    def __init__(self, browser: Any, shots: Path, *, size: tuple[int, int] = SMALL, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        self.context.add_init_script(_WATCH)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.shots, self.errors = shots, []
        self.expected: tuple[str, ...] = ()  # words of errors that the test brings about
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(f"exception: {error}"))
        self.page.on("dialog", self._dialog)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"console {message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, url: str, kind: str = "head_bounds") -> Tab:
        self.page.goto(url.replace("#head_bounds", f"#{kind}"))
        self.ready()
        return self

    def ready(self, model: str | None = None) -> str:
        """Wait until a model (`model`, if named) is open with its picture; return its id."""
        self.page.wait_for_function(
            """(model) => {
              const open = document.body.dataset.model;
              const canvas = document.querySelector('#view-head_bounds[hidden]') ? '#close' : '#front';
              const drawn = document.querySelector(canvas);
              return open && (!model || open === model) && drawn.dataset.model === open
                && !drawn.classList.contains('stale');
            }""",
            arg=model,
        )
        return self.model

    @property
    def model(self) -> str:
        return self.page.evaluate("document.body.dataset.model")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def act(self, *keys: str) -> None:
        """Press keys that store something, and wait until all of it is stored."""
        before = self.saved
        for key in keys:
            self.page.keyboard.press(key)
        self.wait_saved(before)

    @property
    def saved(self) -> int:
        return int(self.page.locator("#saved").get_attribute("data-count") or 0)

    def wait_saved(self, before: int) -> None:
        self.page.wait_for_function(
            """(before) => {
              const mark = document.querySelector('#saved');
              return Number(mark.dataset.count) > before && mark.dataset.waiting === '0';
            }""",
            arg=before,
        )

    def shoot(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"{name}.png")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def overflow(self) -> list[str]:
        """Return which parts of the page do not fit: scroll bars across, and elements beyond the window."""
        return self.page.evaluate(
            """() => {
              const wrong = [];
              const root = document.documentElement;
              if (root.scrollWidth > innerWidth || root.scrollHeight > innerHeight) wrong.push('the page scrolls');
              const shown = 'header > *, aside, aside > *, .title, footer > *, .stage, .panel, .slot, .column, .line';
              for (const element of document.querySelectorAll(shown)) {
                const box = element.getBoundingClientRect();
                if (!box.width || !box.height) continue;
                const name = element.id || element.className || element.tagName;
                if (box.left < -1 || box.right > innerWidth + 1 || box.top < -10 || box.bottom > innerHeight + 1)
                  wrong.push(`${name} lies outside: ${JSON.stringify(box)}`);
              }
              for (const element of document.querySelectorAll('footer button, header button, .segments button, h2')) {
                if (element.getClientRects().length && element.scrollWidth > element.clientWidth + 1)
                  wrong.push(`the text of ${element.id || element.textContent} is cut off`);
              }
              for (const element of document.querySelectorAll('.column')) {
                if (element.getClientRects().length && element.scrollHeight > element.clientHeight + 1)
                  wrong.push(`a column is too high: ${element.scrollHeight} in ${element.clientHeight}`);
              }
              return wrong;
            }"""
        )

    def close(self) -> None:
        """Close the page; what went wrong in it is in `errors` then."""
        with contextlib.suppress(Exception):  # the page may be gone after a failure
            self.errors += [f"policy: {text}" for text in self.page.evaluate("window.violations")]
        self.context.close()
        self.errors = [error for error in self.errors if not any(word in error for word in self.expected)]
