"""The compressed images of one HDF5 file, byte for byte as they lie in it.

HDF5 is asked once where the chunks are; after that the file is read like any other, at those places. So an image costs
one system call, threads do not wait for HDF5's lock, and a file can be closed and opened again for next to nothing.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from mmdgen.dataset.remote import SMALL_FILE, RemotePath
from mmdgen.errors import DatasetError


class Chunks(ABC):
    """Reads the chunks of some datasets of a file, each of which holds one row. For use by several threads.

    The file is open at first, and after `hold`. `release` closes it; `read` then opens it for one chunk. With
    `keeps_file` the HDF5 file must stay open, and `release` does nothing: it closes with its last user.
    """

    keeps_file = False

    @abstractmethod
    def read(self, name: str, index: int) -> bytes:
        """Return the compressed bytes of row `index` of dataset `name`.

        Raises `DatasetError` when there is no such row or no such chunk, or the file is not the one it was.
        """

    def hold(self) -> None:  # noqa: B027  nothing, where nothing stays open
        """Keep the file open. Raises `DatasetError` as `read` does."""

    def release(self) -> None:  # noqa: B027
        """Let the file be closed."""


def open_chunks(path: Path | RemotePath, file: h5py.File, names: Sequence[str]) -> Chunks:
    """Return the chunks of the datasets `names` of `file`, which was opened from `path`.

    Raises KeyError, TypeError or OSError for a damaged file.
    """
    if isinstance(path, RemotePath) and file.id.get_filesize() > SMALL_FILE:
        return RemoteChunks(path, file, names)
    # Other drivers map addresses in ways of their own, and a user block shifts them.
    if isinstance(path, Path) and hasattr(os, "pread") and file.driver == "sec2" and file.userblock_size == 0:
        return FileChunks(path, file, names)
    return HdfChunks(file, names)


class _PlacedChunks(Chunks):
    """Chunks by their places in the file, whatever the file is."""

    def __init__(self, file: h5py.File, names: Sequence[str]) -> None:
        self._places = {name: _places(stored(file, name)) for name in names}

    def read(self, name: str, index: int) -> bytes:
        offsets, sizes = self._places[name]
        if not 0 <= index < len(sizes):
            raise DatasetError(f"there is no row {index} among {len(sizes)}")
        size = int(sizes[index])
        if size < 0:
            raise DatasetError("it is missing, or stored without its codec")
        data = self._range(int(offsets[index]), size)
        if len(data) != size:
            raise DatasetError(f"the file ends after {len(data)} of its {size} bytes")
        return data

    @abstractmethod
    def _range(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the file from `offset` on. Raises `DatasetError`."""


class FileChunks(_PlacedChunks):
    """Chunks of a file of this machine."""

    def __init__(self, path: Path, file: h5py.File, names: Sequence[str]) -> None:
        super().__init__(file, names)
        self._path = path
        self._handle: _Handle | None = _Handle(path)
        if not os.path.sameopenfile(self._handle.number, file.id.get_vfd_handle()):
            raise OSError("the file was exchanged while it was opened")
        self._stamp = self._handle.stamp()

    def _range(self, offset: int, size: int) -> bytes:
        handle = self._handle or self._opened()  # which another thread may release meanwhile
        return os.pread(handle.number, size, offset)

    def hold(self) -> None:
        if self._handle is None:
            self._handle = self._opened()

    def release(self) -> None:
        self._handle = None

    def _opened(self) -> _Handle:
        try:
            handle = _Handle(self._path)
        except OSError as error:
            raise DatasetError(f"the file cannot be opened: {error.strerror or error}") from error
        if handle.stamp() != self._stamp:
            raise DatasetError("the file was changed while it was in use")
        return handle


class RemoteChunks(_PlacedChunks):
    """Chunks of a file in an object store: each is one request. Nothing stays open."""

    def __init__(self, path: RemotePath, file: h5py.File, names: Sequence[str]) -> None:
        super().__init__(file, names)
        self._path = path

    def _range(self, offset: int, size: int) -> bytes:
        try:
            return self._path.read_range(offset, size)
        except OSError as error:
            raise DatasetError(f"the file cannot be opened: {error}") from error


class HdfChunks(Chunks):
    """Chunks by way of HDF5, for files that are no ordinary ones."""

    keeps_file = True

    def __init__(self, file: h5py.File, names: Sequence[str]) -> None:
        self._datasets = {name: stored(file, name) for name in names}

    def read(self, name: str, index: int) -> bytes:
        dataset = self._datasets[name]
        if not 0 <= index < len(dataset):
            raise DatasetError(f"there is no row {index} among {len(dataset)}")
        try:
            skipped, data = dataset.id.read_direct_chunk((index, *(0 for _ in dataset.shape[1:])))
        except (OSError, RuntimeError, ValueError) as error:
            raise DatasetError(str(error)) from error
        if skipped:
            raise DatasetError("it is stored without its codec")
        return data


class _Handle:
    """An open file, closed with its last user."""

    __slots__ = ("number",)

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def stamp(self) -> tuple[int, ...]:
        """What says that a file is the same, unchanged one."""
        status = os.fstat(self.number)
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def stored(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the HDF5 dataset `name`. Raises KeyError when there is none, TypeError when the name is a group's."""
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        raise TypeError(f"{name} is a group, not a dataset")
    return item


def _places(dataset: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return where the chunks of a dataset begin, i64 [N], and their sizes, i64 [N]: -1 where one cannot be used.

    That is one that was never written, or not with all filters. Raises TypeError for a dataset without such chunks.
    """
    if dataset.chunks != (1, *dataset.shape[1:]):
        raise TypeError(f"{dataset.name} is not stored as one chunk a row")
    offsets, sizes = np.zeros(len(dataset), np.int64), np.full(len(dataset), -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.filter_mask == 0 and chunk.byte_offset is not None:
            row = chunk.chunk_offset[0]
            offsets[row], sizes[row] = chunk.byte_offset, chunk.size

    dataset.id.chunk_iter(note)
    return offsets, sizes
