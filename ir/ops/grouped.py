"""Products of groups of rows with a matrix for each group: the experts of a mixture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..types import DType, Kind, TensorType
from .definition import Attributes, Op, Trait, register, require

if TYPE_CHECKING:
    from ..graph import GraphBuilder, Value


def _infer(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    a, b, ends = inputs
    op = "grouped_matmul"
    require(a.rank == 2 and b.rank == 3, op, f"operands need ranks 2 and 3, got {list(a.shape)} and {list(b.shape)}")
    require(a.shape[1] == b.shape[1], op, f"inner extents of {list(a.shape)} and {list(b.shape)} differ")
    require(a.dtype is b.dtype and a.dtype.kind is Kind.FLOAT, op, f"takes floats of one dtype, got {a.dtype.text} and {b.dtype.text}")
    require(ends.dtype.is_integer and ends.shape == b.shape[:1], op, f"needs an integer for each of the {b.shape[0]} groups, got {ends}")
    return a.with_shape((a.shape[0], b.shape[2]))


def _groups(ends: np.ndarray, rows: int) -> list[slice]:
    """The rows of each group: groups follow each other, and none begins before the last has ended."""
    borders = np.minimum(np.maximum.accumulate(np.concatenate([[0], ends.astype(np.int64)])), rows)
    return [slice(low, high) for low, high in itertools.pairwise(borders)]


def _reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    a, b, ends = inputs
    result = np.zeros((a.shape[0], b.shape[2]), dtype=a.dtype)
    for rows, matrix in zip(_groups(ends, len(a)), b, strict=True):
        result[rows] = a[rows] @ matrix
    return result


def _decompose(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    """All rows times all matrices, of which each row picks its own: for dtypes that no template takes."""
    a, b, ends = inputs
    rows, (groups, _, _) = a.tensor.shape[0], b.tensor.static_shape
    positions = builder.call("reshape", builder.call("iota", size=rows, dtype=DType.INT64), shape=(rows, 1))
    borders = builder.call("reshape", builder.call("cast", ends, dtype=DType.INT64), shape=(1, groups))
    # A row belongs to the first group that ends behind it; a row that belongs to none gets the number of groups.
    numbers = builder.call("iota", size=groups, dtype=DType.INT64)
    count = builder.call("full", shape=(), value=groups, dtype=DType.INT64)
    behind = builder.call("where", builder.call("gt", borders, positions), numbers, count)
    group = builder.call("reduce", behind, kind="min", axes=(1,), keepdims=True)
    products = builder.call("matmul", builder.call("reshape", a, shape=(1, *a.tensor.shape)), b)
    last = builder.call("full", shape=(), value=groups - 1, dtype=DType.INT64)
    place = builder.call("concat", builder.call("minimum", group, last), positions, axis=1)
    chosen = builder.call("take_nd", products, place)
    zero = builder.call("full", shape=(), value=0.0, dtype=a.tensor.dtype)
    return builder.call("where", builder.call("le", group, last), chosen, zero)


register(
    Op(
        "grouped_matmul",
        ("a", "b", "ends"),
        _infer,
        _reference,
        lambda inputs, attributes, outputs: 2 * outputs[0].elements * inputs[0].static_shape[1],
        traits=frozenset({Trait.CONTRACTION}),
        decompose=_decompose,
        doc="rows of a [S, K], sorted by group, times the matrix of their group in b [G, K, N]; group g is the rows from the end of the "
        "one before to ends[g], rows after the last are zero",
    )
)
