"""Checks that a graph is valid; every pass must keep it so."""

from __future__ import annotations

from ..errors import Error, TypeInferenceError, VerificationError
from .graph import Graph, Node, Value
from .ops import lookup
from .types import TensorType


def verify(graph: Graph) -> None:
    """Raises VerificationError, naming node and rule, unless ``graph`` is valid.

    Rules: values are defined once and before use; names are unique; nodes have known operations with complete attributes; each result
    has the inferred logical type (the layout is free, except that elementwise inference does not fix it); regions are valid and closed;
    symbols that occur in types are declared.
    """
    _verify(graph, f"graph @{graph.name}")


def _verify(graph: Graph, where: str) -> None:
    defined: set[Value] = set()
    names: set[str] = set()

    def define(value: Value, what: str) -> None:
        if value in defined:
            raise VerificationError(f"{where}: %{value.name} is defined twice, the second time by {what}")
        if not value.name or value.name in names:
            raise VerificationError(
                f"{where}: {what} defines a value with {'no name' if not value.name else f'the taken name %{value.name}'}"
            )
        defined.add(value)
        names.add(value.name)
        _check_symbols(graph, value, where)

    for position, value in enumerate(graph.inputs):
        if value.node is not None:
            raise VerificationError(f"{where}: input {position} (%{value.name}) is the result of {value.node!r}")
        define(value, f"input {position}")
    for node in graph.nodes:
        for value in node.inputs:
            if value not in defined:
                raise VerificationError(
                    f"{where}: {node!r} ({node.location}) uses %{value.name}, which is not defined before it in this graph"
                )
        _check_node(node, where)
        for index, value in enumerate(node.outputs):
            if value.node is not node or value.index != index:
                raise VerificationError(f"{where}: result {index} of {node!r} does not point back to it")
            define(value, repr(node))
    for position, value in enumerate(graph.outputs):
        if value not in defined:
            raise VerificationError(f"{where}: output {position} (%{value.name}) is not defined in this graph")


def _check_node(node: Node, where: str) -> None:
    try:
        definition = lookup(node.op)
        if set(node.attributes) != set(definition.attributes):
            definition.complete_attributes(node.attributes)
            missing = ", ".join(sorted(set(definition.attributes) - set(node.attributes)))
            raise TypeInferenceError(f"{node.op} lacks the attributes {missing}")
        for region in node.regions:
            _verify(region, f"{where}, region @{region.name} of {node!r}")
        inferred = definition.infer_types([value.type for value in node.inputs], node.attributes, node.regions)
    except VerificationError:
        raise
    except Error as error:
        raise VerificationError(f"{where}: {node!r} ({node.location}): {error}") from error
    if len(inferred) != len(node.outputs):
        raise VerificationError(f"{where}: {node!r} has {len(node.outputs)} results, {node.op} yields {len(inferred)}")
    for type, value in zip(inferred, node.outputs, strict=True):
        if not isinstance(value.type, TensorType) or not type.same_logical(value.type):
            raise VerificationError(f"{where}: %{value.name} of {node!r} is {value.type}, {node.op} yields {type}")


def _check_symbols(graph: Graph, value: Value, where: str) -> None:
    if not isinstance(value.type, TensorType) or value.type.is_static:
        return
    for dim in value.type.shape:
        if isinstance(dim, int):
            continue
        for symbol in dim.free_symbols:
            if str(symbol) not in graph.symbols:
                raise VerificationError(f"{where}: %{value.name} has type {value.type}, but the symbol {symbol} is not declared")
