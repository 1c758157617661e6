"""Export as Parquet files whose picture columns are Hugging Face `Image` features.

    data/train-00000-of-00003.parquet

The schema says in its metadata ``huggingface`` which columns are pictures (struct {bytes, path}), so that
`datasets.load_dataset` decodes them without being told. A model's rest image stands in each of its rows, and once in a
row group's dictionary. Row groups are small, so neither writing nor shuffled reading takes much memory.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmdgen.dataset.export_rows import FileInfo, Job, JobResult, Row, atomic_stream
from mmdgen.dataset.schema import DatasetConfig

GROUP_PIXELS = 128 * 256 * 256  # of one column in a row group: 128 rows of the usual pictures, about 17 MB
MOST_ROWS = 1024
PICTURES = ("rest", "expression", "posed")
TEXTS = ("model", "name", "source", "terms", "split")


class ParquetExporter:
    """One job is one file."""

    sharded = True

    def __init__(self, config: DatasetConfig, statement: str) -> None:
        self._config, self._statement = config, statement
        self._rows = rows_in_group(config)

    def file_name(self, job: Job) -> str:
        return f"data/{job.split}-{job.number:05d}-of-{job.count:05d}.parquet"

    def write(self, job: Job, rows: Iterable[Row], out: Path) -> tuple[tuple[FileInfo, ...], int]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name, schema = self.file_name(job), self._schema()
        with atomic_stream(out / name) as stream:
            writer = pq.ParquetWriter(pa.PythonFile(stream, mode="w"), schema, **self._settings())
            try:
                for group in _groups(rows, self._rows):
                    writer.write_table(self._table(group, schema), row_group_size=self._rows)
            except BaseException:
                with contextlib.suppress(Exception):  # the file is thrown away; the first error is the one to tell
                    writer.close()
                raise
            writer.close()
            info = FileInfo(name, stream.size, stream.sha256, job.samples)
        return (info,), info.bytes

    def finish(self, jobs: list[Job], results: list[JobResult], out: Path) -> tuple[FileInfo, ...]:
        """Nothing belongs to all files together but the card."""
        return ()

    def _schema(self) -> Any:
        import pyarrow as pa

        image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
        pose = pa.list_(pa.float32(), len(self._config.vocabulary.parameters))
        columns = [
            pa.field("index", pa.int64()),
            *(pa.field(name, image) for name in PICTURES),
            pa.field("pose", pose),
            *(pa.field(name, pa.string()) for name in TEXTS),
            *(pa.field(name, pa.binary()) for name in self._arrays()),
        ]
        metadata = {
            "huggingface": json.dumps({"info": {"features": features(self._config)}}),
            "pose_names": json.dumps(self._config.vocabulary.names),
            "terms": self._statement,
        }
        return pa.schema(columns, metadata)

    def _arrays(self) -> tuple[str, ...]:
        return ("flow", "visibility") if self._config.flow else ()

    def _settings(self) -> dict[str, Any]:
        pictures = {f"{name}.bytes": "none" for name in PICTURES}  # PNG is compressed already
        others = ["index", "pose.list.element", *TEXTS, *(f"{name}.path" for name in PICTURES), *self._arrays()]
        return {
            "compression": {**pictures, **dict.fromkeys(others, "zstd")},
            "use_dictionary": ["rest.bytes", *TEXTS],
            "dictionary_pagesize_limit": 256 << 20,  # all rest images of a row group
            "write_statistics": ["index", "model", "name", "source", "split"],
            "store_schema": True,
        }

    def _table(self, group: list[Row], schema: Any) -> Any:
        import pyarrow as pa

        columns: dict[str, list[Any]] = {
            "index": [row.index for row in group],
            "rest": [{"bytes": row.rest, "path": f"{row.model.sha256[:16]}-rest.png"} for row in group],
            "expression": [{"bytes": row.expression, "path": f"{row.key}-expression.png"} for row in group],
            "posed": [{"bytes": row.posed, "path": f"{row.key}-posed.png"} for row in group],
            "pose": [row.pose for row in group],
            "model": [row.model.sha256 for row in group],
            "name": [row.model.name for row in group],
            "source": [row.model.source for row in group],
            "terms": [row.model.terms for row in group],
            "split": [row.split for row in group],
            "flow": [row.flow for row in group],
            "visibility": [row.visibility for row in group],
        }
        return pa.Table.from_pydict({name: columns[name] for name in schema.names}, schema)


def rows_in_group(config: DatasetConfig) -> int:
    """Return how many samples a row group has."""
    return max(8, min(MOST_ROWS, GROUP_PIXELS // config.image_size**2))


def features(config: DatasetConfig) -> dict[str, Any]:
    """Return the columns as `datasets.Features` describes them in JSON.

    ``Sequence`` is the older name of ``List``: every version of the package knows it.
    """
    pose = {"feature": _value("float32"), "length": len(config.vocabulary.parameters), "_type": "Sequence"}
    return {
        "index": _value("int64"),
        **{name: {"_type": "Image"} for name in PICTURES},
        "pose": pose,
        **{name: _value("string") for name in TEXTS},
        **({"flow": _value("binary"), "visibility": _value("binary")} if config.flow else {}),
    }


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


def _groups(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
