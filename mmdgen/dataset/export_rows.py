"""What every export format gets: one sample after the other with its pictures as PNG files, and files that are atomic.

An export is cut into jobs, each a run of samples of one split that becomes one file (or, for ``png``, one shard's worth
of pictures). Jobs share nothing, so threads work on them side by side: decoding, filtering and compressing release the
interpreter lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from mmdgen.dataset.codec_streams import DEFLATE_LEVEL, compress
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import DEFLATE, FLOW_STEP, ModelEntry
from mmdgen.errors import DatasetError
from mmdgen.fsio import sync_directory, temporary_file, unwritable
from mmdgen.png import encode_png

# PNG files of rest images that a job keeps; a shard's samples come model by model.
KEPT_RESTS = 64


class Stopped(Exception):
    """Somebody asked the jobs to end: not an error, and never seen outside."""


@dataclass(frozen=True, slots=True)
class Job:
    """Samples `start` .. `stop` of a split, number `number` of the split's `count` jobs.

    `first_models` are the models (sha256) whose first sample of the whole export may be in this job.
    """

    split: str
    number: int
    count: int
    start: int
    stop: int
    first_models: frozenset[str] = frozenset()

    @property
    def samples(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Row:
    """One sample, its pictures as PNG files. `index` is its place in the split, `pose` f32 [K].

    `flow` and `visibility` are .npy files, None where the dataset has none: i2 (or i4) [S, S, 2] in steps of 1/64
    pixel, and u8 [S, S].
    """

    index: int
    split: str
    pose: np.ndarray
    model: ModelEntry
    rest: bytes
    expression: bytes
    posed: bytes
    flow: bytes | None = None
    visibility: bytes | None = None

    @property
    def key(self) -> str:
        return f"{self.index:08d}"

    def pictures(self) -> dict[str, bytes]:
        """Return the files of the sample other than its texts, by the ending of their names."""
        files = {"rest.png": self.rest, "expression.png": self.expression, "posed.png": self.posed}
        if self.flow is not None and self.visibility is not None:
            files |= {"flow.npy": self.flow, "visibility.npy": self.visibility}
        return files


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of an export: path below its folder with /, size, SHA-256, samples in it."""

    file: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a finished job leaves: `files` that are worth listing, what all its files take, and its models.

    `models` maps the sha256 of each model to its entry and its number of samples here.
    """

    files: tuple[FileInfo, ...]
    bytes: int
    models: dict[str, tuple[ModelEntry, int]]

    def to_json(self) -> dict[str, Any]:
        return {
            "files": [asdict(file) for file in self.files],
            "bytes": self.bytes,
            "models": [[asdict(entry), samples] for entry, samples in self.models.values()],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JobResult:
        """Return what `to_json` described. Raises KeyError, TypeError or ValueError."""
        models = {row["sha256"]: (ModelEntry(**row), int(samples)) for row, samples in value["models"]}
        return cls(tuple(FileInfo(**row) for row in value["files"]), int(value["bytes"]), models)


class Exporter(Protocol):
    """A format. `sharded` tells whether its files can be cut otherwise than the dataset's shards."""

    sharded: bool

    def file_name(self, job: Job) -> str:
        """Return the path of a job's file below the export's folder."""
        ...

    def write(self, job: Job, rows: Iterable[Row], out: Path) -> tuple[tuple[FileInfo, ...], int]:
        """Write a job's file or files below `out`; return those to list, and the bytes of all."""
        ...

    def finish(self, jobs: list[Job], results: list[JobResult], out: Path) -> tuple[FileInfo, ...]:
        """Write what belongs to all jobs together; return the files of it that are to be listed."""
        ...


@dataclass(slots=True)
class Watch:
    """How far the jobs are, and whether they should stop. For several threads."""

    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, samples: int = 1) -> None:
        """Add finished samples. Raises `Stopped` where the job should end."""
        if self.stop.is_set():
            raise Stopped
        with self._lock:
            self.done += samples


def picture(image: np.ndarray) -> bytes:
    """Return a PNG file of `image`, u8 [S, S, 4]: the same bytes for the same pixels."""
    return encode_png(image, _deflate)


def _deflate(raw: np.ndarray) -> bytes:
    return compress(raw, DEFLATE, DEFLATE_LEVEL)


def array_file(array: np.ndarray) -> bytes:
    """Return `array` as a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def rows_of(dataset: Dataset, job: Job, watch: Watch) -> Iterator[Row]:
    """Yield the job's samples in order. Raises `DatasetError` for what cannot be read and `Stopped`."""
    rests: dict[str, bytes] = {}
    config = dataset.config
    for index in range(job.start, job.stop):
        shard, place = dataset.locate(index)
        number = int(shard.model[place])
        if not 0 <= number < len(shard.models):
            raise DatasetError(f"{shard.path}: sample {place} is of model {number} among {len(shard.models)}")
        entry = shard.models[number]
        rest = rests.get(entry.sha256)
        if rest is None:
            if len(rests) >= KEPT_RESTS:
                rests.clear()
            rest = rests[entry.sha256] = picture(shard.rest(number))
        flow = visibility = None
        if config.flow:
            steps = np.rint(shard.flow(place) / np.float32(FLOW_STEP)).astype("<" + config.flow_dtype)
            flow, visibility = array_file(steps), array_file(shard.visibility(place))
        yield Row(
            index,
            job.split,
            shard.pose[place].copy(),
            entry,
            rest,
            picture(shard.expression(place)),
            picture(shard.posed(place)),
            flow,
            visibility,
        )
        watch.count()


def run_job(exporter: Exporter, dataset: Dataset, job: Job, out: Path, watch: Watch) -> JobResult:
    """Write one job's files. Raises `DatasetError` (a full disk says so) and `Stopped`."""
    models: dict[str, tuple[ModelEntry, int]] = {}

    def noting() -> Iterator[Row]:
        for row in rows_of(dataset, job, watch):
            entry, samples = models.get(row.model.sha256, (row.model, 0))
            models[entry.sha256] = (entry, samples + 1)
            yield row

    files, size = exporter.write(job, noting(), out)
    return JobResult(files, size, models)


class HashedStream:
    """A file being written, with the SHA-256 and the size of what went into it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest, self.size = stream, hashlib.sha256(), 0

    @property
    def closed(self) -> bool:
        return self._stream.closed

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self._stream.write(view)
        self._digest.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def atomic_stream(path: Path) -> Iterator[HashedStream]:
    """Write a file piece by piece that appears under its name only when it is complete and on the disk.

    Raises `DatasetError`; whatever is raised inside leaves no temporary file behind.
    """
    temporary, size = None, 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, stream = temporary_file(path)
        with stream:
            hashed = HashedStream(stream)
            try:
                yield hashed
            finally:
                size = hashed.size
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error, size) from error
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def sync_everything() -> None:
    """Bring everything to the disk, where the system can: cheaper than one file after the other for thousands."""
    if hasattr(os, "sync"):
        os.sync()
