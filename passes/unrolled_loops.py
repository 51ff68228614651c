"""What loops of Python leave behind when they are unrolled: many slices of one value, and the same layer of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ..ir import Graph, Node, Rewriter, TensorType, Value
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code

_ALIGNMENT = 64
"""Bytes to which what a kernel reads must be aligned."""

_Layers: TypeAlias = "tuple[Value, int, tuple[Value, ...]]"
"""Layers that may become one: what they read elements of, along which axis, and their weights."""


@register_pass
@dataclass(frozen=True)
class BatchLayers(Pass):
    """Linear layers with the same weights, each of one element of a value along some axis, become one layer of the whole value.

    If there are at least ``least`` of them and they read at least half of the value: the input's share of a recurrent cell that Python
    calls step by step.
    """

    name: ClassVar[str] = "batch-layers"
    least: int = 4

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        groups: dict[_Layers, list[tuple[Node, Node]]] = {}
        for node in graph.nodes:
            piece = _element(node.inputs[0]) if node.op == "linear" else None
            if piece is not None:
                same = (piece.inputs[0], _axis(piece), node.inputs[1:])
                groups.setdefault(same, []).append((node, piece))
        chosen: dict[Node, tuple[Node, _Layers]] = {}
        for key, members in groups.items():
            _, piece = members[0]
            extent = piece.inputs[0].tensor.shape[_axis(piece)]
            starts = {piece.attributes["start"] for _, piece in members}
            if isinstance(extent, int) and len(starts) >= self.least and 2 * len(starts) >= extent:
                chosen |= {node: (piece, key) for node, piece in members}
        if not chosen:
            return graph
        rewriter = Rewriter(graph)
        whole: dict[_Layers, Value] = {}
        for node in graph.nodes:
            if node not in chosen or not ctx.budget.spend():
                rewriter.copy(node)
                continue
            piece, key = chosen[node]
            builder = rewriter.builder
            builder.location = node.location
            if key not in whole:
                operands = [rewriter[piece.inputs[0]], *(rewriter[value] for value in node.inputs[1:])]
                whole[key] = builder.add("linear", *operands, attributes=node.attributes).output
            part = builder.add("slice", whole[key], attributes=piece.attributes).output
            rewriter.replace(node.output, builder.call("reshape", part, shape=node.output.tensor.shape))
        return without_dead_code(rewriter.finish())


def _element(value: Value) -> Node | None:
    """The slice of one element along an axis before the last that ``value`` is, without that axis."""
    node = value.node
    if node is None or node.op != "reshape" or node.inputs[0].op != "slice":
        return None
    piece = node.inputs[0].node
    assert piece is not None
    source, axis = piece.inputs[0].tensor, _axis(piece)
    single = piece.output.tensor.shape[axis] == 1 and axis < source.rank - 1
    return piece if single and value.tensor.shape == (*source.shape[:axis], *source.shape[axis + 1 :]) else None


@register_pass
@dataclass(frozen=True)
class LeadSlices(Pass):
    """Values that are read in at least ``least`` slices across memory get a copy with the axis of the slices first.

    The slices then lie together in memory each, so that kernels that differ only in the slice they read become one kernel.
    Only where the slices are aligned then.
    """

    name: ClassVar[str] = "lead-slices"
    least: int = 8

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        axes = {value: axis for value in graph.values() if (axis := self._axis_of(graph, value)) is not None}
        if not axes:
            return graph
        rewriter = Rewriter(graph)
        copies: dict[Value, Value] = {}
        for node in graph.nodes:
            value = node.inputs[0] if node.op == "slice" else None
            if value not in axes or _axis(node) != axes[value] or not ctx.budget.spend():
                rewriter.copy(node)
                continue
            axis, builder = axes[value], rewriter.builder
            builder.location = node.location
            order = (axis, *(other for other in range(value.tensor.rank) if other != axis))
            if value not in copies:
                turned = builder.call("permute", rewriter[value], order=order)
                copies[value] = builder.append(Node("relayout", [turned], {}, [turned.tensor.with_layout(None)])).output
            part = builder.add("slice", copies[value], attributes={**node.attributes, "axis": 0}).output
            back = tuple(order.index(place) for place in range(len(order)))
            rewriter.replace(node.output, builder.call("permute", part, order=back))
        return rewriter.finish()

    def _axis_of(self, graph: Graph, value: Value) -> int | None:
        """The axis along which ``value`` is read in many slices that are scattered in memory."""
        if not isinstance(value.type, TensorType) or not value.type.is_static or value.constant is not None:
            return None
        counts: dict[int, int] = {}
        for user in graph.users.get(value, ()):
            if user.op == "slice" and user.attributes["step"] == 1 and user.output.tensor.shape[_axis(user)] == 1:
                counts[_axis(user)] = counts.get(_axis(user), 0) + 1
        axis = max(counts, key=counts.__getitem__, default=None)
        if axis is None or counts[axis] < self.least or all(extent == 1 for extent in value.tensor.shape[:axis]):
            return None
        nbytes = value.tensor.nbytes // max(value.tensor.static_shape[axis], 1)
        return axis if nbytes % _ALIGNMENT == 0 else None


def _axis(node: Node) -> int:
    axis = node.attributes["axis"]
    assert isinstance(axis, int)
    return axis


def leads_slices(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is the copy that :class:`LeadSlices` made, to be stored although it computes nothing."""
    if node.op != "relayout":
        return False
    readers = graph.users.get(node.output, ())
    return len(readers) >= LeadSlices.least and all(user.op == "slice" and user.attributes["axis"] == 0 for user in readers)
