"""Reading a split of a dataset as a sequence of samples, whatever its codec and encodings are.

Images are read as stored chunks and decoded in one pass. A file is opened when it is first needed, in the process that
needs it: a `Dataset` can be pickled, and used after a fork.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from mmdgen.dataset.chunks import stored
from mmdgen.dataset.codec_streams import require_codec
from mmdgen.dataset.manifest import Manifest, read_manifest
from mmdgen.dataset.open_shard import DAMAGE, REMEDY, KeptImages, Sample, Shard, read_header
from mmdgen.dataset.remote import RemotePath, location
from mmdgen.dataset.schema import SPLITS, DatasetConfig, ShardInfo
from mmdgen.errors import ConfigError, DatasetError

__all__ = ["DAMAGE", "Dataset", "Sample", "Shard", "read_header", "stored"]

# What opening a shard told, kept for so many of them, at some 100 kB each: opening takes milliseconds, an image less.
KNOWN_SHARDS = 1024

_FREED_BYTES = 8 << 20


class Dataset(Sequence[Sample]):
    """A split of a finished dataset as a sequence of `Sample`; a slice is again a `Dataset` and reads nothing.

    `path` is the dataset's folder, or its URL in an object store (slow: a request a picture; `mmdgen merge --out FOLDER
    URL` copies it). `manifest` spares reading it (and serves before it is written). At most `max_open`
    files are open at a time in each process. Raises `DatasetError` at once when a shard is missing or of another size,
    `ConfigError` when the codec's package is not installed.
    """

    def __init__(
        self,
        path: str | Path | RemotePath,
        split: str = "train",
        *,
        manifest: Manifest | None = None,
        max_open: int = 64,
    ) -> None:
        self.path = location(path)
        self.split = split
        self.manifest = read_manifest(self.path) if manifest is None else manifest
        if split not in SPLITS:
            raise ConfigError(f"a split is one of {', '.join(SPLITS)}, found {split!r}")
        require_codec(self.manifest.config.codec)
        self._shards = self.manifest.shards.get(split, ())
        sizes = self.path.sizes() if isinstance(self.path, RemotePath) else None  # one request for all of them
        for info in self._shards:
            _check_size(self.path, info, sizes)
        self._starts = [0, *accumulate(info.samples for info in self._shards)]
        self._indices = range(self._starts[-1])
        self._files = _OpenFiles(self.path, self._shards, max_open)

    @property
    def config(self) -> DatasetConfig:
        return self.manifest.config

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        """Return a sample (negative numbers count from the end), or the part of the dataset that a slice names.

        Raises `IndexError` outside the dataset and `DatasetError` when the shard cannot be read.
        """
        if isinstance(index, slice):
            part = object.__new__(Dataset)
            part.__dict__.update(self.__dict__, _indices=self._indices[index])
            return part
        shard, row = self.locate(index)
        return shard.sample(row, self._indices[index])

    def locate(self, index: int) -> tuple[Shard, int]:
        """Return the shard of a sample and its number there: for those who read only some of its images.

        Its methods may be used for as long as it is kept. Raises as `[]` does.
        """
        split_index = self._indices[index]
        number = bisect_right(self._starts, split_index) - 1
        return self._files.get(number), split_index - self._starts[number]

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {self.split!r}): {len(self)} samples of {self.config.image_size} pixels"

    def poses(self) -> np.ndarray:
        """Return all poses, f32 [N, K], reading no image."""
        parts = [self._files.get(number).pose for number in range(len(self._shards))]
        width = len(self.config.vocabulary.parameters)
        return np.concatenate([np.empty((0, width), np.float32), *parts])[self._indices]

    def shards(self, limit: int) -> Iterator[tuple[int, Shard]]:
        """Yield up to `limit` shards of the split that have samples, evenly spaced, after their first sample's number.

        The numbers are those of the whole split, whatever slice this is. A shard may be closed when the next one comes.
        """
        filled = [number for number, info in enumerate(self._shards) if info.samples]
        count = min(limit, len(filled))
        for place in range(count):
            number = filled[place * (len(filled) - 1) // max(1, count - 1)]
            yield self._starts[number], self._files.get(number)


class _OpenFiles:
    """The shards that this process knows, of which the most recently used ones are open."""

    def __init__(self, root: Path | RemotePath, shards: Sequence[ShardInfo], max_open: int) -> None:
        if max_open < 1:
            raise ConfigError(f"at least one file must be open, found {max_open}")
        self._root, self._shards, self._max_open = root, shards, max_open
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._kept = KeptImages()
        _keep_freed_memory()
        self._known: OrderedDict[int, Shard] = OrderedDict()
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root, "shards": self._shards, "max_open": self._max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def get(self, number: int) -> Shard:
        if self._pid != os.getpid():  # a fork: a lock that is held elsewhere must not be shared with the parent
            self._reset()
        with self._lock:
            shard = self._open.get(number)
            if shard is not None:
                self._open.move_to_end(number)
                return shard
            shard = self._known.get(number)
            if shard is None:
                shard = self._known[number] = self._checked(number)
            else:
                shard.hold()
            self._known.move_to_end(number)
            self._open[number] = shard
            # Whoever is reading from a shard that is dropped here may go on.
            while len(self._open) > self._max_open:
                dropped, other = self._open.popitem(last=False)
                other.release()
                if other.keeps_file:
                    self._known.pop(dropped, None)
            while len(self._known) > max(KNOWN_SHARDS, self._max_open):
                self._known.popitem(last=False)
            return shard

    def _checked(self, number: int) -> Shard:
        """Return the shard, newly opened. Raises `DatasetError` when it is not the one that the manifest lists."""
        shard = Shard(self._root / self._shards[number].file, kept=self._kept)
        try:
            found = shard.model_samples()
        except ValueError:  # a sample of a model that is not there
            found = None
        if found != dict(self._shards[number].model_samples):
            shard.close()
            raise DatasetError(f"{shard.path}: holds other samples than the manifest says. {REMEDY}")
        return shard


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next image.

    glibc returns memory to the system whenever some 500 kB are free at the end of its heap, which is what a sample
    leaves behind: the next one then meets 200 new pages at a microsecond each, a third of what reading it costs. Having
    freed a larger block, glibc keeps twice as much as that. The block itself is never touched, so it costs nothing.
    """
    np.empty(_FREED_BYTES, np.uint8)


def _check_size(root: Path | RemotePath, info: ShardInfo, sizes: Mapping[str, int] | None) -> None:
    try:
        size = (root / info.file).stat().st_size if sizes is None else sizes[info.file]
    except (OSError, KeyError):
        raise DatasetError(
            f"{root / info.file}: the shard is missing ({info.samples} samples). "
            "Put it back, or run the same render command again to make it."
        ) from None
    if size != info.bytes:
        raise DatasetError(f"{root / info.file}: has {size} bytes, and the manifest says {info.bytes}. {REMEDY}")
