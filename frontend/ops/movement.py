"""Views, slices, concatenation, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...ir import Dim, Value
from ...ir.ops.movement import slice_extent
from ..conversion import Conversion, Number, axis_of, static
from ..registry import converts
from ..unsupported import Unsupported
from .update import put_slice

aten = torch.ops.aten


@converts(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten._reshape_alias.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view_as.default,
)
def reshape(c: Conversion, x: Value, *shape: Any) -> Value:
    """Whatever the arguments say (an extent of -1, axes), the result's shape is what PyTorch found."""
    return c.reshape(x, c.shape)


@converts(aten.permute.default)
def permute(c: Conversion, x: Value, order: Sequence[int]) -> Value:
    return c.permute(x, [axis % x.tensor.rank for axis in order])


@converts(aten.transpose.int)
def transpose(c: Conversion, x: Value, first: int, second: int) -> Value:
    order = list(range(x.tensor.rank))
    if order:
        order[first], order[second] = order[second], order[first]
    return c.permute(x, order)


@converts(aten.t.default)
def t(c: Conversion, x: Value) -> Value:
    return c.permute(x, range(x.tensor.rank)[::-1])


@converts(aten.expand.default)
def expand(c: Conversion, x: Value, size: Sequence[Dim], *, implicit: bool = False) -> Value:
    return c.broadcast(x, c.shape)


@converts(aten.repeat.default)
def repeat(c: Conversion, x: Value, repeats: Sequence[int]) -> Value:
    """Every axis of extent e becomes two, (repeat, e), of which the first is broadcast."""
    shape = (1,) * (len(repeats) - x.tensor.rank) + x.tensor.shape
    if all(count == 1 or extent == 1 for count, extent in zip(repeats, shape, strict=True)):
        return c.broadcast(c.reshape(x, shape), c.shape)
    split: list[Dim] = []
    whole: list[Dim] = []
    for count, extent in zip(repeats, shape, strict=True):
        split += [1, extent] if count != 1 else [extent]
        whole += [count, extent] if count != 1 else [extent]
    return c.reshape(c.broadcast(c.reshape(x, split), whole), c.shape)


@converts(aten.slice.Tensor)
def slice_(c: Conversion, x: Value, dim: int = 0, start: Dim | None = None, end: Dim | None = None, step: int = 1) -> Value:
    axis = axis_of(dim, x.tensor.rank)
    extent = x.tensor.shape[axis]
    if isinstance(extent, int) and isinstance(start, int | None) and isinstance(end, int | None):
        first, last = _bounds(extent, start, end)
        return c.slice(x, axis, first, last, step)
    if isinstance(start, int) and start < 0:
        start = extent + start
    begin: Dim = 0 if start is None else start
    if step != 1:
        if begin != 0 or c.shape[axis] != slice_extent(0, extent, step):
            raise Unsupported(f"a slice with a step of a part of the symbolic dimension {extent}: compile with static shapes")
        return c.slice(x, axis, 0, extent, step)
    # PyTorch knows how many elements remain.
    return c.slice(x, axis, begin, begin + c.shape[axis])


def _bounds(extent: int, start: int | None, end: int | None) -> tuple[int, int]:
    """Bounds as Python slices mean them, normalised to 0 <= start <= stop <= extent."""
    first, last, _ = slice(start, end).indices(extent)
    return first, max(first, last)


@converts(aten.narrow.default)
def narrow(c: Conversion, x: Value, dim: int, start: int, length: int) -> Value:
    axis = axis_of(dim, x.tensor.rank)
    first = start % static(x.tensor.shape[axis], "a narrowed axis") if start < 0 else start
    return c.slice(x, axis, first, first + length)


@converts(aten.select.int)
def select(c: Conversion, x: Value, dim: int, index: Dim) -> Value:
    axis = axis_of(dim, x.tensor.rank)
    if not isinstance(index, int):
        raise Unsupported("the index of a selection is symbolic: compile with static shapes")
    first: Dim = index if index >= 0 else x.tensor.shape[axis] + index
    return c.reshape(c.slice(x, axis, first, first + 1), c.shape)


@converts(aten.split_with_sizes.default)
def split_with_sizes(c: Conversion, x: Value, sizes: Sequence[Dim], dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.tensor.rank)
    parts: list[Value] = []
    start: Dim = 0
    for size in sizes:
        parts.append(c.slice(x, axis, start, start + size))
        start = start + size
    return parts


@converts(aten.split.Tensor)
def split(c: Conversion, x: Value, size: int, dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.tensor.rank)
    return split_with_sizes(c, x, [c.type_of(i).shape[axis] for i in range(len(c.results))], axis)


@converts(aten.unbind.int)
def unbind(c: Conversion, x: Value, dim: int = 0) -> list[Value]:
    axis = axis_of(dim, x.tensor.rank)
    return [c.reshape(c.slice(x, axis, i, i + 1), c.type_of(i).shape) for i in range(len(c.results))]


@converts(aten.cat.default)
def cat(c: Conversion, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Operands are promoted to one dtype; empty ones of shape (0,) are left out, whatever the others' rank."""
    operands = [c.cast(x, c.dtype) for x in tensors if x.tensor.shape != (0,) or len(c.shape) == 1]
    if not operands:
        return c.call("full", shape=c.shape, value=0.0 if c.dtype.is_float else 0, dtype=c.dtype)
    return operands[0] if len(operands) == 1 else c.call("concat", *operands, axis=axis_of(dim, len(c.shape)))


@converts(aten.flip.default)
def flip(c: Conversion, x: Value, axes: Sequence[int]) -> Value:
    normalised = tuple(sorted(axis_of(axis, x.tensor.rank) for axis in axes)) if x.tensor.rank else ()
    return c.call("flip", x, axes=normalised) if normalised else x


@converts(aten.roll.default)
def roll(c: Conversion, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    if not dims:
        return c.reshape(roll(c, c.flatten(x), shifts, (0,)), c.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        axis = axis_of(dim, x.tensor.rank)
        extent = static(x.tensor.shape[axis], "a rolled axis")
        start = -shift % extent if extent else 0
        if start:
            x = c.call("concat", c.slice(x, axis, start, extent), c.slice(x, axis, 0, start), axis=axis)
    return x


@converts(aten.constant_pad_nd.default)
def constant_pad(c: Conversion, x: Value, pad: Sequence[int], value: Number = 0) -> Value:
    """``pad`` lists (low, high) from the last axis on; negative amounts crop."""
    rank = x.tensor.rank
    pads = [(0, 0)] * rank
    for i in range(len(pad) // 2):
        pads[rank - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    for axis, (low, high) in enumerate(pads):
        if low < 0 or high < 0:
            extent = static(x.tensor.shape[axis], "a cropped axis")
            x = c.slice(x, axis, max(0, -low), extent - max(0, -high))
    added = tuple((max(0, low), max(0, high)) for low, high in pads)
    fill = float(value) if c.dtype.is_float else value
    return c.call("pad", x, pads=added, value=fill) if any(low or high for low, high in added) else x


@converts(aten.slice_scatter.default)
def slice_scatter(
    c: Conversion, x: Value, source: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    """x with ``source`` in place of a slice."""
    axis = axis_of(dim, x.tensor.rank)
    extent = static(x.tensor.shape[axis], "the axis of a slice assignment")
    first, last = _bounds(extent, start, end)
    source = c.cast(source, c.dtype)
    if c.overwrites:
        return put_slice(c, x, source, axis, first, step)
    if step == 1:
        pieces = [c.slice(x, axis, 0, first), source, c.slice(x, axis, last, extent)]
        kept = [piece for piece in pieces if piece.tensor.shape[axis] != 0]
        return kept[0] if len(kept) == 1 else c.call("concat", *kept, axis=axis)
    origin = np.arange(extent)
    origin[slice(first, last, step)] = extent + np.arange(static(source.tensor.shape[axis], "the axis of a slice assignment"))
    return c.call("take", c.call("concat", x, source, axis=axis), c.constant(origin), axis=axis)


@converts(aten.select_scatter.default)
def select_scatter(c: Conversion, x: Value, source: Value, dim: int, index: int) -> Value:
    axis = axis_of(dim, x.tensor.rank)
    index = index % static(x.tensor.shape[axis], "the axis of a selection")
    one = c.reshape(source, (*x.tensor.shape[:axis], 1, *x.tensor.shape[axis + 1 :]))
    if c.overwrites:
        return put_slice(c, x, one, axis, index, 1)
    return slice_scatter(c, x, one, axis, index, index + 1)


@converts(aten.unfold.default)
def unfold(c: Conversion, x: Value, dimension: int, size: int, step: int) -> Value:
    """Windows along an axis; the place within a window becomes the last axis."""
    if x.tensor.rank == 0:
        return c.reshape(x, c.shape)
    axis = axis_of(dimension, x.tensor.rank)
    starts = np.arange(static(c.shape[axis], "the number of windows")) * step
    windows = c.call("take", x, c.constant(starts[:, None] + np.arange(size)), axis=axis)
    order = [*range(axis + 1), *range(axis + 2, x.tensor.rank + 1), axis + 1]
    return c.permute(windows, order)


def dense_positions(c: Conversion, size: Sequence[int], stride: Sequence[int], offset: int | None) -> tuple[list[int], np.ndarray]:
    """What as_strided of the first argument reaches: its axes in the order of its memory (which must have no gaps), and the positions, of
    shape ``size``, in that memory."""
    example = c.example(0)
    order = sorted(range(example.dim()), key=lambda axis: (-example.stride()[axis], axis))
    if example.storage_offset() != 0 or not example.permute(order).is_contiguous():
        raise Unsupported(
            "as_strided reaches into the memory of a view that is only part of its base: use slices, expand or unfold instead"
        )
    shape = tuple(static(extent, "an extent of as_strided") for extent in size)
    positions = np.full(shape, offset or 0, dtype=np.int64)
    for axis, step in enumerate(stride):
        positions += (np.arange(shape[axis]) * step).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    if positions.size and positions.max() >= example.numel():
        raise Unsupported("as_strided reaches beyond its operand: use slices, expand or unfold instead")
    return order, positions


@converts(aten.as_strided.default)
def as_strided(c: Conversion, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Value:
    """The elements at computed positions of the operand's memory: of x with its axes in memory order."""
    order, positions = dense_positions(c, size, stride, offset)
    x = c.permute(x, order)
    if positions.size == np.prod(x.tensor.static_shape) and np.array_equal(positions.reshape(-1), np.arange(positions.size)):
        return c.reshape(x, positions.shape)
    return c.call("take", c.flatten(x), c.constant(positions), axis=0)


@converts(aten.diagonal.default)
def diagonal(c: Conversion, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """The diagonal of two axes becomes the last axis."""
    rank = x.tensor.rank
    rows, columns = axis_of(dim1, rank), axis_of(dim2, rank)
    rest = [axis for axis in range(rank) if axis not in (rows, columns)]
    length = static(c.shape[-1], "the length of a diagonal")
    along = np.arange(length)
    index = np.stack([along + max(0, -offset), along + max(0, offset)], axis=-1)
    taken = c.call("take_nd", c.permute(x, [rows, columns, *rest]), c.constant(index))
    return c.permute(taken, [*range(1, len(rest) + 1), 0])
