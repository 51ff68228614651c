"""Canonical form: graphs that compute the same thing in the same order have the same text."""

from __future__ import annotations

from .graph import UNKNOWN, Graph, Node, Value


def canonicalise(graph: Graph) -> Graph:
    """A copy of ``graph`` without locations and with values named by position, so that equal computations print equally."""
    inputs = tuple(Value(value.type, f"p{position}", None, position) for position, value in enumerate(graph.inputs))
    mapping: dict[Value, Value] = dict(zip(graph.inputs, inputs, strict=True))
    nodes = []
    counter = 0
    for node in graph.nodes:
        new = Node(
            node.op,
            [mapping[value] for value in node.inputs],
            dict(sorted(node.attributes.items())),
            [value.type for value in node.outputs],
            [canonicalise(region) for region in node.regions],
            UNKNOWN,
        )
        for old, value in zip(node.outputs, new.outputs, strict=True):
            value.name = str(counter)
            mapping[old] = value
            counter += 1
        nodes.append(new)
    return Graph(inputs, tuple(nodes), tuple(mapping[value] for value in graph.outputs), "task", dict(graph.symbols))
