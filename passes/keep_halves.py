"""Weights that came in 16 bits are stored in 16 bits, where that makes reading or multiplying them quicker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..codegen.instruction_sets import multiplies_bf16
from ..codegen.target import Kind
from ..ir import Constant, DerivedConstant, DType, Graph, Node, Rewriter, Value
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .derive import derive
from .narrow_operands import has_few_rows

_HALVES = (DType.FLOAT16, DType.BFLOAT16)
_MOVES = ("permute", "reshape", "concat", "slice")


@register_pass
@dataclass(frozen=True)
class KeepHalves(Pass):
    """Constant weights that folding widened to fp32 from 16-bit floats become these again: of linear layers over few rows, which widen them
    in registers, and of those whose operand is widened from bfloat16 too, where the target multiplies such numbers.

    Products are the same to the bit; the processor's instructions add them up in another order, and take denormal numbers for 0, so that
    strict numerics do without.
    """

    name: ClassVar[str] = "keep-halves"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        if ctx.target.kind is not Kind.CPU:
            return graph

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            constant = node.inputs[1].constant
            half = _unwidened(constant) if constant is not None and node.attributes["dtype"] is None else None
            if half is None:
                return None
            operands = [rewriter[value] for value in node.inputs]
            attributes = dict(node.attributes)
            if half.type.dtype is DType.BFLOAT16 and multiplies_bf16(ctx.target) and ctx.fast and _is_bfloat16(node.inputs[0]):
                assert node.inputs[0].node is not None
                operands[:2] = rewriter[node.inputs[0].node.inputs[0]], rewriter.builder.constant(half)
                attributes["dtype"] = DType.FLOAT32
            elif node.op == "linear" and has_few_rows(node):
                operands[1] = rewriter.builder.call("cast", rewriter.builder.constant(half), dtype=DType.FLOAT32)
            else:
                return None
            return rewriter.builder.add(node.op, *operands, attributes=attributes).outputs if ctx.budget.spend() else None

        return without_dead_code(Rewriter(graph).run({"linear": rule, "conv": rule}))


def _is_bfloat16(value: Value) -> bool:
    """Whether ``value`` is one of bfloat16, widened."""
    return value.op == "cast" and value.node is not None and value.node.inputs[0].tensor.dtype is DType.BFLOAT16


def _unwidened(constant: Constant) -> Constant | None:
    """The constant of 16-bit floats that ``constant`` is the fp32 form of; None where it is none."""
    if not isinstance(constant, DerivedConstant) or constant.type.dtype is not DType.FLOAT32:
        return None
    if constant.op == "cast":
        return constant.inputs[0] if constant.inputs[0].type.dtype in _HALVES else None
    if constant.op not in _MOVES:
        return None
    halves = [half for operand in constant.inputs if (half := _unwidened(operand)) is not None]
    same = len(halves) == len(constant.inputs) and len({half.type.dtype for half in halves}) == 1
    return derive(constant.op, *halves, **dict(constant.attributes)) if same else None
