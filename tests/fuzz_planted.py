"""Readers with planted bugs, one a kind of case: the fuzzer must report each (see test_fuzz)."""

from __future__ import annotations

import ctypes
import os
import time
import warnings
from collections.abc import Callable

import numpy as np
from fuzz_checks import check_error
from fuzz_checks import targets as targets_of_the_fuzzer

from mmdgen.errors import ConfigError, FormatError, ModelError
from mmdgen.formats import cursor
from mmdgen.model import assemble, bmp, dds, png_chunks, skeleton, textures, tga


def _index_error() -> str:
    return str([][0])


def _endless() -> str:
    while True:
        pass


def _endless_in_c() -> str:
    # One call that does not come back to the interpreter: no signal handler of Python would ever run.
    return str(sum(range(1 << 62)))


def _asleep() -> str:
    time.sleep(60)
    return "accepted"


def _gigabyte() -> str:
    return str(len(bytearray(1 << 30)))


def _gigabyte_hidden() -> str:
    """A reader that takes every exception for damage."""
    try:
        np.ones(1 << 27)
    except Exception as error:
        raise ModelError("texture_damaged", "damaged") from error
    return "accepted"


def _abort() -> str:
    os.abort()


def _segfault() -> str:
    return str(ctypes.string_at(0))


def _exit() -> str:
    os._exit(3)


def _system_exit() -> str:
    raise SystemExit(0)


def _warning() -> str:
    warnings.warn("numbers overflow", RuntimeWarning, stacklevel=1)
    return "accepted"


def _recursion() -> str:
    return _recursion()


def _wrong_error() -> str:
    raise ConfigError("not what a reader raises")


def _fine() -> str:
    return "accepted"


def _refused() -> str:
    raise FormatError("damaged")


# case number: (what is done, the code of the finding or None)
PLANTED: tuple[tuple[Callable[[], str], str | None], ...] = (
    (_index_error, "exception IndexError"),
    (_endless, "hang"),
    (_fine, None),
    (_endless_in_c, "hang"),
    (_asleep, "hang"),
    (_gigabyte, "allocation"),
    (_gigabyte_hidden, "allocation"),
    (_abort, "crash"),
    (_segfault, "crash"),
    (_exit, "crash"),
    (_refused, None),
    (_system_exit, "exception SystemExit"),
    (_warning, "exception RuntimeWarning"),
    (_recursion, "exception RecursionError"),
    (_wrong_error, "wrong_error"),
)


def targets() -> dict[str, Callable[[bytes, int], str]]:
    def check(data: bytes, number: int) -> str:
        try:
            return PLANTED[number % len(PLANTED)][0]()
        except (FormatError, ModelError, ConfigError) as error:
            return check_error(error, (FormatError, ModelError), len(data))

    return {"pmx": check}


def _put(path: str, value: float) -> Callable:
    def change(model) -> None:
        target = model
        for name in path.split("."):
            target = target[int(name)] if name.isdigit() else getattr(target, name)
        target[(0,) * target.ndim] = value

    return change


# what is broken in a model, and how; every one must be seen
BREAKS: tuple[tuple[str, Callable], ...] = (
    ("position", _put("position", np.nan)),
    ("position", _put("position", 1e8)),
    ("normal", _put("normal", 3.0)),
    ("uv", _put("uv", np.inf)),
    ("edge_scale", _put("edge_scale", -1.0)),
    ("weights", _put("bone_weight", 0.7)),
    ("bone_index", _put("bone_index", 99)),
    ("face", _put("face", -1)),
    ("sdef.vertex", _put("sdef.vertex", 1000)),
    ("sdef.c", _put("sdef.c", np.nan)),
    ("rest", _put("skeleton.rest", np.nan)),
    ("parent", _put("skeleton.parent", 3)),
    ("parent", _put("skeleton.parent", 99)),
    ("append_source", _put("skeleton.append_source", 3)),
    ("append_ratio", _put("skeleton.append_ratio", np.inf)),
    ("order", _put("skeleton.order", 1)),
    ("morph 0", _put("morphs.0.index", 1000)),
    ("morph 0", _put("morphs.0.offset", np.nan)),
    ("morph 4", _put("morphs.4.index", 4)),
    ("morph 5", _put("morphs.5.offset", np.nan)),
)


# -- the real checks of readers that lost one of theirs ----------------------------------------------------------------


def without_weight_repair() -> dict[str, Callable[[bytes, int], str]]:
    def keep(bone_index, bone_weight, bone_count, diagnostics):
        return bone_index, bone_weight

    assemble.repair_weights = keep
    return targets_of_the_fuzzer()


def without_normal_repair() -> dict[str, Callable[[bytes, int], str]]:
    assemble.repair_normals = lambda normal, position, face, diagnostics: normal
    return targets_of_the_fuzzer()


def without_cuts_of_cycles() -> dict[str, Callable[[bytes, int], str]]:
    skeleton._parents = lambda rows, diagnostics: [row.parent if 0 <= row.parent < len(rows) else -1 for row in rows]
    return targets_of_the_fuzzer()


def without_damaged_text() -> dict[str, Callable[[bytes, int], str]]:
    cursor.decode_text = lambda raw, encoding: raw.decode(encoding, "replace")
    return targets_of_the_fuzzer()


def without_checks_of_counts() -> dict[str, Callable[[bytes, int], str]]:
    """Room for what a count says, before it is looked whether the file has it."""

    def array(self, dtype, count, field):
        items = np.ones(count, dtype)
        raw = self.take(items.nbytes, field)
        items[:] = np.frombuffer(raw, dtype)
        return items

    def count(self, field, minimum, kind="i"):
        return max(self.unpack(cursor.layout(kind), field)[0], 0)

    cursor.Cursor.array, cursor.Cursor.count = array, count
    return targets_of_the_fuzzer()


def without_limits_of_pixels() -> dict[str, Callable[[bytes, int], str]]:
    for module in (textures, bmp, dds, tga, png_chunks):
        if hasattr(module, "check_pixels"):
            setattr(module, "check_pixels", lambda *_, **__: None)  # noqa: B010
    return targets_of_the_fuzzer()


# what is missing: the kind of files that shows it, and one of the codes that must come up
SABOTAGE: dict[str, tuple[str, str]] = {
    "without_weight_repair": ("pmx", "promise"),
    "without_normal_repair": ("pmd", "promise"),
    "without_cuts_of_cycles": ("pmx", "hang"),
    "without_damaged_text": ("pmx", "round_trip"),
    "without_checks_of_counts": ("pmd", "allocation"),
    "without_limits_of_pixels": ("gif", "allocation"),
}
