"""Divisions by symbolic sizes, as the processor does them."""

from __future__ import annotations

from typing import Any

from tvm import tirx

_BINARY = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Min, tirx.Max, tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.And, tirx.Or)
_TRUNCATING = {tirx.FloorDiv: tirx.Div, tirx.FloorMod: tirx.Mod}


def truncating(expression: Any) -> Any:
    """``expression``, an index or a condition on indices, with divisions by sizes that truncate.

    Indices and sizes are never negative, so that the result is the same. TVM does not know that of what is bound to variables or read
    from memory: to round down it would test the signs in nested conditions, which its simplifier takes exponential time for. Divisions by
    constants stay as they are.
    """
    kind = type(expression)
    if kind in _TRUNCATING:
        left, right = truncating(expression.a), truncating(expression.b)
        constant = isinstance(right, tirx.IntImm | tirx.Broadcast)
        return (kind if constant else _TRUNCATING[kind])(left, right)
    if kind in _BINARY:
        left, right = truncating(expression.a), truncating(expression.b)
        same = left is expression.a and right is expression.b
        return expression if same else kind(left, right)
    if kind is tirx.Not:
        return tirx.Not(truncating(expression.a))
    if kind is tirx.Cast:
        return tirx.Cast(expression.ty.dtype, truncating(expression.value))
    if kind is tirx.Select:
        parts = (expression.condition, expression.true_value, expression.false_value)
        return tirx.Select(*(truncating(part) for part in parts))
    return expression
