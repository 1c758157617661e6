"""How kernels are compiled that work on pixels byte by byte.

Their results must not depend on the machine: no fast mathematics, and functions of `math` only where IEEE fixes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable) -> Any:
    """Compile `function` at its first call, without the interpreter's lock while it runs.

    The machine code is kept beside the module or in the user's cache folder; where neither can be written, it is
    compiled once a process.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder to keep it in
        return njit(nogil=True)(function)
