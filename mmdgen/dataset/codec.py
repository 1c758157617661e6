"""Images to bytes and back: pure functions that release the interpreter lock, so threads can run them side by side.

An image is stored as it is, as its wrap-around difference from another one (`base`), or as planes: r - g, g, b - g and
a, of each the differences of its rows. That is half way to what a PNG file does, takes a quarter off the compressed
bytes, and is undone by additions alone. A flow goes through HDF5's shuffle filter: within a face neighbours differ by
nearly the same, so that their differences are small and alike. What is stored is then compressed (`codec_streams`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from mmdgen.dataset.codec_streams import compress, decompress, level_of, require_codec
from mmdgen.dataset.schema import DEFLATE, FLOW_STEP, HIDDEN, NO_SURFACE, VISIBLE, DatasetConfig
from mmdgen.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes what a dataset of `config` stores of images; all its methods may be called from several threads.

    Images are u8 [S, S, 4], flows f32 [S, S, 2] in pixels, visibilities u8 [S, S]; other arrays raise `DatasetError`.
    Raises `ConfigError` where the codec's package is not installed.
    """

    config: DatasetConfig

    def __post_init__(self) -> None:
        require_codec(self.config.codec)

    def rest(self, image: np.ndarray) -> bytes:
        return encode_image(self._sized(image), codec=self.config.codec, planes=self.config.planes)

    def posed(self, image: np.ndarray) -> bytes:
        return encode_image(self._sized(image), codec=self.config.codec, planes=self.config.planes)

    def expression(self, image: np.ndarray, rest: np.ndarray) -> bytes:
        """Return what is stored of an expression image of the model with the image `rest`."""
        return encode_image(self._sized(image), rest if self.config.residual else None, codec=self.config.codec)

    def flow(self, flow: np.ndarray, visibility: np.ndarray) -> tuple[bytes, bytes]:
        """Return what is stored of a flow and of its visibility."""
        config = self.config
        if flow.shape != config.flow_shape or visibility.shape != config.flow_shape[:2]:
            raise DatasetError(
                f"a flow must be {list(config.flow_shape)} and a visibility {list(config.flow_shape[:2])}, "
                f"found {list(flow.shape)} and {list(visibility.shape)}"
            )
        return encode_flow(flow, config.flow_dtype, config.codec), encode_visibility(visibility, config.codec)

    def _sized(self, image: np.ndarray) -> np.ndarray:
        if image.shape != self.config.image_shape:
            raise DatasetError(f"an image must be {list(self.config.image_shape)}, found {list(image.shape)}")
        return image


def encode_image(
    image: np.ndarray, base: np.ndarray | None = None, *, codec: str = DEFLATE, planes: bool = False
) -> bytes:
    """Return the stored form of `image`, u8 [H, W, 4]; with `base`, of the wrap-around difference `image - base`.

    Raises `DatasetError` when an array is not u8 [H, W, 4] or the shapes differ.
    """
    _check_array(image)
    if base is not None:
        _check_array(base)
        if base.shape != image.shape:
            raise DatasetError(f"an image of shape {image.shape} cannot be encoded against one of {base.shape}")
        image = image - base  # u8 arithmetic wraps around, which decoding undoes exactly
    raw = np.ascontiguousarray(image)
    if planes:
        pixels, raw = raw, np.empty((4, *image.shape[:2]), np.uint8)
        _kernels().split_planes(pixels, raw)
    return compress(raw.reshape(-1), codec, level_of(codec, planes))


def decode_image(
    data: bytes,
    shape: tuple[int, int, int],
    base: np.ndarray | None = None,
    *,
    codec: str = DEFLATE,
    planes: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Return the image that `encode_image` encoded with the same arguments: u8 of `shape`, in `out` or a new array.

    `out` must be contiguous. Raises `DatasetError` when the stream is damaged (its checksum is checked) or of another
    size.
    """
    raw = np.frombuffer(decompress(data, codec, math.prod(shape)), np.uint8)
    image = np.empty(shape, np.uint8) if out is None else out
    if planes:
        height, width, channels = shape
        _kernels().join_planes(raw.reshape(channels, height, width), image.view(np.uint32)[..., 0])
        if base is not None:
            np.add(image, base, out=image)
    elif base is None:
        image[...] = raw.reshape(shape)
    else:
        np.add(raw.reshape(shape), base, out=image)
    return image


def plain_pixels(stored: np.ndarray) -> np.ndarray:
    """Return u8 [H, W, 4] for planes u8 [4, H, W] as HDF5 holds them: what `docs/dataset.md` tells those with numpy."""
    channels = np.cumsum(stored, axis=1, dtype=np.uint8)
    channels[[0, 2]] += channels[1]
    return channels.transpose(1, 2, 0)


def encode_flow(flow: np.ndarray, dtype: str, codec: str = DEFLATE) -> bytes:
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
    return compress(whole.reshape(-1, 1).view(np.uint8).T.reshape(-1), codec, level_of(codec))


def decode_flow(
    data: bytes, shape: tuple[int, int, int], dtype: str, codec: str = DEFLATE, out: np.ndarray | None = None
) -> np.ndarray:
    """Return the flow that `encode_flow` encoded, f32 of `shape` in pixels, in `out` or a new array.

    Raises as `decode_image`.
    """
    width = np.dtype(dtype).itemsize
    shuffled = np.frombuffer(decompress(data, codec, math.prod(shape) * width), np.uint8).reshape(width, -1)
    flow = np.empty(shape, np.float32) if out is None else out
    _kernels().sum_flow(shuffled, flow, np.float32(FLOW_STEP))
    return flow


def flow_in_pixels(stored: np.ndarray) -> np.ndarray:
    """Return f32 [H, W, 2] pixels for one sample of the HDF5 dataset `flow`."""
    return np.cumsum(stored, axis=1, dtype=stored.dtype).astype(np.float32) * np.float32(FLOW_STEP)


def encode_visibility(visibility: np.ndarray, codec: str = DEFLATE) -> bytes:
    """Return the stored form of `visibility`, u8 [H, W]."""
    if visibility.dtype != np.uint8 or visibility.ndim != 2:
        raise DatasetError(f"a visibility must be u8 [H, W], found {visibility.dtype} {list(visibility.shape)}")
    return compress(np.ascontiguousarray(visibility).reshape(-1), codec, level_of(codec))


def decode_visibility(
    data: bytes, shape: tuple[int, int], codec: str = DEFLATE, out: np.ndarray | None = None
) -> np.ndarray:
    """Return the visibility that `encode_visibility` encoded, u8 of `shape`, in `out` or a new array.

    Raises as `decode_image`.
    """
    visibility = np.empty(shape, np.uint8) if out is None else out
    visibility[...] = np.frombuffer(decompress(data, codec, math.prod(shape)), np.uint8).reshape(shape)
    return visibility


def deflated(raw: np.ndarray) -> bytes:
    """Return a zlib stream of `raw`, u8 [N]: quickly, and the same one every time."""
    return compress(raw, DEFLATE, level_of(DEFLATE))


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


def _kernels() -> ModuleType:
    """The compiled part, which plain images do without."""
    from mmdgen.dataset import codec_kernels

    return codec_kernels
