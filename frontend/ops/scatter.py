"""Scatters and assignments to computed positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from ...ir import Dim, DType, Value
from ..conversion import Conversion, Number, Operand, axis_of, static
from ..registry import converts
from ..unsupported import Unsupported
from .indexing import index_vectors, place_of
from .movement import dense_positions
from .update import put_indices, puts

aten = torch.ops.aten

_Put: TypeAlias = "Callable[[Value, Value, str], Value]"
"""``put(operand, updates, reduction)``: the scatter to positions that are known already."""

_COMBINATIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "mean": "add", "amax": "max", "amin": "min"}
"""PyTorch's names of reductions, and what the IR does at each position."""


def _neutral(kind: str, dtype: DType) -> Number:
    """The number that changes nothing when combined in the way ``kind`` says."""
    combination = _COMBINATIONS[kind]
    if combination in ("add", "mul"):
        return 0 if combination == "add" else 1
    if dtype.is_float:
        return float("-inf") if combination == "max" else float("inf")
    if dtype is DType.BOOL:
        return combination == "min"
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if combination == "max" else limits.max)


def _along(c: Conversion, x: Value, axis: int, index: Value, updates: Value, reduction: str = "assign") -> Value:
    return c.call("scatter_along", x, index, updates, axis=axis, reduction=reduction)


def _updates(c: Conversion, source: Operand, index: Value) -> Value:
    """The part of ``source`` that is scattered: as large as ``index``."""
    value = c.operand(source, c.dtype)
    if value.tensor.rank == 0:
        return c.broadcast(value, index.tensor.shape)
    for axis, extent in enumerate(index.tensor.shape):
        value = c.slice(value, axis, 0, extent)
    return value


def _lifted(c: Conversion, x: Operand) -> Operand:
    """A 0-d tensor as one with an axis."""
    return c.reshape(x, (1,)) if isinstance(x, Value) and x.tensor.rank == 0 else x


@converts(aten.scatter.value, aten.scatter.src)
def scatter(c: Conversion, x: Value, dim: int, index: Value, source: Operand) -> Value:
    if not c.shape:
        return c.reshape(scatter_vector(c, x, index, source, "assign"), ())
    axis = axis_of(dim, x.tensor.rank)
    expected: tuple[Dim, ...] = (*x.tensor.shape[:axis], 1, *x.tensor.shape[axis + 1 :])
    if index.tensor.shape == expected:
        return _selection(c, x, axis, index, _updates(c, source, index))
    return _along(c, x, axis, index, _updates(c, source, index))


def _selection(c: Conversion, x: Value, axis: int, index: Value, updates: Value) -> Value:
    """One position along the axis for each of the other axes (one-hot): a selection by comparing positions, which fuses with all around."""
    extent = static(x.tensor.shape[axis], "the axis of a scatter")
    positions = c.call("iota", size=extent, dtype=DType.INT64)
    column = c.reshape(positions, (extent,) + (1,) * (x.tensor.rank - 1 - axis))
    return c.call("where", c.call("eq", column, c.cast(index, DType.INT64)), updates, x)


def scatter_vector(c: Conversion, x: Value, index: Value, source: Operand, reduction: str) -> Value:
    """A scatter whose operands may be 0-d: they count as vectors."""
    lifted = _lifted(c, index)
    assert isinstance(lifted, Value)
    return _along(c, c.flatten(x), 0, lifted, _updates(c, _lifted(c, source), lifted), reduction)


@converts(aten.scatter.reduce, aten.scatter.value_reduce)
def scatter_with(c: Conversion, x: Value, dim: int, index: Value, source: Operand, *, reduce: str) -> Value:
    return _reduced(c, x, dim, index, source, reduce, True)


@converts(aten.scatter_add.default)
def scatter_add(c: Conversion, x: Value, dim: int, index: Value, source: Value) -> Value:
    return _reduced(c, x, dim, index, source, "sum", True)


@converts(aten.scatter_reduce.two)
def scatter_reduce(c: Conversion, x: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool = True) -> Value:
    return _reduced(c, x, dim, index, source, reduce, include_self)


def _reduced(c: Conversion, x: Value, dim: int, index: Value, source: Operand, kind: str, include_self: bool) -> Value:
    vector, where, axis = c.flatten(x) if x.tensor.rank == 0 else x, _lifted(c, index), axis_of(dim, x.tensor.rank)
    assert isinstance(where, Value)
    updates = _updates(c, _lifted(c, source), where)

    def put(base: Value, values: Value, reduction: str) -> Value:
        return _along(c, base, axis, where, values, reduction)

    return c.reshape(_combined(c, vector, updates, kind, include_self, put), c.shape)


def _combined(c: Conversion, x: Value, updates: Value, kind: str, include_self: bool, put: _Put) -> Value:
    """``updates`` combined with ``x`` by ``put(operand, updates, reduction)``; x counts only where asked, or where nothing is put."""
    if kind not in _COMBINATIONS:
        raise Unsupported(f"a scatter that reduces by '{kind}': use one of {', '.join(_COMBINATIONS)}")

    def everywhere(number: Number, like: Value, dtype: DType) -> Value:
        return c.broadcast(c.scalar(number, dtype), like.tensor.shape)

    base = x if include_self else put(x, everywhere(_neutral(kind, c.dtype), updates, c.dtype), "assign")
    result = put(base, updates, _COMBINATIONS[kind])
    if kind != "mean":
        return result
    counts = put(everywhere(1 if include_self else 0, x, c.dtype), everywhere(1, updates, c.dtype), "add")
    counts = c.call("maximum", counts, c.scalar(1, c.dtype))
    return c.call("div" if c.dtype.is_float else "floor_div", result, counts)


@converts(aten.index_reduce.default)
def index_reduce(c: Conversion, x: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool = True) -> Value:
    """Slices along an axis, combined."""
    rank = max(x.tensor.rank, 1)
    axis = axis_of(dim, rank)
    order = [axis, *(other for other in range(rank) if other != axis)]

    def front(value: Value) -> Value:
        return c.permute(c.flatten(value) if value.tensor.rank == 0 else value, order)

    vectors = index_vectors(c, [c.flatten(index)])

    def put(base: Value, values: Value, reduction: str) -> Value:
        return c.call("scatter_nd", base, vectors, values, reduction=reduction)

    result = _combined(c, front(x), front(c.cast(source, c.dtype)), reduce, include_self, put)
    return c.reshape(c.permute(result, _inverse(order)), c.shape)


def _inverse(order: Sequence[int]) -> list[int]:
    return [list(order).index(axis) for axis in range(len(order))]


@converts(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(c: Conversion, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False) -> Value:
    """x[indices] = values, or += where ``accumulate``."""
    if c.overwrites and puts(indices) and not accumulate:
        return put_indices(c, x, indices, values)
    given = [(axis, value) for axis, value in enumerate(indices) if value is not None]
    values = c.cast(values, c.dtype)
    if not given:
        whole = c.broadcast(values, c.shape)
        return c.call("add", x, whole) if accumulate else whole
    if any(value.tensor.dtype in (DType.BOOL, DType.UINT8) for _, value in given):
        return _put_masked(c, x, given, values, accumulate)
    axes = [axis for axis, _ in given]
    rest = [axis for axis in range(x.tensor.rank) if axis not in axes]
    vectors = index_vectors(c, [value for _, value in given])
    outer = vectors.tensor.shape[:-1]
    # Values have the shape that indexing gives: the indexed axes' place goes to the broadcast of the indices.
    place = place_of(axes)
    others = [x.tensor.shape[axis] for axis in rest]
    values = c.broadcast(values, (*others[:place], *outer, *others[place:]))
    values = c.permute(values, [*range(place, place + len(outer)), *range(place), *range(place + len(outer), values.tensor.rank)])
    order = axes + rest
    result = c.call("scatter_nd", c.permute(x, order), vectors, values, reduction="add" if accumulate else "assign")
    return c.permute(result, _inverse(order))


def _put_masked(c: Conversion, x: Value, given: Sequence[tuple[int, Value]], values: Value, accumulate: bool) -> Value:
    """x[..., mask] = values: a selection; values for each masked element are found by the running count of the mask."""
    if len(given) > 1:
        raise Unsupported("a boolean mask and other indices are assigned together: use torch.where with a mask of the whole shape instead")
    axis, mask = given[0]
    mask = c.cast(mask, DType.BOOL)
    shape = mask.tensor.shape
    after = x.tensor.rank - axis - mask.tensor.rank
    # In the shape of x[..., mask] one axis counts the masked elements.
    if values.tensor.rank > after and values.tensor.shape[values.tensor.rank - after - 1] != 1:
        counts = c.call("scan", c.cast(c.flatten(mask), DType.INT64), kind="sum", axis=0)
        positions = c.call("clamp", c.call("sub", counts, c.scalar(1, DType.INT64)), min=0)
        counted = values.tensor.rank - after - 1
        values = c.call("take", values, c.reshape(positions, shape), axis=counted)
    elif values.tensor.rank > after:
        leading = values.tensor.rank - after - 1
        old = values.tensor.shape
        values = c.reshape(values, (*old[:leading], *(1,) * mask.tensor.rank, *old[leading + 1 :]))
    whole = c.reshape(mask, (*shape, *(1,) * after))
    return c.call("where", whole, c.call("add", x, values) if accumulate else values, x)


@converts(aten.put.default)
def put(c: Conversion, x: Value, index: Value, source: Value, accumulate: bool = False) -> Value:
    """Elements at positions in the flattened tensor."""
    vectors = index_vectors(c, [c.flatten(index)])
    updates = c.flatten(c.cast(source, c.dtype))
    result = c.call("scatter_nd", c.flatten(x), vectors, updates, reduction="add" if accumulate else "assign")
    return c.reshape(result, c.shape)


@converts(aten.diagonal_scatter.default)
def diagonal_scatter(c: Conversion, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """x with ``source``, whose last axis runs along it, as the diagonal of two axes."""
    rank = x.tensor.rank
    rows, columns = axis_of(dim1, rank), axis_of(dim2, rank)
    order = [rows, columns, *(axis for axis in range(rank) if axis not in (rows, columns))]
    along = np.arange(static(source.tensor.shape[-1], "the length of a diagonal"))
    vectors = np.stack([along + max(0, -offset), along + max(0, offset)], axis=-1)
    updates = c.permute(c.cast(source, c.dtype), [rank - 2, *range(rank - 2)])
    return c.permute(c.call("scatter_nd", c.permute(x, order), c.constant(vectors), updates), _inverse(order))


@converts(aten.as_strided_scatter.default)
def as_strided_scatter(
    c: Conversion, x: Value, source: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Value:
    """x with ``source`` at computed positions of its memory."""
    order, positions = dense_positions(c, size, stride, offset)
    inner = c.permute(x, order)
    vectors = c.constant(positions.reshape(-1, 1))
    result = c.call("scatter_nd", c.flatten(inner), vectors, c.flatten(c.cast(source, c.dtype)))
    return c.permute(c.reshape(result, inner.tensor.shape), _inverse(order))
