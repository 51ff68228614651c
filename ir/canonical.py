"""Canonical form: graphs that compute the same thing in the same order have the same text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .graph import UNKNOWN, Attribute, Graph, Node, Value
from .ops.attributes import is_expression
from .types import SymbolRange, TensorType, TokenType, Type, symbol

if TYPE_CHECKING:
    import sympy


class _Renaming:
    """New names for symbols, and what types and attributes become by them (remembered: substitution is slow, repetition common)."""

    def __init__(self, symbols: Mapping[sympy.Symbol, sympy.Symbol] | None = None) -> None:
        self.symbols = dict(symbols or {})
        self._expressions: dict[object, Attribute] = {}
        self._tensors: dict[TensorType, TensorType] = {}

    def extended(self, used: Iterable[sympy.Symbol]) -> _Renaming:
        """This renaming, with new names for the symbols of ``used`` that have none."""
        fresh = [old for old in used if old not in self.symbols]
        if not fresh:
            return self
        return _Renaming(self.symbols | {old: symbol(f"s{len(self.symbols) + index}") for index, old in enumerate(fresh)})

    def attribute(self, value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(self.attribute(item) for item in value)
        if not is_expression(value):
            return value
        if value not in self._expressions:
            self._expressions[value] = value.subs(self.symbols, simultaneous=True)  # type: ignore[union-attr]
        return self._expressions[value]

    def type(self, type: Type) -> Type:
        if isinstance(type, TokenType):
            return type if type.buffer is None else TokenType(self.tensor(type.buffer))
        return self.tensor(type)

    def tensor(self, type: TensorType) -> TensorType:
        if type.is_static:
            return type
        if type not in self._tensors:
            shape = tuple(self.attribute(dim) for dim in type.shape)
            self._tensors[type] = TensorType(type.dtype, shape, type.layout, type.encoding)
        return self._tensors[type]


def canonicalise(graph: Graph) -> Graph:
    """A copy of ``graph`` without locations, with values named by position and symbols by first occurrence.

    Equal computations then print equally (symbols that first occur in one and the same expression keep the order of their names).
    Symbols that nothing uses are dropped.
    """
    return _canonicalise(graph, _Renaming())


def _canonicalise(graph: Graph, outer: _Renaming) -> Graph:
    """``outer`` are the new names of the enclosing graph's symbols: the types of operands and region inputs must stay equal."""
    used = _used_symbols(graph) if graph.symbols else {}
    renaming = outer.extended(used)
    inputs = tuple(Value(renaming.type(value.type), f"p{position}", None, position) for position, value in enumerate(graph.inputs))
    mapping: dict[Value, Value] = dict(zip(graph.inputs, inputs, strict=True))
    nodes = []
    counter = 0
    for node in graph.nodes:
        new = Node(
            node.op,
            [mapping[value] for value in node.inputs],
            {name: renaming.attribute(value) for name, value in sorted(node.attributes.items())},
            [renaming.type(value.type) for value in node.outputs],
            [_canonicalise(region, renaming) for region in node.regions],
            UNKNOWN,
        )
        for old_value, value in zip(node.outputs, new.outputs, strict=True):
            value.name = str(counter)
            mapping[old_value] = value
            counter += 1
        nodes.append(new)
    symbols: Mapping[str, SymbolRange] = {str(renaming.symbols[old]): graph.symbols[str(old)] for old in used}
    return Graph(inputs, tuple(nodes), tuple(mapping[value] for value in graph.outputs), "task", symbols)


def used_symbols(graph: Graph) -> tuple[str, ...]:
    """The symbols of ``graph`` by name, in the order in which :func:`canonicalise` names them s0, s1, ..."""
    return tuple(str(free) for free in _used_symbols(graph)) if graph.symbols else ()


def _used_symbols(graph: Graph) -> dict[sympy.Symbol, None]:
    """The symbols in types and attributes of ``graph`` itself, in order of first occurrence."""
    used: dict[sympy.Symbol, None] = {}

    def visit(value: object) -> None:
        if isinstance(value, tuple):
            for item in value:
                visit(item)
        elif is_expression(value):
            used.update(dict.fromkeys(sorted(value.free_symbols, key=str)))  # type: ignore[attr-defined]

    def visit_type(type: Type) -> None:
        tensor = type.buffer if isinstance(type, TokenType) else type
        visit(tensor.shape if tensor is not None else ())

    for value in graph.inputs:
        visit_type(value.type)
    for node in graph.nodes:
        for _, attribute in sorted(node.attributes.items()):
            visit(attribute)
        for value in node.outputs:
            visit_type(value.type)
    return used
