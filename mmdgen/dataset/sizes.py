"""How much of a shard each of its HDF5 datasets takes."""

from __future__ import annotations

from pathlib import Path

import h5py

from mmdgen.errors import DatasetError


def stored_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Return (rows, stored bytes) of every HDF5 dataset of a shard by its path; texts without the heap they lie in.

    Raises `DatasetError` when the file is missing or cannot be read.
    """
    found: dict[str, tuple[int, int]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape[0] if item.shape else 1, item.id.get_storage_size())

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DatasetError(f"{path}: cannot be read as HDF5: {error}") from error
    return found
