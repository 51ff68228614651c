"""Sorting, and statistics of sorted elements."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion, axis_of
from ..registry import converts

aten = torch.ops.aten


def _sorted(c: Conversion, x: Value, dim: int, descending: bool, count: int | None = None) -> tuple[Value, Value]:
    """Values and indices; a 0-d tensor is sorted as one of one element, booleans as bytes."""
    vector = c.flatten(x) if x.tensor.rank == 0 else x
    if x.tensor.dtype is DType.BOOL:
        vector = c.cast(vector, DType.UINT8)
    axis = axis_of(dim, vector.tensor.rank)
    count = None if count == vector.tensor.shape[axis] else count
    node = c.builder.add("sort", vector, attributes={"axis": axis, "descending": descending, "count": count})
    values, indices = node.outputs
    values = c.cast(values, x.tensor.dtype)
    if x.tensor.rank:
        return values, indices
    shape = () if count is None else (count,)
    return c.reshape(values, shape), c.reshape(indices, shape)


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
    return _ranked(c, x, dim, k - 1)


def _ranked(c: Conversion, x: Value, dim: int, rank: int) -> tuple[Value, Value]:
    """The element that stands at place ``rank`` along ``dim`` in ascending order, and its position."""
    if x.tensor.rank == 0:
        return _sorted(c, x, 0, False)
    axis = axis_of(dim, x.tensor.rank)
    values, indices = _sorted(c, x, axis, False, rank + 1)
    return c.reshape(c.slice(values, axis, rank, rank + 1), c.shape), c.reshape(c.slice(indices, axis, rank, rank + 1), c.shape)


def _median(c: Conversion, x: Value, axis: int, *, ignore_nan: bool) -> tuple[Value, Value]:
    """The lower of the two middle elements, and its position. NaN, which is sorted last, wins unless it is to be ignored."""
    extent = x.tensor.shape[axis] if x.tensor.rank else 1
    assert isinstance(extent, int)
    if not x.tensor.dtype.is_float or x.tensor.rank == 0:
        return _ranked(c, x, axis, (extent - 1) // 2)
    values, indices = _sorted(c, x, axis, False)
    missing = c.reduce("sum", c.cast(c.call("isnan", x), DType.INT64), (axis,), True)
    numbers = c.call("sub", c.scalar(extent, DType.INT64), missing)
    one, two = c.scalar(1, DType.INT64), c.scalar(2, DType.INT64)
    if ignore_nan:
        place = c.call("floor_div", c.call("sub", c.call("maximum", numbers, one), one), two)
    else:
        spoilt = c.call("gt", missing, c.scalar(0, DType.INT64))
        place = c.call("where", spoilt, numbers, c.scalar((extent - 1) // 2, DType.INT64))
    chosen = (c.call("take_along", sequence, place, axis=axis) for sequence in (values, indices))
    value, position = (c.reshape(element, c.shape) for element in chosen)
    return value, position


def _flat_median(c: Conversion, x: Value, *, ignore_nan: bool) -> Value:
    if 0 in x.tensor.shape:
        return c.scalar(torch.nan, c.dtype)
    return _median(c, c.flatten(x), 0, ignore_nan=ignore_nan)[0]


@converts(aten.median.default)
def median(c: Conversion, x: Value) -> Value:
    return _flat_median(c, x, ignore_nan=False)


@converts(aten.nanmedian.default)
def nanmedian(c: Conversion, x: Value) -> Value:
    return _flat_median(c, x, ignore_nan=True)


@converts(aten.median.dim)
def median_dim(c: Conversion, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _median(c, x, axis_of(dim, x.tensor.rank), ignore_nan=False)


@converts(aten.nanmedian.dim)
def nanmedian_dim(c: Conversion, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _median(c, x, axis_of(dim, x.tensor.rank), ignore_nan=True)


@converts(aten.mode.default)
def mode(c: Conversion, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The most frequent element, the smallest of several, and its last position: in sorted order, the first of the longest runs."""
    if x.tensor.rank == 0:
        return _sorted(c, x, 0, False)
    axis = axis_of(dim, x.tensor.rank)
    extent = x.tensor.shape[axis]
    values, indices = _sorted(c, x, axis, False)
    number = c.cast(values, DType.UINT8) if x.tensor.dtype is DType.BOOL else values
    places = c.reshape(c.call("iota", size=extent, dtype=DType.INT64), (extent,) + (1,) * (x.tensor.rank - 1 - axis))
    zero = c.scalar(0, DType.INT64)
    before = c.call("take", number, c.call("maximum", c.call("sub", c.flatten(places), c.scalar(1, DType.INT64)), zero), axis=axis)
    starts = c.call("where", c.call("ne", number, before), places, zero)
    length = c.call("sub", places, c.call("scan", starts, kind="max", axis=axis))
    # The length of a run grows along it: the first maximum is the end of the first of the longest.
    end = c.reduce("argmax", length, (axis,), True)
    chosen = (c.call("take_along", sequence, end, axis=axis) for sequence in (values, indices))
    value, position = (c.reshape(element, c.shape) for element in chosen)
    return value, position
