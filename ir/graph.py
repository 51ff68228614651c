"""The graph IR: values, nodes, nested graphs, and the builder that makes them.

A :class:`Graph` is in SSA form: every value has one producer, nodes stand in topological order. Graphs are not edited in place;
a pass builds a new one, usually with :class:`Rewriter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from ..errors import TypeInferenceError
from .constant import Constant
from .types import DType, SymbolRange, TensorType, Type

if TYPE_CHECKING:
    import sympy

Attribute: TypeAlias = "bool | int | float | str | DType | Constant | sympy.Expr | tuple[Attribute, ...] | None"
"""What an attribute of a node may be (expressions: symbolic dimensions). Sequences are tuples, so that nodes hash and compare."""


@dataclass(frozen=True)
class Location:
    """Where a node comes from in the user's model: module path, source line, original operation."""

    module: str = ""
    source: str = ""
    origin: str = ""

    def __str__(self) -> str:
        parts = [part for part in (self.origin, f"in module '{self.module}'" if self.module else "", self.source) if part]
        return ", ".join(parts) or "unknown location"


UNKNOWN = Location()

NAME = re.compile(r"[\w.$-]+", re.ASCII)
"""What a value or a graph may be called, so that the text form reads back."""


class Value:
    """One SSA value. Compared and hashed by identity."""

    __slots__ = ("index", "name", "node", "type")

    def __init__(self, type: Type, name: str = "", node: Node | None = None, index: int = 0) -> None:
        self.type = type
        self.name = name
        self.node = node
        """The producer; None for a graph input."""
        self.index = index
        """Which result of ``node`` (or which graph input) this is."""

    @property
    def tensor(self) -> TensorType:
        """The type of a tensor value; TypeInferenceError for a token."""
        if not isinstance(self.type, TensorType):
            raise TypeInferenceError(f"%{self.name} is a {self.type}, a tensor is needed here")
        return self.type

    @property
    def op(self) -> str:
        """The name of the producing operation, '' for a graph input."""
        return self.node.op if self.node is not None else ""

    @property
    def constant(self) -> Constant | None:
        """The constant this value holds, if its producer is a ``constant`` node."""
        if self.op != "constant":
            return None
        assert self.node is not None
        value = self.node.attributes["value"]
        assert isinstance(value, Constant)
        return value

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


class Node:
    """One operation applied to values. Immutable by convention; compared by identity."""

    __slots__ = ("attributes", "inputs", "location", "op", "outputs", "regions")

    def __init__(
        self,
        op: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Attribute],
        output_types: Sequence[Type],
        regions: Sequence[Graph] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.attributes = dict(attributes)
        self.regions = tuple(regions)
        self.location = location
        self.outputs = tuple(Value(type, "", self, index) for index, type in enumerate(output_types))

    @property
    def output(self) -> Value:
        """The only result; TypeInferenceError when there are several."""
        if len(self.outputs) != 1:
            raise TypeInferenceError(f"{self.op} has {len(self.outputs)} results, one is needed here")
        return self.outputs[0]

    def integers(self, name: str) -> tuple[int, ...]:
        """The integers of an attribute that is a tuple, such as a stride."""
        value = self.attributes[name]
        assert isinstance(value, tuple)
        return tuple(item for item in value if isinstance(item, int))

    def __repr__(self) -> str:
        outputs = ", ".join(f"%{value.name or '?'}" for value in self.outputs)
        inputs = ", ".join(f"%{value.name or '?'}" for value in self.inputs)
        return f"{outputs} = {self.op}({inputs})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A function from values to values: inputs, nodes in topological order, outputs.

    A region (body of a fusion, branch of a cond) is a Graph as well; it sees only its own inputs, never values of the enclosing graph.
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    name: str = "main"
    symbols: Mapping[str, SymbolRange] = field(default_factory=dict)

    @cached_property
    def users(self) -> Mapping[Value, tuple[Node, ...]]:
        """For each value the nodes that read it, in order, a node once per operand position. Graph outputs are not users."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                users.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in users.items()}

    @cached_property
    def output_set(self) -> frozenset[Value]:
        return frozenset(self.outputs)

    def values(self) -> Iterable[Value]:
        """Every value: inputs, then node results in order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.outputs

    def walk(self) -> Iterable[Node]:
        """Every node, nested regions included, outer before inner."""
        for node in self.nodes:
            yield node
            for region in node.regions:
                yield from region.walk()

    def __str__(self) -> str:
        from .printer import print_graph

        return print_graph(self)


class GraphBuilder:
    """Builds a graph node by node, inferring result types through the op registry."""

    def __init__(self, name: str = "main", symbols: Mapping[str, SymbolRange] | None = None) -> None:
        self.name = name
        self.symbols = dict(symbols or {})
        self.location = UNKNOWN
        """Location given to nodes added without one."""
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._constants: dict[tuple[Constant, TensorType], Value] = {}

    def input(self, type: Type, name: str = "") -> Value:
        value = Value(type, name or f"arg{len(self._inputs)}", None, len(self._inputs))
        self._inputs.append(value)
        return value

    def constant(self, value: Constant, type: TensorType | None = None) -> Value:
        """The value of a constant; the same constant, stored the same way, is added once.

        TypeInferenceError when ``type`` is another logical tensor than the constant's.
        """
        type = type or value.type
        if (type.dtype, type.shape) != (value.type.dtype, value.type.shape):
            raise TypeInferenceError(f"a constant of type {value.type} cannot be used as {type}; convert or reshape it first")
        key = (value, type)
        if key not in self._constants:
            self._constants[key] = self.append(Node("constant", (), {"value": value}, (type,), (), self.location)).output
        return self._constants[key]

    def add(
        self,
        op: str,
        *inputs: Value,
        attributes: Mapping[str, Attribute] | None = None,
        regions: Sequence[Graph] = (),
        location: Location | None = None,
        types: Sequence[Type] | None = None,
    ) -> Node:
        """Appends a node of ``op``. ``types`` overrides the inferred result types (for layouts; logical types must agree).

        Attributes are completed with their defaults and normalised (axes counted from the front, sequences as tuples).
        TypeInferenceError when the operation does not take these operands.
        """
        from .ops import lookup

        definition = lookup(op)
        operands = [value.type for value in inputs]
        complete = definition.normalise_axes(definition.complete_attributes(attributes or {}), operands)
        inferred = definition.infer_types(operands, complete, regions)
        if types is not None:
            definition.check_results(inferred, types)
        return self.append(Node(op, inputs, complete, inferred if types is None else types, regions, location or self.location))

    def call(self, op: str, *inputs: Value, location: Location | None = None, **attributes: Attribute) -> Value:
        """Like :meth:`add` for an operation with one result: attributes as keywords, the result value returned."""
        return self.add(op, *inputs, attributes=attributes, location=location).output

    def append(self, node: Node) -> Node:
        """Appends a node made elsewhere; its inputs must already be in this graph."""
        self._nodes.append(node)
        return node

    def finish(self, outputs: Sequence[Value]) -> Graph:
        """The graph, with unique value names; characters that no name may have become underscores."""
        graph = Graph(tuple(self._inputs), tuple(self._nodes), tuple(outputs), legal_name(self.name) or "main", dict(self.symbols))
        assign_names(graph)
        return graph


def legal_name(name: str) -> str:
    """``name`` with every character that a name may not have replaced by an underscore."""
    return name if NAME.fullmatch(name) else re.sub(r"[^\w.$-]", "_", name, flags=re.ASCII)


def assign_names(graph: Graph) -> None:
    """Gives every unnamed or ambiguously named value of ``graph`` a legal name that is unique in it."""
    taken: set[str] = set()
    counter = 0
    unnamed: list[Value] = []
    for value in graph.values():
        value.name = legal_name(value.name)
        if value.name and value.name not in taken:
            taken.add(value.name)
        else:
            unnamed.append(value)
    for value in unnamed:
        while str(counter) in taken:
            counter += 1
        value.name = str(counter)
        taken.add(value.name)


class Rewriter:
    """Rebuilds a graph node by node; the usual way to write a pass.

    ``rules`` maps an op name to a function ``(rewriter, node) -> replacement values or None`` (None: keep the node). Within a rule,
    ``rewriter[value]`` is the new value of an old one and ``rewriter.builder`` adds nodes. Regions are kept as they are: a pass that
    enters them runs a Rewriter on each.
    """

    Rule: TypeAlias = "Callable[[Rewriter, Node], Sequence[Value] | None]"

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph.name, graph.symbols)
        self._map: dict[Value, Value] = {}
        for value in graph.inputs:
            self._map[value] = self.builder.input(value.type, value.name)

    def __getitem__(self, value: Value) -> Value:
        return self._map[value]

    def __contains__(self, value: Value) -> bool:
        return value in self._map

    def replace(self, old: Value, new: Value) -> None:
        """Lets ``new`` (of the new graph) stand for ``old`` from here on."""
        self._map[old] = new

    def copy(self, node: Node) -> Node:
        """Copies a node as it is, on the new values of its inputs; result types and location are kept. Returns the new node."""
        if node.op == "constant":
            value = node.attributes["value"]
            assert isinstance(value, Constant)
            output = node.output
            location, self.builder.location = self.builder.location, node.location
            constant = self.builder.constant(value, output.tensor)
            self.builder.location = location
            constant.name = constant.name or output.name
            self._map[output] = constant
            assert constant.node is not None
            return constant.node
        new = Node(
            node.op,
            [self._map[value] for value in node.inputs],
            node.attributes,
            [value.type for value in node.outputs],
            node.regions,
            node.location,
        )
        self.builder.append(new)
        for old_value, new_value in zip(node.outputs, new.outputs, strict=True):
            new_value.name = old_value.name
            self._map[old_value] = new_value
        return new

    def run(self, rules: Mapping[str, Rewriter.Rule]) -> Graph:
        """Applies ``rules`` to every node in order and returns the new graph."""
        for node in self.graph.nodes:
            rule = rules.get(node.op)
            self.builder.location = node.location
            replacement = rule(self, node) if rule is not None else None
            if replacement is None:
                self.copy(node)
            else:
                for old_value, new_value in zip(node.outputs, replacement, strict=True):
                    self._map[old_value] = new_value
        return self.finish()

    def finish(self) -> Graph:
        """The new graph, its outputs being the new values of the old outputs."""
        return self.builder.finish([self._map[value] for value in self.graph.outputs])
