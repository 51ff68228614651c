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

    Equal computations then print equally. Symbols that nothing uses are dropped.
    """
    renaming = _canonical_symbols(graph) if graph.symbols else {}
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
            [canonicalise(region) for region in node.regions],
            UNKNOWN,
        )
        for old, value in zip(node.outputs, new.outputs, strict=True):
            value.name = str(counter)
            mapping[old] = value
            counter += 1
        nodes.append(new)
    symbols: Mapping[str, SymbolRange] = {str(new): graph.symbols[str(old)] for old, new in renaming.items()}
    return Graph(inputs, tuple(nodes), tuple(mapping[value] for value in graph.outputs), "task", symbols)


def _canonical_symbols(graph: Graph) -> _Renaming:
    """New names for the symbols, in order of first occurrence in types, then attributes."""
    renaming: _Renaming = {}

    def visit(value: object) -> None:
        if isinstance(value, tuple):
            for item in value:
                visit(item)
        elif is_expression(value):
            for found in sorted(value.free_symbols, key=str):  # type: ignore[attr-defined]
                if found not in renaming:
                    renaming[found] = symbol(f"s{len(renaming)}")

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
    return renaming


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
