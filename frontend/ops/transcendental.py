"""Exponentials, logarithms, trigonometric and hyperbolic functions."""

from __future__ import annotations

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


_EXPONENTIAL = ("exp", "exp2", "expm1", "log", "log1p", "sigmoid", "erf")
_CIRCULAR = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
for _name in (*_EXPONENTIAL, *_CIRCULAR):
    converts(getattr(aten, _name).default)(_direct(_name))


@converts(aten.atan2.default)
def atan2(c: Conversion, y: Value, x: Value) -> Value:
    return c.call("atan2", c.cast(y, c.dtype), c.cast(x, c.dtype))
