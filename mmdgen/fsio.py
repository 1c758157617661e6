"""Files that are either the old ones or the new ones, never half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mmdgen.errors import DatasetError

TEMPORARY_MARK = ".tmp-"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable, where the system has directories that can be synced."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`: temporary file beside it, synced, renamed, folder synced.

    A reader sees the old file or the whole new one. Raises `DatasetError` (a full disk says so) and leaves no
    temporary file behind.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DatasetError(
                f"{path}: the disk is full ({len(content) / 1e6:.1f} MB were to be written). Nothing was damaged: "
                "free some space and run the same command again."
            ) from error
        raise DatasetError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted, indented UTF-8 JSON, atomically. Raises `DatasetError`."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, indent 2, UTF-8, one newline at the end."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def remove_temporaries(folder: Path) -> int:
    """Delete what interrupted writes left in `folder`; return how many files that were."""
    count = 0
    for path in folder.glob(f"*{TEMPORARY_MARK}*"):
        path.unlink(missing_ok=True)
        count += 1
    return count
