"""The layout of every value, chosen so that least data is moved.

A value lies row-major or in one other layout: the one that most data suggests. Convolutions and permutations suggest layouts, and what
keeps layouts hands them on. Every operation has a cost, in bytes, by the layouts of what it reads and writes; the choice of least total
cost is a minimum cut (:mod:`.minimum_cut`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..ir import (
    Graph,
    Layout,
    Node,
    TensorType,
    Value,
    dimension_at,
    is_control,
    normal_layout,
    permuted_layout,
    reshaped_layout,
    same_bytes,
)
from .facts import is_elementwise, is_source
from .minimum_cut import Choices

_MOVED = 2
"""Bytes moved for each of a tensor that is laid out anew: one is read, one written."""
_NEVER = 1 << 50
"""A cost beyond that of moving all data there is."""
_SUGGESTIONS = 4
"""Layouts that are considered for a value before one is taken."""
_ROUNDS = 3
"""How often suggestions are handed on along the graph and back."""

_ROW_OPS = frozenset({"linear", "matmul", "grouped_matmul", "monarch", "layer_norm", "rms_norm", "softmax", "log_softmax"})
"""Operations whose kernels read along the last axis."""


def channels_last(rank: int) -> Layout:
    """The order N, spatial..., C."""
    return Layout((0, *range(2, rank), 1))


def needed_layouts(node: Node, min_channels: int) -> dict[int, Layout]:
    """The operands that must be in a certain layout, and which."""
    if node.op in ("conv", "conv_transpose"):
        type = node.inputs[0].tensor
        return {} if node.op == "conv" and int(type.shape[1]) < min_channels else {0: channels_last(type.rank)}
    if node.op in ("linear", "layer_norm", "rms_norm"):
        return {0: Layout.row_major(node.inputs[0].tensor.rank)}
    if node.op == "state_write":
        return {1: Layout.row_major(node.inputs[1].tensor.rank)}
    if is_control(node):  # regions take exactly the types they were given
        return {position: value.tensor.layout for position, value in enumerate(node.inputs) if isinstance(value.type, TensorType)}
    return {}


def viewed_layout(node: Node, layout: Layout) -> Layout | None:
    """The layout of a ``permute``'s or ``reshape``'s result that has the bytes of its operand in ``layout``; None when data must move."""
    if node.op == "permute":
        return permuted_layout(layout, _order(node))
    return reshaped_layout(node.inputs[0].tensor.shape, layout, node.output.tensor.shape)


def choose_layouts(graph: Graph, min_channels: int) -> dict[Value, Layout]:
    """The layout of every value that has a choice and is better not row-major.

    ``min_channels``: a convolution over fewer channels reads its operand in any layout.
    """
    return _Assignment(graph, min_channels).solve()


@dataclass
class _Assignment:
    graph: Graph
    min_channels: int
    other: dict[Value, Layout] = field(default_factory=dict)
    choices: Choices[Value] = field(default_factory=Choices)
    needs: set[tuple[Value, Layout]] = field(default_factory=set)

    def solve(self) -> dict[Value, Layout]:
        self.other = _Suggestions(self.graph, self.min_channels).best()
        for value in self.graph.inputs:
            self._fix(value)
        for node in self.graph.nodes:
            self._node(node)
        for value in self.graph.outputs:
            if isinstance(value.type, TensorType):
                self._need(value, value.tensor.layout)
        chosen = self.choices.best()
        return {value: layout for value, layout in self.other.items() if chosen.get(value)}

    def _node(self, node: Node) -> None:
        for position, layout in needed_layouts(node, self.min_channels).items():
            self._need(node.inputs[position], layout)
        if is_source(node) or node.regions or node.op in ("state_read", "state_write", "relayout"):
            for value in node.outputs:
                self._fix(value)
            return
        if node.op in ("conv", "conv_transpose"):
            self._prefer(node.output, channels_last(node.output.tensor.rank), _NEVER)
            return
        if node.op in ("permute", "reshape"):
            self._pair(node.inputs[0], node.output, lambda operand, result: self._viewing(node, operand, result))
            return
        if node.op == "put":  # done in place
            self._pair(node.inputs[0], node.output, lambda operand, result: 0 if operand == result else _NEVER)
            return
        if node.op in _ROW_OPS:
            for value in node.inputs:
                self._prefer(value, Layout.row_major(value.tensor.rank), _strided(value))
            return
        for operand, value in _kept(node):
            self._pair(operand, value, _Reading(operand, value))

    def _viewing(self, node: Node, operand: Layout, result: Layout) -> int:
        alias = viewed_layout(node, operand)
        same = alias is not None and same_bytes(alias, result, node.output.tensor.shape)
        return 0 if same else _MOVED * _nbytes(node.output) + 1

    def _layouts(self, value: Value) -> tuple[Layout, ...]:
        plain = value.tensor.layout if value.tensor.layout.is_blocked else Layout.row_major(value.tensor.rank)
        return (plain, self.other[value]) if value in self.other else (plain,)

    def _need(self, value: Value, layout: Layout) -> None:
        """Some reader needs ``value`` in ``layout``: it is moved once for all of them."""
        if (value, layout) not in self.needs:
            self.needs.add((value, layout))
            self._prefer(value, layout, _MOVED * _nbytes(value))

    def _fix(self, value: Value) -> None:
        if isinstance(value.type, TensorType):
            self._prefer(value, value.tensor.layout, _NEVER)

    def _prefer(self, value: Value, layout: Layout, cost: int) -> None:
        """Any layout of ``value`` other than ``layout`` costs ``cost``."""
        if value in self.other:
            plain, other = (0 if same_bytes(each, layout, value.tensor.shape) else cost for each in self._layouts(value))
            self.choices.add(value, other - plain)

    def _pair(self, first: Value, second: Value, cost: Callable[[Layout, Layout], int]) -> None:
        table = [[cost(a, b) for b in self._layouts(second)] for a in self._layouts(first)]
        if first in self.other and second in self.other:
            self.choices.add_pair(first, second, ((table[0][0], table[0][1]), (table[1][0], table[1][1])))
        elif first in self.other:
            self.choices.add(first, table[1][0] - table[0][0])
        elif second in self.other:
            self.choices.add(second, table[0][1] - table[0][0])


class _Suggestions:
    """The layouts that may suit a value, and the bytes of the largest tensor that suggests each."""

    def __init__(self, graph: Graph, min_channels: int) -> None:
        self._graph = graph
        self._min_channels = min_channels
        self._found: dict[Value, dict[Layout, int]] = {}

    def best(self) -> dict[Value, Layout]:
        """The one that most data suggests, of every value for which there is one."""
        for value in self._graph.inputs:
            if isinstance(value.type, TensorType):
                self._suggest(value, value.tensor.layout, _NEVER)
        for node in self._graph.nodes:
            self._seed(node)
        for _ in range(_ROUNDS):
            for node in self._graph.nodes:
                self._onward(node)
            for node in reversed(self._graph.nodes):
                self._back(node)
        return {value: max(found, key=lambda layout: found[layout]) for value, found in self._found.items()}

    def _suggest(self, value: Value, layout: Layout | None, weight: int) -> None:
        if layout is None or value.tensor.rank < 2 or value.tensor.layout.is_blocked or layout.is_blocked:
            return
        layout = normal_layout(value.tensor.with_layout(layout)).layout
        if layout.is_row_major:
            return
        found = self._found.setdefault(value, {})
        if layout in found or len(found) < _SUGGESTIONS:
            found[layout] = max(found.get(layout, 0), weight)

    def _seed(self, node: Node) -> None:
        for position, layout in needed_layouts(node, self._min_channels).items():
            self._suggest(node.inputs[position], layout, _nbytes(node.inputs[position]))
        if node.op in ("conv", "conv_transpose"):
            self._suggest(node.output, channels_last(node.output.tensor.rank), _nbytes(node.output))
        elif node.op == "permute":
            operand, rank = node.inputs[0], node.output.tensor.rank
            self._suggest(node.output, permuted_layout(Layout.row_major(rank), _order(node)), _nbytes(operand))
            self._suggest(operand, permuted_layout(Layout.row_major(rank), _inverse(_order(node))), _nbytes(operand))
        elif is_source(node) or node.op in ("relayout", "state_read"):
            for value in node.outputs:
                if isinstance(value.type, TensorType):
                    self._suggest(value, value.tensor.layout, _NEVER)

    def _known(self, value: Value) -> list[tuple[Layout, int]]:
        return list(self._found.get(value, {}).items())

    def _onward(self, node: Node) -> None:
        if node.op in ("permute", "reshape"):
            for layout, weight in self._known(node.inputs[0]):
                self._suggest(node.output, viewed_layout(node, layout), weight)
        for operand, value in _kept(node):
            for layout, weight in self._known(operand):
                self._suggest(value, layout, weight)

    def _back(self, node: Node) -> None:
        if node.op in ("permute", "reshape"):
            operand = node.inputs[0]
            for layout, weight in self._known(node.output):
                if node.op == "permute":
                    self._suggest(operand, permuted_layout(layout, _inverse(_order(node))), weight)
                else:
                    self._suggest(operand, reshaped_layout(node.output.tensor.shape, layout, operand.tensor.shape), weight)
        for operand, value in _kept(node):
            for layout, weight in self._known(value):
                self._suggest(operand, layout, weight)


def _kept(node: Node) -> Iterator[tuple[Value, Value]]:
    """Pairs of an operand and a result that are best in the same layout."""
    special = ("conv", "conv_transpose", "permute", "reshape", "relayout", "put", "attention", "state_read", "state_write")
    if is_source(node) or node.regions or node.op in special or node.op in _ROW_OPS:
        return
    for value in node.outputs:
        if not isinstance(value.type, TensorType) or value.tensor.rank < 2:
            continue
        for operand in node.inputs:
            alike = isinstance(operand.type, TensorType) and operand.tensor.rank == value.tensor.rank
            if alike and (not is_elementwise(node) or operand.tensor.shape == value.tensor.shape):
                yield operand, value


@dataclass(frozen=True)
class _Reading:
    """What reading ``operand`` in another order than ``result`` is written in costs."""

    operand: Value
    result: Value

    def __call__(self, read: Layout, written: Layout) -> int:
        # Axes that are reduced or broadcast have no order.
        shape = [1 if 1 in extents else extents[0] for extents in zip(self.operand.tensor.shape, self.result.tensor.shape, strict=True)]
        return 0 if same_bytes(read, written, shape) else _strided(self.operand)


def _strided(value: Value) -> int:
    """What reading ``value`` against its order costs: more than reading it once, less than moving it."""
    return 3 * _nbytes(value) // 2


def _nbytes(value: Value) -> int:
    """Bytes, with a plain number in place of each symbol: they only compare operands."""
    size = value.tensor.size
    elements = size if isinstance(size, int) else int(dimension_at(size, {str(free): 64 for free in size.free_symbols}))
    return elements * value.tensor.dtype.nbytes


def _order(node: Node) -> tuple[int, ...]:
    order = node.attributes["order"]
    assert isinstance(order, tuple)
    return tuple(int(axis) for axis in order)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))
