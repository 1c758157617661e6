"""Texture files -> pixels. The only module that uses Pillow for reading.

A file is what its first bytes say: endings of textures lie (``.spa`` and ``.sph`` are BMP, PNG or JPEG). Plug-ins of
Pillow are used directly, so no other format can be reached. Nothing is allocated before the size has been checked, both
against the limits and against the bytes that are there: every format has a best compression, and a file that claims
more pixels than that is damaged. What MMD shows where formats leave a choice is what D3DX 9, its loader, does.
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
from mmdgen.model import bmp, dds, pixels, png_chunks, tga
from mmdgen.model.pixels import DamagedError, TooLargeError, check_pixels, has_alpha
from mmdgen.model.records import Texture

__all__ = ["MAX_PIXELS", "MAX_SIDE", "check_texture", "decode_image", "decode_picture", "decode_texture", "has_alpha"]

MAX_SIDE = pixels.MAX_SIDE
MAX_PIXELS = pixels.MAX_PIXELS
MAX_FILE_SIZE = 1 << 29
_BAND = 1 << 18  # bytes

# The most pixels that a byte can stand for. JPEG: a progressive file spends at least a bit on each block of 8 x 8 of
# the component with the most blocks, of which sampling factors leave no fewer than a quarter. GIF: codes of 12 bits
# for at most 4,096 pixels. TIFF: its densest method that textures use is the same LZW. WebP has no bound (a single
# colour takes no bits at all); what is denser than this is larger than `_FREE_PIXELS` only where somebody means harm.
_JPEG_DENSITY = 2048
_GIF_DENSITY = 2731
_TIFF_DENSITY = 2731 * 8
_WEBP_DENSITY = 4096
_FREE_PIXELS = 1 << 20
# Scans times pixels. Progressive files have about ten scans; made up of thousands of empty ones they take minutes.
_JPEG_WORK = 1 << 30

# What textures come in. The others (fax, and what is denser than the bound above) only make the library larger that a
# damaged file can reach.
_TIFF_METHODS = ("raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg")

_tiff_lock = threading.Lock()


def decode_texture(texture: Texture) -> np.ndarray:
    """Return the picture in `texture.path` as u8 [H, W, 4]: sRGB, straight alpha, top row first.

    Raises `ModelError`: ``texture_missing`` (no path), ``texture_unreadable``, ``texture_unknown_format``,
    ``texture_too_large`` (a side over `MAX_SIDE`, more than `MAX_PIXELS`), ``texture_damaged`` (truncated files too).
    """
    return decode_image(_read(texture), str(texture.path))


def check_texture(texture: Texture) -> None:
    """Raise what `decode_texture` would raise, several times faster for the formats that most textures have.

    PNGs are not unpacked where all their checksums are right, nor files without compression where they are long enough.
    """
    data = _read(texture)
    if not _surely_whole(data):
        decode_image(data, str(texture.path))


def _read(texture: Texture) -> bytes:
    path = texture.path
    if path is None:
        raise ModelError("texture_missing", f"{texture.name}: the texture file was not found")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_SIZE:
            raise ModelError("texture_too_large", f"{path}: {size} bytes, at most {MAX_FILE_SIZE} are read")
        return path.read_bytes()
    except OSError as error:
        raise ModelError("texture_unreadable", f"{path}: cannot be read: {error.strerror or error}") from error


def _surely_whole(data: bytes) -> bool:
    """Whether `data` is seen to decode without decoding it."""
    try:
        if data[:8] == png_chunks.SIGNATURE:
            return png_chunks.is_whole(data)
        if data[:2] == b"BM":
            return bmp.is_whole(data)
        return data[:4] != b"DDS " and tga.is_tga(data) and tga.is_whole(data)
    except (DamagedError, TooLargeError, struct.error):
        return False


def decode_image(data: bytes, name: str = "<bytes>") -> np.ndarray:
    """Return the picture in the file `data` as `decode_texture` does; `name` names it in errors."""
    decode = _decoder(data)
    if decode is None:
        raise ModelError("texture_unknown_format", f"{name}: no image format that is known begins with {data[:8]!r}")
    try:
        return decode(data)
    except TooLargeError as error:
        raise ModelError("texture_too_large", f"{name}: {error}") from None
    except Exception as error:  # decoders raise nearly anything for damaged data
        what = " ".join(str(error).split()) or type(error).__name__
        raise ModelError("texture_damaged", f"{name}: the image is damaged: {what}") from error


def decode_picture(data: bytes, name: str = "<bytes>") -> np.ndarray:
    """Return what `decode_image` does, upright: a JPEG turned as its EXIF data says, as viewers show photographs."""
    image = decode_image(data, name)
    turn = _UPRIGHT.get(_orientation(data)) if _decoder(data) is _jpeg else None
    return image if turn is None else np.ascontiguousarray(turn(image))


def _orientation(data: bytes) -> int:
    """The orientation in a JPEG's EXIF data, 1 to 8; 0 where there is none or it is damaged."""
    start = _exif(data)
    order = {b"II": "<", b"MM": ">"}.get(data[start : start + 2]) if start else None
    if order is None:
        return 0
    try:
        (first,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + first)
        for place in range(start + first + 2, start + first + 2 + 12 * count, 12):
            tag, value = struct.unpack_from(f"{order}H6xH", data, place)
            if tag == _ORIENTATION:
                return value
    except struct.error:
        pass
    return 0


def _exif(data: bytes) -> int:
    """Where the EXIF data of a JPEG begin, which are a TIFF file; 0 where there are none."""
    found = data.find(b"Exif\0\0", 0, _EXIF_WITHIN)
    return 0 if found < 0 else found + 6


_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4: where the first row and column of the stored picture are
_EXIF_WITHIN = 1 << 16
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


def _decoder(data: bytes) -> Callable[[bytes], np.ndarray] | None:
    """The function that decodes `data`, by its first bytes."""
    if data[:8] == png_chunks.SIGNATURE:
        return _png
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg
    if data[:2] == b"BM":
        return bmp.decode
    if data[:4] == b"DDS ":
        return _dds
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff
    return _tga if tga.is_tga(data) else None


def _open(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, density: float) -> ImageFile.ImageFile:
    """Open with a plug-in itself: `Image.open` would try others and warn about large images.

    `density` is the most pixels that a byte can stand for. Plug-ins allocate pixels only when they are loaded.
    """
    image = plugin(io.BytesIO(data))
    check_pixels(*image.size, density * len(data))
    return image


def _pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, density: float) -> np.ndarray:
    with _open(plugin, data, density) as image:
        return _to_rgba(image)


def _to_rgba(image: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image of any mode. 16 bits are scaled to 8; Pillow's own conversion would clip them."""
    image.load()
    mode = image.mode
    key = image.info.get("transparency")
    if mode in ("I", "F") or mode.startswith("I;"):
        return _deep_grey(np.asarray(image), key if isinstance(key, int) else None)
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


def _deep_grey(values: np.ndarray, key: int | None) -> np.ndarray:
    """Grey of 16 bits (or floats in [0, 1]) -> u8 [H, W, 4], where `key` is transparent. In bands, to stay small."""
    rgba = np.empty((*values.shape, 4), np.uint8)
    # Pillow gives 8-bit grey as 32 bits in a few cases.
    scale = 255.0 if values.dtype.kind == "f" else 1.0 if values.dtype.itemsize > 2 and values.max() <= 255 else 1 / 257
    rows = max(1, _BAND // (8 * values.shape[1]))
    for top in range(0, len(values), rows):
        band = values[top : top + rows]
        level = np.rint(np.clip(np.nan_to_num(band.astype(np.float64)) * scale, 0, 255)).astype(np.uint8)
        rgba[top : top + rows] = pixels.grey_to_rgba(level)
        if key is not None:
            rgba[top : top + rows, :, 3] = np.where(band == key, 0, 255)
    return rgba


def _png(data: bytes) -> np.ndarray:
    from mmdgen.model import png_decode  # here: its compiler takes 0.2 s to load

    image = png_decode.decode(data)
    return _png_by_pillow(data) if image is None else image


def _png_by_pillow(data: bytes) -> np.ndarray:
    # Only what the pixels depend on: texts, colour profiles and animations may be damaged, or bombs of their own.
    plain, header, key = png_chunks.plain(data)
    if key is not None and header.color == 2 and header.depth == 16:
        return _keyed_48_bits(plain, key)
    with _open(PngImagePlugin.PngImageFile, plain, MAX_PIXELS) as image:
        if key is not None and header.color == 0 and header.depth in (2, 4):
            # Pillow compares the key, a number of 2 or 4 bits, with what it has scaled to 8.
            image.info["transparency"] = (key[0] & ((1 << header.depth) - 1)) * (255 // ((1 << header.depth) - 1))
        return _to_rgba(image)


def _keyed_48_bits(plain: bytes, key: tuple[int, ...]) -> np.ndarray:
    """Colours of 16 bits with one that is transparent. Pillow reads the high bytes or the low ones: both are needed."""
    halves = []
    for mode in ("RGB;16B", "RGB;16L"):
        with _open(PngImagePlugin.PngImageFile, plain, MAX_PIXELS) as image:
            image.tile = [tile._replace(args=mode) for tile in image.tile]
            image.info.pop("transparency", None)
            halves.append(_to_rgba(image))
    high, low = halves
    match = np.ones(high.shape[:2], bool)
    for channel, value in enumerate(key):
        match &= (high[..., channel] == value >> 8) & (low[..., channel] == value & 255)
    high[..., 3] = np.where(match, 0, 255)
    return high


def _jpeg(data: bytes) -> np.ndarray:
    # Orientation tags are for viewers of photographs: MMD does not turn textures, nor does Pillow unless told to. It
    # shall not look at EXIF data at all: of damaged ones it warns.
    if start := _exif(data):
        data = data[: start - 6] + bytes(6) + data[start:]
    with _open(JpegImagePlugin.JpegImageFile, data, _JPEG_DENSITY) as image:
        scans = data.count(b"\xff\xda")
        if scans * image.width * image.height > _JPEG_WORK:
            raise TooLargeError(f"{scans} scans of {image.width} x {image.height} pixels")
        return _to_rgba(image)


def _gif(data: bytes) -> np.ndarray:
    return _pillow(GifImagePlugin.GifImageFile, data, _GIF_DENSITY)


def _dds(data: bytes) -> np.ndarray:
    image = dds.decode(data)
    if image is not None:
        return image
    plain, premultiplied = dds.plain(data)
    image = _pillow(DdsImagePlugin.DdsImageFile, plain, MAX_PIXELS)
    return dds.unpremultiply(image) if premultiplied else image


def _tga(data: bytes) -> np.ndarray:
    plain = tga.simple(data)
    try:
        raw = _tga_pixels(plain)
    except OSError:
        raw = _tga_pixels(tga.unrolled(plain))  # runs that cross the ends of rows, which Pillow does not take
    return raw if data[16] == 24 else tga.colors(raw.reshape(*raw.shape[:2], -1), data)


def _tga_pixels(data: bytes) -> np.ndarray:
    """Pixel bytes u8 [H, W, n], but RGBA at once for 24 bits."""
    with _open(TgaImagePlugin.TgaImageFile, data, MAX_PIXELS) as image:
        image.load()
        return _to_rgba(image) if image.mode == "RGB" else np.asarray(image)


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
    room = max(_WEBP_DENSITY * len(data), _FREE_PIXELS)
    check_pixels(width, height, room)
    # The frames inside may say something else than the header; the plug-in takes their word.
    with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
        check_pixels(*image.size, room)
        return _to_rgba(image)


def _tiff(data: bytes) -> np.ndarray:
    # Pillow logs what it cannot decode, which Python prints unless a handler is there; our error says it already.
    logger = logging.getLogger(TiffImagePlugin.__name__)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    # It warns about odd tags. Filters for warnings belong to the whole process, hence one TIFF at a time.
    with _tiff_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(TiffImagePlugin.TiffImageFile, data, _TIFF_DENSITY) as image:
            if (method := image.info.get("compression")) not in _TIFF_METHODS:
                raise DamagedError(f"TIFF compression {method} is not read")
            return _to_rgba(image)
