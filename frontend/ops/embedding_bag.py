"""Bags of embeddings: rows of a table, combined per bag."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion, static
from ..registry import converts
from .indexing import index_vectors

aten = torch.ops.aten

_SUM, _MEAN, _MAX = range(3)


@converts(aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def embedding_bag(
    c: Conversion,
    weight: Value,
    indices: Value,
    offsets: Value,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Value | None, ...]:
    """Each row is scattered to the bag it belongs to; padding and rows after the last bag go nowhere."""
    bags, width = (static(extent, "an extent of embedding_bag") for extent in c.type_of(0).shape)
    rows = c.call("take", weight, indices, axis=0)
    if per_sample_weights is not None:
        rows = c.call("mul", rows, c.reshape(per_sample_weights, (*per_sample_weights.tensor.shape, 1)))
    bag = _bag_of_each(c, indices, offsets)
    if padding_idx >= 0:
        padding = c.call("eq", indices, c.scalar(padding_idx, indices.tensor.dtype))
        bag = c.call("where", padding, c.scalar(bags, DType.INT64), bag)
    vectors = index_vectors(c, [bag])
    dtype = weight.tensor.dtype

    def combined(shape: tuple[int, ...], start: float, updates: Value, reduction: str) -> Value:
        return c.call("scatter_nd", c.call("full", shape=shape, value=start, dtype=dtype), vectors, updates, reduction=reduction)

    result = combined((bags, width), float("-inf") if mode == _MAX else 0.0, rows, "max" if mode == _MAX else "add")
    if mode == _SUM:
        return result, None, None, None
    ones = c.broadcast(c.scalar(1, dtype), indices.tensor.shape)
    counts = c.reshape(combined((bags,), 0.0, ones, "add"), (bags, 1))
    if mode == _MEAN:
        result = c.call("div", result, c.call("maximum", counts, c.scalar(1, dtype)))
    else:
        result = c.call("where", c.call("gt", counts, c.scalar(0, dtype)), result, c.scalar(0, dtype))
    return result, None, None, None


def _bag_of_each(c: Conversion, indices: Value, offsets: Value) -> Value:
    """For each index the number of the bag it belongs to: how many bags begin no later, less one."""
    begins = c.call("full", shape=indices.tensor.shape, value=0, dtype=DType.INT64)
    ones = c.broadcast(c.scalar(1, DType.INT64), offsets.tensor.shape)
    # A bag that begins at the end is empty: its mark falls outside and is dropped.
    begins = c.call("scatter_along", begins, offsets, ones, axis=0, reduction="add")
    return c.call("sub", c.call("scan", begins, kind="sum", axis=0), c.scalar(1, DType.INT64))
