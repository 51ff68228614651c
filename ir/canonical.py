"""Canonical form: graphs that compute the same thing in the same order have the same text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .graph import UNKNOWN, Attribute, Graph, Node, Value
from .ops.attributes import is_expression
from .types import SymbolRange, TensorType, TokenType, Type, symbol

if TYPE_CHECKING:
    import sympy

_Renaming = dict["sympy.Symbol", "sympy.Symbol"]


def canonicalise(graph: Graph) -> Graph:
    """A copy of ``graph`` without locations, with values named by position and symbols by first occurrence.

    Equal computations then print equally (symbols that first occur in one and the same expression keep the order of their names).
    Symbols that nothing uses are dropped.
    """
    return _canonicalise(graph, {})


def _canonicalise(graph: Graph, outer: _Renaming) -> Graph:
    """``outer`` are the new names of the enclosing graph's symbols: the types of operands and region inputs must stay equal."""
    used = _used_symbols(graph) if graph.symbols else {}
    renaming = dict(outer)
    for old in used:
        renaming.setdefault(old, symbol(f"s{len(renaming)}"))
    inputs = tuple(Value(_rename_type(value.type, renaming), f"p{position}", None, position) for position, value in enumerate(graph.inputs))
    mapping: dict[Value, Value] = dict(zip(graph.inputs, inputs, strict=True))
    nodes = []
    counter = 0
    for node in graph.nodes:
        new = Node(
            node.op,
            [mapping[value] for value in node.inputs],
            {name: _rename(value, renaming) for name, value in sorted(node.attributes.items())},
            [_rename_type(value.type, renaming) for value in node.outputs],
            [_canonicalise(region, renaming) for region in node.regions],
            UNKNOWN,
        )
        for old_value, value in zip(node.outputs, new.outputs, strict=True):
            value.name = str(counter)
            mapping[old_value] = value
            counter += 1
        nodes.append(new)
    symbols: Mapping[str, SymbolRange] = {str(renaming[old]): graph.symbols[str(old)] for old in used}
    return Graph(inputs, tuple(nodes), tuple(mapping[value] for value in graph.outputs), "task", symbols)


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


def _rename(value: Attribute, renaming: _Renaming) -> Attribute:
    if isinstance(value, tuple):
        return tuple(_rename(item, renaming) for item in value)
    return value.subs(renaming, simultaneous=True) if is_expression(value) else value  # type: ignore[union-attr]


def _rename_type(type: Type, renaming: _Renaming) -> Type:
    if isinstance(type, TokenType):
        return type if type.buffer is None else TokenType(_rename_tensor(type.buffer, renaming))
    return _rename_tensor(type, renaming)


def _rename_tensor(type: TensorType, renaming: _Renaming) -> TensorType:
    if type.is_static:
        return type
    return TensorType(type.dtype, tuple(_rename(dim, renaming) for dim in type.shape), type.layout, type.encoding)
