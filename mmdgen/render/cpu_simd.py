"""Vector instructions for the CPU rasteriser's kernels, written out: LLVM does not find them in loops by itself.

Every lane does what the same sums do without vectors, in the same order: results do not depend on the machine.
Kernels that were compiled before a change here stay in numba's cache until their own file changes, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I1, _I16, _I32, _I64 = ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_U64, _INT, _FLOAT, _DOUBLE = types.uint64, types.int64, types.float32, types.float64
ROWS = 8  # that `spans` works out at once


def _instruction(function: Callable) -> Any:
    return intrinsic(function)


class _Vector:
    """A vector of floats or ints in a builder; operators work lane by lane, and take Python numbers, too."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value, self.kind = builder, value, value.type
        self.real = self.kind.element in (_F32, _F64)

    def _of(self, value: Any) -> _Vector:
        return _Vector(self.builder, value)

    def _other(self, other: Any) -> Any:
        if isinstance(other, _Vector):
            return other.value
        return ir.Constant(self.kind, [other] * self.kind.count)

    def __add__(self, other: Any) -> _Vector:
        add = self.builder.fadd if self.real else self.builder.add
        return self._of(add(self.value, self._other(other)))

    def __sub__(self, other: Any) -> _Vector:
        subtract = self.builder.fsub if self.real else self.builder.sub
        return self._of(subtract(self.value, self._other(other)))

    def __mul__(self, other: Any) -> _Vector:
        multiply = self.builder.fmul if self.real else self.builder.mul
        return self._of(multiply(self.value, self._other(other)))

    def __truediv__(self, other: Any) -> _Vector:
        return self._of(self.builder.fdiv(self.value, self._other(other)))

    def compare(self, condition: str, other: Any) -> Any:
        """Return lanes of one bit; false for what is no number."""
        compare = self.builder.fcmp_ordered if self.real else self.builder.icmp_signed
        return compare(condition, self.value, self._other(other))

    def where(self, condition: Any, other: Any) -> _Vector:
        """Return these lanes where `condition` holds, else `other`."""
        return self._of(self.builder.select(condition, self.value, self._other(other)))

    def at_least(self, other: Any) -> _Vector:
        return self.where(self.compare(">", other), other)

    def at_most(self, other: Any) -> _Vector:
        return self.where(self.compare("<", other), other)

    def whole(self) -> _Vector:
        """Return i32 lanes, cut towards zero. They must fit."""
        return self._of(self.builder.fptosi(self.value, ir.VectorType(_I32, self.kind.count)))

    def floats(self, kind: Any = _F32) -> _Vector:
        return self._of(self.builder.sitofp(self.value, ir.VectorType(kind, self.kind.count)))

    def call(self, name: str) -> _Vector:
        """Return one of LLVM's functions of one vector that are instructions: sqrt, ceil, floor."""
        suffix = f"v{self.kind.count}{'f64' if self.kind.element == _F64 else 'f32'}"
        kind = ir.FunctionType(self.kind, [self.kind])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.{suffix}")
        return self._of(self.builder.call(function, [self.value]))

    def lane(self, number: int) -> Any:
        return self.builder.extract_element(self.value, ir.Constant(_I32, number))


def _all(builder: Any, value: Any, count: int) -> _Vector:
    """Return `count` lanes of one value."""
    kind = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    mask = ir.Constant(ir.VectorType(_I32, count), [0] * count)
    return _Vector(builder, builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask))


def _lanes(builder: Any, kind: Any, values: Sequence[float]) -> _Vector:
    return _Vector(builder, ir.Constant(ir.VectorType(kind, len(values)), list(values)))


def _load(builder: Any, address: Any, kind: Any, index: int = 0, align: int = 4) -> Any:
    """Return the value of a kind at an address (u64), or `index` values of that kind further on."""
    pointer = builder.inttoptr(address, kind.as_pointer())
    if index:
        pointer = builder.gep(pointer, [ir.Constant(_I64, index)], source_etype=kind)
    return builder.load(pointer, align=align, typ=kind)


def _store(builder: Any, value: Any, address: Any, align: int = 4) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _mixed(builder: Any, start: Any, places: Sequence[Any], shares: Sequence[_Vector]) -> _Vector:
    """Return the sum of four texels (u16 [4] at `start`, numbers `places`) times `shares` (4 lanes each)."""
    texel = ir.VectorType(_I16, 4)
    base = builder.inttoptr(start, texel.as_pointer())
    total: _Vector | None = None
    for place, share in zip(places, shares, strict=True):
        pointer = builder.gep(base, [place], source_etype=texel)
        whole = builder.zext(builder.load(pointer, align=2, typ=texel), ir.VectorType(_I32, 4))
        product = _Vector(builder, whole).floats() * share
        total = product if total is None else total + product
    if total is None:
        raise ValueError("no texels")
    return total


@_instruction
def mix_texels(typing, address, places, shares):
    """Return the sum of four texels times their shares, f32 (r, g, b, alpha).

    Texels are u16 [4] from `address` (u64) on; `places` are four i64, `shares` four f32.
    """

    def code(context, builder, signature, arguments):
        start, places, shares = arguments
        numbers = [builder.extract_value(places, corner) for corner in range(4)]
        weights = [_all(builder, builder.extract_value(shares, corner), 4) for corner in range(4)]
        total = _mixed(builder, start, numbers, weights)
        return context.make_tuple(builder, signature.return_type, [total.lane(channel) for channel in range(4)])

    four = types.UniTuple(_FLOAT, 4)
    return four(_U64, types.UniTuple(_INT, 4), four), code


@_instruction
def cover(typing, depths, owners, x, count, z, slope, owner):
    """Show `owner` (i32) at up to 8 samples where it is not farther than what is there.

    `depths` and `owners` (u64) are the addresses of the i32 at sample `x` (i64); `count` samples of the 8 are meant,
    all 8 are read and written. The depth at x is `z` + `slope` x (f64), cut to an integer between 0 and 2^24.
    """

    def code(context, builder, signature, arguments):
        depths, owners, x, count, z, slope, owner = arguments
        ints = ir.VectorType(_I32, 8)
        place = _all(builder, builder.sitofp(x, _F64), 8) + _lanes(builder, _F64, range(8))
        depth = _all(builder, z, 8) + _all(builder, slope, 8) * place
        depth = depth.at_least(0.0).at_most(float(1 << 24)).whole()
        old_depth = _Vector(builder, _load(builder, depths, ints))
        old_owner = _Vector(builder, _load(builder, owners, ints))
        meant = _lanes(builder, _I32, range(8)).compare("<", _all(builder, builder.trunc(count, _I32), 8))
        shown = builder.and_(meant, depth.compare("<=", old_depth))
        _store(builder, depth.where(shown, old_depth).value, depths)
        _store(builder, _all(builder, owner, 8).where(shown, old_owner).value, owners)
        return context.get_dummy_value()

    return types.void(_U64, _U64, _INT, _INT, _DOUBLE, _DOUBLE, types.int32), code


@_instruction
def spans(typing, target, y, triangle, right, bounds):
    """Write which samples of `ROWS` rows from `y` (i64) on a triangle covers: first ones, then ends, i32, to `target`
    (u64). Those with a middle x + 1/2 from the left edge to before the right edge are covered.

    `triangle` f64: x and y of the upper corner and of the middle one, then how far an edge goes to the right in a row:
    upper to lower corner, upper to middle, middle to lower. `right` (bool): the middle corner is to the right of the
    long edge. `bounds` (f64): no sample before the first or from the second on.
    """

    def code(context, builder, signature, arguments):
        target, y, triangle, right, bounds = arguments
        upper_x, upper_y, middle_x, middle_y, long, upper, lower = (
            _all(builder, builder.extract_value(triangle, number), 8) for number in range(7)
        )
        first, end = (_all(builder, builder.extract_value(bounds, number), 8) for number in range(2))
        row = _all(builder, builder.sitofp(y, _F64), 8) + _lanes(builder, _F64, [lane + 0.5 for lane in range(8)])
        above = row.compare("<", middle_y)
        one = ((upper_x + (row - upper_y) * long) - 0.5).call("ceil")
        two = upper_x + (row - upper_y) * upper
        two = (two.where(above, middle_x + (row - middle_y) * lower) - 0.5).call("ceil")
        aside = _all(builder, builder.icmp_unsigned("!=", right, ir.Constant(right.type, 0)), 8).value
        left, stop = one.where(aside, two), two.where(aside, one)
        _store(builder, left.at_least(first).at_most(end).whole().value, target)
        ends = builder.add(target, ir.Constant(_I64, 4 * ROWS))
        _store(builder, stop.at_least(first).at_most(end).whole().value, ends)
        return context.get_dummy_value()

    return types.void(_U64, _INT, types.UniTuple(_DOUBLE, 7), types.boolean, types.UniTuple(_DOUBLE, 2)), code


@_instruction
def shade_phong(typing, plane, values, texture, x, y, offsets, mask, front):
    """Return the sum of the colours f32 (r, g, b) of one triangle at up to four samples of a pixel, phong and opaque.

    `plane` and `values` (u64) are the addresses of the triangle's planes and its draw's values as `cpu_kernels` has
    them; `texture` its texels' address, width and height (i64); the samples lie at `x`, `y` (f32) plus four of
    `offsets` (u64, f32: four x, then four y); `mask` has a bit for each sample that is meant, `front` tells which side.
    """

    def code(context, builder, signature, arguments):
        plane, values, texture, x, y, offsets, mask, front = arguments
        four = ir.VectorType(_F32, 4)
        start, width, height = (builder.extract_value(texture, number) for number in range(3))

        def shift(base: Any, axis: int) -> _Vector:
            place = _all(builder, base, 4) + _Vector(builder, _load(builder, offsets, four, axis))
            return place - _all(builder, _load(builder, plane, _F32, axis), 4)

        dx, dy = shift(x, 0), shift(y, 1)

        def attribute(at: int) -> _Vector:
            value, by_x, by_y = (_all(builder, _load(builder, plane, _F32, at + k), 4) for k in range(3))
            return value + by_x * dx + by_y * dy

        def places(at: int, side: Any) -> tuple[_Vector, _Vector, _Vector, _Vector]:
            """Return two texels' numbers along an axis, repeated, and their shares."""
            value = attribute(at).at_least(-4194304.0).at_most(4194304.0)
            low = value.call("floor")
            share = value - low
            count = _all(builder, builder.trunc(side, _I32), 4)
            number = low.whole()
            turns = (low / count.floats()).call("floor").whole()
            number = number - turns * count
            number = (number + count).where(number.compare("<", 0), number)
            number = (number - count).where(number.compare(">=", count), number)
            following = number + 1
            following = _lanes(builder, _I32, [0] * 4).where(following.compare(">=", count), following)
            return number, following, _lanes(builder, _F32, [1.0] * 4) - share, share

        x0, x1, gx, fx = places(2, width)
        y0, y1, gy, fy = places(5, height)
        scale = 1 / 65535
        shares = [gx * (gy * scale), fx * (gy * scale), gx * (fy * scale), fx * (fy * scale)]
        nx, ny, nz = (attribute(at) for at in (8, 11, 14))
        length = (nx * nx + ny * ny + nz * nz).at_least(1e-20).call("sqrt")
        facing = nz / length
        away = builder.icmp_signed("!=", front, ir.Constant(_I64, 0))
        facing = (_lanes(builder, _F32, [0.0] * 4) - facing).where(_all(builder, away, 4).value, facing)
        lambert = facing.at_least(0.0)
        diffuse, ambient = (_Vector(builder, _load(builder, values, four, number)) for number in range(2))
        total: _Vector = _lanes(builder, _F32, [0.0] * 4)
        for lane in range(4):
            corners = []
            for v in (y0, y1):
                row = builder.mul(builder.sext(v.lane(lane), _I64), width)
                corners += [builder.add(row, builder.sext(u.lane(lane), _I64)) for u in (x0, x1)]
            texel = _mixed(builder, start, corners, [_all(builder, share.lane(lane), 4) for share in shares])
            light = ambient + diffuse * _all(builder, lambert.lane(lane), 4)
            color = (texel * light).at_most(1.0)
            bit = builder.and_(mask, ir.Constant(_I64, 1 << lane))
            meant = _all(builder, builder.icmp_signed("!=", bit, ir.Constant(_I64, 0)), 4).value
            total = (total + color).where(meant, total)
        return context.make_tuple(builder, signature.return_type, [total.lane(channel) for channel in range(3)])

    return types.UniTuple(_FLOAT, 3)(_U64, _U64, types.UniTuple(_INT, 3), _FLOAT, _FLOAT, _U64, _INT, _INT), code
