"""Export as tar files that the `webdataset` package streams: all files of a sample have its number as their key.

    train-000000.tar    00000000.rest.png  00000000.expression.png  00000000.posed.png  00000000.json  ...
    sizes.json          samples by tar file

The tar files are plain ustar archives without times or owners, so equal samples give equal bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdgen.dataset.export_rows import FileInfo, Job, JobResult, Row, atomic_stream
from mmdgen.dataset.schema import FLOW_STEP
from mmdgen.fsio import json_bytes, write_json

SIZES_FILE = "sizes.json"


class WebDatasetExporter:
    """One job is one tar file."""

    sharded = True

    def __init__(self, pose_names: tuple[str, ...]) -> None:
        self._names = pose_names

    def file_name(self, job: Job) -> str:
        return f"{job.split}-{job.number:06d}.tar"

    def write(self, job: Job, rows: Iterable[Row], out: Path) -> tuple[tuple[FileInfo, ...], int]:
        name = self.file_name(job)
        with atomic_stream(out / name) as stream:
            with tarfile.open(mode="w", fileobj=stream, format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[arg-type]
                for row in rows:
                    for kind, content in row.pictures().items():
                        _add(tar, f"{row.key}.{kind}", content)
                    _add(tar, f"{row.key}.json", json_bytes(self._description(row)))
            info = FileInfo(name, stream.size, stream.sha256, job.samples)
        return (info,), info.bytes

    def finish(self, jobs: list[Job], results: list[JobResult], out: Path) -> tuple[FileInfo, ...]:
        write_json(out / SIZES_FILE, {file.file: file.samples for result in results for file in result.files})
        return ()

    def _description(self, row: Row) -> dict[str, Any]:
        pose = [float(value) for value in row.pose]
        return {
            "index": row.index,
            "split": row.split,
            "pose": pose,
            "named_pose": dict(zip(self._names, pose, strict=True)),
            "model": row.model.sha256,
            "name": row.model.name,
            "source": row.model.source,
            "terms": row.model.terms,
            **({"flow_step": FLOW_STEP} if row.flow is not None else {}),
        }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, the owners' names empty
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))
