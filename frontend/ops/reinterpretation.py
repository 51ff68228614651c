"""Tensors viewed as another dtype: the same bytes, read as other numbers."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion, static
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten

_INTEGERS = {8: DType.UINT8, 16: DType.INT16, 32: DType.INT32, 64: DType.INT64}
"""An integer dtype for each number of bits."""


def _bitcast(c: Conversion, x: Value, dtype: DType) -> Value:
    source = x.tensor.dtype
    if source is dtype:
        return x
    if DType.BOOL in (source, dtype):
        return c.cast(x, dtype)
    return c.call("bitcast", x, source=source, dtype=dtype)


@converts(aten.view.dtype)
def view_dtype(c: Conversion, x: Value, dtype: object) -> Value:
    """Narrower numbers lie one after the other along the last axis, the lowest bits first (little endian)."""
    source, target = x.tensor.dtype, c.dtype
    if source.nbytes == target.nbytes:
        return _bitcast(c, x, target)
    if not x.tensor.rank:
        raise Unsupported("a 0-d tensor is viewed as another number of bytes: give it an axis first")
    narrow, wide = sorted((8 * source.nbytes, 8 * target.nbytes))
    count = wide // narrow
    numbers = _bitcast(c, x, _INTEGERS[8 * source.nbytes])
    if source.nbytes > target.nbytes:
        return c.reshape(_bitcast(c, _pieces(c, numbers, narrow, count), target), c.shape)
    grouped = c.reshape(numbers, (*c.shape, count))
    return _bitcast(c, _joined(c, grouped, narrow, _INTEGERS[wide]), target)


def _pieces(c: Conversion, x: Value, bits: int, count: int) -> Value:
    """x [...] as [..., count] integers of ``bits`` bits."""
    dtype = x.tensor.dtype
    column = c.reshape(x, (*x.tensor.shape, 1))
    steps = c.call("iota", size=count, start=0, step=bits, dtype=dtype)
    pieces = c.call("bitwise_and", c.call("shift_right", column, steps), c.scalar((1 << bits) - 1, dtype))
    return c.cast(pieces, _INTEGERS[bits])


def _joined(c: Conversion, x: Value, bits: int, dtype: DType) -> Value:
    """Integers [..., count] of ``bits`` bits as one integer each [...] of ``dtype``."""
    axis, count = x.tensor.rank - 1, static(x.tensor.shape[-1], "the last axis of a view")
    wide = c.call("bitwise_and", c.cast(x, dtype), c.scalar((1 << bits) - 1, dtype))
    result: Value | None = None
    for number in range(count):
        piece = c.reshape(c.slice(wide, axis, number, number + 1), x.tensor.shape[:-1])
        moved = c.call("shift_left", piece, c.scalar(bits * number, dtype)) if number else piece
        result = moved if result is None else c.call("bitwise_or", result, moved)
    assert result is not None
    return result
