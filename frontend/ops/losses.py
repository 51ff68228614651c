"""Losses that PyTorch has no (right) decomposition for."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion, static
from ..registry import converts

aten = torch.ops.aten


@converts(aten.multilabel_margin_loss_forward.default)
def multilabel_margin(c: Conversion, x: Value, target: Value, reduction: int) -> tuple[Value, Value]:
    """Over samples [N, C] or [C], sum of max(0, 1 - x[t] + x[c]) / C for target classes t (those before the first -1) and all others c.

    PyTorch's own decomposition also sums over the classes behind the first -1.
    """
    classes = static(x.tensor.shape[-1], "the number of classes")
    matrix = (x.tensor.shape[0] if x.tensor.rank > 1 else 1, classes)
    shape = x.tensor.shape
    x, target = c.reshape(x, matrix), c.cast(c.reshape(target, matrix), DType.INT64)
    places = c.call("iota", size=classes, dtype=DType.INT64)
    ends = c.call("where", c.call("eq", target, c.scalar(-1, DType.INT64)), places, c.scalar(classes, DType.INT64))
    valid = c.call("lt", places, c.reduce("min", ends, (1,), True))
    chosen = c.call("where", valid, target, c.scalar(0, DType.INT64))
    column = (*matrix, 1)
    hits = c.call("logical_and", c.reshape(valid, column), c.call("eq", c.reshape(chosen, column), places))
    wanted = c.reduce("any", hits, (1,))
    margins = c.call("sub", c.reshape(x, (matrix[0], 1, classes)), c.reshape(c.call("take_along", x, chosen, axis=1), column))
    loss = c.call("clamp", c.call("add", margins, c.scalar(1, x.tensor.dtype)), min=0.0)
    counted = c.call("logical_and", c.reshape(valid, column), c.reshape(c.call("logical_not", wanted), (matrix[0], 1, classes)))
    loss = c.reduce("sum", c.call("where", counted, loss, c.scalar(0, x.tensor.dtype)), (1, 2))
    loss = c.call("div", loss, c.scalar(classes, x.tensor.dtype))
    if reduction:
        loss = c.reduce("mean" if reduction == 1 else "sum", loss, (0,))
    return c.reshape(loss, c.shape), c.cast(c.reshape(wanted, shape), c.type_of(1).dtype)
