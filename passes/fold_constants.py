"""Constant folding: what depends on constants and generators only becomes a constant, computed lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import Constant, DerivedConstant, DType, Graph, Node, Rewriter, Value
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .derive import derive_node
from .facts import is_source, is_uniform

_KEPT = frozenset({"full", "iota", "broadcast_to"})
"""Operations that are cheaper to redo in a kernel than to store."""


@register_pass
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replaces computations over constants, ``full`` and ``iota`` by constants, and constants of one repeated number by ``full``.

    A result of more than ``max_elements`` is stored only when it is no larger than the constants that it comes from; nothing of more
    than ``max_intermediate`` elements is ever evaluated.
    """

    name: ClassVar[str] = "fold-constants"
    max_elements: int = 1 << 22
    max_intermediate: int = 1 << 26

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        known = self._known(graph)
        demanded: dict[Value, None] = {}
        for node in graph.nodes:
            if any(value not in known for value in node.outputs):
                demanded.update(dict.fromkeys(value for value in node.inputs if value in known))
        demanded.update(dict.fromkeys(value for value in graph.outputs if value in known))
        pending = list(demanded)
        stored: set[Value] = set()
        while pending:
            value = pending.pop()
            if value in stored:
                continue
            assert value.node is not None
            if self._stores(value, known[value]):
                stored.add(value)
            else:
                demanded.update(dict.fromkeys(value.node.inputs))
                pending += [operand for operand in value.node.inputs if operand in known and operand not in stored]
        return self._rebuild(graph, known, stored, ctx)

    def _known(self, graph: Graph) -> dict[Value, Constant]:
        """The constant that each foldable value is, not evaluated."""
        known: dict[Value, Constant] = {}
        for node in graph.nodes:
            foldable = not node.regions and all(value in known for value in node.inputs)
            if foldable and all(self._fits(value) for value in node.outputs):
                known.update(zip(node.outputs, derive_node(node, [known[value] for value in node.inputs]), strict=True))
        return known

    def _fits(self, value: Value) -> bool:
        type = value.tensor
        if value.op == "constant":
            return True
        return type.is_static and type.elements <= self.max_intermediate and type.dtype is not DType.COMPLEX64

    def _stores(self, value: Value, constant: Constant) -> bool:
        """Whether ``value`` becomes a constant node (else its node stays)."""
        node = value.node
        assert node is not None
        if node.op == "constant":
            return True
        if node.op in _KEPT:
            return False
        return constant.type.elements <= max(self.max_elements, _source_elements(node))

    def _rebuild(self, graph: Graph, known: dict[Value, Constant], stored: set[Value], ctx: Context) -> Graph:
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            rewriter.builder.location = node.location
            value = node.outputs[0] if len(node.outputs) == 1 else None
            if any(output in stored for output in node.outputs) and node.op != "constant" and ctx.budget.spend():
                for output in node.outputs:
                    if output in stored:
                        rewriter.replace(output, _constant(rewriter, known[output], output))
            elif node.op == "constant" and value is not None and not _is_weight(known[value]) and is_uniform(known[value]):
                rewriter.replace(value, _constant(rewriter, known[value], value))
            elif all(operand in rewriter for operand in node.inputs):
                rewriter.copy(node)
        return without_dead_code(rewriter.finish())


def _is_weight(constant: Constant) -> bool:
    """Whether real numbers that the user gave enter: such data is neither evaluated early nor searched for repetition."""
    if isinstance(constant, DerivedConstant):
        return any(_is_weight(operand) for operand in constant.inputs)
    return constant.type.dtype.is_float and not (constant.type.is_static and constant.type.elements <= 64)


def _constant(rewriter: Rewriter, constant: Constant, value: Value) -> Value:
    if not _is_weight(constant) and is_uniform(constant):
        number = constant.array().reshape(-1)[0].item()
        type = constant.type
        return rewriter.builder.call("full", shape=type.shape, value=number, dtype=type.dtype)
    return rewriter.builder.constant(constant, value.tensor)


def _source_elements(node: Node) -> int:
    """Elements of the largest stored constant that ``node`` depends on."""
    largest = 0
    pending, seen = [node], {node}
    while pending:
        for value in pending.pop().inputs:
            producer = value.node
            assert producer is not None
            if producer.op == "constant":
                largest = max(largest, value.tensor.elements)
            elif not is_source(producer) and producer not in seen:
                seen.add(producer)
                pending.append(producer)
    return largest
