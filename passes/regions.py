"""Cuts a set of nodes out of a graph as the region of one fusion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..ir import Graph, Node, Value, is_alias
from ..ir.graph import assign_names
from .facts import is_inlined


@dataclass(frozen=True)
class Region:
    """A region and what it is cut from: the outer value of each input and of each output, and the nodes it computes.

    ``aliases`` are nodes of the original set that stay outside because they cost nothing there.
    """

    graph: Graph
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    aliases: tuple[Node, ...]


def cut(graph: Graph, nodes: Collection[Node], order: Mapping[Node, int]) -> Region | None:
    """The region that computes ``nodes``; None when they are all aliases.

    Views at its border that are byte-identical aliases are left outside. Generators and constants of one element are copied in.
    """
    chosen = sorted(nodes, key=order.__getitem__)
    aliases = _peel(graph, chosen)
    inner = [node for node in chosen if node not in aliases]
    if not inner:
        return None
    inputs: list[Value] = []
    mapping: dict[Value, Value] = {}
    copies: list[Node] = []
    for node in inner:
        for value in node.inputs:
            if value in mapping:
                continue
            if value.node is not None and is_inlined(value.node):
                copy = Node(value.node.op, (), value.node.attributes, [value.type], (), value.node.location)
                copies.append(copy)
                mapping[value] = copy.output
            else:
                mapping[value] = Value(value.type, value.name, None, len(inputs))
                inputs.append(value)
        copy = Node(
            node.op,
            [mapping[value] for value in node.inputs],
            node.attributes,
            [value.type for value in node.outputs],
            node.regions,
            node.location,
        )
        copies.append(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = old.name
            mapping[old] = new
    members = set(inner)
    outputs = [value for node in inner for value in node.outputs if _escapes(graph, value, members)]
    region = Graph(
        tuple(mapping[value] for value in inputs),
        tuple(copies),
        tuple(mapping[value] for value in outputs),
        _label(inner),
        graph.symbols,
    )
    assign_names(region)
    return Region(region, tuple(inputs), tuple(outputs), tuple(inner), tuple(aliases))


def _escapes(graph: Graph, value: Value, members: Collection[Node]) -> bool:
    return value in graph.output_set or any(user not in members for user in graph.users.get(value, ()))


def _peel(graph: Graph, chosen: Sequence[Node]) -> list[Node]:
    """The alias views at the border of ``chosen`` (in topological order): no node of the rest is needed for, or needs, them inside."""
    members = set(chosen)
    peeled: list[Node] = []
    for node in chosen:
        if is_alias(node) and node.inputs[0].node not in members:
            peeled.append(node)
            members.discard(node)
    for node in reversed(chosen):
        if node in members and is_alias(node) and not any(user in members for user in graph.users.get(node.output, ())):
            peeled.append(node)
            members.discard(node)
    return peeled


def _label(nodes: Sequence[Node]) -> str:
    names = [node.op for node in nodes if not _plain_view(node)] or [node.op for node in nodes]
    return "_".join(names[:4]) + (f"_and_{len(names) - 4}_more" if len(names) > 4 else "")


def _plain_view(node: Node) -> bool:
    return node.op in ("reshape", "permute", "broadcast_to", "slice", "relayout", "cast")
