"""Dead code and common subexpressions."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from ..ir import Attribute, Constant, Graph, Node, Rewriter, Value, canonicalise
from .base import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes nodes whose results nothing needs. Graph inputs stay."""

    name: ClassVar[str] = "dead-code"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        return without_dead_code(graph)


def without_dead_code(graph: Graph) -> Graph:
    """``graph`` with only those nodes on which an output depends."""
    needed: set[Value] = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(value in needed for value in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    if len(kept) == len(graph.nodes):
        return graph
    return Graph(graph.inputs, tuple(reversed(kept)), graph.outputs, graph.name, graph.symbols)


@register_pass
@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Nodes with the same operation, operands, attributes, regions and result types become one; constants are compared by content."""

    name: ClassVar[str] = "common-subexpressions"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        rewriter = Rewriter(graph)
        seen: dict[Hashable, list[Node]] = {}
        regions: dict[Graph, str] = {}
        for node in graph.nodes:
            if node.op == "constant":
                rewriter.copy(node)
                continue
            key = (
                node.op,
                tuple(rewriter[value] for value in node.inputs),
                tuple((name, _hashable(value)) for name, value in sorted(node.attributes.items())),
                tuple(value.type for value in node.outputs),
            )
            earlier = next((other for other in seen.get(key, ()) if _same_regions(node, other, regions)), None)
            if earlier is None or not ctx.budget.spend():
                seen.setdefault(key, []).append(rewriter.copy(node))
                continue
            for old, new in zip(node.outputs, earlier.outputs, strict=True):
                rewriter.replace(old, new)
        return rewriter.finish()


def _hashable(value: Attribute) -> Hashable:
    """A key that tells 1, 1.0 and True, and 0.0 and -0.0, apart, and NaN from nothing but itself."""
    if isinstance(value, tuple):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, Constant):
        return value.digest
    return (type(value).__name__, repr(value))


def _same_regions(node: Node, other: Node, texts: dict[Graph, str]) -> bool:
    if len(node.regions) != len(other.regions):
        return False
    for region in (*node.regions, *other.regions):
        if region not in texts:
            texts[region] = str(canonicalise(region))
    return all(texts[a] == texts[b] for a, b in zip(node.regions, other.regions, strict=True))
