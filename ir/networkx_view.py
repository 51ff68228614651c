"""A graph as a networkx directed graph, for algorithms that exist there."""

from __future__ import annotations

import networkx

from .graph import Graph


def to_networkx(graph: Graph) -> networkx.MultiDiGraph:
    """One vertex per node (the :class:`Node`) and per graph input (the :class:`Value`); an edge per operand, with ``value`` and
    ``operand`` (its position). Graph outputs are the graph attribute ``outputs``."""
    view = networkx.MultiDiGraph(name=graph.name, outputs=graph.outputs)
    for value in graph.inputs:
        view.add_node(value, label=f"%{value.name}")
    for node in graph.nodes:
        view.add_node(node, label=node.op)
        for operand, value in enumerate(node.inputs):
            view.add_edge(value.node if value.node is not None else value, node, value=value, operand=operand)
    return view
