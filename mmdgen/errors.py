"""The error tree: everything that mmdgen raises on purpose derives from `MmdgenError`.

A message says what is wrong, where, what was found against what was expected, and what to do.
"""

from __future__ import annotations

import re

# Names from a file reach messages: they must neither command a terminal nor fill the screen.
MESSAGE_LIMIT = 2000
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+|[\ud800-\udfff]")


def one_line(text: str, limit: int | None = MESSAGE_LIMIT) -> str:
    """Return `text` as one line of at most `limit` characters (None: of any length) that any encoder takes.

    A run of control characters and line breaks becomes a space; a lone surrogate, as in a file name that is no UTF-8,
    is written out (``\\udc80``), so that different names stay different; what is longer than `limit` loses its middle.
    """
    return _shortened(_UNSHOWN.sub(_shown, _shortened(text, limit)), limit)


def _shown(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}" if found[0] >= "\ud800" else " "


def _shortened(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return f"{text[: limit // 2]} ... {text[len(text) - limit // 2 + 5 :]}"


class MmdgenError(Exception):
    """The root. The command line prints its message without a traceback and exits with 1."""


class FormatError(MmdgenError):
    """A file is damaged or is not of its format.

    `file` names the input, `offset` is the byte offset at which reading stopped and `field` is the path inside the
    structure, such as ``morphs[12].offsets.count``.
    """

    def __init__(self, message: str, *, file: str = "<bytes>", offset: int = 0, field: str = "") -> None:
        self.reason = message
        self.file = file
        self.offset = offset
        self.field = field
        where = f"{field} at byte {offset}" if field else f"byte {offset}"
        super().__init__(one_line(f"{file}: {where}: {message}"))

    def __reduce__(self):  # keyword-only arguments: pickle would lose them on the way from a worker process
        return (_format_error, (self.reason, self.file, self.offset, self.field))


def _format_error(reason: str, file: str, offset: int, field: str) -> FormatError:
    return FormatError(reason, file=file, offset=offset, field=field)


class ModelError(MmdgenError):
    """A model was read but cannot be used. `code` is a stable reason such as ``no_head_bone``."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(one_line(message))

    def __reduce__(self):
        return (type(self), (self.code, str(self)))


class AnnotationError(MmdgenError):
    """An annotation is missing, malformed or cannot be found. `code` is a stable reason such as ``no_mouth_morph``."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(one_line(message))

    def __reduce__(self):
        return (type(self), (self.code, str(self)))


class RenderError(MmdgenError):
    """The GL context, a shader or a draw failed."""


class DeviceLostError(RenderError):
    """What draws no longer does, whatever model it is given: a driver reset. Only a new process helps."""


class ConfigError(MmdgenError):
    """Options or configuration files contradict each other or the data."""


class DatasetError(MmdgenError):
    """A dataset or shard is missing, damaged or cannot be written."""


class EngineError(MmdgenError):
    """Worker processes failed in a way that is no single model's fault."""


class TrainError(MmdgenError):
    """Training, a trained run or its evaluation cannot go on."""
