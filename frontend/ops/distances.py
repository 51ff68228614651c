"""Distances between tensors, and between the rows of matrices."""

from __future__ import annotations

import numpy as np
import torch

from ...ir import Dim, Value
from ..conversion import Conversion, Number, static
from ..registry import converts
from .reduction import vector_norm

aten = torch.ops.aten


@converts(aten.dist.default)
def dist(c: Conversion, a: Value, b: Value, p: Number = 2) -> Value:
    return vector_norm(c, c.call("sub", c.cast(a, c.dtype), c.cast(b, c.dtype)), p)


@converts(aten._cdist_forward.default)
def cdist(c: Conversion, a: Value, b: Value, p: float, compute_mode: int | None) -> Value:
    """Distances of the rows of a [..., M, K] and b [..., N, K]."""

    def insert(x: Value, position: int) -> Value:
        shape: list[Dim] = list(x.tensor.shape)
        shape.insert(len(shape) - position, 1)
        return c.reshape(x, shape)

    if 0 in c.shape or a.tensor.shape[-1] == 0:
        return c.call("full", shape=c.shape, value=0.0, dtype=c.dtype)
    return vector_norm(c, c.call("sub", insert(a, 1), insert(b, 2)), p, -1)


@converts(aten._pdist_forward.default)
def pdist(c: Conversion, x: Value, p: float = 2) -> Value:
    """Distances of the rows i < j of x [N, K], in the order of (i, j)."""
    count = static(x.tensor.shape[0], "the number of points")
    if 0 in c.shape or x.tensor.shape[-1] == 0:
        return c.call("full", shape=c.shape, value=0.0, dtype=c.dtype)
    first, second = (c.call("take", x, c.constant(rows.astype(np.int64)), axis=0) for rows in np.triu_indices(count, 1))
    return vector_norm(c, c.call("sub", first, second), p, -1)
