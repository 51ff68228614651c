"""Exponentials, logarithms, trigonometric and hyperbolic functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ...ir import Value
from ..conversion import Conversion
from ..registry import converts

aten = torch.ops.aten


def _direct(op: str) -> Callable[[Conversion, Value], Value]:
    def convert(c: Conversion, x: Value) -> Value:
        return c.call(op, c.cast(x, c.dtype))

    return convert


for _name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid"):
    converts(getattr(aten, _name).default)(_direct(_name))


def _scaled(before: float, op: str, after: float) -> Callable[[Conversion, Value], Value]:
    """after * op(before * x)"""

    def convert(c: Conversion, x: Value) -> Value:
        x = c.cast(x, c.dtype)
        x = x if before == 1 else c.call("mul", x, c.scalar(before, c.dtype))
        y = c.call(op, x)
        return y if after == 1 else c.call("mul", y, c.scalar(after, c.dtype))

    return convert


converts(aten.exp2.default)(_scaled(math.log(2), "exp", 1))
converts(aten.log2.default)(_scaled(1, "log", 1 / math.log(2)))
converts(aten.log10.default)(_scaled(1, "log", 1 / math.log(10)))


@converts(aten.erfc.default)
def erfc(c: Conversion, x: Value) -> Value:
    return c.call("sub", c.scalar(1, c.dtype), c.call("erf", c.cast(x, c.dtype)))


@converts(aten.tan.default)
def tan(c: Conversion, x: Value) -> Value:
    x = c.cast(x, c.dtype)
    return c.call("div", c.call("sin", x), c.call("cos", x))


@converts(aten.sinh.default)
def sinh(c: Conversion, x: Value) -> Value:
    """With e = exp(|x|) - 1: (e + e / (e + 1)) / 2, which does not cancel near zero; odd."""
    x = c.cast(x, c.dtype)
    e = c.call("expm1", c.call("abs", x))
    quotient = c.call("sub", c.scalar(1, c.dtype), c.call("reciprocal", c.call("add", e, c.scalar(1, c.dtype))))
    half = c.call("mul", c.call("add", e, quotient), c.scalar(0.5, c.dtype))
    return c.call("mul", half, c.call("sign", x))


@converts(aten.cosh.default)
def cosh(c: Conversion, x: Value) -> Value:
    x = c.cast(x, c.dtype)
    return c.call("mul", c.call("add", c.call("exp", x), c.call("exp", c.call("neg", x))), c.scalar(0.5, c.dtype))


@converts(aten.asinh.default)
def asinh(c: Conversion, x: Value) -> Value:
    """sign(x) log1p(|x| + x^2 / (1 + sqrt(x^2 + 1)))"""
    x = c.cast(x, c.dtype)
    one = c.scalar(1, c.dtype)
    squared = c.call("square", x)
    tail = c.call("div", squared, c.call("add", one, c.call("sqrt", c.call("add", squared, one))))
    return c.call("mul", c.call("sign", x), c.call("log1p", c.call("add", c.call("abs", x), tail)))


@converts(aten.acosh.default)
def acosh(c: Conversion, x: Value) -> Value:
    """log1p(t + sqrt(2 t + t^2)) with t = x - 1"""
    t = c.call("sub", c.cast(x, c.dtype), c.scalar(1, c.dtype))
    root = c.call("sqrt", c.call("add", c.call("mul", t, c.scalar(2, c.dtype)), c.call("square", t)))
    return c.call("log1p", c.call("add", t, root))


@converts(aten.atanh.default)
def atanh(c: Conversion, x: Value) -> Value:
    """log1p(2 x / (1 - x)) / 2"""
    x = c.cast(x, c.dtype)
    ratio = c.call("div", c.call("mul", x, c.scalar(2, c.dtype)), c.call("sub", c.scalar(1, c.dtype), x))
    return c.call("mul", c.call("log1p", ratio), c.scalar(0.5, c.dtype))
