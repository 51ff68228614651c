"""Products with a sparse weight: linear layers, matrix products and pointwise convolutions as [rows, depth] x [depth, columns].

The type of the weight says how it is stored (``block_sparse``, ``bitmap`` or ``nm_sparse``, see :mod:`mlc.ir.encoding`). Its zeros are
not multiplied with, so that a product of zero and an infinity does not become NaN: regions with such types are made for finite numbers
only (``nonfinite="fast"``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ...errors import LoweringError
from ...ir import Encoding, Graph, Layout, Node, Value
from ..emit import VECTORIZED, Emitter, Expr, unflatten
from ..emit.attributes import attributes_of
from ..sparse_weight import StoredValues
from ..task import Task
from .region import AnchoredRegion, Epilogue
from .staging import clear_row, copy_row

_OPS = ("linear", "matmul", "conv")


@dataclass(frozen=True)
class SparseProduct:
    """The geometry of a region around one product with a sparse weight; static shapes only."""

    region: AnchoredRegion
    rows: int
    depth: int
    columns: int
    stored: StoredValues | None

    @staticmethod
    def find(graph: Graph, encodings: Collection[str], *, any_values: bool = False) -> SparseProduct | None:
        """The product in ``graph`` if its weight has one of ``encodings`` and everything else is what templates of products take.

        Its numbers are stored in a way that :class:`StoredValues` knows, or with ``any_values`` in any.
        """
        if all(getattr(value.type, "encoding", None) is None or value.tensor.encoding.name not in encodings for value in graph.inputs):
            return None
        region = AnchoredRegion.find(graph, _OPS)
        if region is None:
            return None
        anchor, weight = region.anchor, region.anchor.inputs[1]
        if weight not in graph.inputs or weight.tensor.encoding.name not in encodings or len(graph.users[weight]) != 1:
            return None
        if anchor.inputs[0].tensor.rank < 1 or (anchor.op == "conv" and not is_pointwise(anchor)):
            return None
        if anchor.op == "matmul" and weight.tensor.rank != 2:
            return None
        shape = weight.tensor.static_shape
        columns, depth = (shape[1], shape[0]) if anchor.op == "matmul" else (shape[0], math.prod(shape[1:]))
        stored = StoredValues.of(weight.tensor.encoding.values, 1 if anchor.op == "matmul" else 0)
        if stored is None and not any_values:
            return None
        return SparseProduct(region, anchor.output.tensor.elements // columns, depth, columns, stored)

    @staticmethod
    def of(task: Task, encodings: Collection[str], *, any_values: bool = False) -> SparseProduct:
        """The product of ``task``; LoweringError when it is not one that :meth:`find` finds, or its weight is no constant."""
        product = SparseProduct.find(task.graph, encodings, any_values=any_values)
        if product is None or product.weight_position not in task.constant_inputs:
            raise LoweringError("the sparse templates take regions with one product whose weight is a constant in a sparse encoding")
        return product

    @property
    def anchor(self) -> Node:
        return self.region.anchor

    @property
    def x(self) -> Value:
        return self.anchor.inputs[0]

    @property
    def weight(self) -> Value:
        return self.anchor.inputs[1]

    @property
    def bias(self) -> Value | None:
        return self.anchor.inputs[2] if len(self.anchor.inputs) > 2 else None

    @property
    def values(self) -> StoredValues:
        """How the numbers of the weight are stored, which is known unless the product was looked for with any."""
        assert self.stored is not None
        return self.stored

    @property
    def encoding(self) -> Encoding:
        return self.weight.tensor.encoding

    @property
    def weight_position(self) -> int:
        return self.region.graph.inputs.index(self.weight)

    @property
    def is_transposed(self) -> bool:
        """Whether the weight is [inputs, outputs]."""
        return self.anchor.op == "matmul"

    def parameter(self, name: str) -> int:
        """A number of the weight's encoding."""
        value = dict(self.encoding.parameters)[name]
        assert isinstance(value, int)
        return value

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The axes of the result that together are the rows."""
        shape = self.anchor.output.tensor.static_shape
        return (shape[0], *shape[2:]) if self.anchor.op == "conv" else shape[:-1]

    def plain_source(self) -> Value | None:
        """The graph input that already is ``[rows, depth]`` in memory."""
        return self._rows_in_memory(self.x)

    def _rows_in_memory(self, value: Value) -> Value | None:
        """The graph input that holds ``value``, of the operand's shape, as ``[rows, depth]``."""
        if self.anchor.op != "conv":
            return self.region.source(value)
        tensor = value.tensor
        if value.node is not None:
            return None
        strides = tensor.layout.strides(tensor.static_shape)
        last = Layout((0, *range(2, tensor.rank), 1)).strides(tensor.static_shape)
        same = all(extent == 1 or own == wanted for extent, own, wanted in zip(tensor.static_shape, strides, last, strict=True))
        return value if same else None

    def scaled_source(self) -> tuple[Value, Value] | None:
        """(rows, factors) where the operand is the product of both: the graph input that is ``[rows, depth]`` in memory, and a graph input
        of one element for each of the ``depth`` inputs."""
        node = self.x.node
        if node is None or node.op != "mul":
            return None
        axis = 1 - self.x.tensor.rank if self.anchor.op == "conv" else -1
        for rows, factors in (node.inputs, node.inputs[::-1]):
            shape = factors.tensor.static_shape
            fits = len(shape) >= -axis and shape[axis] == self.depth == factors.tensor.elements and rows.tensor.shape == self.x.tensor.shape
            if fits and factors.node is None and self._rows_in_memory(rows) is not None:
                return rows, factors
        return None

    def operand_indices(self, emitter: Emitter, row: Expr, k: Expr) -> list[Expr]:
        """Logical indices into ``x``."""
        return self._indices(emitter, row, k)

    def result_indices(self, emitter: Emitter, row: Expr, column: Expr) -> list[Expr]:
        """Logical indices of an element of the anchor's result."""
        return self._indices(emitter, row, column)

    def stage(self, epilogue: Epilogue, lanes: int, buffer: Any, stride: int) -> None:
        """Evaluates the operand into rows of ``buffer``, ``stride`` apart, filled up with zeros."""
        emitter = epilogue.evaluator.kernel.emitter
        with emitter.loop(self.rows, name="row") as row:

            def element(k: Expr) -> Expr:
                return epilogue.evaluator.value_at(self.x, self.operand_indices(emitter, row, k))

            copy_row(emitter, lanes, buffer, row * stride, self.depth, element)
            clear_row(emitter, lanes, buffer, row * stride + self.depth, stride - self.depth)

    def store(self, epilogue: Epilogue, row: Expr, column: Expr, total: Expr, *, bound: bool = False) -> None:
        """Stores what becomes of a sum of products; ``bound``: computed once, where it is read more than once."""
        emitter = epilogue.evaluator.kernel.emitter
        element = total if self.bias is None else total + epilogue.evaluator.value_at(self.bias, [column])
        element = emitter.bind(element) if bound else element
        epilogue.store(self.result_indices(emitter, row, column), element)

    def store_group(
        self,
        epilogue: Epilogue,
        totals: Any,
        width: int,
        first: Expr,
        outputs: int,
        scaled: Callable[[Expr, Expr], Expr] = lambda total, column: total,
    ) -> None:
        """Stores what becomes of ``totals`` [rows, width], once ``scaled`` by column: of the ``outputs`` columns from ``first`` on."""
        emitter = epilogue.evaluator.kernel.emitter
        with emitter.loop(self.rows, name="row") as row, emitter.loop(outputs, VECTORIZED, "output") as output:
            column = first + output
            self.store(epilogue, row, column, scaled(emitter.load(totals, row * width + output), column))

    def _indices(self, emitter: Emitter, row: Expr, last: Expr) -> list[Expr]:
        indices = unflatten(emitter, self.row_shape, row)
        return [indices[0], last, *indices[1:]] if self.anchor.op == "conv" else [*indices, last]


def is_pointwise(conv: Node) -> bool:
    """Whether a convolution over one or two axes is a product at every pixel."""
    attributes = attributes_of(conv)
    weight = conv.inputs[1].tensor
    return (
        weight.is_static
        and weight.rank in (3, 4)
        and all(extent == 1 for extent in weight.static_shape[2:])
        and int(attributes["groups"]) == 1
        and all(stride == 1 for stride in attributes["stride"])
        and all(low == 0 == high for low, high in attributes["padding"])
    )
