"""Folders and files of object stores (s3://, gs://, anything fsspec knows), used like `pathlib.Path`.

Every operation is tried again for a while when the network or the store fails, and ends in one `DatasetError` that says
what happened. What is uploaded is read back and compared by SHA-256: an object appears as a whole or not at all, so
a half of one is never seen, and what arrived is what was sent, in however many pieces it was sent.

fsspec is the only library used here (s3fs, gcsfs and others are its plug-ins), and is imported when it is needed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from mmdgen import rng
from mmdgen.errors import ConfigError, DatasetError, one_line
from mmdgen.fsio import process_name, sha256_file, temporary_file, unwritable

# Environment variable: for how many seconds an operation is tried again.
PATIENCE = "MMDGEN_REMOTE_PATIENCE"
DEFAULT_PATIENCE = 180.0
LONGEST_PAUSE = 30.0
SMALL_FILE = 1 << 20  # bytes, up to which a shard is read at once rather than here and there
PIECE = 16 << 20  # bytes read at once
TOGETHER = 200  # objects read side by side

# Stores without folders: what is asked to "make" one there may make a bucket.
_WITHOUT_FOLDERS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2", "memory")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
# Errors that another try cannot mend. Those of the plug-ins are known by name, so that none needs to be imported.
_LASTING = (PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError, TypeError)
_LASTING_NAMES = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshError",
    "UnknownServiceError",
)

# How stores say that not the file is missing, but the bucket.
_NO_BUCKET = re.compile("bucket does not exist|NoSuchBucket|container does not exist", re.IGNORECASE)

T = TypeVar("T")


def is_url(place: object) -> bool:
    """Return whether `place` (a text or a path) names an object store rather than a local folder."""
    if isinstance(place, RemotePath):
        return True
    found = _URL.match(str(place)) if isinstance(place, str) else None
    return bool(found) and found[1].lower() not in ("file", "local")  # type: ignore[index]


def opened(path: Path | RemotePath) -> Any:
    """Return what `h5py.File` opens: the path of a local file, a remote one opened, or read if it is small.

    Raises FileNotFoundError.
    """
    if not isinstance(path, RemotePath):
        return path
    return io.BytesIO(path.read_bytes()) if path.stat().st_size <= SMALL_FILE else path.open()


def file_sha256(path: Path | RemotePath) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. Raises OSError, `DatasetError`."""
    return path.sha256() if isinstance(path, RemotePath) else sha256_file(path)


def location(place: str | Path | RemotePath) -> Path | RemotePath:
    """Return the path that a text names: `RemotePath` for an URL, `Path` for anything else and for file://.

    Raises `ConfigError` for an URL that names no folder; `RemotePath.check` sees whether something here can open it.
    """
    if not isinstance(place, str):
        return place
    if is_url(place):
        return RemotePath(place)
    return Path(re.sub(r"\A(file|local)://", "", place, flags=re.IGNORECASE))


def _patience() -> float:
    text = os.environ.get(PATIENCE) or str(DEFAULT_PATIENCE)
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{PATIENCE} is {text!r}, and should be a number of seconds") from error


class RemotePath:
    """A file or folder of an object store. Raises `ConfigError` for an URL that nothing here can open."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        found = _URL.match(url)
        if not found or not self.url[found.end() :]:
            raise ConfigError(f"{url!r} is not the URL of a folder: such as s3://bucket/folder")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0].lower()

    def check(self) -> None:
        """Raise `ConfigError` for an URL that fsspec does not know, or whose plug-in is missing. Nothing is asked."""
        self._known(lambda fsspec: fsspec.get_filesystem_class(self.protocol))

    def _filesystem(self) -> tuple[Any, str]:
        """Return fsspec's file system and its path. It keeps them, a process each, so a fork does no harm."""
        return self._known(lambda fsspec: fsspec.core.url_to_fs(self.url))

    def _known(self, find: Callable[[Any], T]) -> T:
        try:
            import fsspec

            return find(fsspec)
        except ImportError as error:
            packages = {"gs": "gcsfs", "gcs": "gcsfs"}.get(self.protocol, "'mmdgen[remote]'")
            raise ConfigError(f"{self.url} needs more packages ({error}): pip install {packages}") from error
        except ValueError as error:
            raise ConfigError(f"{self.url}: {one_line(str(error))}") from error

    def attempt(self, doing: str, action: Callable[[Any, str], T]) -> T:
        """Return `action(file system, path)`, tried again while the store fails; `doing` is for messages.

        Raises FileNotFoundError and FileExistsError as they come, else `DatasetError`.
        """
        patience = _patience()
        started, tries = time.monotonic(), 0
        filesystem, path = self._filesystem()
        while True:
            try:
                return action(filesystem, path)
            except (FileNotFoundError, FileExistsError, DatasetError, ConfigError):
                raise
            except Exception as error:
                tries += 1
                # many machines that lost the same server should not all come back in the same moment
                spread = 0.5 + rng.fraction(tries, "retry", process_name())
                pause = min(LONGEST_PAUSE, 0.5 * 2 ** (tries - 1)) * spread
                lasting = isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES
                waited = time.monotonic() - started
                if lasting or waited + pause > patience:
                    tried = "" if lasting else f" ({tries} tries in {waited:.0f} s)"
                    what = one_line(f"{type(error).__name__}: {error}", 500)
                    raise DatasetError(f"{self.url} cannot be {doing}{tried}: {what}") from error
                time.sleep(pause)

    # Looking and reading

    def stat(self) -> os.stat_result:
        """Return a result whose only truth is `st_size`. Raises FileNotFoundError."""

        def size(filesystem: Any, path: str) -> int:
            filesystem.invalidate_cache()
            found = filesystem.info(path)
            if found["type"] != "file":
                raise FileNotFoundError(self.url)
            return int(found["size"])

        return os.stat_result((0, 0, 0, 0, 0, 0, self.attempt("looked at", size), 0, 0, 0))

    def is_file(self) -> bool:
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether there is any object below; object stores have no empty folders."""
        return bool(self.names())

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def names(self) -> list[str]:
        """Return the names of what lies directly below, sorted. Raises `DatasetError` when the bucket is missing."""

        def look(filesystem: Any, path: str) -> list[str]:
            filesystem.invalidate_cache()
            found = filesystem.ls(path, detail=True)
            names = {item["name"].strip("/") for item in found} - {path.strip("/")}
            return sorted(name.rpartition("/")[2] for name in names)

        return self._listed(look, [])

    def iterdir(self) -> Iterator[RemotePath]:
        return (self / name for name in self.names())

    def sizes(self) -> dict[str, int]:
        """Return the size of every file below by its name, such as ``train/shard-00000.h5``; {} for none."""

        def look(filesystem: Any, path: str) -> dict[str, int]:
            filesystem.invalidate_cache()
            prefix = path.strip("/") + "/"
            found = filesystem.find(path, detail=True).values()
            names = {item["name"].strip("/"): int(item["size"]) for item in found if item["type"] == "file"}
            return {name.removeprefix(prefix): size for name, size in names.items() if name.startswith(prefix)}

        return self._listed(look, {})

    def _listed(self, look: Callable[[Any, str], T], nothing: T) -> T:
        try:
            return self.attempt("listed", look)
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise DatasetError(f"{self.url} cannot be listed: {one_line(str(error), 500)}") from error
            return nothing

    def read_bytes(self) -> bytes:
        """Return the whole content. Raises FileNotFoundError."""
        return self.attempt("read", lambda filesystem, path: filesystem.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the content of the files `names` below, of those that are there, read side by side."""
        wanted, found = list(names), {}

        def read(filesystem: Any, path: str) -> dict[str, Any]:
            result = filesystem.cat([f"{path}/{name}" for name in some], on_error="return")
            for error in result.values():
                if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                    raise error
            return result

        for start in range(0, len(wanted), TOGETHER):
            some = wanted[start : start + TOGETHER]
            if len(some) == 1:  # for which fsspec has another result
                try:
                    found[some[0]] = (self / some[0]).read_bytes()
                except FileNotFoundError:
                    continue
                continue
            by_name = {path.strip("/"): content for path, content in self.attempt("read", read).items()}
            base = self._filesystem()[1].strip("/")
            for name in some:
                content = by_name.get(f"{base}/{name}")
                if isinstance(content, bytes):
                    found[name] = content
        return found

    def pieces(self) -> Iterator[bytes]:
        """Yield the content piece by piece; each is tried again by itself. Raises FileNotFoundError."""
        size, start = self.stat().st_size, 0
        while start < size:
            end = min(size, start + PIECE)

            def read(filesystem: Any, path: str, start: int = start, end: int = end) -> bytes:
                content = filesystem.cat_file(path, start=start, end=end)
                if len(content) != end - start:
                    raise OSError(f"{len(content)} bytes came, {end - start} were asked for")
                return content

            yield self.attempt("read", read)
            start = end

    def read_range(self, start: int, count: int) -> bytes:
        """Return `count` bytes from byte `start` on, fewer where the file ends. Raises FileNotFoundError."""
        return self.attempt("read", lambda filesystem, path: filesystem.cat_file(path, start=start, end=start + count))

    def sha256(self) -> str:
        """Return the SHA-256 of the content. Raises FileNotFoundError."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file for reading here and there. Raises FileNotFoundError, `DatasetError`."""
        if mode not in ("rb", "r"):
            raise ValueError(f"a remote file is only read through open, found mode {mode!r}")

        def start(filesystem: Any, path: str) -> Any:
            return filesystem.open(
                path, "rb", block_size=1 << 20, cache_type="blockcache", cache_options={"maxblocks": 32}
            )

        return io.BufferedReader(_Patient(self, self.attempt("opened", start)), 1 << 16)

    def download(self, path: Path) -> str:
        """Copy the content to a local file, which appears when it is whole; return its SHA-256.

        Raises FileNotFoundError, and `DatasetError` also when the disk is full.
        """
        digest, size = hashlib.sha256(), 0
        temporary = None
        try:
            temporary, stream = temporary_file(path)
            with stream:
                for piece in self.pieces():
                    digest.update(piece)
                    size += len(piece)
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unwritable(path, error, size) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        return digest.hexdigest()

    # Writing

    def write_bytes(self, content: bytes) -> None:
        """Make or replace the file, and read it back. Raises `DatasetError`."""
        sha256 = hashlib.sha256(content).hexdigest()

        def found() -> str:
            return hashlib.sha256(self.read_bytes()).hexdigest()

        self._checked(lambda filesystem, path: filesystem.pipe_file(path, content), found, sha256)

    def upload(self, source: Path, sha256: str) -> None:
        """Make or replace the file with a local one that has this SHA-256, and read it back. Raises `DatasetError`."""
        self._checked(lambda filesystem, path: filesystem.put_file(str(source), path), self.sha256, sha256)

    def create_once(self, content: bytes) -> bool:
        """Make the file unless there is one; return whether this call did it.

        Stores that can (S3, Google's and most that speak S3) decide that by themselves, so of several writers exactly
        one succeeds. For others it is looked first. Raises `DatasetError`.
        """
        self._make_folder()

        def create(filesystem: Any, path: str) -> bool:
            filesystem.invalidate_cache()
            if filesystem.exists(path):  # some plug-ins take the mode below, and do not heed it
                return False
            try:
                filesystem.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError, ValueError):  # a plug-in that does not know the mode
                filesystem.pipe_file(path, content)
            return True

        try:
            created = self.attempt("written", create)
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error
        return created

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file. Raises FileNotFoundError unless `missing_ok`, `DatasetError`."""
        try:
            self.attempt("removed", lambda filesystem, path: filesystem.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _checked(self, write: Callable[[Any, str], object], read: Callable[[], str], sha256: str) -> None:
        self._make_folder()

        def upload(filesystem: Any, path: str) -> None:
            write(filesystem, path)
            try:
                found = read()
            except FileNotFoundError as error:
                raise OSError("it was written, and is not there") from error
            if found != sha256:
                raise OSError(f"what arrived has the SHA-256 {found[:16]}, and {sha256[:16]} was sent")

        try:
            self.attempt("written", upload)
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error

    def _make_folder(self) -> None:
        if self.protocol not in _WITHOUT_FOLDERS:
            self.attempt(
                "written",
                lambda filesystem, path: filesystem.makedirs(path.rpartition("/")[0], exist_ok=True),
            )

    def _no_bucket(self, error: FileNotFoundError) -> DatasetError:
        return DatasetError(f"{self.url} cannot be written: {one_line(str(error), 500)}")


class _Patient(io.RawIOBase):
    """An open remote file whose reads are tried again."""

    def __init__(self, path: RemotePath, file: Any) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()

        def read(filesystem: Any, path: str) -> bytes:
            self._file.seek(place)
            return self._file.read(len(buffer))

        content = self._path.attempt("read", read)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
