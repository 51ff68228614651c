"""Constants of IR dtypes, and conversions of an element between them, as TIR expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from ...ir import DType
from . import halves
from .emitter import Emitter, Expr, truth_as
from .kernel import compute_dtype
from .math import Bind


def constant(value: Any, dtype: DType) -> Expr:
    """A constant of an IR dtype."""
    if dtype is DType.BOOL:
        return tirx.const(bool(value), "bool")
    if dtype.is_integer:
        return tirx.const(int(value), compute_dtype(dtype))
    number = np.asarray(value).astype(dtype.numpy) if dtype in halves.HALVES else value
    return tirx.const(float(number), compute_dtype(dtype))


def differs(x: Expr, y: Expr) -> Expr:
    """x != y, which holds where either is NaN: the code generator's own comparison does not."""
    return tirx.Not(tirx.EQ(x, y)) if str(x.ty.dtype).startswith("float") else tirx.NE(x, y)


def cast(emitter: Emitter, x: Expr, source: DType, target: DType) -> Expr:
    """``x`` converted between IR dtypes; floats truncate towards zero, out of range ones wrap through a wider integer."""
    if source is target:
        return x
    if target is DType.BOOL:
        return differs(x, constant(0, source))
    if target in halves.HALVES:
        return halves.rounded(emitter, cast(emitter, x, source, DType.FLOAT32), target)
    source = halves.arithmetic(source)
    if source is target:
        return x
    to = compute_dtype(target)
    if source is DType.BOOL:
        return truth_as(x, to)
    if source.is_float and target.is_integer and target.bits < 32:
        return tirx.Cast(to, emitter.bind(tirx.Cast("int32", x)))
    return tirx.Cast(to, x)


def bitcast(bind: Bind, x: Expr, source: DType, target: DType) -> Expr:
    """The bits of ``x`` read as another dtype of as many bits."""
    bits = bind(halves.stored(bind, x, source) if source in halves.HALVES else x)
    if target in halves.HALVES:
        return halves.loaded(bind(tirx.reinterpret(halves.STORAGE[target], bits)), target)
    to = compute_dtype(target)
    return bits if bits.ty.dtype == to else tirx.reinterpret(to, bits)
