"""Physical layouts: which order in memory each value gets, so that kernels read along it and views cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import (
    Graph,
    GraphBuilder,
    Layout,
    Node,
    TensorType,
    TokenType,
    Value,
    dimension_at,
    is_alias,
    is_control,
    normal_layout,
    permuted_layout,
    reshaped_layout,
    same_bytes,
)
from .base import Context, Pass, register_pass
from .facts import is_elementwise, is_source

_IMAGE_OPS = frozenset({"conv", "conv_transpose", "window_reduce", "resample"})
"""Operations over [N, C, spatial...] whose kernels run along the channels."""

_ROW_OPS = frozenset({"linear", "matmul", "grouped_matmul", "layer_norm", "rms_norm", "softmax", "log_softmax"})
"""Operations whose kernels read along the last axis."""


def channels_last(rank: int) -> Layout:
    """The order N, spatial..., C."""
    return Layout((0, *range(2, rank), 1))


@register_pass
@dataclass(frozen=True)
class AssignLayouts(Pass):
    """Chooses the layout of every value; what the graph computes, and the layouts of its inputs and outputs, stay the same.

    A sweep from the outputs asks which layout the readers of each value would like best; a sweep from the inputs fixes layouts, keeps
    views aliases where possible, and adds ``relayout`` where a reader cannot do with what there is. Convolutional nets run
    channels-last; a convolution over fewer than ``min_channels`` channels reads its operand in any layout.
    """

    name: ClassVar[str] = "layout"
    min_channels: int = 8

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        wanted = self._wanted(graph)
        builder = GraphBuilder(graph.name, graph.symbols)
        placed: dict[Value, Value] = {value: builder.input(value.type, value.name) for value in graph.inputs}
        copies: dict[tuple[Value, Layout], Value] = {}

        def in_layout(value: Value, layout: Layout) -> Value:
            """``value`` of the new graph, in memory as in ``layout``."""
            if same_bytes(value.tensor.layout, layout, value.tensor.shape):
                return value
            if (value, layout) not in copies:
                type = normal_layout(value.tensor.with_layout(layout))
                copies[value, layout] = builder.append(Node("relayout", [value], {}, [type])).output
            return copies[value, layout]

        for node in graph.nodes:
            if node.op == "constant":
                constant = node.output.constant
                assert constant is not None
                placed[node.output] = builder.constant(constant, node.output.tensor)
                continue
            builder.location = node.location
            operands = [placed[value] for value in node.inputs]
            for position, layout in self._needs(node, operands).items():
                operands[position] = in_layout(operands[position], layout)
            if is_control(node):
                # Regions take exactly the types they were given.
                operands = [
                    _exactly(builder, in_layout(value, old.tensor.layout), old.tensor) if isinstance(old.type, TensorType) else value
                    for value, old in zip(operands, node.inputs, strict=True)
                ]
            types = [
                self._result(node, operands, value, wanted) if isinstance(value.type, TensorType) else value.type for value in node.outputs
            ]
            new = builder.append(Node(node.op, operands, node.attributes, types, node.regions, node.location))
            for old, value in zip(node.outputs, new.outputs, strict=True):
                value.name = old.name
                placed[old] = value

        def finished(value: Value) -> Value:
            if isinstance(value.type, TokenType):
                return placed[value]
            return _exactly(builder, in_layout(placed[value], value.tensor.layout), value.tensor)

        return builder.finish([finished(value) for value in graph.outputs])

    def _wanted(self, graph: Graph) -> dict[Value, Layout]:
        """The layout that the readers of each value prefer: that of the most elements read; absent where none minds."""
        votes: dict[Value, dict[Layout, int]] = {}

        def vote(value: Value, layout: Layout | None, weight: int = 1) -> None:
            if layout is not None:
                counts = votes.setdefault(value, {})
                counts[layout] = counts.get(layout, 0) + weight

        wanted: dict[Value, Layout] = {}

        def decide(value: Value) -> Layout | None:
            if value not in wanted and value in votes:
                counts = votes[value]
                wanted[value] = max(counts, key=lambda layout: counts[layout])
            return wanted.get(value)

        for value in graph.outputs:
            if isinstance(value.type, TensorType):
                vote(value, value.tensor.layout)
        for node in reversed(graph.nodes):
            result = decide(node.outputs[0]) if node.outputs else None
            for position, value in enumerate(node.inputs):
                if isinstance(value.type, TensorType):
                    vote(value, self._liked(node, position, value, result))
        return wanted

    def _liked(self, node: Node, position: int, value: Value, result: Layout | None) -> Layout | None:
        """The layout in which ``node``, whose result should have layout ``result``, likes operand ``position``."""
        type = value.tensor
        if node.op in _IMAGE_OPS:
            if position > 0 or (node.op == "conv" and int(type.shape[1]) < self.min_channels):
                return None
            return channels_last(type.rank) if node.op in ("conv", "conv_transpose") else result
        if node.op in _ROW_OPS or node.op == "state_write":
            return Layout.row_major(type.rank)
        if result is None:
            return None
        if node.op == "permute":
            order = node.attributes["order"]
            assert isinstance(order, tuple)
            return permuted_layout(result, _inverse(order))
        if node.op == "reshape":
            return reshaped_layout(node.output.tensor.shape, result, type.shape)
        if (is_elementwise(node) or node.op in ("concat", "slice", "pad", "flip", "batch_norm", "group_norm")) and type.rank == result.rank:
            return result if type.shape == node.outputs[0].tensor.shape or not is_elementwise(node) else None
        return None

    def _needs(self, node: Node, operands: list[Value]) -> dict[int, Layout]:
        """The operands that must be in a certain layout, and which."""
        if node.op in ("conv", "conv_transpose"):
            x = operands[0].tensor
            if node.op == "conv" and int(x.shape[1]) < self.min_channels:
                return {}
            return {0: channels_last(x.rank)}
        if node.op in ("linear", "layer_norm", "rms_norm"):
            return {0: Layout.row_major(operands[0].tensor.rank)}
        if node.op == "state_write":
            return {1: Layout.row_major(operands[1].tensor.rank)}
        return {}

    def _result(self, node: Node, operands: list[Value], value: Value, wanted: dict[Value, Layout]) -> TensorType:
        """The type of a result, with the layout chosen for it."""
        type = value.tensor
        if is_source(node) or type.rank < 2 or node.regions or node.op == "state_read":
            return type
        if node.op == "put":  # done in place
            return operands[0].tensor
        if node.op in ("conv", "conv_transpose"):
            return normal_layout(type.with_layout(channels_last(type.rank)))
        layout: Layout | None
        if node.op == "relayout":
            return type
        if node.op in ("permute", "reshape"):
            return self._view(node, operands[0], type, wanted.get(value))
        like = wanted.get(value)
        if like is None or node.op in ("window_reduce", "resample") or is_elementwise(node) or node.op == "batch_norm":
            layout = _followed(node, operands, type)
            like = layout if layout is not None else like
        return normal_layout(type.with_layout(like))

    def _view(self, node: Node, operand: Value, type: TensorType, like: Layout | None) -> TensorType:
        """A view is an alias wherever its operand's layout allows; else it moves data into the layout its readers like."""
        layout: Layout | None
        if node.op == "permute":
            order = node.attributes["order"]
            assert isinstance(order, tuple)
            layout = permuted_layout(operand.tensor.layout, order)
        else:
            layout = reshaped_layout(operand.tensor.shape, operand.tensor.layout, type.shape)
        return normal_layout(type.with_layout(layout if layout is not None else like))


def _inverse(order: tuple[object, ...]) -> tuple[int, ...]:
    axes = [int(axis) for axis in order]  # type: ignore[call-overload]
    return tuple(axes.index(axis) for axis in range(len(axes)))


def _followed(node: Node, operands: list[Value], type: TensorType) -> Layout | None:
    """The layout of the operands of full rank: of the largest that is not row-major, else row-major; None when there is none."""
    same = [value.tensor for value in operands if value.tensor.rank == type.rank and not value.tensor.layout.is_blocked]
    if not same:
        return None
    if node.op == "reduce" or (node.op != "concat" and not is_elementwise(node) and node.op not in _IMAGE_OPS and len(same) != 1):
        return same[0].layout
    best = max(same, key=lambda operand: (_typical(operand), not operand.layout.is_row_major))
    return best.layout


def _typical(type: TensorType) -> int:
    """Elements, with a plain number in place of each symbol: it only orders operands of one node."""
    size = type.size
    return size if isinstance(size, int) else int(dimension_at(size, {str(free): 64 for free in size.free_symbols}))


def _exactly(builder: GraphBuilder, value: Value, type: TensorType) -> Value:
    """``value`` with ``type`` as it stands: graph outputs keep their declared layout."""
    if value.type == type:
        return value
    copy = builder.append(Node("relayout", [value], {}, [type]))
    assert is_alias(copy)
    return copy.output
