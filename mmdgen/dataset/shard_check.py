"""The check of one shard against the schema and the manifest: bytes, structure, tables, every image."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from mmdgen.dataset.codec import find_fault, find_flow_fault, flow_in_pixels, plain_pixels
from mmdgen.dataset.codec_streams import decompress
from mmdgen.dataset.manifest import Manifest
from mmdgen.dataset.reader import DAMAGE, Shard, read_header, stored
from mmdgen.dataset.remote import RemotePath, file_sha256, opened
from mmdgen.dataset.schema import HDF5_FILTERS, PLAN_FILE, SHUFFLE_FILTER, ZSTD, Field, ShardInfo, fields, pose_limits
from mmdgen.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which file (below the dataset's folder), what, expected and found as texts."""

    file: str
    what: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        comparison = f": expected {self.expected}, found {self.found}" if self.expected else ""
        return f"{self.file}: {self.what}{comparison}"


@dataclass(slots=True)
class ShardCheck:
    """The check of one shard; `run` fills `problems`, `images` (decoded) and `models` (those found in the shard)."""

    out: Path | RemotePath
    split: str
    info: ShardInfo
    manifest: Manifest
    quick: bool
    stop: threading.Event
    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    models: tuple[tuple[str, str, str], ...] = ()

    def run(self) -> ShardCheck:
        path = self.out / self.info.file
        if not self._check_bytes(path):
            return self  # reading a file that is known to be damaged would only repeat that
        try:
            with h5py.File(opened(path), "r") as file:
                if not self._check_structure(path, file):
                    return self
                with Shard(path) as shard:
                    self._check_tables(shard)
                    self._check_images(shard, file)
                    if shard.header.config.flow:
                        self._check_flows(shard, file)
        except DatasetError as error:
            self._report(f"cannot be read: {str(error).removeprefix(f'{path}: ')}")
        except DAMAGE as error:
            self._report(f"cannot be read as HDF5: {error}")
        return self

    def _report(self, what: str, expected: object = "", found: object = "") -> None:
        self.problems.append(Problem(self.info.file, what, str(expected), str(found)))

    def _check_bytes(self, path: Path | RemotePath) -> bool:
        try:
            size = path.stat().st_size
            if size != self.info.bytes:
                self._report("the shard's size differs from the manifest's", f"{self.info.bytes} bytes", f"{size}")
                return False
            digest = self.info.sha256 if self.quick else file_sha256(path)
        except FileNotFoundError:
            self._report(f"the shard is missing ({self.info.samples} samples)")
            return False
        except OSError as error:
            self._report(f"cannot be read: {error.strerror or error}")
            return False
        if digest != self.info.sha256:
            self._report("the shard's SHA-256 differs from the manifest's", self.info.sha256, digest)
            return False
        return True

    def _check_structure(self, path: Path | RemotePath, file: h5py.File) -> bool:
        """Check attributes and datasets against the schema; False when the content cannot be relied on."""
        header = read_header(path, file)
        if header.file != self.info.file:
            self._report("the shard says that it is another one", self.info.file, header.file)
        plan = self.manifest.shards_plan
        if header.plan and plan and header.plan != plan:
            self._report(f"was made from another {PLAN_FILE}", plan, header.plan)
        if header.config != self.manifest.config:
            self._report("the shard's config differs from the manifest's")
            return False
        known = {spec.path for spec in fields(header.config)}
        unknown = sorted(name for name in _dataset_names(file) if name not in known)
        if unknown:
            self._report("has datasets that the schema does not know", "none", ", ".join(unknown))
        rows = {"N": self.info.samples, "M": self.info.models}
        faults = [
            fault
            for spec in fields(header.config)
            for fault in _field_faults(file, spec, rows[spec.rows], header.config.codec)
        ]
        for what, expected, found in faults:
            self._report(what, expected, found)
        return not faults

    def _check_tables(self, shard: Shard) -> None:
        vocabulary = shard.header.config.vocabulary
        low, high = pose_limits(vocabulary)
        for column, name in enumerate(vocabulary.names):
            values = shard.pose[:, column]
            outside = ~((values >= low[column]) & (values <= high[column]))  # NaN is outside
            if outside.any():
                first = int(np.argmax(outside))
                self._report(
                    f"pose: {name} is out of range or not finite in {np.count_nonzero(outside)} samples, "
                    f"first in sample {first}",
                    f"{low[column]:g}..{high[column]:g}",
                    values[first],
                )
        outside = (shard.model < 0) | (shard.model >= len(shard.models))
        if outside.any():
            first = int(np.argmax(outside))
            self._report(
                f"model: {np.count_nonzero(outside)} samples name no row of models/, first sample {first}",
                f"0..{len(shard.models) - 1}",
                shard.model[first],
            )
            return
        repeated = [sha256 for sha256, n in Counter(entry.sha256 for entry in shard.models).items() if n > 1]
        if repeated:
            self._report(f"models/sha256: {len(repeated)} models are there twice, first {repeated[0][:16]}")
        elif list(shard.model_samples().items()) != list(self.info.model_samples.items()):
            self._report(
                "the models' sample counts differ from the manifest's",
                _counts(self.info.model_samples),
                _counts(shard.model_samples()),
            )
        used = set(np.unique(shard.model).tolist())
        self.models = tuple((m.sha256, m.name, m.source) for row, m in enumerate(shard.models) if row in used)

    def _check_images(self, shard: Shard, file: h5py.File) -> None:
        count, config = len(shard), shard.header.config
        readers: list[tuple[str, Callable[[int], np.ndarray], int]] = [
            ("models/rest", shard.rest, len(shard.models)),
            ("expression", shard.expression, count),
            ("posed", shard.posed, count),
        ]
        usable = (shard.model >= 0) & (shard.model < len(shard.models))  # the rest was reported with the tables
        for name, read, length in readers:
            ends = {0, length - 1} if length else set()
            faults: Counter[str] = Counter()
            first: dict[str, str] = {}
            for index in sorted(ends) if self.quick else range(length):
                if self.stop.is_set():
                    return
                if name == "expression" and config.residual and not usable[index]:
                    continue
                try:
                    image = read(index)
                    self.images += 1
                    fault = find_fault(image)
                    if index in ends and not fault and not self._same_for_hdf5(name, shard, file, index, image):
                        fault = "is another image when HDF5 itself decodes it"
                except DatasetError as error:
                    fault = f"cannot be decoded: {error.__cause__ or error}"
                if fault:
                    kind = fault.partition(" in ")[0].partition(":")[0]  # so that a thousand make one line
                    faults[kind] += 1
                    first.setdefault(kind, f"{name}[{index}] {fault}")
            self._report_all(faults, first)

    def _check_flows(self, shard: Shard, file: h5py.File) -> None:
        """Check every flow with its visibility and posed image; the two count as one image."""
        ends = {0, len(shard) - 1} if len(shard) else set()
        faults: Counter[str] = Counter()
        first: dict[str, str] = {}
        for index in sorted(ends) if self.quick else range(len(shard)):
            if self.stop.is_set():
                return
            try:
                flow, visibility = shard.flow(index), shard.visibility(index)
                self.images += 1
                fault = find_flow_fault(flow, visibility, shard.posed(index))
                if index in ends and not fault:
                    codec = shard.header.config.codec
                    same = np.array_equal(flow_in_pixels(_by_hdf5(file, "flow", index, codec)), flow)
                    if not (same and np.array_equal(_by_hdf5(file, "visibility", index, codec), visibility)):
                        fault = "is another flow when HDF5 itself decodes it"
            except DatasetError as error:
                fault = f"cannot be decoded: {error.__cause__ or error}"
            if fault:
                kind = fault.partition(" in ")[0].partition(":")[0]
                faults[kind] += 1
                first.setdefault(kind, f"flow[{index}] {fault}")
        self._report_all(faults, first)

    def _report_all(self, faults: Counter[str], first: dict[str, str]) -> None:
        for kind, number in faults.items():
            more = f" (and {number - 1} more like it)" if number > 1 else ""
            self._report(first[kind] + more)

    def _same_for_hdf5(self, name: str, shard: Shard, file: h5py.File, index: int, image: np.ndarray) -> bool:
        """Compare an image with what any HDF5 reader gets, by way of HDF5's filters and the documented numpy lines."""
        config = shard.header.config
        plain = _by_hdf5(file, name, index, config.codec)
        if name == "expression" and config.residual:
            plain = plain + shard.rest(int(shard.model[index]))
        elif name != "expression" and config.planes:
            plain = plain_pixels(plain)
        return np.array_equal(plain, image)


def _field_faults(file: h5py.File, spec: Field, rows: int, codec: str) -> Iterator[tuple[str, object, object]]:
    """Yield (what, expected, found) for everything in which a dataset of a shard differs from the schema."""
    try:
        dataset = stored(file, spec.path)
    except (KeyError, TypeError):
        yield f"{spec.path} is missing", "a dataset", "none"
        return
    if spec.dtype == "text":
        info = h5py.check_string_dtype(dataset.dtype)
        if info is None or info.encoding != "utf-8":
            yield f"{spec.path} has another type", "UTF-8 text", dataset.dtype
    elif dataset.dtype != np.dtype(spec.dtype).newbyteorder("<"):
        yield f"{spec.path} has another type", np.dtype(spec.dtype), dataset.dtype
    shape = (rows, *spec.shape)
    if dataset.shape != shape:
        yield f"{spec.path} has another shape", shape, dataset.shape
    chunks = (1, *spec.shape) if spec.chunked else None
    if dataset.chunks != chunks:
        yield f"{spec.path} has other chunks", chunks or "none", dataset.chunks or "none"
    expected, found = spec.filters(codec), _filters(dataset)
    if found != expected:
        yield f"{spec.path} has other filters", _named(expected), _named(found)


def _filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return the numbers of the HDF5 filters of a dataset, in the order in which its chunks went through them."""
    plist = dataset.id.get_create_plist()
    return tuple(plist.get_filter(number)[0] for number in range(plist.get_nfilters()))


def _named(filters: tuple[int, ...]) -> str:
    names = {SHUFFLE_FILTER: "shuffle"} | {number: name for name, number in HDF5_FILTERS.items()}
    return ", ".join(names.get(number, f"filter {number}") for number in filters) or "none"


def _by_hdf5(file: h5py.File, name: str, index: int, codec: str) -> np.ndarray:
    """Return a row as HDF5 itself decodes it; without hdf5plugin in this process, which few have, its zstd by hand."""
    dataset = stored(file, name)
    if codec != ZSTD or h5py.h5z.filter_avail(HDF5_FILTERS[ZSTD]):
        return dataset[index]
    _, data = dataset.id.read_direct_chunk((index, *(0 for _ in dataset.shape[1:])))
    width, shape = dataset.dtype.itemsize, dataset.shape[1:]
    raw = np.frombuffer(decompress(data, codec, math.prod(shape) * width), np.uint8)
    if dataset.shuffle:
        raw = np.ascontiguousarray(raw.reshape(width, -1).T)
    return raw.view(dataset.dtype).reshape(shape)


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _counts(model_samples: Mapping[str, int]) -> str:
    parts = [f"{sha256[:8]}: {samples}" for sha256, samples in list(model_samples.items())[:4]]
    return f"{len(model_samples)} models ({', '.join(parts)}{', ...' if len(model_samples) > 4 else ''})"
