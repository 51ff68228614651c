"""Comparisons, the larger and the smaller of two numbers, truth and its operators, as TIR expressions over one element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import tirx

from ...ir import DType
from . import math
from .conversions import constant, differs
from .emitter import Expr, truth_as
from .math import Bind, select
from .rule import Rule


def _comparable(x: Expr, dtype: DType) -> Expr:
    """``x`` as it may be compared: TVM's simplifier ends the process over what is below an unsigned 0, so a byte becomes a number."""
    return tirx.Cast("int32", x) if dtype is DType.UINT8 and x.ty.dtype != "bool" else x


def larger(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    if dtype is DType.BOOL:
        return tirx.Or(x[0], x[1])
    first = _comparable(x[0], dtype) > _comparable(x[1], dtype)
    # NaN wins: a NaN in x[1] makes the comparison false.
    return select(tirx.Or(first, math.is_nan(x[0])) if dtype.is_float else first, x[0], x[1])


def smaller(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    if dtype is DType.BOOL:
        return tirx.And(x[0], x[1])
    first = _comparable(x[0], dtype) < _comparable(x[1], dtype)
    return select(tirx.Or(first, math.is_nan(x[0])) if dtype.is_float else first, x[0], x[1])


def truth(x: Expr, dtype: DType) -> Expr:
    return x if dtype is DType.BOOL else differs(x, constant(0, dtype))


def exclusive_or(x: Expr, y: Expr) -> Expr:
    return tirx.Or(tirx.And(x, tirx.Not(y)), tirx.And(tirx.Not(x), y))


def logical(combine: Callable[[Expr, Expr], Expr]) -> Rule:
    return lambda bind, x, attributes, dtype: combine(bind(truth(x[0], dtype)), bind(truth(x[1], dtype)))


def bitwise(boolean: Callable[[Expr, Expr], Expr], integer: Callable[[Expr, Expr], Expr]) -> Rule:
    return lambda bind, x, attributes, dtype: (boolean if dtype is DType.BOOL else integer)(x[0], x[1])


def _as_bytes(x: Expr, dtype: DType) -> Expr:
    return truth_as(x, "uint8") if dtype is DType.BOOL else x


def comparison(compare: Callable[[Expr, Expr], Expr], *, reflexive: bool) -> Rule:
    def rule(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
        if dtype.is_float and x[0].same_as(x[1]):
            # x != x asks for NaN; TVM's simplifier takes the operands for equal.
            missing = bind(math.is_nan(x[0]))
            return tirx.Not(missing) if reflexive else missing if compare is differs else tirx.And(missing, tirx.Not(missing))
        return compare(*(_comparable(_as_bytes(value, dtype), dtype) for value in x))

    return rule
