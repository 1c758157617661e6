"""One shard, from the plan to the file: a function of (plan, shard), whoever calls it and however often.

While one model is drawn the next ones are loaded on another thread and finished pictures are compressed on a third. A
model that fails is left out with a failure record; its shard goes on without it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdgen.dataset.codec import Encoder
from mmdgen.dataset.schema import NO_SURFACE, ModelEntry, ShardInfo
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import DatasetError, DeviceLostError, EngineError
from mmdgen.fsio import json_bytes, write_atomic
from mmdgen.generate.ahead import ByteGate, size_of
from mmdgen.generate.backend import Backend, check_device, make_backend
from mmdgen.generate.catalogue import UsableModel, reason
from mmdgen.generate.plan import Part, Plan
from mmdgen.generate.timings import Stopwatch, append_timing, release_memory
from mmdgen.generate.worker import end_without_device
from mmdgen.pose.sampling import sample_ambient, sample_poses
from mmdgen.pose.vocabulary import VOCABULARIES
from mmdgen.render.view import MMD, MMD_LIGHT, View

WORK_FOLDER = ".work"
LOCK_FILE = "lock"
AHEAD = 2  # models loaded or being loaded while one is drawn, fewer where they are large (`ahead.MAX_WAITING`)
ENCODERS = 1  # an encoder thread takes 1 ms a picture, drawing 10 times that
PENDING_IMAGES = 32

Note = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A model that was left out of a shard. `shard` is the shard's file; `samples` how many are missing for it."""

    id: str
    path: str
    code: str
    message: str
    shard: str
    samples: int


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A finished shard; it is there, with no sample, also when none of its models could be drawn."""

    index: int
    info: ShardInfo
    failures: tuple[Failure, ...]
    renderer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Shard `index` of the plan. `crashed` maps models (plan indices) that ended a worker to how; they are left out.

    `careful` draws without any thread that works ahead, so that the last model announced is the one at fault.
    """

    index: int
    careful: bool = False
    crashed: tuple[tuple[int, str], ...] = ()


def render_shard(
    plan: Plan,
    task: ShardTask,
    models: Path,
    out: Path,
    backend: Backend,
    note: Note,
    check_lock: Callable[[], None] = lambda: None,
) -> ShardResult:
    """Draw and write one shard, and its sidecar after it.

    `models` is the folder that the plan's paths are relative to. `note` receives ("load", model), ("draw", model),
    ("write", index) and ("images", count). Raises `DatasetError` when the shard cannot be written, `DeviceLostError`
    when what draws was lost: no model is blamed for that, and nothing that was drawn meanwhile is kept. `check_lock`
    is called before anything is written.
    """
    shard, crashed = plan.shards[task.index], dict(task.crashed)
    watch, gate = Stopwatch(), ByteGate()
    builder = ShardBuilder(plan.header(task.index))
    failures: list[Failure] = []

    def fail(part: Part, code: str, message: str) -> None:
        model = plan.models[part.model]
        failures.append(Failure(model.id, model.path, code, message, builder.header.file, part.count))

    with (
        watch.executor("load", 1) as loader,
        watch.executor("encode", ENCODERS) as encoder,
    ):
        try:
            for part, prepared in _prepared(
                plan, shard.parts, crashed, models, backend, loader, task.careful, note, watch, gate
            ):
                if part.model in crashed:
                    fail(part, "crashed", crashed[part.model])
                    continue
                error = prepared.exception() if prepared else None
                if error is None and prepared is not None:
                    note(("draw", part.model))
                    try:
                        _draw(plan, part, prepared.result(), backend, builder, encoder, note, watch, gate)
                        check_device(backend)  # a lost context may also draw nothing without any error
                        prepared = None  # its memory is for the next one
                        continue
                    except (DatasetError, EngineError, DeviceLostError):
                        raise
                    except Exception as raised:
                        check_device(backend)
                        error = raised
                if not isinstance(error, Exception):
                    raise error or EngineError("a model was neither prepared nor refused")
                fail(part, *reason(error, models))
        finally:
            gate.close()
            loader.shutdown(wait=True, cancel_futures=True)
    note(("write", task.index))
    with watch.timed("write"):
        check_lock()
        result = ShardResult(task.index, builder.write(out), tuple(failures), backend.report())
        check_lock()
        write_sidecar(plan, result, out)
    counts = {"models": result.info.models, "samples": result.info.samples, "bytes": result.info.bytes}
    images = result.info.models + 2 * result.info.samples
    row = watch.row(plan=plan.digest, shard=result.info.file, images=images, careful=task.careful, **counts)
    append_timing(out, row)
    return result


def _prepared(
    plan: Plan,
    parts: tuple[Part, ...],
    crashed: dict[int, str],
    models: Path,
    backend: Backend,
    loader: ThreadPoolExecutor,
    careful: bool,
    note: Note,
    watch: Stopwatch,
    gate: ByteGate,
) -> Iterator[tuple[Part, Future | None]]:
    """Yield each part with the future of its prepared model, `AHEAD` of the one in use; None for crashed models."""

    def prepare(part: Part) -> Any:
        gate.wait()
        model = plan.models[part.model]
        note(("load", part.model))
        vocabulary = VOCABULARIES[plan.options.vocabulary]
        prepared = backend.prepare(models / model.path, model, vocabulary, view_of(plan, model))
        gate.prepared(size_of(prepared))
        return prepared

    ahead: deque[tuple[Part, Future | None]] = deque()
    for part in parts:
        ahead.append((part, None if part.model in crashed else loader.submit(prepare, part)))
        if careful or len(ahead) > AHEAD:
            watch.call("wait", _wait, ahead[0][1])
            yield ahead.popleft()
    while ahead:
        watch.call("wait", _wait, ahead[0][1])
        yield ahead.popleft()


def _wait(future: Future | None) -> None:
    if future is not None:
        future.exception()


def _draw(
    plan: Plan,
    part: Part,
    prepared: Any,
    backend: Backend,
    builder: ShardBuilder,
    encoder: ThreadPoolExecutor,
    note: Note,
    watch: Stopwatch,
    gate: ByteGate,
) -> None:
    """Draw a model's rest, expression and posed images and add them to the shard: all of them or, on an error, none."""
    held = size_of(prepared)
    try:
        uploaded = watch.call("upload", backend.scene, prepared)
    finally:
        gate.taken(held)  # a renderer may have freed it by now
    model = plan.models[part.model]
    poses = sample_poses(VOCABULARIES[plan.options.vocabulary], plan.options.seed, model.id, part.first, part.count)
    flow = builder.header.config.flow
    encode = Encoder(builder.header.config)
    surface: list[np.ndarray] = []
    with watch.scene(uploaded) as scene:
        rest = scene.rest()
        note(("images", 1))
        encoded_rest = encoder.submit(encode.rest, rest)
        expressions = _encoded(scene.expressions(poses), lambda image: encode.expression(image, rest), encoder, note)
        posed = _encoded(_noting(scene.posed(poses), surface if flow else None), encode.posed, encoder, note)
        flows = _encoded_flows(scene.flows(poses), surface, encode, encoder) if flow else [None] * part.count
    for name, images in (("expression", expressions), ("posed", posed), ("flow", flows)):
        if len(images) != part.count:
            raise EngineError(f"the renderer made {len(images)} {name} images of {part.count}")
    row = builder.add_model(entry_of(plan, model), encoded_rest.result())
    for pose, expression, turned, moved in zip(poses, expressions, posed, flows, strict=True):
        builder.add_sample(row, pose, expression, turned, *(moved or ()))


def _encoded(
    images: Iterator[np.ndarray], encode: Callable[[np.ndarray], bytes], encoder: ThreadPoolExecutor, note: Note
) -> list[bytes]:
    """Compress pictures while the next ones are drawn, with a bounded number of them waiting."""
    waiting: deque[Future[bytes]] = deque()
    finished: list[bytes] = []
    unreported = 0
    for image in images:
        waiting.append(encoder.submit(encode, image))
        if len(waiting) > PENDING_IMAGES:
            finished.append(waiting.popleft().result())
        unreported += 1
        if unreported == 16:
            note(("images", unreported))
            unreported = 0
    note(("images", unreported))
    finished += [future.result() for future in waiting]
    return finished


def _noting(images: Iterator[np.ndarray], surface: list[np.ndarray] | None) -> Iterator[np.ndarray]:
    """Pass pictures on; add to `surface` where each is at least half opaque, as packed bits."""
    for image in images:
        if surface is not None:
            surface.append(np.packbits(image[..., 3] >= 128))
        yield image


def _encoded_flows(
    flows: Iterator[tuple[np.ndarray, np.ndarray]],
    surface: list[np.ndarray],
    encode: Encoder,
    encoder: ThreadPoolExecutor,
) -> list[tuple[bytes, bytes]]:
    """Compress flows and visibilities while the next ones are drawn, with a bounded number of them waiting.

    A pixel whose centre a surface just covers, and which is mostly transparent all the same, has no surface.
    """

    def encoded(flow: np.ndarray, visibility: np.ndarray, packed: np.ndarray) -> tuple[bytes, bytes]:
        opaque = np.unpackbits(packed, count=visibility.size).reshape(visibility.shape).view(bool)
        visibility = np.where(opaque, visibility, np.uint8(NO_SURFACE))
        flow = np.where(visibility[..., None] == NO_SURFACE, np.float32(0), flow)
        return encode.flow(flow, visibility)

    waiting: deque[Future[tuple[bytes, bytes]]] = deque()
    finished: list[tuple[bytes, bytes]] = []
    for (flow, visibility), packed in zip(flows, surface, strict=True):
        waiting.append(encoder.submit(encoded, flow, visibility, packed))
        if len(waiting) > PENDING_IMAGES:
            finished.append(waiting.popleft().result())
    return finished + [future.result() for future in waiting]


def ambient_of(plan: Plan, model: UsableModel) -> float:
    """Return the ambient light of a model's pictures."""
    return sample_ambient(*plan.options.ambient, plan.options.seed, model.id)


def view_of(plan: Plan, model: UsableModel) -> View:
    """Return how a model is framed and lit."""
    return View.of_head(
        model.chin_y, model.top_y, model.center_x, ambient=ambient_of(plan, model), **plan.options.view_settings()
    )


def entry_of(plan: Plan, model: UsableModel) -> ModelEntry:
    """Return the model's row in the shard."""
    ambient, directional = ambient_of(plan, model), plan.options.directional
    if plan.options.shading == MMD:
        ambient, directional = 0.0, MMD_LIGHT
    return ModelEntry(
        sha256=model.id,
        name=model.name,
        source=model.source,
        chin_y=model.chin_y,
        top_y=model.top_y,
        center_x=model.center_x,
        ambient=ambient,
        directional=directional,
        terms=" ".join(model.hints),
    )


def sidecar_path(plan: Plan, index: int, out: Path) -> Path:
    """Return where the note that shard `index` is finished lies."""
    shard = plan.shards[index]
    return out / WORK_FOLDER / f"{shard.split}-{shard.number:05d}.json"


def read_lock(out: Path) -> str:
    """Return what the run that works on `out` has written into its lock, "" where there is none."""
    try:
        return (out / WORK_FOLDER / LOCK_FILE).read_text("ascii")
    except (OSError, ValueError):
        return ""


def write_sidecar(plan: Plan, result: ShardResult, out: Path) -> None:
    """Note that a shard is finished; the note comes after the shard, so it never promises too much."""
    write_atomic(sidecar_path(plan, result.index, out), sidecar_bytes(plan, result))


def sidecar_bytes(plan: Plan, result: ShardResult) -> bytes:
    """Return the note that a shard is finished, as JSON."""
    info = result.info
    pairs = [[sha256, count] for sha256, count in info.model_samples.items()]
    value = {
        "plan": plan.digest,
        "shard": {"file": info.file, "sha256": info.sha256, "bytes": info.bytes, "model_samples": pairs},
        "failures": [asdict(failure) for failure in result.failures],
        "renderer": result.renderer,
    }
    return json_bytes(value)


def read_sidecar(plan: Plan, index: int, out: Path) -> ShardResult | None:
    """Return a finished shard's result; None when it is not finished: no note, another plan's, or no such file."""
    try:
        content = sidecar_path(plan, index, out).read_bytes()
        return parse_sidecar(plan, index, content, (out / plan.file(index)).stat().st_size)
    except OSError:
        return None


def parse_sidecar(plan: Plan, index: int, content: bytes, size: int | None) -> ShardResult | None:
    """Return the result that a note tells of, if it is about this shard of this plan, whose file has `size` bytes."""
    try:
        value = json.loads(content)
        stated = value["shard"]
        info = ShardInfo(stated["file"], stated["sha256"], stated["bytes"], dict(stated["model_samples"]))
        if value["plan"] != plan.digest or info.file != plan.file(index) or size != info.bytes:
            return None
        return ShardResult(index, info, tuple(Failure(**row) for row in value["failures"]), value["renderer"])
    except (ValueError, KeyError, TypeError):
        return None


class ShardWorker:
    """The pool's handler: a task is a `ShardTask`, the result a `ShardResult`."""

    def __init__(self, config: dict[str, Any]) -> None:
        from mmdgen.generate.remote import place_at  # which knows shards

        self.models, self.out = Path(config["models"]), Path(config["out"])
        self.place = place_at(self.out, config.get("remote", ""))
        plan = self.place.worker_plan(config["plan"])
        if plan is None or plan.digest != config["plan"]:
            raise EngineError(f"{self.out}: the plan changed while the run was starting")
        self.plan, self.lock = plan, config.get("lock", "")
        if config.get("remote"):  # maybe another machine's folder: what an earlier run has left in its lock is no news
            self.lock = read_lock(self.out)
        self.backend: Backend = make_backend(config["backend"], config.get("device"))
        self.report = self.backend.report()

    def handle(self, task: ShardTask, note: Note) -> ShardResult:
        """Make a shard. Where what draws was lost, the process ends: the engine takes care of dead workers."""
        try:
            result = render_shard(self.plan, task, self.models, self.out, self.backend, note, self._check_lock)
            self.place.keep(self.plan, result)
            return result
        except DeviceLostError as error:
            end_without_device(error)
        finally:
            release_memory()

    def _check_lock(self) -> None:
        """Raise `EngineError` if another run has the folder by now: on a cluster a worker may outlive its own run."""
        if read_lock(self.out) != self.lock:
            raise EngineError(f"{self.out}: another run has taken over, or has finished the dataset")
