"""What `mmdgen pose` is given: a picture file, values by name, a table of poses, a motion."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmdgen.errors import ConfigError
from mmdgen.formats.text import one_line
from mmdgen.formats.vmd import read_vmd
from mmdgen.model.textures import MAX_FILE_SIZE, decode_picture
from mmdgen.pose.from_motion import MotionPoses, poses_from_motion
from mmdgen.pose.keyframes import FRAMES_PER_SECOND, tracks_of
from mmdgen.pose.vocabulary import THA1

IGNORED_COLUMNS = ("frame",)  # tables of frames usually number them
MOST_POSES = 1_000_000


def read_picture(path: Path) -> np.ndarray:
    """Return the picture in a file, u8 [H, W, 4]: whatever mmdgen reads as a texture. Raises `MmdgenError`."""
    return decode_picture(_read(path, MAX_FILE_SIZE), str(path))


def merged(texts: Iterable[str]) -> str:
    """Return several --pose texts as one: `parse_pose` finds what is given twice."""
    return ",".join(texts)


def poses_of_csv(path: Path, first: int | None = None, last: int | None = None) -> np.ndarray:
    """Return the poses f32 [N, 6] of a table, rows `first` to `last` (from 0, both included).

    The first line names the columns; a parameter without a column, and an empty cell, is at rest. A column ``frame`` is
    allowed and not read. Raises `ConfigError` with the line for anything else.
    """
    text = _read(path, MAX_FILE_SIZE)
    try:
        lines = csv.reader(text.decode("utf-8-sig").splitlines(), strict=True)
        header = [name.strip() for name in next(lines, [])]
        columns = {place: THA1.index(name) for place, name in enumerate(header) if name not in IGNORED_COLUMNS}
        if not columns or len(set(header)) != len(header):
            raise ConfigError(f"the first line must name columns, each once: {', '.join(THA1.names)}")
        rows = [_row(columns, cells, lines.line_num, len(header)) for cells in lines if any(map(str.strip, cells))]
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except (csv.Error, ConfigError) as error:
        raise ConfigError(f"{path}: {one_line(str(error))}") from None
    chosen = rows[range_of(len(rows), first, last)]
    if not chosen:
        raise ConfigError(f"{path}: there is no pose in it" + (f" from row {first or 0} on" if rows else ""))
    return np.stack(chosen)


def _row(columns: dict[int, int], cells: list[str], line: int, width: int) -> np.ndarray:
    if len(cells) != width:
        raise ConfigError(f"line {line} has {len(cells)} cells, the first one {width}")
    values = {}
    for place, column in columns.items():
        name, cell = THA1.names[column], cells[place].strip()
        if not cell:
            continue
        try:
            values[name] = float(cell)
        except ValueError:
            raise ConfigError(f"line {line}: {name} is no number: {cell!r}") from None
    try:
        return THA1.pose(**values)
    except ConfigError as error:
        raise ConfigError(f"line {line}: {error}") from None


def poses_of_vmd(
    path: Path, fps: float, first: int | None = None, last: int | None = None, *, swap_winks: bool = False
) -> MotionPoses:
    """Return the poses of a motion between its frames `first` and `last` (MMD's, 30 a second), `fps` a second."""
    tracks = tracks_of(read_vmd(_read(path, MAX_FILE_SIZE), file=str(path)))
    start, end = first or 0, tracks.last_frame if last is None else last
    if end < start:
        raise ConfigError(f"{path}: the frames {start} to {end} hold no picture")
    step = FRAMES_PER_SECOND / fps
    count = int((end - start) / step + 1e-9) + 1
    if count > MOST_POSES:
        raise ConfigError(
            f"{path}: {count} frames, at most {MOST_POSES} are made at once: give --first and --last "
            f"(the last key is at frame {tracks.last_frame})"
        )
    try:
        return poses_from_motion(tracks, start + step * np.arange(count), swap_winks=swap_winks)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def told(found: MotionPoses) -> list[str]:
    """Return lines that say what was used of a motion, what was clipped and what was left out."""
    lines = []
    for track in found.used:
        factor = "" if track.factor == 1 else f" x {track.factor:g}"
        lines.append(f"used: {one_line(track.name.strip())}{factor} -> {', '.join(track.columns)}")
    for item in found.clipped:
        lines.append(f"clipped: {item.column} in {100 * item.share:.1f} % of the frames, up to {item.most:.2f}")
    if found.ignored:
        lines.append(f"not shown: {', '.join(one_line(name.strip()) for name in found.ignored)}")
    return lines


def range_of(count: int, first: int | None, last: int | None) -> slice:
    """Return the slice of `count` rows from `first` to `last`, both included."""
    return slice(first or 0, count if last is None else max(last + 1, 0))


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes, at most {limit} are read")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
