"""Checks that a graph is valid; every pass must keep it so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import Error, VerificationError
from .graph import NAME, Graph, Node, Value
from .ops import lookup
from .ops.attributes import is_expression
from .types import TensorType, TokenType, Type, symbol

_SYMBOL_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def verify(graph: Graph) -> None:
    """Raises VerificationError, naming node and rule, unless ``graph`` is valid.

    Rules:

    - values are defined once and before use; value and graph names can be written in the text form, value names are unique;
    - nodes have known operations, and exactly the defined attributes, each with a value of its kind;
    - each result has the inferred dtype and shape (layout and encoding are free, but results of regions are exactly theirs);
    - regions are valid and closed: they see only their own inputs;
    - a state token is consumed at most once;
    - symbols in types and attributes are declared by the graph they occur in, and made by :func:`mlc.ir.types.symbol`.
    """
    _verify(graph, f"graph @{graph.name}")


def _verify(graph: Graph, where: str) -> None:
    if not NAME.fullmatch(graph.name):
        raise VerificationError(f"{where}: the name {graph.name!r} must match {NAME.pattern}")
    for name in graph.symbols:
        if not _SYMBOL_NAME.fullmatch(name):
            raise VerificationError(f"{where}: the symbol {name!r} must match {_SYMBOL_NAME.pattern}")
    defined: set[Value] = set()
    consumed: set[Value] = set()
    names: set[str] = set()

    def define(value: Value, what: str) -> None:
        if value in defined:
            raise VerificationError(f"{where}: %{value.name} is defined twice, the second time by {what}")
        if not NAME.fullmatch(value.name):
            raise VerificationError(
                f"{where}: {what} defines a value "
                + (f"with the name {value.name!r}, which must match {NAME.pattern}" if value.name else "with no name")
            )
        if value.name in names:
            raise VerificationError(f"{where}: {what} defines a value with the taken name %{value.name}")
        defined.add(value)
        names.add(value.name)
        _check_symbols(graph, f"%{value.name} has type {value.type}", _type_dims(value.type), where)

    def use(value: Value, what: str) -> None:
        if value not in defined:
            raise VerificationError(f"{where}: {what}, which is not defined before it in this graph")
        if isinstance(value.type, TokenType):
            if value in consumed:
                raise VerificationError(f"{where}: {what}, a token that is consumed before; use the token that its consumer yields")
            consumed.add(value)

    for position, value in enumerate(graph.inputs):
        if value.node is not None:
            raise VerificationError(f"{where}: input {position} (%{value.name}) is the result of {value.node!r}")
        if value.index != position:
            raise VerificationError(f"{where}: input {position} (%{value.name}) says it is number {value.index}")
        define(value, f"input {position}")
    for node in graph.nodes:
        for value in node.inputs:
            use(value, f"{node!r} ({node.location}) uses %{value.name}")
        _check_node(graph, node, where)
        for index, value in enumerate(node.outputs):
            if value.node is not node or value.index != index:
                raise VerificationError(f"{where}: result {index} of {node!r} does not point back to it")
            define(value, repr(node))
    for position, value in enumerate(graph.outputs):
        use(value, f"output {position} is %{value.name}")


def _check_node(graph: Graph, node: Node, where: str) -> None:
    try:
        definition = lookup(node.op)
        definition.check_attributes(node.attributes)
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
        if not definition.result_fits(type, value.type):
            raise VerificationError(f"{where}: %{value.name} of {node!r} is {value.type}, {node.op} yields {type}")
    for name, attribute in node.attributes.items():
        if isinstance(attribute, tuple) or is_expression(attribute):
            _check_symbols(graph, f"attribute '{name}' of {node!r} is {attribute}", attribute, where)


def _type_dims(type: Type) -> object:
    tensor = type.buffer if isinstance(type, TokenType) else type
    return tensor.shape if isinstance(tensor, TensorType) and not tensor.is_static else ()


def _check_symbols(graph: Graph, what: str, dims: object, where: str) -> None:
    for found in _symbols(dims):
        name = str(found)
        if name not in graph.symbols:
            raise VerificationError(f"{where}: {what}, but the symbol {name} is not declared")
        if found != symbol(name):
            raise VerificationError(f"{where}: {what}, whose symbol {name} has other assumptions than those of mlc.ir.types.symbol")


def _symbols(dims: object) -> Iterator[object]:
    if isinstance(dims, tuple):
        for dim in dims:
            yield from _symbols(dim)
    elif is_expression(dims):
        yield from dims.free_symbols  # type: ignore[attr-defined]
