"""Pictures for the page: models loaded by threads, drawn by the one thread that owns the renderer.

A model goes through three stages, each a future: read (`Subject`), prepared (rig and textures) and uploaded. What was
asked for goes first; hints and the rest of an upload are done when nothing waits, one step at a time. Models that were
not used for longest are let go when all take more than the budget.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field

import numpy as np

from mmdgen.errors import MmdgenError, RenderError
from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import MorphTerm
from mmdgen.render.live import LiveScene, Needs, live_rig
from mmdgen.render.prepare import Prepared
from mmdgen.render.renderer import Renderer
from mmdgen.render.upload import Textures
from mmdgen.render.view import View
from mmdgen.web.protocol import FRONT, Draw, Framing
from mmdgen.web.ready import SAMPLES, Ready, decode, live_view, prepare
from mmdgen.web.subject import Subject

BUDGET_BYTES = 1 << 30
LOADERS = 2
MOST_SCENES = 3  # of one model: as it is, and with what bone or material morphs need
MOST_TARGETS = 6  # picture sizes kept ready
_HEAD = struct.Struct("<IHH")
_SOON, _LATER = 0, 1


class SupersededError(Exception):
    """A picture that nobody waits for any more was not drawn."""


def picture_message(request: int, pixels: np.ndarray) -> bytes:
    """Return the binary message of a picture u8 [H, W, 4]: request, width, height, then the pixels row by row."""
    return _HEAD.pack(request, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


@dataclass(slots=True)
class Job:
    """One picture to be drawn. `center_x` is the face's middle for one-sided terms."""

    draw: Draw
    center_x: float
    result: Future = field(default_factory=Future)
    ready: Future = field(default_factory=Future)


@dataclass(slots=True)
class _Entry:
    subject: Future
    ready: Future
    used: float
    soon: bool


class Studio:
    """Loads and draws models by id. `load` makes the `Subject` of an id in a loader thread and may raise.

    `make` makes the renderer; where it cannot, every picture is refused and all else goes on.

    All methods may be called from any thread; futures are settled by the studio's own. `close` ends the threads.
    """

    def __init__(
        self,
        load: Callable[[str], Subject],
        *,
        budget: int = BUDGET_BYTES,
        loaders: int = LOADERS,
        make: Callable[[], Renderer] = Renderer,
    ) -> None:
        self._load, self._budget, self._make = load, budget, make
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._closing = False
        self._tasks: queue.PriorityQueue = queue.PriorityQueue()
        self._order = itertools.count()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._dropped: queue.SimpleQueue[Ready] = queue.SimpleQueue()  # to be released by the drawing thread
        self._warm: dict[str, Ready] = {}
        self._broken: BaseException | None = None
        self.started: Future = Future()  # the renderer's report, or why there is none
        self._threads = [threading.Thread(target=self._loader, name=f"loader-{i}", daemon=True) for i in range(loaders)]
        self._threads.append(threading.Thread(target=self._draw_all, name="drawing", daemon=True))
        for thread in self._threads:
            thread.start()

    # What others call

    def subject(self, model: str) -> Future:
        """Return the future `Subject` of a model that somebody waits for."""
        return self._entry(model, _SOON).subject

    def prepared(self, model: str) -> Future:
        """Return a future that is done when pictures of the model can be drawn."""
        return self._entry(model, _SOON).ready

    def draw(self, job: Job) -> None:
        """Draw a picture of a model; `job.result` becomes its message, or is cancelled with the job."""
        if self._closing:
            job.result.cancel()
            return
        ready = self._entry(job.draw.model, _SOON).ready
        job.ready = ready
        ready.add_done_callback(lambda _: self._jobs.put(job))

    def prefetch(self, models: tuple[str, ...]) -> None:
        """Load models that will be wanted, if the budget holds them."""
        for model in models:
            self._entry(model, _LATER)

    def forget(self, model: str) -> None:
        """Drop what is kept of a model: its file has changed."""
        with self._lock:
            entry = self._entries.pop(model, None)
        if entry:
            self._drop(model, entry)

    def close(self) -> None:
        """End the threads and free the GPU. Waiting jobs are cancelled."""
        self._closing = True
        for _ in self._threads[:-1]:
            self._tasks.put((-1, next(self._order), None))
        self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=30)
        with self._lock:
            entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            entry.subject.cancel()
            entry.ready.cancel()

    # Loading

    def _entry(self, model: str, urgency: int) -> _Entry:
        with self._lock:
            entry = self._entries.get(model)
            if entry is None:
                entry = _Entry(Future(), Future(), time.monotonic(), urgency == _SOON)
                self._entries[model] = entry
                self._tasks.put((urgency, next(self._order), model))
            elif urgency == _SOON and not entry.soon:
                entry.soon = True  # it waits as a hint: ask again, in front; the first loader to come takes it
                self._tasks.put((urgency, next(self._order), model))
            if urgency == _SOON:
                entry.used = time.monotonic()
            if self._closing:
                entry.subject.cancel()
                entry.ready.cancel()
            return entry

    def _loader(self) -> None:
        while True:
            _, _, model = self._tasks.get()
            if model is None:
                return
            with self._lock:
                entry = self._entries.get(model)
            if entry is None or not _start(entry.subject):
                continue  # another loader has it, or it was dropped
            try:
                subject = self._load(model)
            except BaseException as error:
                self._failed(model, entry, error)
                continue
            entry.subject.set_result(subject)
            try:
                entry.ready.set_running_or_notify_cancel()
                ready = prepare(subject)
            except BaseException as error:
                _fail(entry.ready, error)
                continue
            entry.ready.set_result(ready)
            with self._lock:
                kept = self._entries.get(model) is entry
                if kept:
                    self._warm[model] = ready
            if kept:
                self._jobs.put(None)  # wakes the drawing thread: there is something to upload
            self._shrink()

    def _failed(self, model: str, entry: _Entry, error: BaseException) -> None:
        """Tell all who wait; the next one to ask starts anew, for files do get repaired."""
        with self._lock:
            if self._entries.get(model) is entry:
                del self._entries[model]
        _fail(entry.subject, error)
        if entry.ready.set_running_or_notify_cancel():
            _fail(entry.ready, error)

    def _shrink(self) -> None:
        """Let go of the models not used for longest until the others fit into the budget."""
        dropped = []
        with self._lock:
            sizes = {model: _size(entry) for model, entry in self._entries.items()}
            total = sum(sizes.values())
            for model in sorted(sizes, key=lambda model: self._entries[model].used):
                if total <= self._budget or len(self._entries) <= 2:
                    break
                if sizes[model]:
                    total -= sizes[model]
                    dropped.append((model, self._entries.pop(model)))
        for model, entry in dropped:
            self._drop(model, entry)

    def _drop(self, model: str, entry: _Entry) -> None:
        with self._lock:
            self._warm.pop(model, None)

        def release(ready: Future) -> None:
            if not ready.cancelled() and ready.exception() is None:
                self._dropped.put(ready.result())

        entry.ready.add_done_callback(release)

    # Drawing

    def _draw_all(self) -> None:
        try:
            renderer = self._make()
        except BaseException as error:
            self._broken = error
            self.started.set_exception(error)
            self._refuse_all()
            return
        self.started.set_result(renderer.report())
        with renderer:
            warming: Iterator[None] | None = None
            while not self._closing:
                try:
                    job = self._jobs.get(block=warming is None)
                except queue.Empty:
                    job = None
                while not self._dropped.empty():
                    self._release(self._dropped.get())
                if job is not None:
                    self._answer(renderer, job)
                elif warming is None or next(warming, self) is self:  # none, or exhausted
                    warming = self._next_warming(renderer)
            with self._lock:
                entries = list(self._entries.values())
            for entry in entries:
                if entry.ready.done() and not entry.ready.cancelled() and entry.ready.exception() is None:
                    entry.ready.result().release()
            while not self._dropped.empty():
                self._release(self._dropped.get())
        self._refuse_all()

    @staticmethod
    def _release(ready: Ready) -> None:
        ready.dropped = True
        ready.release()

    def _refuse_all(self) -> None:
        """Answer what is left, and what still comes while the renderer is missing."""
        while True:
            try:
                job = self._jobs.get(block=not self._closing)
            except queue.Empty:
                return
            if job is None:
                if self._closing and self._jobs.empty():
                    return
            elif self._broken is None:
                job.result.cancel()
            elif _start(job.result):
                job.result.set_exception(RenderError(f"nothing can be drawn on this machine: {self._broken}"))

    def _answer(self, renderer: Renderer, job: Job) -> None:
        if not _start(job.result):
            return
        try:
            ready: Ready = job.ready.result()
            pixels = self._picture(renderer, ready, job.draw, job.center_x)
            job.result.set_result(picture_message(job.draw.request, pixels))
            if ready.dropped:  # while this picture waited
                ready.release()
        except BaseException as error:
            _fail(job.result, error)

    def _picture(self, renderer: Renderer, ready: Ready, draw: Draw, center_x: float) -> np.ndarray:
        model = ready.subject.model
        flat = flatten_terms(model, draw.terms, center_x)
        half = draw.framing.height / 2
        low, high = ready.subject.heights
        near = low <= draw.framing.y - half and draw.framing.y + half <= high
        view = live_view(draw.framing, draw.size, ready.depth, samples=1 if draw.quick else SAMPLES)
        scene = self._scene(renderer, ready, Needs.of(model, flat), near, draw.terms, center_x, view)
        pixels = scene.picture(view, flat, draw.pose)
        renderer.trim(MOST_TARGETS)
        return pixels

    def _scene(
        self,
        renderer: Renderer,
        ready: Ready,
        needs: Needs,
        near: bool,
        terms: tuple[MorphTerm, ...],
        center_x: float,
        view: View,
    ) -> LiveScene:
        for key, scene in reversed(ready.scenes.items()):
            if key[1] == near and scene.fits(needs):
                ready.scenes.move_to_end(key)
                return scene
        rig = ready.rig
        if not near or needs != Needs():
            finding = ready.subject.finding
            heights = ready.subject.heights if near else None
            rig = live_rig(ready.subject.model, finding.neck, finding.head, terms, center_x, heights)
        if not near:  # more of the model, more textures
            decode(ready, rig)
        ready.textures = ready.textures or Textures(renderer.context, linear=True)
        scene = LiveScene(renderer, Prepared(rig, view, ready.images, ready.missing), ready.textures)
        ready.scenes[needs, near] = scene
        while len(ready.scenes) > MOST_SCENES:
            ready.scenes.popitem(last=False)[1].release()
        return scene

    def _next_warming(self, renderer: Renderer) -> Iterator[None] | None:
        with self._lock:
            if not self._warm:
                return None
            model = max(self._warm, key=lambda name: self._entries[name].used if name in self._entries else 0.0)
            ready = self._warm.pop(model)
        return self._warming(renderer, ready)

    def _warming(self, renderer: Renderer, ready: Ready) -> Iterator[None]:
        """Upload a model that will be wanted, in steps, up to a first picture (which compiles its shaders)."""
        ready.textures = ready.textures or Textures(renderer.context, linear=True)
        for image in set(ready.images.values()):
            with contextlib.suppress(MmdgenError):
                ready.textures.get(image)
            yield
            if ready.dropped:
                return
        front = ready.subject.views["front"]
        framing = Framing(FRONT, front["center"][0], front["center"][1], front["height"])
        draw = Draw(0, ready.subject.finding.id, framing, 64, (0.0, 0.0, 0.0), (), "")
        with contextlib.suppress(MmdgenError):  # whoever asks for a picture will be told
            self._picture(renderer, ready, draw, ready.subject.bounds.center_x)
        yield


def _start(future: Future) -> bool:
    """Take a future as one's own to settle; False if somebody else has, or nobody waits for it."""
    try:
        return not future.done() and not future.running() and future.set_running_or_notify_cancel()
    except (CancelledError, RuntimeError):
        return False


def _fail(future: Future, error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _size(entry: _Entry) -> int:
    """Bytes that dropping an entry frees."""
    if entry.ready.done() and not entry.ready.cancelled() and entry.ready.exception() is None:
        return entry.ready.result().size
    return 0
