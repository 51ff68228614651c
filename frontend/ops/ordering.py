"""Sorting and searching."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion, Operand, axis_of
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


def _sorted(c: Conversion, x: Value, dim: int, descending: bool, count: int | None = None) -> tuple[Value, Value]:
    """Values and indices; a 0-d tensor is sorted as one of one element."""
    vector = c.flatten(x) if x.tensor.rank == 0 else x
    axis = axis_of(dim, vector.tensor.rank)
    count = None if count == vector.tensor.shape[axis] else count
    node = c.builder.add("sort", vector, attributes={"axis": axis, "descending": descending, "count": count})
    values, indices = node.outputs
    return (values, indices) if x.tensor.rank else (c.reshape(values, ()), c.reshape(indices, ()))


@converts(aten.sort.default)
def sort(c: Conversion, x: Value, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    return _sorted(c, x, dim, descending)


@converts(aten.sort.stable)
def sort_stable(c: Conversion, x: Value, *, stable: bool | None, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    return _sorted(c, x, dim, descending)


@converts(aten.topk.default)
def topk(c: Conversion, x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value, Value]:
    return _sorted(c, x, dim, largest, k)


@converts(aten.kthvalue.default)
def kthvalue(c: Conversion, x: Value, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    if x.tensor.rank == 0:
        return _sorted(c, x, 0, False)
    axis = axis_of(dim, x.tensor.rank)
    values, indices = _sorted(c, x, axis, False, k)
    return c.reshape(c.slice(values, axis, k - 1, k), c.shape), c.reshape(c.slice(indices, axis, k - 1, k), c.shape)


@converts(aten.bucketize.Tensor)
def bucketize(c: Conversion, x: Value, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    """How many boundaries lie below (with ``right``: not above) each element."""
    dtype = c.common_dtype(x, boundaries)
    column = c.reshape(c.cast(x, dtype), (*x.tensor.shape, 1))
    below = c.call("ge" if right else "gt", column, c.cast(boundaries, dtype))
    return c.reduce("sum", c.cast(below, c.dtype), (x.tensor.rank,))


@converts(aten.searchsorted.Tensor)
def searchsorted(
    c: Conversion,
    sequence: Value,
    x: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> Value:
    """As :func:`bucketize`; the sequences may have leading axes, which are x's."""
    if sorter is not None:
        raise Unsupported("searchsorted through a sorter: sort the sequence first")
    dtype = c.common_dtype(sequence, x)
    points = c.operand(x, dtype)
    shape = sequence.tensor.shape
    spread = c.reshape(sequence, (*shape[:-1], 1, shape[-1])) if len(shape) > 1 else sequence
    column = c.reshape(points, (*points.tensor.shape, 1))
    below = c.call("ge" if right or side == "right" else "gt", column, c.cast(spread, dtype))
    counts = c.cast(below, DType.INT64)
    return c.cast(c.reduce("sum", counts, (counts.tensor.rank - 1,)), c.dtype)
