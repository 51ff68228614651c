"""Gathers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...ir import Dim, DType, Value
from ...ir.ops.elementwise import broadcast_shapes
from ..conversion import Conversion, axis_of, static
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
    vectors = index_vectors(c, [value for _, value in given])
    taken = c.call("take_nd", c.permute(x, axes + rest), vectors)
    place = place_of(axes)
    rank = vectors.tensor.rank - 1
    order = [*range(rank, rank + place), *range(rank), *range(rank + place, rank + len(rest))]
    return c.permute(taken, order)


def place_of(axes: Sequence[int]) -> int:
    """Where the result of indexing ``axes`` stands: adjacent axes leave it in place, others move it to the front (NumPy's rule)."""
    return axes[0] if list(axes) == list(range(axes[0], axes[0] + len(axes))) else 0


def index_vectors(c: Conversion, indices: Sequence[Value]) -> Value:
    """Index vectors: the broadcast of integer tensors, stacked along a new last axis."""
    shape = broadcast_shapes("index", *(value.tensor.shape for value in indices))
    return c.call("concat", *(c.reshape(c.broadcast(c.cast(value, DType.INT64), shape), (*shape, 1)) for value in indices), axis=len(shape))


@converts(aten.masked_scatter.default)
def masked_scatter(c: Conversion, x: Value, mask: Value, source: Value) -> Value:
    """The masked elements, in order, are the first ones of ``source``: the running count of the mask says which."""
    whole = c.broadcast(mask, x.tensor.shape)
    counts = c.call("scan", c.cast(c.flatten(whole), DType.INT64), kind="sum", axis=0)
    positions = c.call("clamp", c.call("sub", counts, c.scalar(1, DType.INT64)), min=0)
    taken = c.call("take", c.flatten(source), positions, axis=0)
    return c.call("where", whole, c.reshape(taken, x.tensor.shape), x)


@converts(aten.repeat_interleave.self_Tensor)
def repeat_interleave(c: Conversion, x: Value, repeats: Value, dim: int | None = None, *, output_size: int | None = None) -> Value:
    """Each slice as often as ``repeats`` says, where the total is known."""
    if dim is None:
        x, dim = c.flatten(x), 0
    positions = _repeated_positions(c, repeats, c.shape[axis_of(dim, x.tensor.rank)])
    return c.call("take", x, positions, axis=axis_of(dim, x.tensor.rank))


@converts(aten.repeat_interleave.Tensor)
def repeated_positions(c: Conversion, repeats: Value, *, output_size: int | None = None) -> Value:
    return c.cast(_repeated_positions(c, repeats, c.shape[0]), c.dtype)


def _repeated_positions(c: Conversion, repeats: Value, total: Dim) -> Value:
    """0 as often as repeats[0] says, then 1, ...: for each place how many slices end before it."""
    count = static(total, "the number of repeated elements (give output_size)")
    ends = c.call("scan", c.cast(repeats, DType.INT64), kind="sum", axis=0)
    marks = c.call("full", shape=(count,), value=0, dtype=DType.INT64)
    ones = c.broadcast(c.scalar(1, DType.INT64), ends.tensor.shape)
    return c.call("scan", c.call("scatter_along", marks, ends, ones, axis=0, reduction="add"), kind="sum", axis=0)
