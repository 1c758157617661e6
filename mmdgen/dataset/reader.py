"""Reading: one shard, or a split of a dataset as a sequence of samples.

Images are read as stored chunks and decoded by isal, about 1.5 times faster than through HDF5's own filter. A file is
opened when it is first needed, in the process that needs it: a `Dataset` can be pickled, and used after a fork.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np

from mmdgen.dataset.codec import decode_flow, decode_image, decode_visibility
from mmdgen.dataset.manifest import Manifest, check_schema, read_manifest
from mmdgen.dataset.schema import SPLITS, DatasetConfig, ModelEntry, ShardHeader, ShardInfo
from mmdgen.errors import ConfigError, DatasetError

# Decoded rest images that an open shard keeps, so that shuffled reading does not decode them each time: more than the
# models of a usual shard (1,024 samples of 63 poses a model), because one less costs as much as none.
KEPT_RESTS = 32

# What reading an HDF5 file with other content than expected raises.
DAMAGE = (KeyError, OSError, RuntimeError, TypeError, ValueError, AttributeError, ConfigError)

_REMEDY = "`mmdgen verify` lists every problem; delete the file and run the same render command again to remake it."


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One training sample: three images u8 [S, S, 4], a pose f32 [K] and its model. `index` is its place in the split.

    Of a dataset with flow: `flow` f32 [S, S, 2], by how many pixels (x right, y down) what a pixel of `posed` shows is
    displaced in `expression`, and `visibility` u8 [S, S]: 0 no surface, 1 not to be seen in `expression`, 2 to be seen.
    The arrays are the caller's own and may be changed.
    """

    rest: np.ndarray
    expression: np.ndarray
    posed: np.ndarray
    pose: np.ndarray
    model: ModelEntry
    split: str
    index: int
    flow: np.ndarray | None = None
    visibility: np.ndarray | None = None


class Shard:
    """One open shard: `header`, `models` (its rows), `pose` f32 [N, K], `model` i32 [N], and the images one by one.

    Raises `DatasetError` when the file is missing, damaged or no shard of this schema. A context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise DatasetError(f"{path}: the shard is missing. Run the same render command again to make it.") from None
        except OSError as error:
            raise DatasetError(f"{path}: is damaged or not HDF5 ({error}). {_REMEDY}") from error
        try:
            self.header = read_header(path, self._file)
            self.pose: np.ndarray = stored(self._file, "pose")[:]
            self.model: np.ndarray = stored(self._file, "model")[:]
            self.models = _read_models(self._file)
            names = ["expression", "posed", "models/rest"]
            names += ["flow", "visibility"] if self.header.config.flow else []
            self._images = {name: stored(self._file, name).id for name in names}
        except DAMAGE as error:
            self._file.close()
            raise DatasetError(f"{path}: is damaged ({error}). {_REMEDY}") from error
        except DatasetError:
            self._file.close()
            raise
        self._rests: dict[int, np.ndarray] = {}

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.model)

    def close(self) -> None:
        self._images = {}
        self._file.close()

    def rest(self, row: int) -> np.ndarray:
        """Return the rest image of the model in `row`, u8 [S, S, 4], a new array."""
        return self._kept_rest(row).copy()

    def expression(self, index: int) -> np.ndarray:
        """Return the expression image of sample `index`, u8 [S, S, 4]; a residual is undone."""
        base = self._kept_rest(int(self.model[index])) if self.header.config.residual else None
        return self._image("expression", index, base)

    def posed(self, index: int) -> np.ndarray:
        """Return the posed image of sample `index`, u8 [S, S, 4]."""
        return self._image("posed", index)

    def flow(self, index: int) -> np.ndarray:
        """Return the flow of sample `index`, f32 [S, S, 2] pixels. Raises `DatasetError` where the dataset has none."""
        config = self.header.config
        return self._read("flow", index, 3, lambda data: decode_flow(data, config.flow_shape, config.flow_dtype))

    def visibility(self, index: int) -> np.ndarray:
        """Return the visibility of sample `index`, u8 [S, S]. Raises `DatasetError` where the dataset has none."""
        size = self.header.config.image_size
        return self._read("visibility", index, 2, lambda data: decode_visibility(data, (size, size)))

    def sample(self, index: int, split_index: int) -> Sample:
        """Return sample `index` of the shard, which is sample `split_index` of its split."""
        row = int(self.model[index])
        if not 0 <= row < len(self.models):
            raise DatasetError(f"{self.path}: sample {index} is of model {row} among {len(self.models)}. {_REMEDY}")
        return Sample(
            self.rest(row),
            self.expression(index),
            self.posed(index),
            self.pose[index].copy(),
            self.models[row],
            self.header.split,
            split_index,
            self.flow(index) if self.header.config.flow else None,
            self.visibility(index) if self.header.config.flow else None,
        )

    def model_samples(self) -> dict[str, int]:
        """Return each model's number of samples by its sha256, in the order of the rows."""
        counts = np.bincount(self.model, minlength=len(self.models)) if len(self) else np.zeros(len(self.models), int)
        return {entry.sha256: int(count) for entry, count in zip(self.models, counts, strict=True)}

    def _kept_rest(self, row: int) -> np.ndarray:
        rest = self._rests.get(row)
        if rest is None:
            rest = self._image("models/rest", row)
            if len(self._rests) >= KEPT_RESTS:
                self._rests = {}  # a new one, because other threads may be reading the old
            self._rests[row] = rest
        return rest

    def _image(self, name: str, index: int, base: np.ndarray | None = None) -> np.ndarray:
        return self._read(name, index, 3, lambda data: decode_image(data, self.header.config.image_shape, base))

    def _read(self, name: str, index: int, axes: int, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        if name not in self._images and name in ("flow", "visibility"):
            raise DatasetError(f"{self.path}: the dataset has no {name}; `mmdgen render --flow` makes one that has")
        try:
            skipped, data = self._images[name].read_direct_chunk((index, *[0] * axes))
            if skipped:
                raise DatasetError("the image is stored without its codec")
            return decode(data)
        except (OSError, RuntimeError, ValueError, DatasetError) as error:
            raise DatasetError(f"{self.path}: {name}[{index}] cannot be read: {error}. {_REMEDY}") from error


class Dataset(Sequence[Sample]):
    """A split of a finished dataset as a sequence of `Sample`; a slice is again a `Dataset` and reads nothing.

    `path` is the dataset's folder. `manifest` spares reading it (and serves before it is written). At most `max_open`
    files are open at a time in each process. Raises `DatasetError` at once when a shard is missing or of another size.
    """

    def __init__(
        self, path: str | Path, split: str = "train", *, manifest: Manifest | None = None, max_open: int = 64
    ) -> None:
        self.path = Path(path)
        self.split = split
        self.manifest = read_manifest(self.path) if manifest is None else manifest
        if split not in SPLITS:
            raise ConfigError(f"a split is one of {', '.join(SPLITS)}, found {split!r}")
        self._shards = self.manifest.shards.get(split, ())
        for info in self._shards:
            _check_size(self.path, info)
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
        """Return the open shard of a sample and its number there: for those who read only some of its images.

        Keep it no longer than needed: it stays open while it is referred to. Raises as `[]` does.
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
    """The shards that this process has open, the most recently used ones."""

    def __init__(self, root: Path, shards: Sequence[ShardInfo], max_open: int) -> None:
        if max_open < 1:
            raise ConfigError(f"at least one file must be open, found {max_open}")
        self._root, self._shards, self._max_open = root, shards, max_open
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root, "shards": self._shards, "max_open": self._max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def get(self, number: int) -> Shard:
        if (
            self._pid != os.getpid()
        ):  # a fork: HDF5 handles and a lock held elsewhere must not be shared with the parent
            self._reset()
        with self._lock:
            shard = self._open.get(number)
            if shard is not None:
                self._open.move_to_end(number)
                return shard
            shard = Shard(self._root / self._shards[number].file)
            try:
                found = shard.model_samples()
            except ValueError:  # a sample of a model that is not there
                found = None
            if found != dict(self._shards[number].model_samples):
                raise DatasetError(f"{shard.path}: holds other samples than the manifest says. {_REMEDY}")
            self._open[number] = shard
            while len(self._open) > self._max_open:
                self._open.popitem(
                    last=False
                )  # not closed here: another thread may be reading; it closes with its last user
            return shard


def read_header(path: Path, file: h5py.File) -> ShardHeader:
    """Return what an open shard says about itself. Raises `DatasetError`, or one of `DAMAGE` for bad attributes."""
    attributes: dict[str, Any] = dict(file.attrs)
    check_schema(path, attributes.get("schema"), attributes.get("schema_version"))
    config = DatasetConfig.from_json(json.loads(attributes["config"]))
    return ShardHeader(config, attributes["split"], int(attributes["shard"]), attributes["plan"])


def stored(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the HDF5 dataset `name`. Raises KeyError when there is none, TypeError when the name is a group's."""
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        raise TypeError(f"{name} is a group, not a dataset")
    return item


def _check_size(root: Path, info: ShardInfo) -> None:
    try:
        size = (root / info.file).stat().st_size
    except OSError:
        raise DatasetError(
            f"{root / info.file}: the shard is missing ({info.samples} samples). "
            "Put it back, or run the same render command again to make it."
        ) from None
    if size != info.bytes:
        raise DatasetError(f"{root / info.file}: has {size} bytes, and the manifest says {info.bytes}. {_REMEDY}")


def _read_models(file: h5py.File) -> tuple[ModelEntry, ...]:
    texts = [list(stored(file, f"models/{name}").asstr()[:]) for name in ("sha256", "name", "source", "terms")]
    numbers = [stored(file, f"models/{name}")[:].tolist() for name in ("head_bounds", "light")]
    return tuple(
        ModelEntry(sha256, name, source, chin_y, top_y, center_x, ambient, directional, terms)
        for sha256, name, source, terms, (chin_y, top_y, center_x), (ambient, directional) in zip(
            *texts, *numbers, strict=True
        )
    )
