"""How functions on arrays are compiled by numba.

What they compute must not depend on the machine: no fast mathematics, and functions of `math` only where IEEE fixes
them. Only modules that compile something import this one: numba takes half a second to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

njit: Any = numba.njit


def kernel(function: Callable, **options: Any) -> Any:
    """Compile `function` at its first call, with numba's `options`; it runs without the interpreter's lock.

    The machine code is kept beside the function's module or in the user's cache folder; where neither can be written,
    it is compiled once a process.
    """
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba found no folder to keep it in
        return njit(nogil=True, **options)(function)
