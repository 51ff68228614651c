"""Local rewriting: rules that replace a node by something simpler, applied while the graph is rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from ..errors import PassError
from ..ir import UNKNOWN, Attribute, Constant, DType, Graph, Location, Node, Rewriter, Type, Value, lookup
from .base import Context
from .facts import use_count

Replacement: TypeAlias = "Value | Sequence[Value] | None"
Rule: TypeAlias = "Callable[[LocalRewriter, Node], Replacement]"
"""``(rewriter, node)`` -> the values that replace the node's results, or None when the rule does not apply.

The node's operands are values of the new graph; the node itself is not part of it (yet). New nodes come from ``rewriter.emit``.
"""


class LocalRewriter:
    """Rebuilds ``graph`` in one sweep. Operands are rewritten before their users, and what a rule emits is rewritten in turn, so that
    one sweep reaches nearly everything that repeated sweeps would."""

    def __init__(self, graph: Graph, rules: Mapping[str, Sequence[Rule]], ctx: Context) -> None:
        self.graph = graph
        self.rules = rules
        self.ctx = ctx
        self._rewriter = Rewriter(graph)
        self._uses: dict[Value, int] = {}
        self._depth = 0

    def run(self) -> Graph:
        """The rewritten graph; nodes that rules made superfluous are still in it."""
        for value in self.graph.inputs:
            self._uses[self._rewriter[value]] = use_count(self.graph, value)
        for node in self.graph.nodes:
            self._rewriter.builder.location = node.location
            results = self._place(node)
            for old, new in zip(node.outputs, results, strict=True):
                self._rewriter.replace(old, new)
                self._uses[new] = max(self._uses.get(new, 0), use_count(self.graph, old))
        return self._rewriter.finish()

    def _place(self, node: Node) -> Sequence[Value]:
        if node.op == "constant":
            return [self._rewriter.builder.constant(_constant_of(node), node.output.tensor)]
        new = Node(
            node.op,
            [self._rewriter[value] for value in node.inputs],
            node.attributes,
            [value.type for value in node.outputs],
            node.regions,
            node.location,
        )
        for old, value in zip(node.outputs, new.outputs, strict=True):
            value.name = old.name
        return self._simplified(new)

    def _simplified(self, node: Node) -> Sequence[Value]:
        for rule in self.rules.get(node.op, ()):
            self._depth += 1
            if self._depth > 200:
                raise PassError(f"rules go round in circles at {node!r}; the last one is {getattr(rule, '__name__', rule)}")
            replacement = rule(self, node)
            self._depth -= 1
            if replacement is None or not self.ctx.budget.spend():
                continue
            values = [replacement] if isinstance(replacement, Value) else list(replacement)
            self._check(node, values, rule)
            return values
        self._rewriter.builder.append(node)
        return node.outputs

    def _check(self, node: Node, values: Sequence[Value], rule: Rule) -> None:
        for old, new in zip(node.outputs, values, strict=True):
            if not old.tensor.same_logical(new.tensor):
                name = getattr(rule, "__name__", rule)
                raise PassError(f"rule {name} replaced {node!r} of type {old.type} by a value of type {new.type}")

    def emit(self, op: str, *inputs: Value, **attributes: Attribute) -> Value:
        """The result of a new node, itself simplified."""
        return self.emit_node(op, inputs, attributes)[0]

    def emit_node(
        self,
        op: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Attribute],
        types: Sequence[Type] | None = None,
        location: Location | None = None,
    ) -> Sequence[Value]:
        """The results of a new node, itself simplified."""
        definition = lookup(op)
        complete = definition.complete_attributes(attributes)
        inferred = types or definition.infer_types([value.type for value in inputs], complete)
        place = location or self._rewriter.builder.location
        return self._simplified(Node(op, inputs, complete, inferred, (), place if place is not None else UNKNOWN))

    def constant(self, value: Constant) -> Value:
        return self._rewriter.builder.constant(value)

    def full(self, value: bool | int | float, like: Value) -> Value:
        """``value`` in the type of ``like``."""
        return self.emit("full", shape=like.tensor.shape, value=value, dtype=like.tensor.dtype)

    def scalar(self, value: bool | int | float, dtype: DType) -> Value:
        """A rank-0 ``value``."""
        return self.emit("full", shape=(), value=value, dtype=dtype)

    def is_single_use(self, value: Value) -> bool:
        """Whether at most one node or output reads ``value`` (as far as the graph being rewritten tells; new values have one user)."""
        return self._uses.get(value, 1) <= 1


def _constant_of(node: Node) -> Constant:
    value = node.attributes["value"]
    assert isinstance(value, Constant)
    return value


def merged(*tables: Mapping[str, Sequence[Rule]]) -> dict[str, tuple[Rule, ...]]:
    """One table of rules by operation; rules of earlier tables come first."""
    result: dict[str, tuple[Rule, ...]] = {}
    for table in tables:
        for op, rules in table.items():
            result[op] = (*result.get(op, ()), *rules)
    return result
