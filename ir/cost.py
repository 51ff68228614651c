"""Work of nodes and graphs: floating-point operations and bytes."""

from __future__ import annotations

from .graph import Graph, Node
from .ops import Cost, lookup


def node_cost(node: Node) -> Cost:
    """The cost of one node of a statically shaped graph.

    A fusion counts its region's operations and its own operands' bytes, a cond its dearer region, a while one round,
    a loop all of them.
    """
    return lookup(node.op).cost_of_node(node)


def graph_cost(graph: Graph) -> Cost:
    """Sum over all nodes; constants cost nothing by themselves."""
    flops = read = written = 0
    for node in graph.nodes:
        if node.op != "constant":
            cost = node_cost(node)
            flops, read, written = flops + cost.flops, read + cost.bytes_read, written + cost.bytes_written
    return Cost(flops, read, written)
