"""Codes of quantised numbers, as expressions."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...ir import DType
from .emitter import Expr
from .math import Bind, select

_ROUNDING = 1.5 * 2.0**23
"""Added to a number of less than 22 bits, it leaves no place for a fraction: the sum's lowest bits are the number rounded to even."""


def quantised(bind: Bind, x: Expr, rate: Expr, zero_point: int, dtype: DType) -> Expr:
    """round(x * rate) + zero_point within the range of ``dtype``, i8 or u8; the lowest code for NaN."""
    limits = np.iinfo(dtype.numpy)
    low, high = (tirx.const(float(limit - zero_point), "float32") for limit in (limits.min, limits.max))
    steps = bind(tirx.Mul(x, rate))
    if steps.ty.dtype != "float32":
        steps = bind(tirx.Cast("float32", steps))
    # NaN is not above anything. Limits are whole, so that limiting before rounding gives the same.
    steps = bind(select(steps > low, steps, low))
    steps = bind(select(steps < high, steps, high))
    bits = bind(tirx.reinterpret("int32", bind(tirx.Add(steps, tirx.const(_ROUNDING, "float32")))))
    code = bits + tirx.const(zero_point, "int32") if zero_point else bits
    return tirx.Cast(dtype.numpy.name, code)
