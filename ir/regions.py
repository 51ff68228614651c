"""Control flow seen as a tree of graphs: which nodes have regions that run by themselves, and how to walk and change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .graph import Graph, Node, Rewriter
from .ops import Trait, lookup


def is_control(node: Node) -> bool:
    """Whether the regions of ``node`` run by themselves (cond, while, loop), unlike that of a fusion, which is part of one kernel."""
    return lookup(node.op).has(Trait.CONTROL)


def control_walk(graph: Graph) -> Iterator[Node]:
    """The nodes of ``graph`` and of the regions of its control flow, outer before inner."""
    for node in graph.nodes:
        yield node
        if is_control(node):
            for region in node.regions:
                yield from control_walk(region)


def map_regions(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """``graph`` with ``change`` applied to the regions of its own control flow; the types of their inputs and outputs must stay."""
    changed = {}
    for node in graph.nodes:
        if is_control(node):
            regions = tuple(change(region) for region in node.regions)
            if any(new is not old for new, old in zip(regions, node.regions, strict=True)):
                changed[node] = regions
    if not changed:
        return graph
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        new = rewriter.copy(node)
        new.regions = changed.get(node, new.regions)
    return rewriter.finish()
