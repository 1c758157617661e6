"""Images to bytes and back: pure functions that release the interpreter lock, so threads can run them side by side.

An encoded image is one zlib stream of its bytes, made by isal at level 1: what HDF5's own deflate filter stores, so
every HDF5 reader decodes it, and several times faster to make than with zlib. A flow goes through HDF5's shuffle filter
as well: within a face neighbours differ by nearly the same, so that their differences are small and alike.
"""

from __future__ import annotations

import math

import numpy as np
from isal import igzip_lib, isal_zlib

from mmdgen.dataset.schema import FLOW_STEP, HIDDEN, NO_SURFACE, VISIBLE
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
    return deflated(np.ascontiguousarray(image).reshape(-1))


def deflated(raw: np.ndarray) -> bytes:
    """Return a zlib stream of `raw`, u8 [N]: quickly, and the same one every time."""
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
    image = np.frombuffer(_inflated(data, shape, 1), np.uint8).reshape(shape)
    return image.copy() if base is None else image + base


def _inflated(data: bytes, shape: tuple[int, ...], width: int) -> bytes:
    length = math.prod(shape) * width
    try:
        raw = isal_zlib.decompress(data, bufsize=length)
    except igzip_lib.IsalError as error:  # pyright: ignore[reportGeneralTypeIssues]  (its stub is wrong)
        raise DatasetError(f"a damaged image: {error}") from None
    if len(raw) != length:
        raise DatasetError(f"a damaged image: {len(raw)} bytes where {shape} needs {length}")
    return raw


def encode_flow(flow: np.ndarray, dtype: str) -> bytes:
    """Return the stored form of `flow`, f32 [H, W, 2] in pixels, as integers of `dtype` (``i2`` or ``i4``).

    Values are rounded to `FLOW_STEP`. Raises `DatasetError` for one that is not finite or out of the integers' range.
    """
    if flow.dtype != np.float32 or flow.ndim != 3 or flow.shape[2] != 2:
        raise DatasetError(f"a flow must be f32 [H, W, 2], found {flow.dtype} {list(flow.shape)}")
    steps = np.rint(flow.astype(np.float64) / FLOW_STEP)
    limit = np.iinfo(dtype).max
    if not (np.abs(steps) <= limit).all():  # false for NaN
        raise DatasetError(f"a flow must be finite and within {limit * FLOW_STEP:g} pixels")
    whole = steps.astype("<" + dtype)
    whole[:, 1:] -= whole[:, :-1].copy()  # wraps around, which the sum undoes exactly
    return deflated(whole.reshape(-1, 1).view(np.uint8).T.reshape(-1))


def decode_flow(data: bytes, shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """Return the flow that `encode_flow` encoded, a new f32 array of `shape` in pixels. Raises as `decode_image`."""
    width = np.dtype(dtype).itemsize
    planes = np.frombuffer(_inflated(data, shape, width), np.uint8).reshape(width, -1)
    return flow_in_pixels(np.ascontiguousarray(planes.T).view("<" + dtype).reshape(shape))


def flow_in_pixels(stored: np.ndarray) -> np.ndarray:
    """Return f32 [H, W, 2] pixels for one sample of the HDF5 dataset `flow`."""
    return np.cumsum(stored, axis=1, dtype=stored.dtype).astype(np.float32) * np.float32(FLOW_STEP)


def encode_visibility(visibility: np.ndarray) -> bytes:
    """Return the zlib stream of `visibility`, u8 [H, W]."""
    if visibility.dtype != np.uint8 or visibility.ndim != 2:
        raise DatasetError(f"a visibility must be u8 [H, W], found {visibility.dtype} {list(visibility.shape)}")
    return deflated(np.ascontiguousarray(visibility).reshape(-1))


def decode_visibility(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Return the visibility that `encode_visibility` encoded, a new u8 array. Raises as `decode_image`."""
    return np.frombuffer(_inflated(data, shape, 1), np.uint8).reshape(shape).copy()


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


def find_flow_fault(flow: np.ndarray, visibility: np.ndarray, posed: np.ndarray) -> str:
    """Return what makes a sample's flow f32 [S, S, 2] or visibility u8 [S, S] invalid beside `posed`, or ""."""
    size = len(flow)
    rows, columns = np.indices((size, size))
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    outside = ~((x >= -0.5) & (x <= size - 0.5) & (y >= -0.5) & (y <= size - 0.5))
    faults = {
        f"has a visibility above {VISIBLE}": visibility > VISIBLE,
        "moves where there is no surface": (visibility == NO_SURFACE) & flow.any(axis=2),
        "has a surface where the posed image is mostly transparent": (visibility >= HIDDEN) & (posed[..., 3] < 128),
        "leads out of the frame where it says visible": (visibility == VISIBLE) & outside,
    }
    for what, where in faults.items():
        if where.any():
            row, column = np.argwhere(where)[0]
            return f"{what} in {np.count_nonzero(where)} pixels, first at row {row}, column {column}"
    return ""


def _check_array(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
        raise DatasetError(f"an image must be u8 [H, W, 4], found {image.dtype} {list(image.shape)}")
