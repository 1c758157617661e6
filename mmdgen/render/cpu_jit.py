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


def kernel(function: Callable) -> Any:
    """Compile `function` on its first call and keep the machine code in a cache on disk, beside the module or in the
    user's cache folder; where neither can be written, it is compiled once a process."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder that it can write to
        return njit(nogil=True)(function)


@intrinsic
def load_u32(typing, address, index):  # noqa: ANN001, ANN201
    """Return the little-endian u32 number `index` (i64) from `address` (u64) on."""

    def code(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        start, number = arguments
        pointer = builder.inttoptr(start, ir.IntType(32).as_pointer())
        return builder.load(builder.gep(pointer, [number], source_etype=ir.IntType(32)), align=1)

    return types.uint32(types.uint64, types.int64), code


@intrinsic
def cover(typing, depths, owners, x, count, z, slope, owner):  # noqa: ANN001, ANN201
    """Show `owner` (i32) at up to 8 samples where it is not farther than what is there.

    `depths` and `owners` (u64) are the addresses of the i32 at sample `x` (i64); `count` samples of the 8 are meant, all
    8 are read and written. The depth at x is `z` + `slope` x (f64), cut to an integer between 0 and 2^24.
    """

    def code(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        depths, owners, x, count, z, slope, owner = arguments
        i32, f64 = ir.IntType(32), ir.DoubleType()
        ints, floats = ir.VectorType(i32, _LANES), ir.VectorType(f64, _LANES)
        lane = ir.Constant(ints, list(range(_LANES)))

        def splat(value: Any, kind: ir.VectorType) -> Any:
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(i32, 0))
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(ints, [0] * _LANES))

        def clamped(value: Any, condition: str, limit: float) -> Any:
            bound = ir.Constant(floats, [limit] * _LANES)
            return builder.select(builder.fcmp_ordered(condition, value, bound), value, bound)

        place = builder.sitofp(builder.add(splat(builder.trunc(x, i32), ints), lane), floats)
        depth = builder.fadd(splat(z, floats), builder.fmul(splat(slope, floats), place))
        depth = builder.fptosi(clamped(clamped(depth, ">", 0.0), "<", float(1 << 24)), ints)
        depths = builder.inttoptr(depths, ints.as_pointer())
        owners = builder.inttoptr(owners, ints.as_pointer())
        old_depth, old_owner = builder.load(depths, align=4), builder.load(owners, align=4)
        meant = builder.icmp_signed("<", lane, splat(builder.trunc(count, i32), ints))
        shown = builder.and_(meant, builder.icmp_signed("<=", depth, old_depth))
        builder.store(builder.select(shown, depth, old_depth), depths, align=4)
        builder.store(builder.select(shown, splat(owner, ints), old_owner), owners, align=4)
        return context.get_dummy_value()

    return types.void(
        types.uint64, types.uint64, types.int64, types.int64, types.float64, types.float64, types.int32
    ), code
