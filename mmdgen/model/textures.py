"""Texture files -> pixels. The only module that uses Pillow for reading.

A file is what its first bytes say: endings of textures lie (``.spa`` and ``.sph`` are BMP, PNG or JPEG). Plug-ins of
Pillow are used directly, so no other format can be reached, and nothing is allocated before the size has been checked.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    DdsImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mmdgen.errors import ModelError
from mmdgen.model import pixels
from mmdgen.model.pixels import has_alpha
from mmdgen.model.records import Texture

__all__ = ["MAX_PIXELS", "MAX_SIDE", "decode_image", "decode_texture", "has_alpha"]

MAX_SIDE = 16384
MAX_PIXELS = 64 << 20
MAX_FILE_SIZE = 1 << 29
_BAND = 1 << 18  # bytes

_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_tiff_lock = threading.Lock()


def decode_texture(texture: Texture) -> np.ndarray:
    """Return the picture in `texture.path` as u8 [H, W, 4]: sRGB, straight alpha, top row first.

    Raises `ModelError`: ``texture_missing`` (no path), ``texture_unreadable``, ``texture_unknown_format``,
    ``texture_too_large`` (a side over `MAX_SIDE`, more than `MAX_PIXELS`), ``texture_damaged`` (truncated files too).
    """
    path = texture.path
    if path is None:
        raise ModelError("texture_missing", f"{texture.name}: the texture file was not found")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_SIZE:
            raise ModelError("texture_too_large", f"{path}: {size} bytes, at most {MAX_FILE_SIZE} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError("texture_unreadable", f"{path}: cannot be read: {error.strerror or error}") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "<bytes>") -> np.ndarray:
    """Return the picture in the file `data` as `decode_texture` does; `name` names it in errors."""
    decode = _decoder(data)
    if decode is None:
        raise ModelError("texture_unknown_format", f"{name}: no image format that is known begins with {data[:8]!r}")
    try:
        return decode(data)
    except _TooLargeError as error:
        raise ModelError("texture_too_large", f"{name}: {error}") from None
    except Exception as error:  # decoders raise nearly anything for damaged data
        what = " ".join(str(error).split()) or type(error).__name__
        raise ModelError("texture_damaged", f"{name}: the image is damaged: {what}") from error


class _TooLargeError(Exception):
    pass


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise ValueError(f"the image has {width} x {height} pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise _TooLargeError(
            f"{width} x {height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} altogether are decoded"
        )


def _decoder(data: bytes) -> Callable[[bytes], np.ndarray] | None:
    """The function that decodes `data`, by its first bytes."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png
    if data[:3] == b"\xff\xd8\xff":
        return lambda data: _pillow(JpegImagePlugin.JpegImageFile, data)
    if data[:2] == b"BM":
        return _bmp
    if data[:4] == b"DDS ":
        return _dds
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return lambda data: _pillow(GifImagePlugin.GifImageFile, data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff
    return _tga if pixels.is_tga(data) else None


def _open(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes) -> ImageFile.ImageFile:
    """Open with a plug-in itself: `Image.open` would try others and warn about large images."""
    image = plugin(io.BytesIO(data))
    _check_size(*image.size)
    return image


def _pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes) -> np.ndarray:
    with _open(plugin, data) as image:
        return _to_rgba(image)


def _to_rgba(image: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image of any mode. 16 bits are scaled to 8; Pillow's own conversion would clip them."""
    image.load()
    mode = image.mode
    key = image.info.get("transparency")
    if mode in ("I", "F") or mode.startswith("I;"):
        values = np.asarray(image)
        if mode == "F":
            values = np.nan_to_num(values) * 255.0
        elif mode != "I" or (values.size and values.max() > 255):
            values = np.clip(values, 0, 65535) / 257.0
        rgba = pixels.grey_to_rgba(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
        if isinstance(key, int):
            rgba[..., 3] = np.where(np.asarray(image) == key, 0, 255)
        return rgba
    if mode == "L" and key is None:
        return pixels.grey_to_rgba(np.asarray(image))
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image, mode, key = image.convert("RGB"), "RGB", None
    if mode == "RGB" and key is None:
        # Pillow stores RGB in four bytes; taking them as they are saves a conversion.
        rgba = _four_bytes(image, "RGBX")
        if has_alpha(rgba):  # the fourth byte is 255 in every decoder of Pillow, though nothing promises it
            rgba[..., 3] = 255
        return rgba
    return _four_bytes(image if mode == "RGBA" else image.convert("RGBA"), "RGBA")


def _four_bytes(image: Image.Image, layout: str) -> np.ndarray:
    """u8 [H, W, 4] of an image that Pillow stores in four bytes.

    It is copied in bands that stay in the cache: twice as fast as ``np.asarray``, which makes one more copy of the
    whole image.
    """
    width, height = image.size
    rgba = np.empty((height, width, 4), np.uint8)
    rows = max(1, _BAND // (4 * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image.crop((0, top, width, bottom)).tobytes("raw", layout)
        rgba[top:bottom] = np.frombuffer(band, np.uint8).reshape(bottom - top, width, 4)
    return rgba


def _png(data: bytes) -> np.ndarray:
    # Animation chunks make Pillow warn where they are damaged; the picture itself does not need them.
    if b"acTL" in data[:4096]:
        data = _plain_png(data)
    try:
        return _pillow(PngImagePlugin.PngImageFile, data)
    except (ValueError, SyntaxError):
        # Oversized or damaged texts and colour profiles, which have nothing to do with the pixels.
        plain = _plain_png(data)
        if plain == data:
            raise
        return _pillow(PngImagePlugin.PngImageFile, plain)


def _plain_png(data: bytes) -> bytes:
    """`data` with only those chunks that pixels depend on."""
    parts = [data[:8]]
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PNG_NEEDED:
            parts.append(data[position:end])
        position = end
    return b"".join(parts)


def _bmp(data: bytes) -> np.ndarray:
    if len(data) >= 30 and struct.unpack_from("<I", data, 14)[0] >= 40:
        width, height = struct.unpack_from("<ii", data, 18)
        _check_size(width, abs(height))
        image = pixels.decode_bmp(data)
        if image is not None:
            return image
    return _pillow(BmpImagePlugin.BmpImageFile, data)


def _dds(data: bytes) -> np.ndarray:
    height, width = struct.unpack_from("<2I", data, 12)
    _check_size(width, height)
    image = pixels.decode_dds(data)
    if image is not None:
        return image
    plain, premultiplied = pixels.plain_dds(data)
    image = _pillow(DdsImagePlugin.DdsImageFile, plain)
    return pixels.unpremultiply(image) if premultiplied else image


def _tga(data: bytes) -> np.ndarray:
    _check_size(*struct.unpack_from("<2H", data, 12))
    with _open(TgaImagePlugin.TgaImageFile, pixels.simple_tga(data)) as image:
        image.load()
        if image.mode == "RGB":
            return _to_rgba(image)
        raw = np.asarray(image)
    return pixels.tga_colors(raw.reshape(*raw.shape[:2], -1), data)


def _webp(data: bytes) -> np.ndarray:
    # The plug-in allocates the canvas on opening, so the size is taken from the header first.
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[k : k + 3], "little") + 1 for k in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<2H", data, 26))
    _check_size(width, height)
    return _pillow(WebPImagePlugin.WebPImageFile, data)


def _tiff(data: bytes) -> np.ndarray:
    # Pillow logs what it cannot decode, which Python prints unless a handler is there; our error says it already.
    logger = logging.getLogger(TiffImagePlugin.__name__)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    # It warns about odd tags. Filters for warnings belong to the whole process, hence one TIFF at a time.
    with _tiff_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _pillow(TiffImagePlugin.TiffImageFile, data)
