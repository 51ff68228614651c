"""Encoded weights: the constants of layers give way to what their precision mode stores of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..codegen.precision import Precision, WeightAxes
from ..ir import Constant, DType, EncodedConstant, Encoding, Graph, Node, Rewriter, Value, encode, scheme_of
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .encoded_tables import TABLE, is_table, looked_up

_SMALLEST_GAIN = 2
"""How much smaller than in float32 a weight must be: groups of a few elements, each with a scale, cost accuracy and save nothing."""


@register_pass
@dataclass(frozen=True)
class EncodeWeights(Pass):
    """Replaces constant weights of linear layers, matrix products and convolutions by encoded constants, and lookups of embeddings by
    lookups of 8-bit integers and scales.

    The mode of a layer is that of its module in the context's precision, or ``mode`` where that is given. Results are those of the graph
    with rounded weights. A weight stays as it is when it holds NaN or infinity, or when its codes and scales would take more than half of
    what it takes in float32, as those of a depthwise convolution with scales for groups of input channels.
    """

    name: ClassVar[str] = "encode-weights"
    rounds: ClassVar[bool] = True
    mode: str = ""

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        precision = Precision.of(self.mode) if self.mode else ctx.precision
        if not precision.rules:
            return graph

        def encoded_layer(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            position, axes_of = _WEIGHTS[node.op]
            weight = node.inputs[position]
            mode = precision.mode(node.location.module)
            if mode.weights is None or weight.constant is None or not weight.tensor.encoding.is_dense:
                return None
            encoded = _encoded(weight.constant, mode.weights(axes_of(weight.tensor.rank)))
            if encoded is None or not ctx.budget.spend():
                return None
            operands = [rewriter[value] for value in node.inputs]
            operands[position] = rewriter.builder.constant(encoded)
            types = [value.type for value in node.outputs]
            return rewriter.builder.append(Node(node.op, operands, node.attributes, types, node.regions, node.location)).outputs

        def encoded_table(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            table = node.inputs[0].constant
            if table is None or not is_table(node) or precision.mode(node.location.module).weights is None:
                return None
            encoded = _encoded(table, TABLE)
            if encoded is None or not ctx.budget.spend():
                return None
            return looked_up(rewriter.builder, encoded, rewriter[node.inputs[1]])

        return without_dead_code(Rewriter(graph).run({**dict.fromkeys(_WEIGHTS, encoded_layer), "take": encoded_table}))


def _encoded(weight: Constant, encoding: Encoding) -> EncodedConstant | None:
    """``weight`` in ``encoding``; None where it stays dense."""
    if not weight.type.dtype.is_float or weight.type.elements == 0:
        return None
    single = weight.type.elements * DType.FLOAT32.nbytes
    if scheme_of(encoding).nbytes(weight.type.static_shape) * _SMALLEST_GAIN > single:
        return None
    with np.errstate(over="ignore"):
        finite = bool(np.isfinite(weight.array().astype(np.float32, copy=False)).all())
    return encode(weight, encoding) if finite else None


_WEIGHTS: Mapping[str, tuple[int, Callable[[int], WeightAxes]]] = {
    "linear": (1, lambda rank: WeightAxes(output=0, reduced=1)),
    "matmul": (1, lambda rank: WeightAxes(output=rank - 1, reduced=rank - 2)),
    "grouped_matmul": (1, lambda rank: WeightAxes(output=2, reduced=1)),
    "conv": (1, lambda rank: WeightAxes(output=0, reduced=1)),
    "conv_transpose": (1, lambda rank: WeightAxes(output=1, reduced=0)),
}
"""Operations with weights: which operand that is, and its axes by its rank."""
