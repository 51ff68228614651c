"""Numbers of 16 bits: stored as such, computed with in fp32, and rounded to nearest even after each operation, as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...ir import DType
from .bfloat16_rounding import ROUND_BF16
from .emitter import Emitter, Expr
from .math import is_nan, select

HALVES = (DType.FLOAT16, DType.BFLOAT16)
STORAGE = {DType.FLOAT16: "float16", DType.BFLOAT16: "uint16"}


def arithmetic(dtype: DType) -> DType:
    """The dtype in which elements of ``dtype`` are computed with."""
    return DType.FLOAT32 if dtype in HALVES else dtype


def rounded(emitter: Emitter, value: Expr, dtype: DType) -> Expr:
    """An fp32 ``value`` rounded to ``dtype``, still in fp32; unchanged for other dtypes."""
    bind = emitter.bind
    if dtype is DType.FLOAT16:
        return bind(tirx.Cast("float32", bind(tirx.Cast("float16", value))))
    if dtype is DType.BFLOAT16:
        vector = emitter.in_vectors(bind(value), ROUND_BF16)
        return bind(tirx.reinterpret("float32", _bfloat16_bits(bind, bind(value)))) if vector is None else vector
    return value


def _bfloat16_bits(bind: Callable[[Expr], Expr], value: Expr) -> Expr:
    """The fp32 representation of ``value`` after its lower half was rounded away."""
    bits = bind(tirx.reinterpret("int32", value))
    odd = bind(tirx.bitwise_and(tirx.shift_right(bits, _i32(16)), _i32(1)))
    # Adding just below half a unit, or half where the last digit kept is odd, carries into it where it is to be rounded up.
    up = bind(bits + bind(odd + _i32(0x7FFF)))
    return bind(select(is_nan(value), _i32(0x7FC00000), bind(tirx.bitwise_and(up, _i32(-65536)))))


def loaded(value: Expr, dtype: DType) -> Expr:
    """A stored half in fp32."""
    if dtype is DType.FLOAT16:
        return tirx.Cast("float32", value)
    return tirx.reinterpret("float32", tirx.shift_left(tirx.Cast("int32", value), _i32(16)))


def stored(bind: Callable[[Expr], Expr], value: Expr, dtype: DType) -> Expr:
    """An fp32 value that a half can hold (see :func:`rounded`) as it is stored."""
    if dtype is DType.FLOAT16:
        return tirx.Cast("float16", value)
    upper = tirx.bitwise_and(tirx.shift_right(tirx.reinterpret("int32", bind(value)), _i32(16)), _i32(0xFFFF))
    return tirx.Cast("uint16", bind(upper))


def _i32(value: int) -> Expr:
    return tirx.const(value, "int32")
