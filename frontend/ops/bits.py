"""Operations on the representation of numbers: shifts, divisors, signs, exponents."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...ir import DType, Value
from ..conversion import Conversion, Operand
from ..registry import converts

aten = torch.ops.aten


def _binary(op: str) -> Callable[[Conversion, Operand, Operand], Value]:
    def convert(c: Conversion, x: Operand, y: Operand) -> Value:
        return c.call(op, c.operand(x, c.dtype), c.operand(y, c.dtype))

    return convert


converts(
    aten.__lshift__.Scalar,
    aten.__lshift__.Tensor,
    aten.bitwise_left_shift.Tensor,
    aten.bitwise_left_shift.Tensor_Scalar,
    aten.bitwise_left_shift.Scalar_Tensor,
)(_binary("shift_left"))
converts(
    aten.__rshift__.Scalar,
    aten.__rshift__.Tensor,
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_right_shift.Tensor_Scalar,
    aten.bitwise_right_shift.Scalar_Tensor,
)(_binary("shift_right"))
converts(aten.gcd.default)(_binary("gcd"))


@converts(aten.lcm.default)
def lcm(c: Conversion, x: Value, y: Value) -> Value:
    """|x / gcd(x, y) * y|, and 0 where both are."""
    x, y = c.cast(x, c.dtype), c.cast(y, c.dtype)
    divisor = c.call("gcd", x, y)
    zero = c.scalar(0, c.dtype)
    none = c.call("eq", divisor, zero)
    product = c.call("mul", c.call("floor_div", x, c.call("where", none, c.scalar(1, c.dtype), divisor)), y)
    return c.call("where", none, zero, product if c.dtype is DType.UINT8 else c.call("abs", product))


@converts(aten.signbit.default)
def signbit(c: Conversion, x: Value) -> Value:
    if x.tensor.dtype.is_float:
        return c.call("signbit", x)
    if x.tensor.dtype is DType.BOOL:
        return c.call("full", shape=c.shape, value=False, dtype=DType.BOOL)
    return c.call("lt", x, c.scalar(0, x.tensor.dtype))


@converts(aten.copysign.Tensor, aten.copysign.Scalar)
def copysign(c: Conversion, x: Operand, y: Operand) -> Value:
    """|x| with the sign of y."""
    magnitude = c.call("abs", c.operand(x, c.dtype))
    return c.call("where", c.call("signbit", c.operand(y, c.dtype)), c.call("neg", magnitude), magnitude)


@converts(aten.nextafter.default)
def nextafter(c: Conversion, x: Value, y: Value) -> Value:
    return c.call("nextafter", c.cast(x, c.dtype), c.cast(y, c.dtype), dtype=c.dtype)


@converts(aten.frexp.Tensor)
def frexp(c: Conversion, x: Value) -> tuple[Value, Value]:
    return c.call("mantissa", x), c.call("exponent", x)


@converts(aten.ldexp.Tensor)
def ldexp(c: Conversion, x: Value, exponent: Value) -> Value:
    """x times 2 to the exponent."""
    power = c.call("pow", c.scalar(2, c.dtype), c.cast(exponent, c.dtype))
    return c.call("mul", c.cast(x, c.dtype), power)


@converts(aten.angle.default)
def angle(c: Conversion, x: Value) -> Value:
    """Of a real number: pi where it is negative, else 0; NaN stays."""
    x = c.cast(x, c.dtype)
    result = c.call("where", c.call("lt", x, c.scalar(0, c.dtype)), c.scalar(torch.pi, c.dtype), c.scalar(0, c.dtype))
    return c.call("where", c.call("isnan", x), x, result)
