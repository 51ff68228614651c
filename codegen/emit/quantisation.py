"""Codes of quantised numbers, as expressions."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...ir import DType
from .emitter import Emitter, Expr
from .math import Bind, select
from .nearest_integers import NEAREST

_ROUNDING = 1.5 * 2.0**23
"""Added to a number of less than 22 bits, it leaves no place for a fraction: the sum's lowest bits are the number rounded to even."""


_LARGEST = 255
"""The highest unsigned code."""


def quantised(emitter: Emitter, x: Expr, rate: Expr, zero_point: int, dtype: DType) -> Expr:
    """round(x * rate) + zero_point within the range of ``dtype``, i8 or u8; the lowest code for NaN."""
    bind = emitter.bind
    limits = np.iinfo(dtype.numpy)
    low, high = (tirx.const(float(limit - zero_point), "float32") for limit in (limits.min, limits.max))
    steps = bind(tirx.Mul(x, rate))
    if steps.ty.dtype != "float32":
        steps = bind(tirx.Cast("float32", steps))
    # NaN is not above anything. Limits are whole, so that limiting before rounding gives the same.
    steps = bind(select(steps > low, steps, low))
    if dtype is DType.UINT8 and (nearest := emitter.in_vectors(steps, NEAREST)) is not None:
        return _limited(bind, nearest, zero_point)
    steps = bind(select(steps < high, steps, high))
    bits = bind(tirx.reinterpret("int32", bind(tirx.Add(steps, tirx.const(_ROUNDING, "float32")))))
    code = bits + tirx.const(zero_point, "int32") if zero_point else bits
    return tirx.Cast(dtype.numpy.name, code)


def _limited(bind: Bind, nearest: Expr, zero_point: int) -> Expr:
    """The unsigned code of a number of steps that is not too low: as bytes are stored with unsigned saturation (vpmovusdb).

    What is too high for an integer is the least one, which without its sign is above all codes, with ``zero_point`` too.
    """
    code = bind(nearest + tirx.const(zero_point, "int32")) if zero_point else nearest
    unsigned = bind(tirx.reinterpret("uint32", code))
    highest = tirx.const(_LARGEST, "uint32")
    return tirx.Cast("uint8", bind(select(unsigned < highest, unsigned, highest)))
