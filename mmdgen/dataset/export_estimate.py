"""About how large an export will be, from a few samples that are read and encoded as the export would.

The size of the dataset tells little: a compact one with flow grows sixfold as tar files.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdgen.dataset.export_parquet import rows_in_group
from mmdgen.dataset.export_rows import Job, Row, Watch, rows_of
from mmdgen.dataset.manifest import Manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import RemotePath

LOOKED_AT = 8  # samples of all splits together
_BLOCK = 512  # of a tar archive: each member has a head of one, and fills its last one
_TEXTS = 1024  # bytes of a sample's texts, roughly
_REST = "rest.png"


def estimated_bytes(
    dataset: Path | RemotePath, manifest: Manifest, format: str, samples: Mapping[str, int], files: int
) -> int:
    """Return about how many bytes the first `samples` of each split take in a format, in so many `files`.

    Raises `DatasetError` for samples that cannot be read.
    """
    total, size = sum(samples.values()), 0.0
    for split, count in samples.items():
        opened = Dataset(dataset, split, manifest=manifest)
        looks = max(1, round(LOOKED_AT * count / total))
        rows = [_row(opened, split, (2 * look + 1) * count // (2 * looks)) for look in range(looks)]
        mean = {kind: _mean(format, kind, rows) for kind in rows[0].pictures()}
        rests = float(count)
        if format != "webdataset":  # there, every sample has its own
            rests = _models(manifest, split, count)
        if format == "parquet":  # once more wherever a file or a row group begins
            rests = min(count, rests + files * count / total + count / rows_in_group(manifest.config))
        size += count * (sum(mean.values()) - mean[_REST] + _TEXTS) + rests * mean[_REST]
    return round(size)


def _row(dataset: Dataset, split: str, index: int) -> Row:
    (row,) = rows_of(dataset, Job(split, 0, 1, index, index + 1), Watch())
    return row


def _mean(format: str, kind: str, rows: Sequence[Row]) -> float:
    return sum(_stored(format, kind, row.pictures()[kind]) for row in rows) / len(rows)


def _stored(format: str, kind: str, content: bytes) -> int:
    if format == "webdataset":
        return _BLOCK + -(-len(content) // _BLOCK) * _BLOCK
    if format == "parquet" and kind.endswith(".npy"):
        return len(zlib.compress(content, 1))  # about what its zstd makes of them
    return len(content)


def _models(manifest: Manifest, split: str, count: int) -> int:
    """Return how many models the first `count` samples of a split are of; shards have them one after the other."""
    found: set[str] = set()
    for shard in manifest.shards[split]:
        for sha256, samples in shard.model_samples.items():
            if count <= 0:
                return len(found)
            if samples:
                found.add(sha256)
            count -= samples
    return len(found)
