"""Binary choices of least total cost, by a minimum cut.

Costs of single choices and of pairs of them become capacities of a network whose minimum cut tells the choices (Kolmogorov and Zabih,
"What energy functions can be minimized via graph cuts?", 2004). That is exact where a pair costs no more when its choices agree than when
they differ, or the other way around for all pairs on a cycle; a pair that contradicts others has its costs averaged.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import networkx as nx

Key = TypeVar("Key", bound=Hashable)
Table = tuple[tuple[int, int], tuple[int, int]]
"""The cost of a pair by the first and the second choice."""


class Choices(Generic[Key]):
    """Choices between False and True, and what they cost. Costs are whole numbers and may be negative."""

    def __init__(self) -> None:
        self._single: dict[Key, int] = {}
        self._pairs: list[tuple[Key, Key, Table]] = []

    def add(self, key: Key, cost: int) -> None:
        """Choosing True for ``key`` costs ``cost`` more than False."""
        self._single[key] = self._single.get(key, 0) + cost

    def add_pair(self, first: Key, second: Key, table: Table) -> None:
        """The choices for ``first`` and ``second`` together cost what ``table`` says."""
        self.add(first, 0)
        self.add(second, 0)
        self._pairs.append((first, second, table))

    def cost(self, chosen: Mapping[Key, bool]) -> int:
        """What the choices cost, up to a constant."""
        single = sum(cost for key, cost in self._single.items() if chosen[key])
        return single + sum(table[chosen[first]][chosen[second]] for first, second, table in self._pairs)

    def best(self) -> dict[Key, bool]:
        """The choice for every key; False where it makes no difference."""
        flipped = self._flipped()
        single = {key: -cost if flipped[key] else cost for key, cost in self._single.items()}
        network = nx.DiGraph()
        source, sink = object(), object()
        network.add_nodes_from([source, sink, *single])

        def add_edge(tail: object, head: object, capacity: int) -> None:
            if network.has_edge(tail, head):
                network[tail][head]["capacity"] += capacity
            elif capacity > 0:
                network.add_edge(tail, head, capacity=capacity)

        for first, second, table in self._pairs:
            (both_false, only_second), (only_first, both_true) = _turned(table, flipped[first], flipped[second])
            excess = only_first + only_second - both_false - both_true
            if first == second:
                single[first] += both_true - both_false
            elif excess < 0:
                single[first] += (only_first + both_true - both_false - only_second) // 2
                single[second] += (only_second + both_true - both_false - only_first) // 2
            else:
                single[first] += only_first - both_false
                single[second] += both_true - only_first
                add_edge(first, second, excess)
        # True is the side of the sink, which is the smaller one where costs are equal.
        for key, cost in single.items():
            tail, head = (source, key) if cost > 0 else (key, sink)
            add_edge(tail, head, abs(cost))
        _, (_, true) = nx.minimum_cut(network, source, sink)
        return {key: (key in true) != flipped[key] for key in single}

    def _flipped(self) -> dict[Key, bool]:
        """The keys whose choices are turned around, so that pairs cost less when they agree; those of most weight first."""
        parent: dict[Key, Key] = {key: key for key in self._single}
        odd: dict[Key, bool] = dict.fromkeys(self._single, False)

        def root(key: Key) -> tuple[Key, bool]:
            path, turned = [], False
            while parent[key] != key:
                path.append(key)
                key = parent[key]
            for step in reversed(path):
                turned ^= odd[step]
                parent[step], odd[step] = key, turned
            return key, turned

        def excess(table: Table) -> int:
            return table[0][1] + table[1][0] - table[0][0] - table[1][1]

        for first, second, table in sorted(self._pairs, key=lambda pair: -abs(excess(pair[2]))):
            (above, turned), (below, other) = root(first), root(second)
            if above != below and excess(table):
                parent[above] = below
                odd[above] = turned ^ other ^ (excess(table) < 0)
        return {key: root(key)[1] for key in self._single}


def _turned(table: Table, first: bool, second: bool) -> Table:
    rows = table[::-1] if first else table
    if second:
        rows = (rows[0][::-1], rows[1][::-1])
    return rows
