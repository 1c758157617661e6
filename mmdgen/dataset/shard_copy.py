"""A shard without some of its models: chunks are copied as they are stored, and nothing is decoded.

The result is what the writer makes of the models that stay, byte for byte: a new file, so nothing of the others is left
in unused space.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmdgen.dataset.reader import DAMAGE, read_header, stored
from mmdgen.dataset.schema import Field, fields
from mmdgen.dataset.writer import shard_bytes
from mmdgen.errors import DatasetError


def shard_without(path: Path, removed: Collection[str]) -> bytes:
    """Return the bytes of the shard at `path` without the models (sha256) `removed`. Raises `DatasetError`."""
    try:
        with h5py.File(path, "r") as file:
            header = read_header(path, file)
            model = stored(file, "model")[:]
            keep = np.array([sha256 not in removed for sha256 in stored(file, "models/sha256").asstr()[:]], bool)
            if len(model) and not (model.min() >= 0 and model.max() < len(keep)):
                raise DatasetError(f"{path}: is damaged: a sample is of a model that is not there")
            kept = {"M": np.flatnonzero(keep), "N": np.flatnonzero(keep[model])}
            columns = {spec.path: _rows(file, spec, kept[spec.rows]) for spec in fields(header.config)}
        columns["model"] = (np.cumsum(keep) - 1)[columns["model"]].tolist()
    except DAMAGE as error:
        raise DatasetError(f"{path}: is damaged ({error})") from error
    return shard_bytes(header, columns)


def _rows(file: h5py.File, spec: Field, kept: np.ndarray) -> list[Any]:
    dataset = stored(file, spec.path)
    if spec.dtype == "text":
        texts = dataset.asstr()[:]
        return [texts[index] for index in kept]
    if not spec.chunked:
        return list(dataset[:][kept])
    rows: list[bytes] = []
    for index in kept:
        skipped, data = dataset.id.read_direct_chunk((int(index), *[0] * len(spec.shape)))
        if skipped:
            raise DatasetError(f"{file.filename}: {spec.path}[{index}] is stored without its codec")
        rows.append(data)
    return rows
