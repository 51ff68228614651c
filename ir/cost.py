"""Work of nodes and graphs: floating-point operations and bytes."""

from __future__ import annotations

from .graph import Graph, Node
from .ops import FUSION, Cost, lookup


def node_cost(node: Node) -> Cost:
    """The cost of one node of a statically shaped graph; a fusion counts its region's operations and its own operands' bytes."""
    if node.op == "fusion":
        return FUSION.cost_of_region(node.regions[0])
    return lookup(node.op).cost([value.tensor for value in node.inputs], node.attributes, [value.tensor for value in node.outputs])


def graph_cost(graph: Graph) -> Cost:
    """Sum over all nodes; constants cost nothing by themselves."""
    flops = read = written = 0
    for node in graph.nodes:
        if node.op != "constant":
            cost = node_cost(node)
            flops, read, written = flops + cost.flops, read + cost.bytes_read, written + cost.bytes_written
    return Cost(flops, read, written)
