"""Several numbers at a time in compiled loops: vectors of the processor, written out.

Before a compiler's own vectors begin, a loop asks how long it is and whether its arrays overlap:
in the short rows of a column's window that costs as much as the work. These functions say
what is meant. They exist in compiled functions only; a vector holds 256 bits, a wide one 512, and
where a processor has narrower ones the compiler takes several.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_model,
    type_callable,
)

LANES, WIDE = 8, 16  # numbers of single precision in a vector, and in a wide one
FOUR = 4  # of double precision
LOG_2 = 0.6931471805599453
# (2^x - 1) / x for |x| < 1/2, by its values at six of Chebyshev's points: good to 5e-9.
_POWER_OF_2 = (
    6.93147188e-01, 2.40226508e-01, 5.55035711e-02, 9.61808256e-03, 1.33908634e-03, 1.54531629e-04,
)  # fmt: skip
_INT = ir.IntType(32)
_ELEMENTS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


class Vector(types.Type):
    """The type of some numbers that are worked on together."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({lanes} x {dtype})")

    @property
    def built(self) -> ir.VectorType:
        """What it is to the compiler."""
        return ir.VectorType(_ELEMENTS[self.dtype], self.lanes)


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.built)


SINGLES, DOUBLES = Vector(types.float32, LANES), Vector(types.float64, FOUR)
MANY = Vector(types.float32, WIDE)
_KINDS = {kind.dtype: kind for kind in (SINGLES, DOUBLES)}


def _ints(*values: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INT, len(values)), values)


def _address(context: Any, builder: Any, signature: Any, args: Any, kind: Vector) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), kind.built.as_pointer())


def _load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind = signature.return_type
    address = _address(context, builder, signature, args, kind)
    return builder.load(address, align=kind.dtype.bitwidth // 8)


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """Give the numbers from ``array[at]`` on, of an array without gaps along one axis."""
    return _KINDS[array.dtype](array, types.uint64), _load


@intrinsic
def load_wide(typing: Any, array: Any, at: Any) -> Any:
    """Give twice as many of single precision."""
    return MANY(array, types.uint64), _load


@intrinsic
def store(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write the numbers to ``array[at]`` and what follows."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[2]
        address = _address(context, builder, signature, args, kind)
        builder.store(args[2], address, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.uint64, vector), build


@intrinsic
def load_doubled(typing: Any, array: Any, at: Any) -> Any:
    """Give four numbers of single precision from ``array[at]`` on in double precision."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), FOUR).as_pointer()
        values = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(values, [args[1]]), kind)
        return builder.fpext(builder.load(address, align=4), DOUBLES.built)

    return DOUBLES(array, types.uint64), build


def _spread(builder: Any, value: Any, kind: Vector) -> Any:
    none = ir.Constant(kind.built, ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, none, _ints(*[0] * kind.lanes))


def _fill(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _spread(builder, args[0], signature.return_type)


@intrinsic
def spread(typing: Any, value: Any) -> Any:
    """Give a vector of one number."""
    return _KINDS[value](value), _fill


@intrinsic
def spread_wide(typing: Any, value: Any) -> Any:
    """Give a wide one of a number of single precision."""
    return MANY(value), _fill


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Add the numbers of a vector."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, lanes = args[0], signature.args[0].lanes
        size = lanes
        while size > 1:
            size //= 2
            order = _ints(*[(k + size) % lanes for k in range(lanes)])
            value = builder.fadd(value, builder.shuffle_vector(value, value, order))
        return builder.extract_element(value, ir.Constant(_INT, 0))

    return vector.dtype(vector), build


@intrinsic
def quarters(typing: Any, one: Any, other: Any) -> Any:
    """Add the first four and the last four numbers of two vectors: four sums."""
    sums = types.UniTuple(types.float32, 4)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pick(*order: int, of: Any) -> Any:
            return builder.shuffle_vector(*of, _ints(*order))

        halves = (
            pick(0, 1, 4, 5, 8, 9, 12, 13, of=args),
            pick(2, 3, 6, 7, 10, 11, 14, 15, of=args),
        )
        value = builder.fadd(*halves)
        value = builder.fadd(
            pick(0, 2, 4, 6, of=(value, value)), pick(1, 3, 5, 7, of=(value, value))
        )
        found = [builder.extract_element(value, ir.Constant(_INT, k)) for k in range(4)]
        return context.make_tuple(builder, sums, found)

    return sums(SINGLES, SINGLES), build


@intrinsic
def ramp(typing: Any, start: Any, step: Any) -> Any:
    """Give ``start, start + step, ...``: a wide vector."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        numbers = ir.Constant(kind.built, [float(k) for k in range(kind.lanes)])
        steps = builder.fmul(_spread(builder, args[1], kind), numbers)
        return builder.fadd(_spread(builder, args[0], kind), steps)

    return MANY(types.float32, types.float32), build


@intrinsic
def turn(typing: Any, rows: Any) -> Any:
    """Give the columns of eight vectors as eight vectors."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        turned = [builder.extract_value(args[0], k) for k in range(LANES)]
        for near, order in (
            (1, (0, 8, 1, 9, 4, 12, 5, 13)),
            (2, (0, 1, 8, 9, 4, 5, 12, 13)),
            (4, (0, 1, 2, 3, 8, 9, 10, 11)),
        ):
            step = 2 if near < 4 else 4  # how far on the other half of each vector stands
            other = _ints(*[k + step for k in order])
            for k in (k for k in range(LANES) if not k & near):
                pair = turned[k], turned[k + near]
                turned[k] = builder.shuffle_vector(*pair, _ints(*order))
                turned[k + near] = builder.shuffle_vector(*pair, other)
        order = (0, 2, 1, 3, 4, 6, 5, 7)
        return context.make_tuple(builder, signature.return_type, [turned[k] for k in order])

    return rows(rows), build


@intrinsic
def gaussian(typing: Any, square: Any) -> Any:
    """Give ``exp(-square / 2)`` to 2e-7 of it; where that is less than 1e-18, 1e-18.

    A power of two, by the bits of the exponent, times that of what is left, by a polynomial. What
    counts as nothing is large enough for products of two: numbers below 1e-38 take processors a
    hundred times as long.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type

        def every(value: float) -> ir.Constant:
            return ir.Constant(kind.built, [value] * kind.lanes)

        ints = ir.VectorType(_INT, kind.lanes)
        power = builder.fmul(args[0], every(-0.5 / LOG_2))
        low = builder.fcmp_ordered("<", power, every(-60.0))
        power = builder.select(low, every(-60.0), power)
        whole = builder.fptosi(builder.fsub(power, every(0.5)), ints)
        rest = builder.fsub(power, builder.sitofp(whole, kind.built))
        value = every(_POWER_OF_2[-1])
        for factor in (*_POWER_OF_2[-2::-1], 1.0):
            value = builder.fadd(builder.fmul(value, rest), every(factor))
        bits = builder.shl(whole, _ints(*[23] * kind.lanes))
        bits = builder.add(builder.bitcast(value, ints), bits)
        return builder.bitcast(bits, kind.built)

    return square(square), build


def _arithmetic(symbol: Any, name: str) -> None:
    """Let an operator combine two vectors of one kind."""
    kinds = (*_KINDS.values(), MANY)

    @type_callable(symbol)
    def choose(context: Any) -> Any:
        return lambda one, other: one if one is other and one in kinds else None

    for kind in kinds:

        @lower_builtin(symbol, kind, kind)
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")
