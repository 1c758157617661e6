"""One shard, open for reading: what it says about itself, and its images one by one, decoded."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmdgen.dataset.chunks import open_chunks, stored
from mmdgen.dataset.codec import decode_flow, decode_image, decode_visibility
from mmdgen.dataset.codec_streams import require_codec
from mmdgen.dataset.manifest import check_schema
from mmdgen.dataset.remote import RemotePath, opened
from mmdgen.dataset.schema import DatasetConfig, ModelEntry, ShardHeader
from mmdgen.errors import ConfigError, DatasetError

# Decoded rest images that a process keeps for all its shards, so that shuffled reading does not decode them each time:
# as many as the shards among which training mixes have at 256 pixels (16 shards of 16 models), twice over.
KEPT_BYTES = 128 << 20

# What reading an HDF5 file with other content than expected raises.
DAMAGE = (KeyError, OSError, RuntimeError, TypeError, ValueError, AttributeError, ConfigError)

REMEDY = "`mmdgen verify` lists every problem; delete the file and run the same render command again to remake it."


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


class KeptImages:
    """The images that were used last, up to `limit` bytes but one at least. For use by several threads."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit, self._bytes = limit, 0
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[Any, int], np.ndarray] = OrderedDict()

    def get(self, key: tuple[Any, int], make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the image of `key`, which nobody may change; `make` makes one that is not kept."""
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
                return image
        image = make()  # two threads may do this at once: better than one that waits for the other's disk
        with self._lock:
            self._bytes += 0 if key in self._images else image.nbytes
            self._images[key] = image
            while self._bytes > self._limit and len(self._images) > 1:
                self._bytes -= self._images.popitem(last=False)[1].nbytes
        return image


class Shard:
    """One open shard: `header`, `models` (its rows), `pose` f32 [N, K], `model` i32 [N], and the images one by one.

    Raises `DatasetError` when the file is missing, damaged or no shard of this schema, `ConfigError` when its codec's
    package is not installed. `kept` holds rest images that are decoded; several shards may share it. A context manager.
    """

    def __init__(self, path: Path | RemotePath, *, kept: KeptImages | None = None) -> None:
        self.path = path
        try:
            file = h5py.File(opened(path), "r")
        except FileNotFoundError:
            raise DatasetError(f"{path}: the shard is missing. Run the same render command again to make it.") from None
        except OSError as error:
            if error.errno and isinstance(path, Path):  # the system's word, not HDF5's: nothing to delete
                raise DatasetError(f"{path}: cannot be read: {os.strerror(error.errno)}") from error
            raise DatasetError(f"{path}: is damaged or not HDF5 ({error}). {REMEDY}") from error
        keep = False
        try:
            self.header = read_header(path, file)
            self.pose: np.ndarray = stored(file, "pose")[:]
            self.model: np.ndarray = stored(file, "model")[:]
            self.models = _read_models(file)
            names = ["expression", "posed", "models/rest"]
            names += ["flow", "visibility"] if self.header.config.flow else []
            self._chunks = open_chunks(path, file, names)
            keep = self._chunks.keeps_file
        except DAMAGE as error:
            raise DatasetError(f"{path}: is damaged ({error}). {REMEDY}") from error
        finally:
            if not keep:
                file.close()
        require_codec(self.header.config.codec)
        self._file = file if keep else None
        self._kept = kept or KeptImages()
        self._closed = False

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.model)

    def close(self) -> None:
        """Close the file for good."""
        self._closed = True
        self.release()
        if self._file is not None:
            self._file.close()

    @property
    def keeps_file(self) -> bool:
        """Whether `release` does nothing: the file closes with the shard."""
        return self._chunks.keeps_file

    def hold(self) -> None:
        """Keep the file open, as it is at first. Raises `DatasetError` when it is gone or another one."""
        try:
            self._chunks.hold()
        except DatasetError as error:
            raise DatasetError(f"{self.path}: {error}. {REMEDY}") from error

    def release(self) -> None:
        """Close the file; reading an image then opens it for as long as that takes."""
        self._chunks.release()

    def rest(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rest image of the model in `row`, u8 [S, S, 4]: the caller's own.

        Here and below, `out` is a contiguous array that receives it and is returned; without it there is a new one.
        """
        image = self._kept_rest(row)
        if out is None:
            return image.copy()
        out[...] = image
        return out

    def expression(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return the expression image of sample `index`, u8 [S, S, 4]; a residual is undone."""
        base = self._kept_rest(int(self.model[index])) if self.header.config.residual else None
        return self._image("expression", index, base, out)

    def posed(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return the posed image of sample `index`, u8 [S, S, 4]."""
        return self._image("posed", index, None, out)

    def flow(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return the flow of sample `index`, f32 [S, S, 2] pixels. Raises `DatasetError` where the dataset has none."""
        config = self.header.config
        return self._read(
            "flow", index, lambda data: decode_flow(data, config.flow_shape, config.flow_dtype, config.codec, out)
        )

    def visibility(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return the visibility of sample `index`, u8 [S, S]. Raises `DatasetError` where the dataset has none."""
        config = self.header.config
        shape = config.flow_shape[:2]
        return self._read("visibility", index, lambda data: decode_visibility(data, shape, config.codec, out))

    def sample(self, index: int, split_index: int) -> Sample:
        """Return sample `index` of the shard, which is sample `split_index` of its split."""
        row = int(self.model[index])
        if not 0 <= row < len(self.models):
            raise DatasetError(f"{self.path}: sample {index} is of model {row} among {len(self.models)}. {REMEDY}")
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
        return self._kept.get((self.path, row), lambda: self._image("models/rest", row, None, None))

    def _image(self, name: str, index: int, base: np.ndarray | None, out: np.ndarray | None) -> np.ndarray:
        config = self.header.config
        planes = config.planes and name != "expression"
        return self._read(
            name,
            index,
            lambda data: decode_image(data, config.image_shape, base, codec=config.codec, planes=planes, out=out),
        )

    def _read(self, name: str, index: int, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        if name in ("flow", "visibility") and not self.header.config.flow:
            raise DatasetError(f"{self.path}: the dataset has no {name}; `mmdgen render --flow` makes one that has")
        try:
            if self._closed:
                raise DatasetError("the shard was closed")
            return decode(self._chunks.read(name, index))
        except DatasetError as error:
            raise DatasetError(f"{self.path}: {name}[{index}] cannot be read: {error}. {REMEDY}") from error


def read_header(path: Path | RemotePath, file: h5py.File) -> ShardHeader:
    """Return what an open shard says about itself. Raises `DatasetError`, or one of `DAMAGE` for bad attributes."""
    attributes: dict[str, Any] = dict(file.attrs)
    check_schema(path, attributes.get("schema"), attributes.get("schema_version"))
    config = DatasetConfig.from_json(json.loads(attributes["config"]))
    return ShardHeader(config, attributes["split"], int(attributes["shard"]), attributes["plan"])


def _read_models(file: h5py.File) -> tuple[ModelEntry, ...]:
    texts = [list(stored(file, f"models/{name}").asstr()[:]) for name in ("sha256", "name", "source", "terms")]
    numbers = [stored(file, f"models/{name}")[:].tolist() for name in ("head_bounds", "light")]
    return tuple(
        ModelEntry(sha256, name, source, chin_y, top_y, center_x, ambient, directional, terms)
        for sha256, name, source, terms, (chin_y, top_y, center_x), (ambient, directional) in zip(
            *texts, *numbers, strict=True
        )
    )
