"""Comparisons, logic, selection."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...ir import DType, Value
from ..conversion import Conversion, Operand
from ..registry import converts

aten = torch.ops.aten


def _comparison(op: str) -> Callable[[Conversion, Operand, Operand], Value]:
    def convert(c: Conversion, x: Operand, y: Operand) -> Value:
        dtype = c.common_dtype(x, y)
        return c.call(op, c.operand(x, dtype), c.operand(y, dtype))

    return convert


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _packet = getattr(aten, _name)
    converts(_packet.Tensor, _packet.Scalar)(_comparison(_name))
for _name in ("logical_and", "logical_or", "logical_xor"):
    converts(getattr(aten, _name).default)(_comparison(_name))


@converts(aten.logical_not.default)
def logical_not(c: Conversion, x: Value) -> Value:
    return c.call("logical_not", x)


def _classification(op: str) -> Callable[[Conversion, Value], Value]:
    def convert(c: Conversion, x: Value) -> Value:
        return c.call(op, x) if x.tensor.dtype.is_float else c.call("full", shape=c.shape, value=False, dtype=DType.BOOL)

    return convert


converts(aten.isnan.default)(_classification("isnan"))
converts(aten.isinf.default)(_classification("isinf"))


@converts(aten.where.self)
def where(c: Conversion, condition: Value, x: Value, y: Value) -> Value:
    return c.call("where", c.cast(condition, DType.BOOL), c.cast(x, c.dtype), c.cast(y, c.dtype))


@converts(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(c: Conversion, x: Value, mask: Value, value: Operand) -> Value:
    return c.call("where", mask, c.operand(value, c.dtype), x)
