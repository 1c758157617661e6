"""What the CPU rasteriser's kernels are made with: numba without fast mathematics, and the few vector instructions it
cannot be trusted to find by itself.

Kernels give the same bytes on every machine: IEEE additions, multiplications, divisions and square roots in the order
that is written, no fused multiply-add, no function of a mathematics library. So a kernel may call no `math` function but
`sqrt`, `floor` and `ceil`, and may not multiply `np.float32` by anything else where 32 bits are meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_LANES = 8


# Arrays stay with their owners outside: counting references inside loops would take longer than what the loops do.
# Divisions by zero give what IEEE says.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}


def kernel(function: Callable) -> Any:
    """Compile `function` on its first call and keep the machine code in a cache on disk, beside the module or in the
    user's cache folder; where neither can be written, it is compiled once a process. It may allocate nothing."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no folder that it can write to
        return njit(**_OPTIONS)(function)


def part(function: Callable) -> Any:
    """Make `function` a part of the kernels that call it, without a call."""
    return njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)(function)


def helper(function: Callable) -> Any:
    """Make `function` one that kernels call."""
    return njit(no_cpython_wrapper=True, **_OPTIONS)(function)


@intrinsic
def mix_texels(typing, address, places, shares):
    """Return the sum of four texels times their shares, f32 (r, g, b, alpha).

    Texels are u16 [4] from `address` (u64) on; `places` are four i64, `shares` four f32.
    """

    def code(context, builder, signature, arguments):
        start, places, shares = arguments
        texel = ir.VectorType(ir.IntType(16), 4)
        floats = ir.VectorType(ir.FloatType(), 4)
        base = builder.inttoptr(start, texel.as_pointer())
        total = None
        for corner in range(4):
            pointer = builder.gep(base, [builder.extract_value(places, corner)], source_etype=texel)
            whole = builder.zext(builder.load(pointer, align=2, typ=texel), ir.VectorType(ir.IntType(32), 4))
            share = _splat(builder, builder.extract_value(shares, corner), floats)
            product = builder.fmul(builder.sitofp(whole, floats), share)
            total = product if total is None else builder.fadd(total, product)
        lanes = [builder.extract_element(total, ir.Constant(ir.IntType(32), lane)) for lane in range(4)]
        return context.make_tuple(builder, signature.return_type, lanes)

    return types.UniTuple(types.float32, 4)(
        types.uint64, types.UniTuple(types.int64, 4), types.UniTuple(types.float32, 4)
    ), code


def _splat(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> Any:
    """Return a vector with `value` in all lanes."""
    first, none = ir.Constant(ir.IntType(32), 0), ir.Constant(kind, ir.Undefined)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(builder.insert_element(none, value, first), none, mask)


@intrinsic
def cover(typing, depths, owners, x, count, z, slope, owner):
    """Show `owner` (i32) at up to 8 samples where it is not farther than what is there.

    `depths` and `owners` (u64) are the addresses of the i32 at sample `x` (i64); `count` samples of the 8 are meant, all
    8 are read and written. The depth at x is `z` + `slope` x (f64), cut to an integer between 0 and 2^24.
    """

    def code(context, builder, signature, arguments):
        depths, owners, x, count, z, slope, owner = arguments
        i32, f64 = ir.IntType(32), ir.DoubleType()
        ints, floats = ir.VectorType(i32, _LANES), ir.VectorType(f64, _LANES)
        lane = ir.Constant(ints, list(range(_LANES)))

        def clamped(value: Any, condition: str, limit: float) -> Any:
            bound = ir.Constant(floats, [limit] * _LANES)
            return builder.select(builder.fcmp_ordered(condition, value, bound), value, bound)

        place = builder.sitofp(builder.add(_splat(builder, builder.trunc(x, i32), ints), lane), floats)
        depth = builder.fadd(_splat(builder, z, floats), builder.fmul(_splat(builder, slope, floats), place))
        depth = builder.fptosi(clamped(clamped(depth, ">", 0.0), "<", float(1 << 24)), ints)
        depths = builder.inttoptr(depths, ints.as_pointer())
        owners = builder.inttoptr(owners, ints.as_pointer())
        old_depth, old_owner = builder.load(depths, align=4), builder.load(owners, align=4)
        meant = builder.icmp_signed("<", lane, _splat(builder, builder.trunc(count, i32), ints))
        shown = builder.and_(meant, builder.icmp_signed("<=", depth, old_depth))
        builder.store(builder.select(shown, depth, old_depth), depths, align=4)
        builder.store(builder.select(shown, _splat(builder, owner, ints), old_owner), owners, align=4)
        return context.get_dummy_value()

    return types.void(
        types.uint64, types.uint64, types.int64, types.int64, types.float64, types.float64, types.int32
    ), code
