"""Elementwise operations on the representation of numbers: shifts, signs, exponents, neighbours, and the greatest common divisor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tvm import tirx

from ...ir import DType
from .emitter import Expr
from .kernel import compute_dtype
from .math import Bind, f64, select
from .rule import Rule

_STEPS = {DType.UINT8: 7, DType.INT8: 7, DType.INT16: 13, DType.INT32: 25, DType.INT64: 51}
"""How many division steps Euclid's algorithm takes at most when remainders are the smallest in size: log of the largest number to the
base 1 + sqrt(2) (Dupré 1846)."""


def _number(value: int, dtype: DType) -> Expr:
    return tirx.const(value, compute_dtype(dtype))


def shift_left(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """x * 2^y; 0 where y is negative or not below the number of bits."""
    inside = bind(tirx.And(x[1] >= _number(0, dtype), x[1] < _number(dtype.bits, dtype)))
    places = bind(select(inside, x[1], _number(0, dtype)))
    return select(inside, bind(x[0] << places), _number(0, dtype))


def shift_right(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """x / 2^y rounded down; by all bits but the sign where y is negative or not below their number."""
    most = dtype.bits if dtype is DType.UINT8 else dtype.bits - 1
    inside = bind(tirx.And(x[1] >= _number(0, dtype), x[1] < _number(most, dtype)))
    # No processor shifts a byte by 8: by 7 and again by 1.
    whole = bind(x[0] >> _number(dtype.bits - 1, dtype))
    whole = bind(whole >> _number(1, dtype)) if dtype is DType.UINT8 else whole
    return select(inside, bind(x[0] >> bind(select(inside, x[1], _number(0, dtype)))), whole)


def gcd(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """The greatest common divisor by Euclid's algorithm with remainders of least size."""
    zero, one = _number(0, dtype), _number(1, dtype)
    unsigned = dtype is DType.UINT8

    def magnitude(value: Expr) -> Expr:
        return value if unsigned else bind(select(value < zero, zero - value, value))

    a, b = magnitude(x[0]), magnitude(x[1])
    for _ in range(_STEPS[dtype]):
        done = bind(tirx.EQ(b, zero))
        divisor = bind(select(done, one, b))
        rest = magnitude(bind(tirx.truncmod(a, divisor)))
        other = bind(divisor - rest)
        rest = bind(select(other < rest, other, rest))
        a, b = bind(select(done, a, b)), bind(select(done, zero, rest))
    return a


def signbit(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """Whether the sign bit is set: that of -0.0 is."""
    integer = "int64" if dtype is DType.FLOAT64 else "int32"
    return bind(tirx.reinterpret(integer, x[0])) < tirx.const(0, integer)


def nextafter(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """The next number from x towards y."""
    return tirx.call_pure_extern(compute_dtype(dtype), "nextafter" if dtype is DType.FLOAT64 else "nextafterf", x[0], x[1])


def _parts(bind: Bind, x: Expr) -> tuple[Expr, Expr, Expr]:
    """(m, e, whether x is finite and not 0) with x = m * 2^e and |m| in [1/2, 1), for an fp64 x."""
    size = bind(tirx.abs(x))
    plain = bind(tirx.And(size > f64(0.0), size < f64(math.inf)))
    tiny = bind(size < f64(2.0**-1022))
    bits = bind(tirx.reinterpret("int64", bind(select(tiny, x * f64(2.0**54), x))))
    biased = bind(tirx.Cast("int32", bind((bits >> tirx.const(52, "int64")) & tirx.const(0x7FF, "int64"))))
    exponent = bind(biased - select(tiny, tirx.const(1022 + 54, "int32"), tirx.const(1022, "int32")))
    fraction = bind((bits & tirx.const(-0x7FF0000000000001, "int64")) | tirx.const(0x3FE0000000000000, "int64"))
    return bind(tirx.reinterpret("float64", fraction)), exponent, plain


def mantissa(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """x times the power of two that brings it into [1/2, 1)."""
    value = x[0] if dtype is DType.FLOAT64 else bind(tirx.Cast("float64", x[0]))
    fraction, _, plain = _parts(bind, value)
    result = bind(select(plain, fraction, value))
    return result if dtype is DType.FLOAT64 else tirx.Cast("float32", result)


def exponent(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    """The exponent that goes with :func:`mantissa`; 0 for 0, infinities and NaN."""
    _, power, plain = _parts(bind, x[0] if dtype is DType.FLOAT64 else bind(tirx.Cast("float64", x[0])))
    return select(plain, power, tirx.const(0, "int32"))


BIT_RULES: dict[str, Rule] = {
    "shift_left": shift_left,
    "shift_right": shift_right,
    "gcd": gcd,
    "signbit": signbit,
    "nextafter": nextafter,
    "mantissa": mantissa,
    "exponent": exponent,
}
