"""One shard: collected in memory, written as a whole.

The bytes are a function of what was added, in order: no times, no paths, nothing of the process. The file appears under
its name only when it is complete and on the disk, so an interrupted run leaves whole shards or none.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mmdgen.dataset.chunks import stored
from mmdgen.dataset.codec import Encoder, decode_image
from mmdgen.dataset.codec_streams import DEFLATE_LEVEL, level_of
from mmdgen.dataset.schema import (
    COLOR,
    DEFLATE,
    FLOW_ENCODING,
    FLOW_STEP,
    HDF5_FILTERS,
    PLANES_ENCODING,
    SCHEMA,
    ZSTD,
    Field,
    ModelEntry,
    ShardHeader,
    ShardInfo,
    fields,
    pose_limits,
    storable_text,
)
from mmdgen.errors import DatasetError
from mmdgen.fsio import write_atomic

MAX_ENCODED_BYTES = 768 << 20  # building needs about twice this in memory

Encoded = TypeVar("Encoded", bytes, tuple[bytes, bytes])

# Two files in memory may not have the same name at the same time, even in different threads.
_memory_file_number = itertools.count()


class ShardBuilder:
    """Collects models and samples; `write` makes the file. Not for use by several threads at once.

    Images are u8 [S, S, 4] with S = `header.config.image_size`, flows f32 [S, S, 2] in pixels and visibilities
    u8 [S, S]; or they are what a `codec.Encoder` of the same configuration made of them. Raises `ConfigError` where the
    codec's package is not installed.
    """

    def __init__(self, header: ShardHeader) -> None:
        self.header = header
        self._encoder = Encoder(header.config)
        self._entries: list[ModelEntry] = []
        self._rest: list[bytes] = []
        self._expression: list[bytes] = []
        self._posed: list[bytes] = []
        self._flow: list[bytes] = []
        self._visibility: list[bytes] = []
        self._pose: list[np.ndarray] = []
        self._model: list[int] = []
        self._encoded_bytes = 0
        self._base: tuple[int, np.ndarray] | None = None
        self._low, self._high = pose_limits(header.config.vocabulary)

    @property
    def samples(self) -> int:
        return len(self._model)

    @property
    def encoded_bytes(self) -> int:
        """The size of all images added so far, encoded: nearly the size of the file."""
        return self._encoded_bytes

    def add_model(self, entry: ModelEntry, rest: np.ndarray | bytes) -> int:
        """Add a model with its rest image; return its row. Raises `DatasetError` when the shard has it already."""
        if any(entry.sha256 == other.sha256 for other in self._entries):
            raise DatasetError(f"{self.header.file}: model {entry.sha256[:16]} ({entry.name}) was added twice")
        encoded = rest if isinstance(rest, bytes) else self._encoded(self._encoder.rest, rest)
        self._entries.append(entry.storable())
        self._rest.append(encoded)
        self._count(encoded)
        return len(self._entries) - 1

    def add_sample(
        self,
        row: int,
        pose: np.ndarray,
        expression: np.ndarray | bytes,
        posed: np.ndarray | bytes,
        flow: np.ndarray | bytes | None = None,
        visibility: np.ndarray | bytes | None = None,
    ) -> int:
        """Add one sample of the model in `row` with its pose f32 [K]; return the sample's number in the shard.

        Raises `DatasetError` for an unknown row, a pose that has another length, is not finite or leaves its range, or
        a flow and visibility where the dataset has none, or none where it has.
        """
        if not 0 <= row < len(self._entries):
            raise DatasetError(f"{self.header.file}: there is no model {row} among {len(self._entries)}")
        stored = np.array(pose, np.float32)
        if stored.shape != self._low.shape:
            raise DatasetError(f"{self.header.file}: a pose has {len(self._low)} values, found shape {stored.shape}")
        inside = (stored >= self._low) & (stored <= self._high)  # false for NaN
        if not inside.all():
            column = int(np.argmin(inside))
            name = self.header.config.vocabulary.names[column]
            raise DatasetError(
                f"{self.header.file}: sample {self.samples}: {name} = {stored[column]} is outside "
                f"[{self._low[column]:g}, {self._high[column]:g}]"
            )
        if not isinstance(expression, bytes):
            expression = self._encoded(self._encoder.expression, expression, self._base_of(row))
        encoded_posed = posed if isinstance(posed, bytes) else self._encoded(self._encoder.posed, posed)
        encoded_flow = self._encode_flow(flow, visibility)
        self._count(expression, encoded_posed, *encoded_flow)
        if encoded_flow:
            self._flow.append(encoded_flow[0])
            self._visibility.append(encoded_flow[1])
        self._expression.append(expression)
        self._posed.append(encoded_posed)
        self._pose.append(stored)
        self._model.append(row)
        return len(self._model) - 1

    def build(self) -> bytes:
        """Return the shard's bytes: the same for the same header, models and samples, in any process on any day."""
        return shard_bytes(self.header, self._columns())

    def write(self, out: Path) -> ShardInfo:
        """Write the shard below the dataset's folder `out`, atomically; return what the manifest lists.

        Makes the split's folder. Raises `DatasetError` when the file cannot be written (a full disk says so).
        """
        content = self.build()
        path = out / self.header.file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"{path.parent}: cannot be made: {error.strerror or error}") from error
        write_atomic(path, content)
        return ShardInfo(self.header.file, hashlib.sha256(content).hexdigest(), len(content), self.model_samples())

    def model_samples(self) -> dict[str, int]:
        """Return each model's number of samples by its sha256, in the order of the rows."""
        counts = np.bincount(np.array(self._model, np.int64), minlength=len(self._entries))
        return {entry.sha256: int(count) for entry, count in zip(self._entries, counts, strict=True)}

    def _encoded(self, encode: Callable[..., Encoded], *arrays: np.ndarray) -> Encoded:
        try:
            return encode(*arrays)
        except DatasetError as error:
            raise DatasetError(f"{self.header.file}: {error}") from None

    def _encode_flow(
        self, flow: np.ndarray | bytes | None, visibility: np.ndarray | bytes | None
    ) -> tuple[bytes, bytes] | tuple[()]:
        config = self.header.config
        if (flow is not None) != config.flow or (visibility is not None) != config.flow:
            raise DatasetError(
                f"{self.header.file}: sample {self.samples}: flow and visibility are "
                + ("missing" if config.flow else "there, and the dataset has none")
            )
        if flow is None or visibility is None:
            return ()
        if isinstance(flow, bytes) and isinstance(visibility, bytes):
            return flow, visibility
        if isinstance(flow, bytes) or isinstance(visibility, bytes):
            raise DatasetError(f"{self.header.file}: of flow and visibility either both are encoded or none")
        return self._encoded(self._encoder.flow, flow, visibility)

    def _base_of(self, row: int) -> np.ndarray:
        """Return the rest image of `row`; samples come model by model, so the last one is kept."""
        if self._base is None or self._base[0] != row:
            config = self.header.config
            image = decode_image(self._rest[row], config.image_shape, codec=config.codec, planes=config.planes)
            self._base = (row, image)
        return self._base[1]

    def _count(self, *encoded: bytes) -> None:
        self._encoded_bytes += sum(map(len, encoded))
        if self._encoded_bytes > MAX_ENCODED_BYTES:
            raise DatasetError(
                f"{self.header.file}: the shard would exceed {MAX_ENCODED_BYTES >> 20} MB with {self.samples} samples; "
                "put fewer samples into a shard"
            )

    def _columns(self) -> dict[str, list]:
        entries = self._entries
        return {
            "expression": self._expression,
            "posed": self._posed,
            "flow": self._flow,
            "visibility": self._visibility,
            "pose": self._pose,
            "model": self._model,
            "models/rest": self._rest,
            "models/sha256": [entry.sha256 for entry in entries],
            "models/name": [entry.name for entry in entries],
            "models/source": [entry.source for entry in entries],
            "models/head_bounds": [(entry.chin_y, entry.top_y, entry.center_x) for entry in entries],
            "models/light": [(entry.ambient, entry.directional) for entry in entries],
            "models/terms": [entry.terms for entry in entries],
        }


def shard_bytes(header: ShardHeader, columns: Mapping[str, list]) -> bytes:
    """Return the file of a shard whose datasets hold these rows, by the datasets' paths.

    Rows of images are encoded as `header.config` says. The same rows give the same bytes, in any process on any day.
    """
    name = f"shard-in-memory-{next(_memory_file_number)}"
    # "earliest": readable by every HDF5 since 1.0, and no object times in the headers.
    with h5py.File(name, "w", driver="core", backing_store=False, block_size=1 << 22, libver="earliest") as file:
        _write_attributes(file, header)
        for spec in fields(header.config):
            _write_field(file, spec, columns[spec.path], header.config.codec)
        file.flush()
        return file.id.get_file_image()


def _write_attributes(file: h5py.File, header: ShardHeader) -> None:
    config = header.config
    parameters = config.vocabulary.parameters
    low, high = pose_limits(config.vocabulary)
    attributes = {
        "schema": SCHEMA,
        "schema_version": np.int64(config.schema_version),
        "split": header.split,
        "shard": np.int64(header.number),
        "plan": header.plan,
        "vocabulary": config.vocabulary.name,
        "pose_names": [parameter.name for parameter in parameters],
        "pose_low": low,
        "pose_high": high,
        "pose_rest": np.array([parameter.rest for parameter in parameters], np.float32),
        "pose_meaning": [parameter.meaning for parameter in parameters],
        "image_size": np.int64(config.image_size),
        "expression_encoding": config.expression_encoding,
        "codec": config.codec,
        "color": COLOR,
        "config": config.json_text(),
    }
    if config.flow:
        attributes |= {"flow_step": FLOW_STEP, "flow_encoding": FLOW_ENCODING}
    if config.planes:
        attributes |= {"posed_encoding": config.posed_encoding, "planes_encoding": PLANES_ENCODING}
    for name, value in attributes.items():
        file.attrs[name] = storable_text(value) if isinstance(value, str) else value


def _write_field(file: h5py.File, spec: Field, rows: list, codec: str) -> None:
    shape = (len(rows), *spec.shape)
    if spec.chunked:
        # A dataset of a fixed size must hold one chunk at least; an empty one is declared growable instead.
        grow = {} if rows else {"maxshape": (None, *spec.shape)}
        if codec == ZSTD:
            filters: dict[str, Any] = {"dcpl": _zstd_filters(spec)}
        else:
            filters = {"shuffle": spec.shuffle, "compression": "gzip", "compression_opts": DEFLATE_LEVEL}
        dataset = file.create_dataset(spec.path, shape, spec.dtype, chunks=(1, *spec.shape), **filters, **grow)
        for index, encoded in enumerate(rows):
            dataset.id.write_direct_chunk((index, *(0 for _ in spec.shape)), encoded)
    elif spec.dtype == "text":
        dataset = file.create_dataset(spec.path, shape, h5py.string_dtype("utf-8"))
        dataset[...] = np.array(rows, dtype=object)
    else:
        dataset = file.create_dataset(spec.path, data=np.array(rows, spec.dtype).reshape(shape))
    dataset.attrs["meaning"] = spec.meaning
    if spec.columns:
        dataset.attrs["columns"] = list(spec.columns)


def _zstd_filters(spec: Field) -> h5py.h5p.PropDCID:
    """Return an HDF5 property list with the filters of a dataset that is stored with zstd.

    Asked for by its number, HDF5 writes a filter with the name under which it is registered in this process, if it is:
    the bytes would depend on whether somebody imported hdf5plugin or set HDF5_PLUGIN_PATH. But it keeps a name that it
    has read. So this reads it from a tiny file in which deflate's entry was made zstd's.
    """
    with h5py.File(
        f"filters-in-memory-{next(_memory_file_number)}", "w", driver="core", backing_store=False, libver="earliest"
    ) as file:
        file.create_dataset("x", (1,), "u1", chunks=(1,), shuffle=spec.shuffle, compression="gzip", compression_opts=1)
        file.flush()
        image = file.id.get_file_image()
    # An entry of a filter pipeline message, version 1 (HDF5 File Format Specification, IV.A.2.l): number, length of the
    # name, flags (1: optional), number of values, name, values, padding.
    level = level_of(ZSTD, spec.planes)
    old = struct.pack("<4H8s2I", HDF5_FILTERS[DEFLATE], 8, 1, 1, b"deflate", 1, 0)
    new = struct.pack("<4H8s2I", HDF5_FILTERS[ZSTD], 8, 1, 1, b"zstd", level, 0)
    if image.count(old) != 1:
        raise DatasetError("this version of HDF5 writes filters in an unknown form: use --codec deflate")
    with h5py.File(io.BytesIO(image.replace(old, new)), "r") as file:
        return stored(file, "x").id.get_create_plist()
