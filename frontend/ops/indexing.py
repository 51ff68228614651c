"""Gathers, and the scatters that are selections."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...ir import Dim, DType, Value
from ...ir.ops.elementwise import broadcast_shapes
from ..conversion import Conversion, Operand, axis_of
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


@converts(aten.embedding.default)
def embedding(
    c: Conversion, weight: Value, indices: Value, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Value:
    return c.call("take", weight, indices, axis=0)


@converts(aten.index_select.default)
def index_select(c: Conversion, x: Value, dim: int, index: Value) -> Value:
    source = c.reshape(x, (1,)) if x.tensor.rank == 0 else x
    return c.reshape(c.call("take", source, c.flatten(index), axis=axis_of(dim, x.tensor.rank)), c.shape)


@converts(aten.gather.default)
def gather(c: Conversion, x: Value, dim: int, index: Value, *, sparse_grad: bool = False) -> Value:
    if x.tensor.rank == 0 or index.tensor.rank == 0:
        return c.reshape(c.call("take", c.flatten(x), c.flatten(index), axis=0), c.shape)
    return c.call("take_along", x, index, axis=axis_of(dim, x.tensor.rank))


@converts(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(c: Conversion, x: Value, indices: Sequence[Value | None]) -> Value:
    """x[indices]: tensors index axes, None leaves one whole. The indexed axes' place goes to the broadcast of the indices."""
    given = [(axis, value) for axis, value in enumerate(indices) if value is not None]
    if any(value.tensor.dtype in (DType.BOOL, DType.UINT8) for _, value in given):
        raise Unsupported("a boolean mask selects a number of elements that depends on the data: use torch.where or multiply by the mask")
    if not given:
        return x
    if len(given) == 1:
        axis, value = given[0]
        return c.call("take", x, value, axis=axis)
    axes = [axis for axis, _ in given]
    rest = [axis for axis in range(x.tensor.rank) if axis not in axes]
    vectors = _index_vectors(c, [value for _, value in given])
    taken = c.call("take_nd", c.permute(x, axes + rest), vectors)
    # Adjacent indexed axes leave their result in place, others move it to the front (NumPy's rule).
    place = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
    rank = vectors.tensor.rank - 1
    order = [*range(rank, rank + place), *range(rank), *range(rank + place, rank + len(rest))]
    return c.permute(taken, order)


def _index_vectors(c: Conversion, indices: Sequence[Value]) -> Value:
    """The broadcast of integer tensors, stacked along a new last axis."""
    shape = broadcast_shapes("index", *(value.tensor.shape for value in indices))
    return c.call("concat", *(c.reshape(c.broadcast(c.cast(value, DType.INT64), shape), (*shape, 1)) for value in indices), axis=len(shape))


@converts(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(c: Conversion, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False) -> Value:
    """An assignment to masked elements of one value is a selection; others are not known to the IR."""
    given = [value for value in indices if value is not None]
    masked = len(given) == 1 and indices[0] is given[0] and given[0].tensor.dtype is DType.BOOL
    if not masked or (values.tensor.rank > 0 and values.tensor.shape != (1,)) or accumulate:
        raise Unsupported("elements at computed positions are assigned: use torch.where with a mask of the whole shape instead")
    mask = given[0]
    mask = c.reshape(mask, mask.tensor.shape + (1,) * (x.tensor.rank - mask.tensor.rank))
    return c.call("where", mask, c.reshape(c.cast(values, c.dtype), ()), x)


@converts(aten.masked_scatter.default)
def masked_scatter(c: Conversion, x: Value, mask: Value, source: Value) -> Value:
    """The masked elements, in order, are the first ones of ``source``: the running count of the mask says which."""
    whole = c.broadcast(mask, x.tensor.shape)
    counts = c.call("scan", c.cast(c.flatten(whole), DType.INT64), kind="sum", axis=0)
    positions = c.call("clamp", c.call("sub", counts, c.scalar(1, DType.INT64)), min=0)
    taken = c.call("take", c.flatten(source), positions, axis=0)
    return c.call("where", whole, c.reshape(taken, x.tensor.shape), x)


@converts(aten.scatter.value, aten.scatter.src)
def scatter(c: Conversion, x: Value, dim: int, index: Value, source: Operand) -> Value:
    """One position along the axis for each of the other axes (one-hot): a selection by comparing positions."""
    rank = x.tensor.rank
    axis = axis_of(dim, rank)
    expected: tuple[Dim, ...] = (*x.tensor.shape[:axis], 1, *x.tensor.shape[axis + 1 :])
    if rank == 0 or index.tensor.shape != expected:
        raise Unsupported("several elements are scattered along an axis: use torch.where with comparisons, or a matrix product instead")
    positions = c.call("iota", size=x.tensor.shape[axis], dtype=DType.INT64)
    column = c.reshape(positions, (x.tensor.shape[axis],) + (1,) * (rank - 1 - axis))
    value = c.operand(source, c.dtype)
    if value.tensor.rank > 0:
        for i, extent in enumerate(expected):
            value = c.slice(value, i, 0, extent)
    return c.call("where", c.call("eq", column, c.cast(index, DType.INT64)), value, x)
