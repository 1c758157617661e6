"""Readers with planted bugs, one a kind of case: the fuzzer must report each (see test_fuzz)."""

from __future__ import annotations

import ctypes
import os
import time
import warnings
from collections.abc import Callable

import numpy as np

from mmdgen.errors import ConfigError, FormatError, ModelError
from mmdgen.model.load import model_from_bytes
from mmdgen.model.textures import decode_image


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
    from fuzz_checks import check_error

    def check(data: bytes, number: int) -> str:
        try:
            return PLANTED[number % len(PLANTED)][0]()
        except (FormatError, ModelError, ConfigError) as error:
            return check_error(error, (FormatError, ModelError), len(data))

    return {"pmx": check}


def broken_model() -> dict[str, Callable[[bytes, int], str]]:
    """The real check of models, given models whose promises are broken: by number, see `BREAKS`."""
    import fuzz_checks

    def check(data: bytes, number: int) -> str:
        model = model_from_bytes(data, fuzz_checks.NOWHERE)
        BREAKS[number][1](model)
        for problem in fuzz_checks.problems(model):
            raise fuzz_checks.FindingError("promise", problem)
        return "accepted"

    return {"pmx": check, "png": lambda data, number: str(decode_image(data).shape)}


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
