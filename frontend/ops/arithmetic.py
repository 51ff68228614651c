"""Arithmetic on numbers: the four operations, powers, rounding, limits, conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...ir import DType, Value
from ..conversion import Conversion, Number, Operand
from ..dtypes import from_torch
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


def _scaled(c: Conversion, y: Operand, alpha: Number) -> Value:
    """alpha * y in the result's dtype."""
    value = c.operand(y, c.dtype)
    return value if alpha == 1 else c.call("mul", value, c.scalar(alpha, c.dtype))


@converts(aten.add.Tensor, aten.add.Scalar)
def add(c: Conversion, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    op = "logical_or" if c.dtype is DType.BOOL else "add"
    return c.call(op, c.operand(x, c.dtype), _scaled(c, y, alpha))


@converts(aten.sub.Tensor, aten.sub.Scalar)
def sub(c: Conversion, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return c.call("sub", c.operand(x, c.dtype), _scaled(c, y, alpha))


@converts(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(c: Conversion, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return c.call("sub", c.operand(y, c.dtype), _scaled(c, x, alpha))


@converts(aten.mul.Tensor, aten.mul.Scalar)
def mul(c: Conversion, x: Operand, y: Operand) -> Value:
    return c.call("mul", c.operand(x, c.dtype), c.operand(y, c.dtype))


@converts(aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode)
def div(c: Conversion, x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Value:
    dividend, divisor = c.operand(x, c.dtype), c.operand(y, c.dtype)
    if rounding_mode == "floor":
        return c.call("floor_div", dividend, divisor)
    if rounding_mode is None:
        return c.call("div", dividend, divisor)
    if c.dtype.is_float:
        return c.call("trunc", c.call("div", dividend, divisor))
    return _truncated_quotient(c, dividend, divisor)


def _truncated_quotient(c: Conversion, x: Value, y: Value) -> Value:
    """x / y for integers, rounded towards zero."""
    if c.dtype is DType.UINT8:
        return c.call("floor_div", x, y)
    quotient = c.call("floor_div", c.call("abs", x), c.call("abs", y))
    return c.call("mul", quotient, c.call("mul", c.call("sign", x), c.call("sign", y)))


@converts(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(c: Conversion, x: Operand, y: Operand) -> Value:
    return c.call("floor_div", c.operand(x, c.dtype), c.operand(y, c.dtype))


def _binary(op: str) -> Callable[[Conversion, Operand, Operand], Value]:
    def convert(c: Conversion, x: Operand, y: Operand) -> Value:
        return c.call(op, c.operand(x, c.dtype), c.operand(y, c.dtype))

    return convert


converts(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)(_binary("remainder"))
converts(aten.fmod.Tensor, aten.fmod.Scalar)(_binary("fmod"))
converts(aten.maximum.default)(_binary("maximum"))
converts(aten.minimum.default)(_binary("minimum"))
converts(aten.bitwise_and.Tensor, aten.bitwise_and.Scalar)(_binary("bitwise_and"))
converts(aten.bitwise_or.Tensor, aten.bitwise_or.Scalar)(_binary("bitwise_or"))
converts(aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar)(_binary("bitwise_xor"))


def _unary(op: str) -> Callable[[Conversion, Value], Value]:
    def convert(c: Conversion, x: Value) -> Value:
        return c.call(op, c.cast(x, c.dtype))

    return convert


for _name in ("neg", "abs", "square", "reciprocal", "sqrt", "rsqrt", "bitwise_not"):
    converts(getattr(aten, _name).default)(_unary(_name))
converts(aten._neg_view.default)(_unary("neg"))


@converts(aten.sign.default, aten.sgn.default)
def sign(c: Conversion, x: Value) -> Value:
    return x if x.tensor.dtype is DType.BOOL else c.call("sign", x)


def _rounding(op: str) -> Callable[[Conversion, Value], Value]:
    def convert(c: Conversion, x: Value) -> Value:
        return c.call(op, x) if x.tensor.dtype.is_float else x

    return convert


for _name in ("floor", "ceil", "trunc", "round"):
    converts(getattr(aten, _name).default)(_rounding(_name))


@converts(aten.round.decimals)
def round_decimals(c: Conversion, x: Value, *, decimals: int) -> Value:
    if not x.tensor.dtype.is_float:
        raise Unsupported("integers are rounded to decimals: convert them to float")
    scale = c.scalar(10.0 ** abs(decimals), c.dtype)
    up, down = ("mul", "div") if decimals >= 0 else ("div", "mul")
    return c.call(down, c.call("round", c.call(up, x, scale)), scale)


@converts(aten.pow.Tensor_Scalar)
def pow_number(c: Conversion, x: Value, exponent: Number) -> Value:
    """A power by a number; small ones are products, halves roots."""
    x = c.cast(x, c.dtype)
    if exponent == 0:
        return c.call("full", shape=c.shape, value=1.0 if c.dtype.is_float else 1, dtype=c.dtype)
    if exponent == 1:
        return x
    if exponent == 2:
        return c.call("square", x)
    if exponent == 3:
        return c.call("mul", c.call("square", x), x)
    if exponent == 4:
        return c.call("square", c.call("square", x))
    if c.dtype.is_float and exponent in _ROOTS:
        return c.call(_ROOTS[exponent], x)
    return c.call("pow", x, c.scalar(exponent, c.dtype))


_ROOTS = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}


@converts(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow_tensor(c: Conversion, x: Operand, exponent: Value) -> Value:
    return c.call("pow", c.operand(x, c.dtype), c.cast(exponent, c.dtype))


@converts(aten.clamp.default)
def clamp(c: Conversion, x: Value, min: Number | None = None, max: Number | None = None) -> Value:
    def bound(number: Number) -> Number:
        # PyTorch wraps negative bounds of unsigned integers around.
        return float(number) if c.dtype.is_float else int(np.asarray(int(number)).astype(c.dtype.numpy))

    return c.call("clamp", c.cast(x, c.dtype), min=None if min is None else bound(min), max=None if max is None else bound(max))


@converts(aten.clamp.Tensor)
def clamp_tensor(c: Conversion, x: Value, min: Value | None = None, max: Value | None = None) -> Value:
    x = c.cast(x, c.dtype)
    if min is not None:
        x = c.call("maximum", x, c.cast(min, c.dtype))
    return x if max is None else c.call("minimum", x, c.cast(max, c.dtype))


@converts(aten._to_copy.default)
def to_copy(c: Conversion, x: Operand, **options: Any) -> Value:
    """Traces of PyTorch's own (flex_attention's) hold numbers here, too."""
    return c.operand(x, c.dtype)


@converts(torch.ops.prims.convert_element_type.default)
def convert_element_type(c: Conversion, x: Value, dtype: torch.dtype) -> Value:
    return c.cast(x, from_torch(dtype))


@converts(aten.copy.default)
def copy(c: Conversion, target: Value, source: Value, non_blocking: bool = False) -> Value:
    return c.broadcast(c.cast(source, c.dtype), c.shape)


def _nan_ignoring(op: str) -> Callable[[Conversion, Value, Value], Value]:
    """fmax and fmin: the other operand where one is NaN."""

    def convert(c: Conversion, x: Value, y: Value) -> Value:
        x, y = c.cast(x, c.dtype), c.cast(y, c.dtype)
        chosen = c.call(op, x, y)
        if not c.dtype.is_float:
            return chosen
        return c.call("where", c.call("isnan", x), y, c.call("where", c.call("isnan", y), x, chosen))

    return convert


converts(aten.fmax.default)(_nan_ignoring("maximum"))
converts(aten.fmin.default)(_nan_ignoring("minimum"))


@converts(aten.hypot.default)
def hypot(c: Conversion, x: Value, y: Value) -> Value:
    """sqrt(x^2 + y^2), scaled by the larger so that squares do not overflow."""
    x, y = c.call("abs", c.cast(x, c.dtype)), c.call("abs", c.cast(y, c.dtype))
    largest = c.call("maximum", x, y)
    one = c.scalar(1, c.dtype)
    scale = c.call("where", c.call("eq", largest, c.scalar(0, c.dtype)), one, largest)
    ratio = c.call("div", c.call("minimum", x, y), scale)
    return c.call("mul", largest, c.call("sqrt", c.call("add", one, c.call("square", ratio))))
