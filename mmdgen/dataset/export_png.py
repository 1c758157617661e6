"""Export as plain pictures: a folder a model, and a table a split.

    train/<16 digits>/rest.png  00000042-expression.png  00000042-posed.png
    train/metadata.jsonl  poses.csv

`metadata.jsonl` is what Hugging Face's image folders use: columns that end in ``_file_name`` become pictures.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmdgen.dataset.export_rows import FileInfo, Job, JobResult, Row, atomic_stream, sync_everything
from mmdgen.dataset.schema import SPLITS
from mmdgen.fsio import unwritable

PARTS_FOLDER = ".work"
FOLDER_DIGITS = 16


class PngExporter:
    """Pictures of one shard of the dataset are one job; its rows of the tables wait in the work folder."""

    sharded = False

    def __init__(self, pose_names: tuple[str, ...]) -> None:
        self._names = pose_names

    def file_name(self, job: Job) -> str:
        return f"{PARTS_FOLDER}/{job.split}-{job.number:05d}.rows"

    def write(self, job: Job, rows: Iterable[Row], out: Path) -> tuple[tuple[FileInfo, ...], int]:
        size = 0
        rest_written: set[str] = set()
        with atomic_stream(out / self.file_name(job)) as table:
            for row in rows:
                folder = row.model.sha256[:FOLDER_DIGITS]
                names = {"rest.png": f"{folder}/rest.png"}
                names |= {kind: f"{folder}/{row.key}-{kind}" for kind in row.pictures() if kind != "rest.png"}
                for kind, content in row.pictures().items():
                    if kind == "rest.png":
                        if row.model.sha256 not in job.first_models or row.model.sha256 in rest_written:
                            continue
                        rest_written.add(row.model.sha256)
                    size += _write(out / row.split / names[kind], content)
                table.write((json.dumps(self._row(row, names), ensure_ascii=False) + "\n").encode("utf-8"))
            sync_everything()  # the table's part says that its pictures are there
        return (), size

    def finish(self, jobs: list[Job], results: list[JobResult], out: Path) -> tuple[FileInfo, ...]:
        listed: list[FileInfo] = []
        for split in SPLITS:
            own = [job for job in jobs if job.split == split]
            parts, samples = [out / self.file_name(job) for job in own], sum(job.samples for job in own)
            for name, write in (("metadata.jsonl", _write_lines), ("poses.csv", self._write_csv)) if parts else ():
                with atomic_stream(out / split / name) as stream:
                    write(parts, stream)
                    listed.append(FileInfo(f"{split}/{name}", stream.size, stream.sha256, samples))
        return tuple(listed)

    def _row(self, row: Row, names: dict[str, str]) -> dict[str, Any]:
        files = {kind.replace(".png", "_file_name"): name for kind, name in names.items() if kind.endswith(".png")}
        # image folders would take another name that ends in _file_name for a picture
        files |= {kind.removesuffix(".npy") + "_array": name for kind, name in names.items() if kind.endswith(".npy")}
        return {
            **files,
            "index": row.index,
            "pose": [float(value) for value in row.pose],
            "model": row.model.sha256,
            "name": row.model.name,
            "source": row.model.source,
            "terms": row.model.terms,
        }

    def _write_csv(self, parts: list[Path], stream: Any) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["index", "model", "name", *self._names, "rest", "expression", "posed"])
        for line in _lines(parts):
            row = json.loads(line)
            files = (row[f"{kind}_file_name"] for kind in ("rest", "expression", "posed"))
            table.writerow([row["index"], row["model"], row["name"], *row["pose"], *files])
            if text.tell() > 1 << 20:
                _empty(text, stream)
        _empty(text, stream)


def _lines(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as lines:
            yield from lines


def _write_lines(parts: list[Path], stream: Any) -> None:
    for line in _lines(parts):
        stream.write(line)


def _empty(text: io.StringIO, stream: Any) -> None:
    stream.write(text.getvalue().encode("utf-8"))
    text.seek(0)
    text.truncate()


def _write(path: Path, content: bytes) -> int:
    """Write one picture, not synced by itself; a half-written one is written again by the job that goes on."""
    try:
        try:
            path.write_bytes(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error, len(content)) from error
    return len(content)
