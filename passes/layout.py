"""Physical layouts: which order in memory each value gets, so that kernels read along it and views cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..ir import (
    DENSE,
    Graph,
    GraphBuilder,
    Layout,
    Node,
    TensorType,
    TokenType,
    Value,
    is_alias,
    is_control,
    normal_layout,
    same_bytes,
)
from .base import Context, Pass, register_pass
from .facts import is_source
from .layout_choice import channels_last, choose_layouts, needed_layouts


@register_pass
@dataclass(frozen=True)
class AssignLayouts(Pass):
    """Gives every value the layout that :mod:`.layout_choice` chooses for it, and adds ``relayout`` where a reader cannot do with that.

    What the graph computes, and the layouts of its inputs and outputs, stay the same. Convolutional nets run channels-last; a convolution
    over fewer than ``min_channels`` channels reads its operand in any layout.
    """

    name: ClassVar[str] = "layout"
    min_channels: int = 8

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        chosen = choose_layouts(graph, self.min_channels)
        builder = GraphBuilder(graph.name, graph.symbols)
        placed: dict[Value, Value] = {value: builder.input(value.type, value.name) for value in graph.inputs}
        copies: dict[tuple[Value, Layout], Value] = {}

        def in_layout(value: Value, layout: Layout) -> Value:
            """``value`` of the new graph, in memory as in ``layout``."""
            if same_bytes(value.tensor.layout, layout, value.tensor.shape):
                return value
            if (value, layout) not in copies:
                type = normal_layout(value.tensor.with_layout(layout).with_encoding(DENSE))
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
            for position, layout in needed_layouts(node, self.min_channels).items():
                operands[position] = in_layout(operands[position], layout)
            if is_control(node):
                # Regions take exactly the types they were given.
                operands = [
                    _exactly(builder, value, old.tensor) if isinstance(old.type, TensorType) else value
                    for value, old in zip(operands, node.inputs, strict=True)
                ]
            types = [
                self._result(node, operands, value, chosen) if isinstance(value.type, TensorType) else value.type for value in node.outputs
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

    def _result(self, node: Node, operands: list[Value], value: Value, chosen: Mapping[Value, Layout]) -> TensorType:
        """The type of a result, with the layout chosen for it."""
        type = value.tensor
        if is_source(node) or type.rank < 2 or node.regions or node.op in ("state_read", "relayout"):
            return type
        if node.op == "put":  # done in place
            return operands[0].tensor
        if node.op in ("conv", "conv_transpose"):
            return normal_layout(type.with_layout(channels_last(type.rank)))
        return normal_layout(type.with_layout(chosen.get(value, Layout.row_major(type.rank))))


def _exactly(builder: GraphBuilder, value: Value, type: TensorType) -> Value:
    """``value`` with ``type`` as it stands: graph outputs keep their declared layout."""
    if value.type == type:
        return value
    copy = builder.append(Node("relayout", [value], {}, [type]))
    assert is_alias(copy)
    return copy.output
