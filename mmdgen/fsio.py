"""Files that are either the old ones or the new ones, never half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mmdgen.errors import DatasetError

TEMPORARY_MARK = ".tmp-"

# What os.link raises where a file system has no hard links, or none between these two places.
NO_LINKS = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


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

    A reader sees the old file or the whole new one, also when several processes, on one machine or many, write the same
    file at once. Raises `DatasetError` (a full disk says so) and leaves no temporary file behind.
    """
    _place(path, content, lambda temporary: temporary.replace(path))


def create_once(path: Path, content: bytes) -> bool:
    """Write `content` to `path` unless there is a file: of several writers at once exactly one succeeds.

    Returns whether it was this one; a reader sees no file or a whole one. Raises `DatasetError`. It takes a hard link,
    which fails where the name exists. File systems without hard links (FAT, some that show an object store) look
    first and rename then; there two writers in the same millisecond may both be told that they succeeded, so read
    the file again.
    """
    created = True

    def settle(temporary: Path) -> None:
        nonlocal created
        try:
            os.link(temporary, path)
        except FileExistsError:
            # over a network a link may be made and the answer lost: then the file is ours after all
            created = os.path.samefile(temporary, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            created = not path.exists()
            if created:
                temporary.replace(path)
                return
        temporary.unlink(missing_ok=True)

    _place(path, content, settle)
    return created


def temporary_file(path: Path) -> tuple[Path, IO[bytes]]:
    """Make a new file beside `path` whose name says that it is temporary; return it open for writing.

    No other process has it, wherever it runs: the name holds machine and process, and the file must not exist.
    """
    number = 0
    while True:
        temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{process_name()}-{number}")
        try:
            return temporary, temporary.open("xb")
        except FileExistsError:  # left by a process that had this number, or another thread's
            number += 1


def process_name() -> str:
    """Return a name of this process for files: its machine and its number there."""
    machine = "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:40]
    return f"{machine}-{os.getpid()}"


def _place(path: Path, content: bytes, settle: Callable[[Path], object]) -> None:
    """Write a temporary file beside `path` and let `settle` bring it there."""
    temporary = None
    try:
        temporary, stream = temporary_file(path)
        with stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        settle(temporary)
        sync_directory(path.parent)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error, len(content)) from error
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def unwritable(path: Path, error: OSError, size: int) -> DatasetError:
    """Return the error for a file of `size` bytes that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DatasetError(
            f"{path}: the disk is full ({size / 1e6:.1f} MB were to be written). Nothing was damaged: "
            "free some space and run the same command again."
        )
    return DatasetError(f"{path}: cannot be written: {error.strerror or error}")


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
