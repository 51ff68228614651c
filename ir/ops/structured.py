"""Products with structured matrices, which have fewer parameters than elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..dims import product
from ..types import Kind, TensorType
from .definition import Attributes, Op, Trait, register, require

if TYPE_CHECKING:
    from ..graph import GraphBuilder, Value


def _infer(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, first, second = inputs
    op = "monarch"
    require(len({type.dtype for type in inputs}) == 1 and x.dtype.kind is Kind.FLOAT, op, "takes floats of one dtype")
    require(first.rank == 4 and second.rank == 4, op, f"factors need rank 4, got {list(first.shape)} and {list(second.shape)}")
    blocks, depth, rank, groups = first.shape
    fits = second.shape[0] == blocks and second.shape[1] == rank and second.shape[3] == groups
    require(fits, op, f"factors of {list(first.shape)} and {list(second.shape)} differ in blocks, rank or groups")
    require(x.rank >= 1 and x.shape[-1] == blocks * depth, op, f"{list(x.shape)} does not fit {blocks} blocks of {depth}")
    return x.with_shape((*x.shape[:-1], second.shape[2] * groups))


def _reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, first, second = inputs
    parts = x.reshape(*x.shape[:-1], *first.shape[:2])
    result = np.einsum("...bd,bdrg,brog->...og", parts, first, second, optimize=True)
    return np.asarray(result.reshape(*x.shape[:-1], second.shape[2] * second.shape[3]))


def _flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    rows = outputs[0].elements // max(outputs[0].static_shape[-1], 1)
    return 2 * rows * (inputs[1].elements + inputs[2].elements)


def _decompose(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    x, first, second = inputs
    blocks, depth, rank, groups = first.tensor.static_shape
    width = second.tensor.static_shape[2]
    rows = product(x.tensor.shape[:-1])
    parts = builder.call("permute", builder.call("reshape", x, shape=(rows, blocks, depth)), order=(1, 0, 2))
    pieces = builder.call("matmul", parts, builder.call("reshape", first, shape=(blocks, depth, rank * groups)))
    apart = builder.call("reshape", pieces, shape=(blocks, rows, rank, groups))
    gathered = builder.call("reshape", builder.call("permute", apart, order=(3, 1, 0, 2)), shape=(groups, rows, blocks * rank))
    matrices = builder.call("reshape", builder.call("permute", second, order=(3, 0, 1, 2)), shape=(groups, blocks * rank, width))
    result = builder.call("permute", builder.call("matmul", gathered, matrices), order=(1, 2, 0))
    return builder.call("reshape", result, shape=(*x.tensor.shape[:-1], width * groups))


register(
    Op(
        "monarch",
        ("x", "first", "second"),
        _infer,
        _reference,
        _flops,
        traits=frozenset({Trait.CONTRACTION}),
        decompose=_decompose,
        doc="x [..., B * D] times a Monarch matrix: two block-diagonal factors first [B, D, R, G] and second [B, R, O, G] with a "
        "transposition between them, result[o * G + g] = sum over b, d and r of x[b * D + d] first[b, d, r, g] second[b, r, o, g]",
    )
)
