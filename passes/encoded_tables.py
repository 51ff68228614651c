"""Embedding tables in 8 bits: rows are looked up as integers and multiplied by the scale of their row."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import ArrayConstant, DType, EncodedConstant, GraphBuilder, Node, TensorType, Value
from ..ir.encodings import Affine

TABLE = Affine("i8", axis=0).encoding
"""How tables are stored in every mode that stores weights: a lookup reads single rows, so that fewer bits would save room but no time."""

SMALLEST_TABLE = 1 << 16
"""Elements below which a table is not worth rounding."""


def is_table(node: Node) -> bool:
    """Whether a ``take`` looks up rows of a large matrix."""
    type = node.inputs[0].type
    return isinstance(type, TensorType) and type.rank == 2 and node.attributes["axis"] == 0 and type.elements >= SMALLEST_TABLE


def looked_up(builder: GraphBuilder, table: EncodedConstant, indices: Value) -> Sequence[Value]:
    """The rows of ``table``, in the encoding :data:`TABLE`, at ``indices``: the very numbers of its decoded rows."""
    assert table.scales is not None
    codes, scales = builder.constant(ArrayConstant(table.codes)), builder.constant(ArrayConstant(table.scales.reshape(-1, 1)))
    rows = builder.call("cast", builder.call("take", codes, indices, axis=0), dtype=DType.FLOAT32)
    found = builder.call("mul", rows, builder.call("take", scales, indices, axis=0))
    return [found if table.type.dtype is DType.FLOAT32 else builder.call("cast", found, dtype=table.type.dtype)]
