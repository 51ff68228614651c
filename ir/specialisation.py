"""Graphs of symbolic shape with numbers put in for the symbols."""

from __future__ import annotations

from collections.abc import Mapping

from .graph import Attribute, Graph, Node, Value
from .ops.attributes import is_expression
from .types import Dim, SymbolRange, TensorType, TokenType, Type, symbol


def typical_values(symbols: Mapping[str, SymbolRange]) -> dict[str, int]:
    """A size of each symbol for which decisions that need one are made: see :attr:`SymbolRange.typical`."""
    return {name: bounds.typical for name, bounds in symbols.items()}


def dimension_at(dim: Dim, values: Mapping[str, int]) -> Dim:
    """``dim`` with numbers in place of the symbols that ``values`` names."""
    if isinstance(dim, int):
        return dim
    result = dim.subs({free: values[str(free)] for free in dim.free_symbols if str(free) in values}, simultaneous=True)
    return int(result) if result.is_Integer else result


def type_at(type: TensorType, values: Mapping[str, int]) -> TensorType:
    """``type`` with numbers in place of the symbols that ``values`` names."""
    if type.is_static:
        return type
    return TensorType(type.dtype, tuple(dimension_at(dim, values) for dim in type.shape), type.layout, type.encoding)


def specialise(graph: Graph, values: Mapping[str, int]) -> Graph:
    """``graph`` with numbers in place of the symbols that ``values`` names, in types, attributes and regions.

    Values keep their names. TypeInferenceError when a size comes out negative.
    """
    if not graph.symbols:
        return graph
    wanted = {symbol(name): number for name, number in values.items()}
    known: dict[object, Attribute] = {}

    def attribute(value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(attribute(item) for item in value)
        if not is_expression(value):
            return value
        if value not in known:
            result = value.subs(wanted, simultaneous=True)  # type: ignore[union-attr]
            known[value] = int(result) if result.is_Integer else result
        return known[value]

    def type_of(type: Type) -> Type:
        if isinstance(type, TokenType):
            return type if type.buffer is None else TokenType(tensor(type.buffer))
        return tensor(type)

    def tensor(type: TensorType) -> TensorType:
        if type.is_static:
            return type
        return TensorType(type.dtype, tuple(attribute(dim) for dim in type.shape), type.layout, type.encoding)

    inputs = tuple(Value(type_of(value.type), value.name, None, position) for position, value in enumerate(graph.inputs))
    mapping: dict[Value, Value] = dict(zip(graph.inputs, inputs, strict=True))
    nodes = []

    def operand(value: Value) -> Value:
        if value not in mapping:  # the content of a state, where the nodes that read states are gone already
            mapping[value] = Value(type_of(value.type), value.name, None, 0)
        return mapping[value]

    for node in graph.nodes:
        new = Node(
            node.op,
            [operand(value) for value in node.inputs],
            {name: attribute(value) for name, value in node.attributes.items()},
            [type_of(value.type) for value in node.outputs],
            [specialise(region, values) for region in node.regions],
            node.location,
        )
        nodes.append(new)
        for old, value in zip(node.outputs, new.outputs, strict=True):
            value.name = old.name
            mapping[old] = value
    rest = {name: bounds for name, bounds in graph.symbols.items() if name not in values}
    return Graph(inputs, tuple(nodes), tuple(operand(value) for value in graph.outputs), graph.name, rest)
