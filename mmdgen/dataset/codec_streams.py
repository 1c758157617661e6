"""Bytes to shorter bytes and back, as HDF5's filters deflate and zstd store them.

deflate: one zlib stream, made by isal at level 1, several times faster than zlib; every HDF5 reader decodes it.
zstd: one Zstandard frame (RFC 8878) with its content's size and checksum, made on one thread; HDF5's registered filter
32015, which readers decode that have it (Python's hdf5plugin). Both checksums cover the bytes before compression.
"""

from __future__ import annotations

import functools
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from isal import igzip_lib, isal_zlib

from mmdgen.dataset.schema import ZSTD
from mmdgen.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    import zstandard

DEFLATE_LEVEL = 1  # isal's levels 2 and 3 cost time and gain a few per cent on these images
# Level 3 takes 9 % off plain images for half a millisecond; where differences of rows are stored it makes them longer.
ZSTD_LEVEL, ZSTD_PLANES_LEVEL = 3, 1


def require_codec(codec: str) -> None:
    """Raise `ConfigError`, with the command that helps, where the package of a codec is not installed."""
    if codec == ZSTD and find_spec("zstandard") is None:
        raise ConfigError("datasets with --codec zstd need the package zstandard: pip install zstandard")


def level_of(codec: str, planes: bool = False) -> int:
    """Return the level at which a codec compresses plain bytes, or planes of differences."""
    if codec != ZSTD:
        return DEFLATE_LEVEL
    return ZSTD_PLANES_LEVEL if planes else ZSTD_LEVEL


def compress(raw: np.ndarray, codec: str, level: int) -> bytes:
    """Return the stream of `raw`, u8 [n] contiguous: the same bytes every time. Raises `ConfigError` without zstd."""
    if codec == ZSTD:
        return _zstd().compressor(level).compress(raw.data)
    # At levels 1 and 2 ISA-L hashes an uninitialised register for the third byte of a fresh stream (the register tmp2
    # in igzip_icf_body_h1_gr_bt.asm), so that now and then the same image gives another, equally valid stream. Once a
    # first byte has been flushed, that path is not taken: 7 bytes and 0.2 ms for the same bytes every time.
    stream = isal_zlib.compressobj(level)
    head = stream.compress(raw[:1]) + stream.flush(isal_zlib.Z_SYNC_FLUSH)
    return head + stream.compress(raw[1:]) + stream.flush()


def decompress(data: bytes, codec: str, length: int) -> bytes:
    """Return the `length` bytes that were compressed.

    Raises `DatasetError` when the stream is damaged (its checksum is checked), of another size, or followed by more.
    """
    raw = _from_zstd(data, length) if codec == ZSTD else _from_deflate(data, length)
    if len(raw) != length:
        raise DatasetError(f"a damaged image: {len(raw)} bytes where it needs {length}")
    return raw


def _from_deflate(data: bytes, length: int) -> bytes:
    try:
        return isal_zlib.decompress(data, bufsize=length)
    except igzip_lib.IsalError as error:  # pyright: ignore[reportGeneralTypeIssues]  (its stub is wrong)
        raise DatasetError(f"a damaged image: {error}") from None


def _from_zstd(data: bytes, length: int) -> bytes:
    tools = _zstd()
    try:
        stated = tools.package.get_frame_parameters(data).content_size
        if stated != length:  # before as much memory is taken as a damaged frame may ask for
            raise DatasetError(f"a damaged image: a frame of {stated} bytes where it needs {length}")
        return tools.decompressor.decompress(data, max_output_size=length, allow_extra_data=False)
    except tools.package.ZstdError as error:
        raise DatasetError(f"a damaged image: {error}") from None


class _Zstd(threading.local):
    """The package, imported when it is first needed, and this thread's contexts: no two threads may share one."""

    def __init__(self) -> None:
        require_codec(ZSTD)
        import zstandard

        self.package = zstandard
        self.decompressor = zstandard.ZstdDecompressor()
        self._compressors: dict[int, zstandard.ZstdCompressor] = {}

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        found = self._compressors.get(level)
        if found is None:
            found = self.package.ZstdCompressor(level=level, write_checksum=True, write_content_size=True, threads=0)
            self._compressors[level] = found
        return found


@functools.cache
def _zstd() -> _Zstd:
    return _Zstd()
