"""Assignments to positions along axes, as ``put``: caches, slices of buffers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir import Dim, DType, Value
from ..conversion import Conversion, static


def puts(indices: Sequence[Value | None]) -> bool:
    """Whether an assignment to ``x[indices]`` is one of whole slices along one axis: a single tensor of positions."""
    given = [value for value in indices if value is not None]
    return len(given) == 1 and given[0].tensor.dtype.is_integer and given[0].tensor.dtype is not DType.UINT8


def put_indices(c: Conversion, x: Value, indices: Sequence[Value | None], values: Value) -> Value:
    """x with x[:, ..., positions, ...] = values, which broadcast."""
    (axis,) = (axis for axis, value in enumerate(indices) if value is not None)
    positions = indices[axis]
    assert positions is not None
    before, after = x.tensor.shape[:axis], x.tensor.shape[axis + 1 :]
    selected = (*before, *positions.tensor.shape, *after)
    count = math.prod(static(extent, "the number of assigned positions") for extent in positions.tensor.shape)
    source = c.reshape(c.broadcast(c.cast(values, c.dtype), selected), (*before, count, *after))
    return c.call("put", x, source, c.flatten(positions) if positions.tensor.rank else c.reshape(positions, (1,)), axes=(axis,))


def put_slice(c: Conversion, x: Value, source: Value, axis: int, start: int, step: int) -> Value:
    """x with ``source`` (of the slice's extent along ``axis``) at start, start + step, ...

    An update of a slice that was itself taken from there (``cache[layer][:, position] = row``) becomes one update of x, so that the
    rest of the slice stays where it is.
    """
    positions = c.call("iota", size=source.tensor.shape[axis], dtype=DType.INT64, start=start, step=step)
    inner = source
    lost = None
    if inner.op == "reshape" and inner.node is not None and _without(inner.tensor.shape, axis) == inner.node.inputs[0].tensor.shape:
        inner, lost = inner.node.inputs[0], axis
    if inner.op == "put" and inner.node is not None:
        base, values, *indices = inner.node.inputs
        axes: Sequence[int] = inner.node.attributes["axes"]  # type: ignore[assignment]
        if lost is not None:
            axes = [other + (other >= lost) for other in axes]
            values = c.reshape(values, (*values.tensor.shape[:lost], 1, *values.tensor.shape[lost:]))
        if axis not in axes and _is_slice_of(base, x, axis, start, step, source.tensor.shape):
            return c.call("put", x, values, *indices, positions, axes=(*axes, axis))
    return c.call("put", x, source, positions, axes=(axis,))


def _without(shape: Sequence[Dim], axis: int) -> tuple[Dim, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _is_slice_of(value: Value, x: Value, axis: int, start: int, step: int, shape: Sequence[Dim]) -> bool:
    """Whether ``value`` is ``x[start::step]`` along ``axis``, of ``shape`` (perhaps without that axis, of extent 1)."""
    if value.op == "reshape" and value.node is not None and value.tensor.shape == _without(shape, axis):
        value = value.node.inputs[0]
    node = value.node
    if node is None or node.op != "slice" or node.inputs[0] is not x or value.tensor.shape != tuple(shape):
        return False
    attributes = node.attributes
    return (attributes["axis"], attributes["start"], attributes["step"]) == (axis, start, step)
