"""Pooling over windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...ir import Value
from ..conversion import Conversion, static
from ..registry import converts
from .pool_positions import adaptive_positions, maxima_at, wants_indices, window_positions

aten = torch.ops.aten


def _per_axis(values: Sequence[int], count: int) -> tuple[int, ...]:
    return tuple(values) * count if len(values) == 1 else tuple(values)


def _batched(c: Conversion, x: Value, spatial: int) -> Value:
    """x [N, C, spatial...]; a missing batch axis is added."""
    return c.reshape(x, (1, *x.tensor.shape)) if x.tensor.rank == spatial + 1 else x


def _overhang(
    c: Conversion, x: Value, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """How far the last windows reach beyond the padding (ceil_mode), for each spatial axis; PyTorch says how many there are."""
    beyond = []
    for i, size in enumerate(window):
        axis = i - len(window)
        windows = static(c.shape[axis], "an axis pooled with ceil_mode")
        extent = static(x.tensor.shape[axis], "a pooled axis")
        reach = (windows - 1) * stride[i] + dilation[i] * (size - 1) + 1
        beyond.append(max(0, reach - extent - 2 * padding[i]))
    return tuple(beyond)


def _max_pool(spatial: int) -> Callable[..., tuple[Value | None, ...]]:
    def convert(
        c: Conversion,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        ceil_mode: bool = False,
    ) -> tuple[Value | None, ...]:
        """The maxima, and where they are."""
        window = _per_axis(kernel, spatial)
        steps = _per_axis(stride, spatial) if stride else window
        pads, spacing = _per_axis(padding, spatial), _per_axis(dilation, spatial)
        beyond = _overhang(c, x, window, steps, pads, spacing) if ceil_mode else (0,) * spatial
        y = c.call(
            "window_reduce",
            _batched(c, x, spatial),
            kind="max",
            window=window,
            stride=steps,
            padding=tuple((pad, pad + more) for pad, more in zip(pads, beyond, strict=True)),
            dilation=spacing,
        )
        if not wants_indices(c):
            return c.reshape(y, c.shape), None
        facts = zip(window, steps, pads, spacing, strict=True)
        tables = [
            window_positions(static(x.tensor.shape[axis], "a pooled axis"), static(c.shape[axis], "a pooled axis"), *own)
            for axis, own in enumerate(facts, start=-spatial)
        ]
        return c.reshape(y, c.shape), maxima_at(c, x, tables)

    return convert


converts(aten.max_pool2d_with_indices.default)(_max_pool(2))
converts(aten.max_pool3d_with_indices.default)(_max_pool(3))


def _avg_pool(spatial: int) -> Callable[..., Value]:
    def convert(
        c: Conversion,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Value:
        window = _per_axis(kernel, spatial)
        steps = _per_axis(stride, spatial) if stride else window
        pads = _per_axis(padding, spatial)
        beyond = _overhang(c, x, window, steps, pads, (1,) * spatial) if ceil_mode else (0,) * spatial
        y = c.call(
            "window_reduce",
            _batched(c, x, spatial),
            kind="mean",
            window=window,
            stride=steps,
            padding=tuple((pad, pad + more) for pad, more in zip(pads, beyond, strict=True)),
            dilation=(1,) * spatial,
            count_include_pad=count_include_pad,
            uncounted=beyond if any(beyond) else (),
            divisor=divisor_override,
        )
        return c.reshape(y, c.shape)

    return convert


converts(aten.avg_pool1d.default)(_avg_pool(1))
converts(aten.avg_pool2d.default)(_avg_pool(2))
converts(aten.avg_pool3d.default)(_avg_pool(3))


def _adaptive_windows(extent: int, count: int) -> list[tuple[int, int]]:
    """Where the windows of adaptive pooling begin and end; they overlap where the extents do not divide."""
    return [(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count)]


def _adaptive(c: Conversion, x: Value, kind: str, spatial: int, along: Callable[[Value, int, int], Value]) -> Value:
    """One window_reduce where the extents divide, else ``along(x, axis, result extent)`` for each axis."""
    rank = x.tensor.rank
    axes = range(rank - spatial, rank)
    extents = [static(x.tensor.shape[axis], "a pooled axis") for axis in axes]
    counts = [static(c.shape[axis], "a pooled axis") for axis in axes]
    if all(count and extent % count == 0 for extent, count in zip(extents, counts, strict=True)):
        window = tuple(extent // count for extent, count in zip(extents, counts, strict=True))
        none = ((0, 0),) * spatial
        batched = _batched(c, x, spatial)
        y = c.call("window_reduce", batched, kind=kind, window=window, stride=window, padding=none, dilation=(1,) * spatial)
        return c.reshape(y, c.shape)
    for axis, count in zip(axes, counts, strict=True):
        x = along(x, axis, count)
    return x


def _adaptive_avg_pool(spatial: int) -> Callable[..., Value]:
    def convert(c: Conversion, x: Value, size: Sequence[int]) -> Value:
        def along(x: Value, axis: int, count: int) -> Value:
            """A product with the matrix of the windows' weights."""
            extent = x.tensor.static_shape[axis]
            weights = np.zeros((count, extent), dtype=c.dtype.numpy)
            for row, (begin, end) in zip(weights, _adaptive_windows(extent, count), strict=True):
                row[begin:end] = 1 / (end - begin)
            return apply_along(c, x, axis, weights)

        return _adaptive(c, x, "mean", spatial, along)

    return convert


def apply_along(c: Conversion, x: Value, axis: int, weights: np.ndarray) -> Value:
    """x with the matrix ``weights`` [new extent, extent] applied along ``axis``."""
    order = list(range(x.tensor.rank))
    order[axis], order[-1] = order[-1], order[axis]
    return c.permute(c.call("linear", c.permute(x, order), c.constant(weights)), order)


converts(aten._adaptive_avg_pool2d.default)(_adaptive_avg_pool(2))
converts(aten._adaptive_avg_pool3d.default)(_adaptive_avg_pool(3))


def _adaptive_max_pool(spatial: int) -> Callable[..., tuple[Value | None, ...]]:
    def convert(c: Conversion, x: Value, size: Sequence[int]) -> tuple[Value | None, ...]:
        def along(x: Value, axis: int, count: int) -> Value:
            windows = _adaptive_windows(x.tensor.static_shape[axis], count)
            parts = [c.reduce("max", c.slice(x, axis, begin, end), (axis,), keepdims=True) for begin, end in windows]
            return parts[0] if len(parts) == 1 else c.call("concat", *parts, axis=axis)

        values = _adaptive(c, x, "max", spatial, along)
        if not wants_indices(c):
            return values, None
        extents = [(static(x.tensor.shape[axis], "a pooled axis"), static(c.shape[axis], "a pooled axis")) for axis in range(-spatial, 0)]
        return values, maxima_at(c, x, [adaptive_positions(extent, count) for extent, count in extents])

    return convert


converts(aten.adaptive_max_pool2d.default)(_adaptive_max_pool(2))
converts(aten.adaptive_max_pool3d.default)(_adaptive_max_pool(3))
