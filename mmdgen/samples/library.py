"""Folders of generated characters on disk: whole ones only, made once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import TEMPORARY_MARK, json_bytes, sync_directory
from mmdgen.samples.character import Character, build_character

# Characters change when the code that builds them does: a folder of another generation is built again.
GENERATION = 1
TRUTH_FILE = "truth.json"
_ABANDONED_S = 3600.0


def folder_name(seed: int) -> str:
    """Return the name of a character's folder: its seed in five digits."""
    return f"{seed:05d}"


def existing_model(folder: Path, seed: int) -> Path | None:
    """Return the path of a complete character's PMX file, or None where it is missing, incomplete or of old code."""
    place = folder / folder_name(seed)
    try:
        truth = json.loads((place / TRUTH_FILE).read_bytes())
        files = truth["files"]
        if truth["generation"] != GENERATION or truth["seed"] != seed:
            return None
        complete = all((place / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return place / f"{truth['name']}.pmx" if complete else None


def write_character(folder: Path, character: Character) -> Path:
    """Write one character to ``folder/<seed>/`` in one step and return its PMX file.

    The files are written to a folder beside it, which is then renamed: there is never half a character. Raises
    `DatasetError` where that fails.
    """
    place = folder / folder_name(character.truth.seed)
    temporary = folder / f"{place.name}{TEMPORARY_MARK}{os.getpid()}"
    truth = {
        **character.truth.to_json(),
        "generation": GENERATION,
        "files": {name: len(content) for name, content in character.files.items()},
    }
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        for name, content in {**character.files, TRUTH_FILE: json_bytes(truth)}.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if existing_model(folder, character.truth.seed) is None:
            shutil.rmtree(place, ignore_errors=True)  # incomplete, or of old code
            try:
                temporary.rename(place)
            except OSError:
                # another process was quicker: it writes the same bytes, so either is right
                if existing_model(folder, character.truth.seed) is None:
                    raise
    except OSError as error:
        raise DatasetError(f"{place}: the character cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place / f"{character.name}.pmx"


def _sweep(folder: Path) -> None:
    """Delete what killed processes left behind: unfinished folders that nobody has touched for an hour."""
    for place in folder.glob(f"[0-9]*{TEMPORARY_MARK}*"):
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(place, ignore_errors=True)


def write_characters(
    folder: Path, count: int, first_seed: int = 0, on_done: Callable[[Path], None] | None = None
) -> list[Path]:
    """Write the characters `first_seed` ... `first_seed + count - 1` below `folder`; return their PMX files in order.

    Those that are there and complete are kept. `on_done` is called with each path as it is ready. Raises `ConfigError`
    for a negative count or seed, `DatasetError` where the folder cannot be written.
    """
    if count < 0 or first_seed < 0:
        raise ConfigError(f"count and first seed must not be negative, found {count} and {first_seed}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: the folder cannot be made: {error.strerror or error}") from error
    _sweep(folder)
    result = []
    for seed in range(first_seed, first_seed + count):
        path = existing_model(folder, seed)
        if path is None:
            path = write_character(folder, build_character(seed))
        result.append(path)
        if on_done is not None:
            on_done(path)
    if count:
        sync_directory(folder)
    return result
