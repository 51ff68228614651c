"""Horizontal fusion: linear layers over the same input become one with stacked weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir import Constant, Graph, Node, Rewriter, Value
from .base import Context, Pass, register_pass
from .derive import derive, small_constant
from .facts import is_elementwise, is_normalisation, is_view


@register_pass
@dataclass(frozen=True)
class Horizontal(Pass):
    """Linear layers with constant weights that read the same value (queries, keys and values; not gate and up) become one, and each
    result a slice of its result along the last axis.

    Only where every result goes, through views, to operations that read a slice in place at no cost: attention, norms, or elementwise
    operations over several values, such as rotary embeddings. A result that an epilogue would have taken stays alone, since an
    epilogue saves more. ``max_features`` bounds the features of a merged layer's parts: large layers fill the machine by themselves.
    """

    name: ClassVar[str] = "horizontal"
    max_features: int = 8192

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        groups = self._groups(graph)
        if not groups:
            return graph
        leader = {nodes[0]: nodes for nodes in groups}
        merged = {node for nodes in groups for node in nodes}
        rewriter = Rewriter(graph)
        # A weight may stand behind the first layer: constants come first.
        for node in graph.nodes:
            if node in leader and ctx.budget.spend():
                self._merge(rewriter, leader[node])
            elif node in merged and node.output in rewriter:
                continue
            else:
                rewriter.copy(node)
        return rewriter.finish()

    def _groups(self, graph: Graph) -> list[list[Node]]:
        readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            if node.op == "linear" and all(value.constant is not None for value in node.inputs[1:]) and _reads_in_place(graph, node):
                readers.setdefault(node.inputs[0], []).append(node)
        groups = []
        for nodes in readers.values():
            features = sum(int(node.inputs[1].tensor.static_shape[0]) for node in nodes)
            if len(nodes) > 1 and features <= self.max_features:
                groups.append(nodes)
        return groups

    def _merge(self, rewriter: Rewriter, nodes: list[Node]) -> None:
        builder = rewriter.builder
        weights = [_constant(node.inputs[1]) for node in nodes]
        operands = [rewriter[nodes[0].inputs[0]], builder.constant(derive("concat", *weights, axis=0))]
        if any(len(node.inputs) > 2 for node in nodes):
            biases = [_constant(node.inputs[2]) if len(node.inputs) > 2 else _zeros(node) for node in nodes]
            operands.append(builder.constant(derive("concat", *biases, axis=0)))
        builder.location = nodes[0].location
        product = builder.call("linear", *operands)
        axis, start = product.tensor.rank - 1, 0
        for node, weight in zip(nodes, weights, strict=True):
            stop = start + weight.type.static_shape[0]
            part = builder.call("slice", product, axis=axis, start=start, stop=stop, location=node.location)
            rewriter.replace(node.output, part)
            start = stop


def _constant(value: Value) -> Constant:
    constant = value.constant
    assert constant is not None
    return constant


def _zeros(node: Node) -> Constant:
    return small_constant(np.zeros(node.inputs[1].tensor.static_shape[:1], dtype=node.output.tensor.dtype.numpy))


def _reads_in_place(graph: Graph, node: Node) -> bool:
    """Whether all that becomes of the result reads it through views into attention or a norm, or splits it up elementwise."""
    users = graph.users.get(node.output, ())
    return node.output not in graph.output_set and all(_is_strided_reader(graph, user, node.output) for user in users)


def _is_strided_reader(graph: Graph, user: Node, value: Value) -> bool:
    if is_view(user) and user.op != "slice":
        users = graph.users.get(user.output, ())
        return user.output not in graph.output_set and bool(users) and all(_is_strided_reader(graph, next, user.output) for next in users)
    if user.op == "attention" or is_normalisation(user):
        return True
    # Rotary embeddings read a value whole and in halves; a lone elementwise reader would be an epilogue.
    return (is_elementwise(user) or user.op in ("slice", "concat")) and len(graph.users.get(value, ())) > 1
