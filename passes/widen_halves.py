"""Numbers of 16 bits: what sums many of them, or normalises by them, computes in fp32 and rounds once, as PyTorch does on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import DType, Graph, GraphBuilder, Node, Rewriter, TensorType, Trait, Value, lookup, map_regions
from .base import Context, Pass, register_pass
from .facts import MOVEMENT, is_source

_HALVES = (DType.FLOAT16, DType.BFLOAT16)
_KEPT = MOVEMENT | {"cast", "relayout"}
"""Operations that hand elements on as they are."""


@register_pass
@dataclass(frozen=True)
class WidenHalves(Pass):
    """Operations other than elementwise ones and data movement get fp32 operands, and their results are rounded to the dtype they had.

    Templates need know 16-bit floats only where they load and store; weights become fp32 constants. Contractions that say in which dtype
    they sum stay as they are.
    """

    name: ClassVar[str] = "widen-halves"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        graph = map_regions(graph, lambda region: self.apply(region, ctx))
        if not any(_is_half(value) for value in graph.values()):
            return graph
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            if _stays(node) or not any(map(_is_half, (*node.inputs, *node.outputs))) or not ctx.budget.spend():
                rewriter.copy(node)
                continue
            rewriter.builder.location = node.location
            operands = [
                _cast(rewriter.builder, rewriter[value], DType.FLOAT32) if _is_half(value) else rewriter[value] for value in node.inputs
            ]
            wide = rewriter.builder.add(node.op, *operands, attributes=node.attributes)
            for old, new in zip(node.outputs, wide.outputs, strict=True):
                rewriter.replace(old, _cast(rewriter.builder, new, old.tensor.dtype))
        return rewriter.finish()


def _is_half(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype in _HALVES


def _cast(builder: GraphBuilder, value: Value, dtype: DType) -> Value:
    return value if value.tensor.dtype is dtype else builder.call("cast", value, dtype=dtype)


def _stays(node: Node) -> bool:
    definition = lookup(node.op)
    moves = definition.has(Trait.ELEMENTWISE) or definition.has(Trait.VIEW) or node.op in _KEPT or is_source(node)
    keeps = definition.has(Trait.STATE) or definition.has(Trait.CONTROL) or bool(node.regions)
    sums_wide = definition.has(Trait.CONTRACTION) and node.attributes.get("dtype") is not None
    return moves or keeps or sums_wide or node.attributes.get("reduction") == "assign" or node.op == "put"
