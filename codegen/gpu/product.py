"""Contractions as matrix products: what the rows, columns and depth of a matmul, a linear layer and a convolution are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import tirx

from ...ir import DType, Layout, Node
from ..emit import Evaluator, Expr, index, unflatten
from ..emit.attributes import attributes_of
from ..emit.conversions import constant
from ..emit.math import select
from ..task import Task
from ..templates.region import AnchoredRegion, broadcast_row

OPS = ("matmul", "linear", "conv", "conv_transpose")


@dataclass(frozen=True)
class Contraction:
    """The product ``[batch, rows, depth] x [batch, depth, columns]`` that an anchor is.

    A convolution multiplies windows by its weight without storing them (implicit GEMM): its rows are the pixels of all images, its
    depth runs over the window and then the channels of a group, its columns are output channels, its batch the groups. A transposed
    one does the same, and takes zeros where the stride skips a pixel.
    """

    anchor: Node

    @property
    def is_conv(self) -> bool:
        return self.anchor.op in ("conv", "conv_transpose")

    @cached_property
    def dtype(self) -> DType:
        return self.anchor.output.tensor.dtype

    @cached_property
    def groups(self) -> int:
        return int(attributes_of(self.anchor)["groups"]) if self.is_conv else 1

    @cached_property
    def _batch_shape(self) -> tuple[int, ...]:
        """Leading axes of a matmul's result along which the second operand differs."""
        b = self.anchor.inputs[1].tensor.static_shape
        if self.anchor.op != "matmul" or math.prod(b[:-2]) == 1:
            return ()
        return self.anchor.output.tensor.static_shape[:-2]

    @cached_property
    def _row_shape(self) -> tuple[int, ...]:
        shape = self.anchor.output.tensor.static_shape
        if self.is_conv:
            return (shape[0], *shape[2:])
        return shape[-2:-1] if self._batch_shape else shape[:-1]

    @cached_property
    def depth_shape(self) -> tuple[int, ...]:
        """The axes of the sum, outermost first."""
        if not self.is_conv:
            return (self.anchor.inputs[0].tensor.static_shape[-1],)
        x, weight = (value.tensor.static_shape for value in self.anchor.inputs[:2])
        return (*weight[2:], x[1] // self.groups)

    @cached_property
    def batch(self) -> int:
        return self.groups if self.is_conv else math.prod(self._batch_shape)

    @cached_property
    def rows(self) -> int:
        return math.prod(self._row_shape)

    @cached_property
    def columns(self) -> int:
        shape = self.anchor.output.tensor.static_shape
        return shape[1] // self.groups if self.is_conv else shape[-1]

    @cached_property
    def depth(self) -> int:
        return math.prod(self.depth_shape)

    @property
    def first_along_depth(self) -> bool:
        """Whether neighbours in memory of the first operand lie along the depth (else along the rows)."""
        x = self.anchor.inputs[0].tensor
        return x.layout.order[-1] == (1 if self.is_conv else x.rank - 1)

    @property
    def second_layout(self) -> Layout:
        """The order in memory in which a constant second operand is ``[depth, columns]``."""
        rank = self.anchor.inputs[1].tensor.rank
        match self.anchor.op:
            case "linear":
                return Layout((1, 0))
            case "conv":
                return Layout((*range(2, rank), 1, 0))
            case "conv_transpose":
                return Layout((*range(2, rank), 0, 1))
        return Layout.row_major(rank)

    def second_along_columns(self, packed: bool) -> bool:
        """Whether neighbours in memory of the second operand lie along the columns."""
        b = self.anchor.inputs[1].tensor
        return packed or (self.anchor.op == "matmul" and b.layout.order[-1] == b.rank - 1)

    def result(self, evaluator: Evaluator, batch: Expr, row: Expr, column: Expr) -> list[Expr]:
        """Logical indices of an element of the anchor's result."""
        emitter = evaluator.emitter
        rows = unflatten(emitter, self._row_shape, row)
        if self.is_conv:
            return [rows[0], emitter.simplify(batch * self.columns + column), *rows[1:]]
        return [*unflatten(emitter, self._batch_shape, batch), *rows, column]

    def first(self, evaluator: Evaluator, batch: Expr, row: Expr, k: Expr) -> Expr:
        """An element of the first operand."""
        if self.is_conv:
            emitter = evaluator.emitter
            return self.pixel(evaluator, batch, unflatten(emitter, self._row_shape, row), unflatten(emitter, self.depth_shape, k))
        a = self.anchor.inputs[0]
        position = row if not self._batch_shape else evaluator.emitter.simplify(batch * self.rows + row)
        leading = broadcast_row(evaluator.kernel, a.tensor.static_shape[:-1], (*self._batch_shape, *self._row_shape), position)
        return evaluator.value_at(a, [*leading, k])

    def second(self, evaluator: Evaluator, batch: Expr, k: Expr, column: Expr) -> Expr:
        """An element of the second operand."""
        emitter, b = evaluator.emitter, self.anchor.inputs[1]
        if self.anchor.op == "linear":
            return evaluator.value_at(b, [column, k])
        if self.is_conv:
            return self.weight(evaluator, batch, unflatten(emitter, self.depth_shape, k), column)
        shape = b.tensor.static_shape
        leading: Sequence[Expr] = [index(0)] * (len(shape) - 2)
        if self._batch_shape:
            leading = broadcast_row(evaluator.kernel, shape[:-2], self._batch_shape, batch)
        return evaluator.value_at(b, [*leading, k, column])

    def with_bias(self, evaluator: Evaluator, element: Expr, batch: Expr, column: Expr) -> Expr:
        """``element`` plus the bias, if the anchor has one."""
        if self.anchor.op == "matmul" or len(self.anchor.inputs) < 3:
            return element
        place = evaluator.emitter.simplify(batch * self.columns + column) if self.is_conv else column
        return element + evaluator.value_at(self.anchor.inputs[2], [place])

    def row_of(self, result: Sequence[Expr]) -> list[Expr]:
        """The image and the place in it (the axes of the rows) of logical indices of a convolution's result."""
        return [result[0], *result[2:]]

    def weight(self, evaluator: Evaluator, group: Expr, steps: Sequence[Expr], column: Expr) -> Expr:
        """The weight of a convolution at one place of the window and one channel of the group (``steps``)."""
        *window, channel = steps
        b = self.anchor.inputs[1]
        if self.anchor.op == "conv":
            return evaluator.value_at(b, [group * self.columns + column, channel, *window])
        return evaluator.value_at(b, [group * self.depth_shape[-1] + channel, column, *window])

    def pixel(self, evaluator: Evaluator, group: Expr, row: Sequence[Expr], steps: Sequence[Expr]) -> Expr:
        """The operand of a convolution under one place of the window; 0 in the padding."""
        emitter, x = evaluator.emitter, self.anchor.inputs[0]
        attributes: Any = self.anchor.attributes
        image, *results = row
        *window, channel = steps
        source = [image, emitter.simplify(group * self.depth_shape[-1] + channel)]
        inside: Expr | None = None
        for axis, (result, offset) in enumerate(zip(results, window, strict=True)):
            stride, dilation, (low, _) = (attributes[name][axis] for name in ("stride", "dilation", "padding"))
            conditions = []
            if self.anchor.op == "conv":
                position = emitter.simplify(result * stride + offset * dilation - low)
            else:
                numerator = emitter.simplify(result + low - offset * dilation)
                position = emitter.simplify(tirx.floordiv(numerator, index(stride)))
                if stride > 1:
                    conditions.append(tirx.EQ(tirx.floormod(numerator, index(stride)), index(0)))
            safe, valid = evaluator.clamped(position, x.tensor.static_shape[axis + 2])
            source.append(safe)
            for condition in (*conditions, *([valid] if valid is not None else [])):
                inside = condition if inside is None else tirx.And(inside, condition)
        element = evaluator.value_at(x, source)
        return element if inside is None else select(inside, element, constant(0, self.dtype))


def constant_weight(task: Task, region: AnchoredRegion) -> int | None:
    """The position of the constant input that is the second operand and can be packed."""
    weight = region.anchor.inputs[1]
    if weight not in region.graph.inputs or len(region.graph.users[weight]) != 1 or region.anchor.inputs.count(weight) != 1:
        return None
    position = region.graph.inputs.index(weight)
    return position if position in task.constant_inputs else None
