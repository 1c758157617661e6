"""What the CPU rasteriser's kernels are made with: numba without fast mathematics.

Kernels give the same bytes on every machine: IEEE additions, multiplications, divisions and square roots in the order
that is written, no fused multiply-add, no function of a mathematics library. So a kernel may call no `math` function
but `sqrt`, `floor` and `ceil`, and may not multiply `np.float32` by anything else where 32 bits are meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmdgen import jit

# Arrays stay with their owners outside: counting references inside loops would take longer than what the loops do.
# Divisions by zero give what IEEE says.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}


def kernel(function: Callable) -> Any:
    """Compile `function` as `jit.kernel` does. It may allocate nothing."""
    return jit.kernel(function, **_OPTIONS)


def part(function: Callable) -> Any:
    """Make `function` a part of the kernels that call it, without a call."""
    return jit.njit(nogil=True, forceinline=True, no_cpython_wrapper=True, **_OPTIONS)(function)


def helper(function: Callable) -> Any:
    """Make `function` one that kernels call."""
    return jit.njit(nogil=True, no_cpython_wrapper=True, **_OPTIONS)(function)
