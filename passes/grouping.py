"""The partition of a graph's nodes into groups that one kernel each may compute; groups never depend on each other in a cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..ir import Graph, Node, Value, is_control
from .base import Context
from .facts import is_injective, is_source
from .regions import Region, cut


class Group:
    """Nodes that one kernel computes; ``anchors`` are those that are not injective."""

    __slots__ = ("anchors", "first", "last", "nodes")

    def __init__(self, nodes: set[Node], anchors: tuple[Node, ...], first: int, last: int) -> None:
        self.nodes = nodes
        self.anchors = anchors
        self.first = first
        self.last = last

    @property
    def injective(self) -> bool:
        return not self.anchors


class Partition:
    """Groups over the nodes of ``graph`` other than sources; at first each node is a group by itself."""

    def __init__(self, graph: Graph, ctx: Context, max_ops: int) -> None:
        self.graph = graph
        self.ctx = ctx
        self.max_ops = max_ops
        self.order = {node: position for position, node in enumerate(graph.nodes)}
        self._home: dict[Node, Group] = {}
        for node, position in self.order.items():
            if not is_source(node):
                anchors = () if is_injective(node) else (node,)
                self._home[node] = Group({node}, anchors, position, position)

    def groups(self) -> list[Group]:
        """All groups, by their first node."""
        return sorted(set(self._home.values()), key=lambda group: group.first)

    def of(self, value: Value) -> Group | None:
        """The group that computes ``value``; None for graph inputs and sources."""
        return self._home.get(value.node) if value.node is not None else None

    def home(self, node: Node) -> Group:
        return self._home[node]

    def consumers(self, group: Group) -> list[Group]:
        """The other groups that read values of ``group``, by their first node."""
        return sorted(set(self._successors(group)), key=lambda other: other.first)

    def escapes(self, group: Group) -> bool:
        """Whether a value of ``group`` is an output of the graph."""
        return any(value in self.graph.output_set for node in group.nodes for value in node.outputs)

    def _successors(self, group: Group) -> Iterator[Group]:
        for node in group.nodes:
            for value in node.outputs:
                for user in self.graph.users.get(value, ()):
                    home = self._home[user]
                    if home is not group:
                        yield home

    def _predecessors(self, group: Group) -> Iterator[Group]:
        for node in group.nodes:
            for value in node.inputs:
                home = self.of(value)
                if home is not None and home is not group:
                    yield home

    def between(self, chosen: Iterable[Group]) -> set[Group]:
        """The groups outside ``chosen`` that lie on a path from one of them to another."""
        members = set(chosen)
        last = max(group.last for group in members)
        first = min(group.first for group in members)
        forward = _reach(members, self._successors, lambda group: group.first <= last)
        if not forward - members:
            return set()
        backward = _reach(members, self._predecessors, lambda group: group.last >= first)
        return (forward & backward) - members

    def stored(self, nodes: set[Node]) -> int:
        """How many values a group of ``nodes`` stores for others to read."""
        graph = self.graph
        return sum(
            value in graph.output_set or any(user not in nodes for user in graph.users.get(value, ()))
            for node in nodes
            for value in node.outputs
        )

    def merge(self, *chosen: Group, most_stored: int | None = None) -> bool:
        """Makes one group of ``chosen`` and the injective groups between them, if a template takes it; tells whether it did.

        Not if the group would store more than ``most_stored`` values.
        """
        members = set(chosen)
        if len(members) < 2:
            return False
        inner = self.between(members)
        members |= inner
        if not all(group.injective for group in inner):
            return False
        anchors = tuple(node for group in members for node in group.anchors)
        nodes = set[Node]().union(*(group.nodes for group in members))
        if len(anchors) > 1 or len(nodes) > self.max_ops or any(is_control(node) for node in anchors):
            return False
        if most_stored is not None and self.stored(nodes) > most_stored:
            return False
        region = self.region(nodes)
        if region is not None and not self.ctx.takes(region.graph):
            return False
        if not self.ctx.budget.spend():
            return False
        merged = Group(nodes, anchors, min(group.first for group in members), max(group.last for group in members))
        for node in nodes:
            self._home[node] = merged
        return True

    def region(self, nodes: set[Node]) -> Region | None:
        """The region of ``nodes``: without the aliases at its border."""
        return cut(self.graph, nodes, self.order)


def _reach(start: set[Group], neighbours: Callable[[Group], Iterable[Group]], within: Callable[[Group], bool]) -> set[Group]:
    found: set[Group] = set()
    pending = list(start)
    while pending:
        for group in neighbours(pending.pop()):
            if group not in found and within(group):
                found.add(group)
                if group not in start:
                    pending.append(group)
    return found
