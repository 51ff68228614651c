"""Mixtures of experts: products of rows grouped by expert, and the counts that say where the groups end."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion, Number
from ..registry import converts, converts_named
from ..unsupported import Unsupported

aten = torch.ops.aten


@converts_named("transformers.grouped_mm_fallback.default")
def grouped_mm_fallback(c: Conversion, x: Value, weight: Value, offs: Value) -> Value:
    """Rows sorted by expert times the matrix [in, out] of each; ``offs`` are the ends of the groups."""
    return c.call("grouped_matmul", x, weight, offs)


@converts(aten._grouped_mm.default)
def grouped_mm(
    c: Conversion, x: Value, weight: Value, offs: Value | None = None, bias: Value | None = None, out_dtype: object = None
) -> Value:
    """PyTorch's own grouped product; without ends a batched one."""
    if offs is None and x.tensor.rank == weight.tensor.rank == 3:
        product = c.call("matmul", x, weight)
    elif offs is not None and x.tensor.rank == 2 and weight.tensor.rank == 3:
        product = c.call("grouped_matmul", x, weight, offs)
    else:
        raise Unsupported("a grouped product over other axes than the rows of its first operand: compute it group by group")
    product = c.cast(product, c.dtype)
    return product if bias is None else c.call("add", product, c.cast(bias, c.dtype))


@converts(aten.histc.default)
def histc(c: Conversion, x: Value, bins: int = 100, min: Number = 0, max: Number = 0) -> Value:
    """How many elements lie in each of ``bins`` equal parts of [min, max]; those outside and NaN count nowhere."""
    flat = c.flatten(x)
    if min == max:
        raise Unsupported("a histogram between the smallest and the largest element: give min and max")
    low, high = c.scalar(float(min), c.dtype), c.scalar(float(max), c.dtype)
    # As PyTorch computes it: (x - min) / (max - min) * bins, rounded down; the last part includes max.
    position = c.call("div", c.call("mul", c.call("sub", flat, low), c.scalar(bins, c.dtype)), c.scalar(float(max) - float(min), c.dtype))
    inside = c.call("logical_and", c.call("ge", flat, low), c.call("le", flat, high))
    place = c.call("minimum", c.cast(c.call("where", inside, position, low), DType.INT64), c.scalar(bins - 1, DType.INT64))
    place = c.call("where", inside, place, c.scalar(bins, DType.INT64))
    counts = c.call("full", shape=(bins,), value=0.0, dtype=c.dtype)
    ones = c.broadcast(c.scalar(1, c.dtype), flat.tensor.shape)
    return c.call("scatter_along", counts, place, ones, axis=0, reduction="add")
