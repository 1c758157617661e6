"""What the poser's page may say, read into records: nothing else gets past `parse` and `parse_upload`.

Texts are JSON objects with ``type`` and ``request`` (a number that comes back with the answer):

* ``pose``: `of` (``network`` or ``model``) and `values` (numbers by name, the rest at rest): a picture is wanted.
* ``choose``: `model`, a number in the list of models: its rest picture becomes the picture that is posed.
* ``current``: the picture that is posed is wanted, if there is one.

A binary message is an upload: u32 request, u8 `cut` (1: make the background's colour transparent), then the bytes of an
image file. There are no names of files in either direction.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from mmdgen.pose.vocabulary import THA1

MAX_TEXT_BYTES = 4096
MAX_UPLOAD_BYTES = 32 << 20
MAX_PIXELS = 16 << 20
MAX_SIDE = 8192
MAX_REQUEST = 2**32 - 1
NETWORK, MODEL = "network", "model"
HEAD = struct.Struct("<IB")

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Start-of-frame markers of JPEG: they hold the size. C4, C8 and CC are other segments.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


class PoserProtocolError(Exception):
    """A message is not one of those that are known; `request` is its number, if it had one."""

    def __init__(self, message: str, request: int | None = None) -> None:
        super().__init__(message)
        self.request = request


@dataclass(frozen=True, slots=True)
class Pose:
    request: int
    of: str
    values: tuple[float, ...]  # in the order of `THA1`


@dataclass(frozen=True, slots=True)
class Choose:
    request: int
    model: int


@dataclass(frozen=True, slots=True)
class Current:
    request: int


@dataclass(frozen=True, slots=True)
class Upload:
    request: int
    cut: bool
    data: bytes


Message = Pose | Choose | Current


def parse(text: str) -> Message:
    """Return the record of a text message. Raises `PoserProtocolError` for anything that is not exactly one of them."""
    if len(text) > MAX_TEXT_BYTES:
        raise PoserProtocolError("the message is too long")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise PoserProtocolError("the message is not JSON") from None
    if not isinstance(value, dict):
        raise PoserProtocolError("a message is a JSON object")
    request = value.pop("request", None)
    if isinstance(request, bool) or not isinstance(request, int) or not 0 <= request <= MAX_REQUEST:
        raise PoserProtocolError(f"request must be a whole number from 0 to {MAX_REQUEST}")
    try:
        return _record(value, request)
    except PoserProtocolError as error:
        raise PoserProtocolError(str(error), request) from None


def parse_upload(data: bytes) -> Upload:
    """Return the record of a binary message. Raises `PoserProtocolError`, also for files that would be too large.

    The size in pixels is checked in the file's header, before anything is decoded.
    """
    if len(data) < HEAD.size:
        raise PoserProtocolError("an upload begins with its number")
    request, cut = HEAD.unpack_from(data)
    file = data[HEAD.size :]
    if cut > 1:
        raise PoserProtocolError("an upload's second part is 0 or 1", request)
    if len(file) > MAX_UPLOAD_BYTES:
        raise PoserProtocolError(f"the file is larger than {MAX_UPLOAD_BYTES >> 20} MB", request)
    size = picture_size(file)
    if size is None:
        raise PoserProtocolError("this is no PNG, JPEG or WebP picture", request)
    width, height = size
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise PoserProtocolError(
            f"the picture has {width} x {height} pixels; at most {MAX_PIXELS >> 20} million are taken, and "
            f"{MAX_SIDE} a side",
            request,
        )
    return Upload(request, bool(cut), file)


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that a PNG, JPEG or WebP file claims; None for anything else."""
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data[:3] == _JPEG:
        return _jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        kind = data[12:16]
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        elif kind == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<2H", data, 26))
        else:
            return None
        return width, height
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The size in the first frame header. Segments are skipped by their lengths, so the work is bounded by the file."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            if at + 9 > len(data):
                return None
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if length < 2:
                return None
            at += 2 + length
    return None


def _record(value: dict[str, Any], request: int) -> Message:
    kind = value.pop("type", None)
    if kind == "pose":
        of, values = _take(value, "of", "values")
        if of not in (NETWORK, MODEL):
            raise PoserProtocolError(f"of must be {NETWORK} or {MODEL}")
        return Pose(request, of, _values(values))
    if kind == "choose":
        (model,) = _take(value, "model")
        if isinstance(model, bool) or not isinstance(model, int) or not 0 <= model < 1 << 31:
            raise PoserProtocolError("model must be a number of the list")
        return Choose(request, model)
    if kind == "current":
        _take(value)
        return Current(request)
    raise PoserProtocolError("there is no such type of message")


def _take(value: dict[str, Any], *names: str) -> tuple[Any, ...]:
    if set(value) != set(names):
        raise PoserProtocolError(f"the message must have {', '.join(names) or 'nothing else'}")
    return tuple(value[name] for name in names)


def _values(values: Any) -> tuple[float, ...]:
    if not isinstance(values, dict) or not set(values) <= set(THA1.names):
        raise PoserProtocolError(f"values may have {', '.join(THA1.names)}")
    result = []
    for parameter in THA1.parameters:
        value = values.get(parameter.name, parameter.rest)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PoserProtocolError(f"{parameter.name} must be a number")
        if not parameter.low <= value <= parameter.high:
            raise PoserProtocolError(f"{parameter.name} must be from {parameter.low:g} to {parameter.high:g}")
        result.append(float(value))
    return tuple(result)


def _no_constant(name: str) -> float:
    raise ValueError(name)
