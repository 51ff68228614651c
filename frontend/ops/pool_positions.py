"""Where the maxima of windows are: the indices that max pooling returns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ...ir import DType, Value
from ..conversion import Conversion, static
from ..registry import converts

aten = torch.ops.aten


def window_positions(extent: int, count: int, window: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """[count, window] positions on an axis of ``extent``.

    Those in the padding are replaced by the nearest of the window inside: it is met earlier or later with the same value and the same
    index, and the first of equal maxima stays the first.
    """
    starts = np.arange(count)[:, None] * stride - padding
    positions = starts + np.arange(window) * dilation
    lowest = starts + -(np.minimum(starts, 0) // dilation) * dilation
    highest = starts + (extent - 1 - starts) // dilation * dilation
    return np.asarray(np.clip(positions, lowest, highest))


def adaptive_positions(extent: int, count: int) -> np.ndarray:
    """[count, longest window] positions; shorter windows repeat their last one."""
    number = np.arange(count)
    begins, ends = number * extent // count, -(-(number + 1) * extent // count)
    longest = int((ends - begins).max(initial=1))
    return np.asarray(np.minimum(begins[:, None] + np.arange(longest), ends[:, None] - 1))


def maxima_at(c: Conversion, x: Value, positions: Sequence[np.ndarray]) -> Value:
    """For x [..., spatial...] and windows at ``positions`` (one table [count, window] for each spatial axis) the index of each maximum in
    the flattened spatial axes, the first of equal ones: [..., counts...]."""
    spatial = len(positions)
    lead = x.tensor.rank - spatial
    extents = [static(extent, "a pooled axis") for extent in x.tensor.shape[lead:]]
    windows = x
    for axis, table in enumerate(positions):
        windows = c.call("take", windows, c.constant(table.astype(np.int32)), axis=lead + 2 * axis)
    counts = [len(table) for table in positions]
    sizes = [table.shape[1] for table in positions]
    order = [*range(lead), *(lead + 2 * axis for axis in range(spatial)), *(lead + 2 * axis + 1 for axis in range(spatial))]
    gathered = c.reshape(c.permute(windows, order), (*x.tensor.shape[:lead], *counts, math.prod(sizes)))
    chosen = c.reduce("argmax", gathered, (lead + spatial,))
    flat: Value | None = None
    below = math.prod(sizes)
    for axis, (table, extent) in enumerate(zip(positions, extents, strict=True)):
        below //= sizes[axis]
        step = c.call("floor_div", chosen, c.scalar(below, DType.INT64)) if below > 1 else chosen
        step = c.call("remainder", step, c.scalar(sizes[axis], DType.INT64)) if axis else step
        row = c.constant((np.arange(counts[axis]) * sizes[axis]).reshape([-1] + [1] * (spatial - 1 - axis)))
        place = c.call("take", c.constant(table.reshape(-1).astype(np.int64)), c.call("add", row, step), axis=0)
        flat = place if flat is None else c.call("add", c.call("mul", flat, c.scalar(extent, DType.INT64)), place)
    assert flat is not None
    return flat


def wants_indices(c: Conversion) -> bool:
    """Whether the indices that the operation returns beside its values are used."""
    return any(user.users and user.args[1] == 1 for user in c.node.users)


def _fractional_starts(c: Conversion, sample: Value, extent: int, count: int, window: int) -> Value:
    """Where ``count`` windows begin along an axis, by random numbers [N, C]: [N, C, count] (Graham, "Fractional max-pooling", 2014)."""
    dtype = sample.tensor.dtype
    number = c.call("iota", size=count, start=0, step=1, dtype=DType.INT64)
    last = c.scalar(extent - window, DType.INT64)
    if count == 1:
        return c.broadcast(c.reshape(last, (1, 1, 1)), (*sample.tensor.shape, 1))
    column = c.reshape(sample, (*sample.tensor.shape, 1))
    step = c.scalar((extent - window) / (count - 1), dtype)
    along = c.cast(c.call("mul", c.call("add", c.cast(number, dtype), column), step), DType.INT64)
    starts = c.call("sub", along, c.cast(c.call("mul", column, step), DType.INT64))
    return c.call("where", c.call("eq", number, c.scalar(count - 1, DType.INT64)), last, starts)


@converts(aten.fractional_max_pool2d.default, aten.fractional_max_pool3d.default)
def fractional_max_pool(c: Conversion, x: Value, kernel: Sequence[int], size: Sequence[int], samples: Value) -> tuple[Value, Value]:
    """The maxima of windows that begin at places given by ``samples`` [N, C, axes], and where they are."""
    spatial = len(size)
    batched = c.reshape(x, (1, *x.tensor.shape)) if x.tensor.rank == spatial + 1 else x
    batch, channels, *extents = (static(extent, "an axis of a pooled tensor") for extent in batched.tensor.shape)
    flat: Value | None = None
    for axis, (extent, count, window) in enumerate(zip(extents, size, kernel, strict=True)):
        # In two dimensions the samples are given for the columns first.
        number = spatial - 1 - axis if spatial == 2 else axis
        sample = c.reshape(c.slice(samples, 2, number, number + 1), (batch, channels))
        starts = _fractional_starts(c, sample, extent, count, window)
        before, after = (1,) * axis, (1,) * (spatial - 1 - axis)
        offsets = c.constant(np.arange(window).reshape(*before, window, *after))
        place = c.call("add", c.reshape(starts, (batch, channels, *before, count, *after, *(1,) * spatial)), offsets)
        flat = place if flat is None else c.call("add", c.call("mul", flat, c.scalar(extent, DType.INT64)), place)
    assert flat is not None
    whole = c.broadcast(flat, (batch, channels, *size, *kernel))
    positions = c.reshape(whole, (batch, channels, math.prod(size) * math.prod(kernel)))
    image = c.reshape(batched, (batch, channels, math.prod(extents)))
    windows = (batch, channels, math.prod(size), math.prod(kernel))
    gathered = c.reshape(c.call("take_along", image, positions, axis=2), windows)
    chosen = c.reduce("argmax", gathered, (3,), keepdims=True)
    places = c.call("take_along", c.reshape(positions, windows), chosen, axis=3)
    return c.reshape(c.reduce("max", gathered, (3,)), c.shape), c.reshape(places, c.type_of(1).shape)
