"""Decomposition of composites that no template computes whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import Graph, Node, Rewriter, lookup
from .base import Context, Pass, register_pass
from .regions import cut


@register_pass
@dataclass(frozen=True)
class Decompose(Pass):
    """Replaces an operation that no template takes by its definition in simpler ones, where it has one."""

    name: ClassVar[str] = "decompose"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        order = {node: position for position, node in enumerate(graph.nodes)}
        accepted: dict[object, bool] = {}
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            decompose = lookup(node.op).decompose
            if decompose is None or _taken(graph, node, order, ctx, accepted) or not ctx.budget.spend():
                rewriter.copy(node)
                continue
            rewriter.builder.location = node.location
            operands = [rewriter[value] for value in node.inputs]
            rewriter.replace(node.output, decompose(rewriter.builder, operands, node.attributes))
        return rewriter.finish()


def _taken(graph: Graph, node: Node, order: dict[Node, int], ctx: Context, accepted: dict[object, bool]) -> bool:
    key = (node.op, repr(sorted(node.attributes.items())), tuple(value.type for value in node.inputs))
    if key not in accepted:
        region = cut(graph, [node], order)
        accepted[key] = region is None or ctx.takes(region.graph)
    return accepted[key]
