"""Searching in sorted sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...ir import Dim, DType, Value
from ..conversion import Conversion, Operand, elements, static
from ..registry import converts

aten = torch.ops.aten

_COMPARED = 32
"""Sequences of at most so many elements are compared with each point; in longer ones points are searched by halves."""


@converts(aten.bucketize.Tensor, aten.bucketize.Scalar)
def bucketize(c: Conversion, x: Operand, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    return _search(c, boundaries, x, right)


@converts(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def searchsorted(
    c: Conversion,
    sequence: Value,
    x: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> Value:
    """The sequences may have leading axes, which are x's; ``sorter`` gives the order in which they are sorted."""
    if sorter is not None:
        sequence = c.call("take_along", sequence, sorter, axis=sequence.tensor.rank - 1)
    return _search(c, sequence, x, right or side == "right")


def _search(c: Conversion, sequence: Value, x: Operand, right: bool) -> Value:
    """How many elements of a sorted sequence lie below each of x (with ``right``: not above)."""
    dtype = c.common_dtype(sequence, x)
    points, sequence = c.operand(x, dtype), c.cast(sequence, dtype)
    length = static(sequence.tensor.shape[-1], "the length of the sorted sequence")
    if length == 0 or 0 in c.shape:
        return c.call("full", shape=c.shape, value=0, dtype=c.dtype)

    def below(elements: Value, than: Value) -> Value:
        # The negation, so that NaN as a point lies behind everything.
        return c.call("logical_not", c.call("gt" if right else "ge", elements, than))

    if length > _COMPARED:
        return c.cast(_halved(c, sequence, points, length, below), c.dtype)
    shape = sequence.tensor.shape
    spread = c.reshape(sequence, (*shape[:-1], 1, shape[-1])) if len(shape) > 1 else sequence
    counts = c.cast(below(spread, c.reshape(points, (*points.tensor.shape, 1))), c.dtype)
    return c.reduce("sum", counts, (counts.tensor.rank - 1,))


def _halved(c: Conversion, sequence: Value, points: Value, length: int, below: Callable[[Value, Value], Value]) -> Value:
    """Binary search, one gather for each bit of the result."""
    rows: Dim = elements(sequence.tensor.shape[:-1])
    flat = c.flatten(sequence)
    count: Value = c.call("full", shape=points.tensor.shape, value=0, dtype=DType.INT64)
    start = None
    if sequence.tensor.rank > 1:
        numbers = c.call("iota", size=rows, step=length, dtype=DType.INT64)
        start = c.reshape(numbers, (*sequence.tensor.shape[:-1], 1))
    step = 1 << (length.bit_length() - 1)
    while step:
        more = c.call("add", count, c.scalar(step, DType.INT64))
        place = c.call("sub", c.call("minimum", more, c.scalar(length, DType.INT64)), c.scalar(1, DType.INT64))
        element = c.call("take", flat, place if start is None else c.call("add", place, start), axis=0)
        fits = c.call("le", more, c.scalar(length, DType.INT64))
        count = c.call("where", c.call("logical_and", fits, below(element, points)), more, count)
        step //= 2
    return count
