"""Running sums, products and extremes along an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...ir import DType, Value
from ..conversion import Conversion, axis_of
from ..registry import converts

aten = torch.ops.aten


def _scanned(c: Conversion, kind: str, x: Value, dim: int) -> Value:
    """A 0-d tensor is its own scan, and nothing has none."""
    if x.tensor.rank == 0 or 0 in x.tensor.shape:
        return x
    return c.call("scan", x, kind=kind, axis=axis_of(dim, x.tensor.rank))


def _scan(kind: str) -> Callable[..., Value]:
    def convert(c: Conversion, x: Value, dim: int, *, dtype: object = None) -> Value:
        return _scanned(c, kind, c.cast(x, c.dtype), dim)

    return convert


converts(aten.cumsum.default)(_scan("sum"))
converts(aten.cumprod.default)(_scan("prod"))


@converts(aten.logcumsumexp.default)
def logcumsumexp(c: Conversion, x: Value, dim: int) -> Value:
    return _scanned(c, "logsumexp", x, dim)


def _extreme(kind: str) -> Callable[..., tuple[Value, Value]]:
    def convert(c: Conversion, x: Value, dim: int) -> tuple[Value, Value]:
        """The running extreme, and the last position so far that has it: the running maximum of the positions that equal it."""
        if x.tensor.rank == 0 or 0 in x.tensor.shape:
            return x, c.call("full", shape=x.tensor.shape, value=0, dtype=DType.INT64)
        axis = axis_of(dim, x.tensor.rank)
        number = c.cast(x, DType.UINT8) if x.tensor.dtype is DType.BOOL else x
        values = _scanned(c, kind, number, axis)
        reached = c.call("eq", number, values)
        if number.tensor.dtype.is_float:
            reached = c.call("logical_or", reached, c.call("isnan", number))
        extent = x.tensor.shape[axis]
        places = c.reshape(c.call("iota", size=extent, dtype=DType.INT64), (extent,) + (1,) * (x.tensor.rank - 1 - axis))
        candidates = c.call("where", reached, places, c.scalar(0, DType.INT64))
        return c.cast(values, x.tensor.dtype), _scanned(c, "max", candidates, axis)

    return convert


converts(aten.cummax.default)(_extreme("max"))
converts(aten.cummin.default)(_extreme("min"))
