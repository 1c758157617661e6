"""Pictures in a row as files: numbered PNGs, animated PNG, GIF, or a video by an ffmpeg that is installed.

Frames are u8 [H, W, 4] (straight alpha) or [H, W, 3], all of one size, and are taken one by one: a long motion takes no
more memory than a short one, except for GIF. Files appear under their name only when they are whole.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from mmdgen.errors import ConfigError, TrainError
from mmdgen.fsio import TEMPORARY_MARK, write_atomic
from mmdgen.png import encode_png

MOVIES = (".apng", ".gif", ".mp4", ".webm")
OPAQUE = (".mp4",)  # have no transparency: their frames must be [H, W, 3]
FRAME_NAME = "{:06d}.png"

_SIGNATURE_SIZE = 8
_GIF_COLOURS = 255  # and one for what is transparent
_GIF_FASTEST = 50  # players slow down frames of less than 2/100 seconds
_HALF = 128
_ENCODERS = {
    ".mp4": ("-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", "-movflags", "+faststart"),
    ".webm": ("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-pix_fmt"),
}


def write_frames(folder: Path, frames: Iterable[np.ndarray]) -> int:
    """Write the frames as 000000.png, 000001.png, ... into a folder; return how many.

    Raises `ConfigError` where the folder holds such frames already: older ones must not stay between new ones.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; frames go into a folder, films into {', '.join(MOVIES)}")
    if folder.is_dir() and any(folder.glob("[0-9]" * 6 + ".png")):
        raise ConfigError(f"{folder}: holds frames already; name another folder or remove them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror or error}") from None
    count = 0
    for count, frame in enumerate(frames, start=1):
        write_atomic(folder / FRAME_NAME.format(count - 1), encode_png(frame))
    return count


def check_movie(path: Path, fps: float) -> None:
    """Raise `ConfigError` for a film that cannot be written here: ending, frame rate, a missing ffmpeg."""
    kind = path.suffix.lower()
    if kind not in MOVIES:
        raise ConfigError(f"{path}: a film ends with {', '.join(MOVIES)}; without an ending it is a folder of frames")
    if not 0 < fps <= 1000:
        raise ConfigError(f"a film has 0 to 1000 frames a second, found {fps:g}")
    if kind == ".gif" and fps > _GIF_FASTEST:
        raise ConfigError(f"{path}: a GIF shows at most {_GIF_FASTEST} frames a second, found {fps:g}")
    if kind in _ENCODERS and shutil.which("ffmpeg") is None:
        raise ConfigError(
            f"{path}: {kind} needs ffmpeg, which is not installed (Debian, Ubuntu: apt-get install ffmpeg; macOS: brew "
            "install ffmpeg; Windows: winget install ffmpeg); .apng and .gif need nothing"
        )


def write_movie(path: Path, frames: Iterable[np.ndarray], count: int, fps: float) -> None:
    """Write `count` frames as a film that repeats for ever (.apng, .gif) or a video (.mp4, .webm), by the ending.

    Raises what `check_movie` raises, `ConfigError` for transparent frames of an .mp4, and `TrainError` when the file
    cannot be written or ffmpeg fails; then there is no file, or still the old one.
    """
    check_movie(path, fps)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None or count < 1:
        raise ConfigError(f"{path}: there is no frame to show")
    kind = path.suffix.lower()
    if kind in OPAQUE and first.shape[2] == 4:
        raise ConfigError(f"{path}: {kind} has no transparency; give a background")
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{os.getpid()}{path.suffix}")
    writers: dict[str, Callable] = {".apng": _apng, ".gif": _gif}
    try:
        # 1001 is the denominator of television's rates; an animated PNG holds numbers of 16 bits
        rate = Fraction(fps).limit_denominator(max(1, min(1001, int(65535 / fps))))
        writers.get(kind, _ffmpeg)(temporary, chain([first], iterator), count, rate)
        temporary.replace(path)
    except OSError as error:
        raise TrainError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _apng(path: Path, frames: Iterator[np.ndarray], count: int, fps: Fraction) -> None:
    """Animated PNG (PNG specification, third edition, section 11.3.6): every frame whole, none blended."""
    with path.open("wb") as stream:
        number = 0  # of the animation's chunks, which are counted together
        for place, frame in enumerate(frames):
            file = encode_png(frame)
            height, width = frame.shape[:2]
            control = struct.pack(">IIIIIHHBB", number, width, height, 0, 0, fps.denominator, fps.numerator, 0, 0)
            number += 1
            for kind, content in _chunks(file):
                if place == 0 and kind != b"IEND":
                    if kind == b"IDAT":
                        stream.write(_chunk(b"acTL", struct.pack(">II", count, 0)) + _chunk(b"fcTL", control))
                    elif kind == b"IHDR":
                        stream.write(file[:_SIGNATURE_SIZE])
                    stream.write(_chunk(kind, content))
                elif kind == b"IDAT":
                    stream.write(_chunk(b"fcTL", control) + _chunk(b"fdAT", struct.pack(">I", number) + content))
                    number += 1
        stream.write(_chunk(b"IEND", b""))


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = _SIGNATURE_SIZE
    while at < len(file):
        (size,) = struct.unpack_from(">I", file, at)
        yield file[at + 4 : at + 8], file[at + 8 : at + 8 + size]
        at += 12 + size


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _gif(path: Path, frames: Iterator[np.ndarray], count: int, fps: Fraction) -> None:
    """GIF: each frame with 255 colours of its own; alpha below a half is transparent. Times are 1/100 s, so they vary
    such that their sum is right."""
    from PIL import Image  # only for this: starting stays quick

    def paletted(frame: np.ndarray) -> Image.Image:
        solid = frame[..., 3] >= _HALF if frame.shape[2] == 4 else np.ones(frame.shape[:2], bool)
        # What is not seen must not take colours from what is.
        colours = np.where(solid[..., None], frame[..., :3], np.uint8(0))
        made = Image.fromarray(colours).quantize(_GIF_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        index = np.where(solid, np.asarray(made), np.uint8(_GIF_COLOURS))
        palette = list(made.getpalette() or ())[: 3 * _GIF_COLOURS]
        result = Image.frombytes("P", (index.shape[1], index.shape[0]), index.tobytes())
        result.putpalette(palette + [0] * (3 * 256 - len(palette)))
        return result

    ends = [int(100 * (place + 1) / fps + Fraction(1, 2)) for place in range(count)]
    times = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    first = paletted(next(frames))
    first.save(
        path,
        "GIF",
        save_all=True,
        append_images=map(paletted, frames),
        duration=times if count > 1 else times[0],
        loop=0,
        transparency=_GIF_COLOURS,
        disposal=2,
        optimize=False,
    )


def _ffmpeg(path: Path, frames: Iterator[np.ndarray], count: int, fps: Fraction) -> None:
    """A video by the ffmpeg of this machine, which gets raw frames through a pipe."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ConfigError("ffmpeg is not installed")
    first = next(frames)
    height, width, channels = first.shape
    kind = path.suffix.lower()
    options = [*_ENCODERS[kind], *(["yuva420p" if channels == 4 else "yuv420p"] if kind == ".webm" else [])]
    command = [program, "-y", "-nostdin", "-loglevel", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgba" if channels == 4 else "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    command += ["-an", *options, str(path.absolute())]
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as process:
        pipe = process.stdin
        broken = False
        try:
            for frame in chain([first], frames):
                pipe.write(np.ascontiguousarray(frame))  # type: ignore[union-attr]
        except BrokenPipeError:
            broken = True
        except BaseException:
            process.kill()
            raise
        finally:
            try:
                pipe.close()  # type: ignore[union-attr]
            except BrokenPipeError:
                broken = True
        status = process.wait()
        if status != 0 or broken:
            said.seek(0)
            text = " ".join(said.read(4000).decode("utf-8", "replace").split()) or "it says nothing"
            raise TrainError(f"ffmpeg failed (exit status {status}): {text}")
