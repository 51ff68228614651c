"""Horizontal fusion: linear layers over the same input become one with stacked weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..codegen.precision import Mode
from ..codegen.task import Task
from ..ir import Constant, Graph, GraphBuilder, Node, Rewriter, TensorType, Value, canonicalise
from .base import Context, Pass, register_pass
from .derive import derive, small_constant
from .facts import is_elementwise, is_normalisation, is_view


@register_pass
@dataclass(frozen=True)
class Horizontal(Pass):
    """Linear layers with constant weights that read the same value (queries, keys and values; not gate and up) and have the same precision
    mode become one, and each result a slice of its result along the last axis.

    Only where every result goes, through views, to operations that read a slice in place at no cost: attention, norms, or elementwise
    operations over several values, such as rotary embeddings. A result that an epilogue would have taken stays alone, since an
    epilogue saves more. Layers of a single row are bound by reading their weights, of which the merged one reads as many with one start:
    they are merged always. For others, whether the merged layer is faster is the cost oracle's word; without one, layers of up to
    ``max_features`` features together are merged: large layers fill the machine by themselves.
    """

    name: ClassVar[str] = "horizontal"
    max_features: int = 8192

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        groups = self._groups(graph, ctx)
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

    def _groups(self, graph: Graph, ctx: Context) -> list[list[Node]]:
        readers: dict[tuple[Value, Mode], list[Node]] = {}
        for node in graph.nodes:
            if _is_plain_linear(node) and all(value.constant is not None for value in node.inputs[1:]) and _reads_in_place(graph, node):
                readers.setdefault((node.inputs[0], ctx.precision.mode(node.location.module)), []).append(node)
        return [nodes for nodes in readers.values() if len(nodes) > 1 and self._pays(nodes, ctx)]

    def _pays(self, nodes: list[Node], ctx: Context) -> bool:
        sizes = [int(node.inputs[1].tensor.static_shape[0]) for node in nodes]
        x = nodes[0].inputs[0].tensor
        if x.is_static and x.size == x.static_shape[-1]:
            return True
        if ctx.cost is None or not x.is_static:
            return sum(sizes) <= self.max_features
        apart = sum(ctx.cost.predict(_layer(x, size, ctx)) for size in sizes)
        return ctx.cost.predict(_layer(x, sum(sizes), ctx)) <= _TOLERANCE * apart

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


_TOLERANCE = 1.01
"""Predictions that differ by less count as equal: then fewer kernels are better."""


def _layer(x: TensorType, features: int, ctx: Context) -> Task:
    """The task of a linear layer over ``x`` with constant weights."""
    builder = GraphBuilder()
    weight = TensorType(x.dtype, (features, x.shape[-1]))
    operands = [builder.input(x), builder.input(weight), builder.input(TensorType(x.dtype, (features,)))]
    region = builder.finish([builder.call("linear", *operands)])
    return Task(canonicalise(region), frozenset({1, 2}), ctx.target, ctx.threads, ctx.numerics)


def _is_plain_linear(node: Node) -> bool:
    """A linear layer that sums in the dtype of its operands."""
    return node.op == "linear" and node.attributes["dtype"] is None


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
