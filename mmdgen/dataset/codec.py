"""Images to bytes and back: pure functions that release the interpreter lock, so threads can run them side by side.

An encoded image is one zlib stream of its bytes, made by isal at level 1: what HDF5's own deflate filter stores, so
every HDF5 reader decodes it, and several times faster to make than with zlib.
"""

from __future__ import annotations

import numpy as np
from isal import igzip_lib, isal_zlib

from mmdgen.errors import DatasetError

LEVEL = 1  # isal's levels 2 and 3 cost time and gain a few per cent on these images


def encode_image(image: np.ndarray, base: np.ndarray | None = None) -> bytes:
    """Return the zlib stream of `image`, u8 [H, W, 4]; with `base`, of the wrap-around difference `image - base`.

    Raises `DatasetError` when an array is not u8 [H, W, 4] or the shapes differ.
    """
    _check_array(image)
    if base is not None:
        _check_array(base)
        if base.shape != image.shape:
            raise DatasetError(f"an image of shape {image.shape} cannot be encoded against one of {base.shape}")
        image = image - base  # u8 arithmetic wraps around, which decoding undoes exactly
    raw = np.ascontiguousarray(image).reshape(-1)
    # At levels 1 and 2 ISA-L hashes an uninitialised register for the third byte of a fresh stream (the register tmp2
    # in igzip_icf_body_h1_gr_bt.asm), so that now and then the same image gives another, equally valid stream. Once a
    # first byte has been flushed, that path is not taken: 7 bytes and 0.2 ms for the same bytes every time.
    stream = isal_zlib.compressobj(LEVEL)
    head = stream.compress(raw[:1]) + stream.flush(isal_zlib.Z_SYNC_FLUSH)
    return head + stream.compress(raw[1:]) + stream.flush()


def decode_image(data: bytes, shape: tuple[int, int, int], base: np.ndarray | None = None) -> np.ndarray:
    """Return the image that `encode_image` encoded (with the same `base`), a new u8 array of `shape`.

    Raises `DatasetError` when the stream is damaged (zlib's checksum is checked) or of another size.
    """
    try:
        raw = isal_zlib.decompress(data, bufsize=shape[0] * shape[1] * shape[2])
    except igzip_lib.IsalError as error:  # pyright: ignore[reportGeneralTypeIssues]  (its stub is wrong)
        raise DatasetError(f"a damaged image: {error}") from None
    if len(raw) != shape[0] * shape[1] * shape[2]:
        raise DatasetError(f"a damaged image: {len(raw)} bytes where {shape} needs {shape[0] * shape[1] * shape[2]}")
    image = np.frombuffer(raw, np.uint8).reshape(shape)
    return image.copy() if base is None else image + base


def find_fault(image: np.ndarray) -> str:
    """Return what makes a decoded image u8 [H, W, 4] invalid, or "": color under alpha 0, or nothing drawn at all."""
    pixels = np.ascontiguousarray(image).view("<u4")[..., 0]  # little-endian: alpha is the highest byte
    if pixels.max() < 1 << 24:
        return "is empty: alpha is 0 everywhere"
    stained = (pixels != 0) & (pixels < 1 << 24)
    if stained.any():
        row, column = np.argwhere(stained)[0]
        return (
            f"has color where alpha is 0 in {np.count_nonzero(stained)} pixels, "
            f"first at row {row}, column {column}: {image[row, column].tolist()}"
        )
    return ""


def _check_array(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
        raise DatasetError(f"an image must be u8 [H, W, 4], found {image.dtype} {list(image.shape)}")
