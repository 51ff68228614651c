"""What convolutions in bfloat16 hand to each other is stored in bfloat16, and what those in bytes do in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..codegen.instruction_sets import rounds_bf16
from ..ir import DType, Graph, Node, Rewriter, TensorType, Value
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .facts import use_count


@register_pass
@dataclass(frozen=True)
class NarrowActivations(Pass):
    """Sums of activations read them in bfloat16 where convolutions multiply them so, or where they are sums of two such convolutions, or of
    two in bytes. Where convolutions multiply their codes, sums read these, and maxima over windows are those of codes.

    The branch around the layers of a residual block otherwise keeps its activations in fp32 beside those that are multiplied: three to five
    times the bytes, and images are larger than caches. Sums are computed in fp32, and rounded where they are stored.
    """

    name: ClassVar[str] = "narrow-activations"
    rounds: ClassVar[bool] = True

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        def add(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            if node.output.tensor.dtype is not DType.FLOAT32:
                return None
            # Codes know neither NaN nor infinity.
            codes = {value: made for value in node.inputs if ctx.fast and (made := _codes(graph, value)) is not None}
            narrow = [value for value in dict.fromkeys(node.inputs) if _is_multiplied(graph, value)] or _parallel_branch(graph, node, ctx)
            if not (codes or narrow) or not ctx.budget.spend():
                return None
            operands = []
            for value in node.inputs:
                if value in codes:
                    operands.append(_decoded(rewriter, codes[value]))
                else:
                    operands.append(_rounded(rewriter, value) if value in narrow else rewriter[value])
            return rewriter.builder.add("add", *operands).outputs

        def quantise(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            pool = node.inputs[0].node
            # The code of NaN is the lowest, the maximum of numbers with NaN is NaN.
            if pool is None or not ctx.fast or pool.op != "window_reduce" or pool.attributes["kind"] != "max" or _rate(node) is None:
                return None
            if len(graph.users[pool.output]) != 1 or not ctx.budget.spend():
                return None
            operands = rewriter[pool.inputs[0]], rewriter[node.inputs[1]]
            codes = rewriter.builder.add("quantise", *operands, attributes=node.attributes).output
            return rewriter.builder.add("window_reduce", codes, attributes=pool.attributes).outputs

        return without_dead_code(Rewriter(graph).run({"add": add, "quantise": quantise}))


def _is_multiplied(graph: Graph, value: Value) -> bool:
    """Whether a convolution reads ``value``, an fp32 activation, in bfloat16."""
    if not _is_activation(value):
        return False
    narrow = [user.output for user in _readers(graph, value) if user.op == "cast" and user.output.tensor.dtype is DType.BFLOAT16]
    readers = [reader for rounded in narrow for reader in _readers(graph, rounded)]
    # Those that multiply in fp32 all the same widen it first.
    widened = [reader for cast in readers if cast.op == "cast" for reader in _readers(graph, cast.output)]
    return any(reader.op == "conv" for reader in (*readers, *widened))


def _codes(graph: Graph, value: Value) -> Node | None:
    """What quantises ``value``, an fp32 activation, for convolutions at a constant rate."""
    if not _is_activation(value):
        return None
    for user in _readers(graph, value):
        if user.op == "quantise" and _rate(user) is not None and any(reader.op == "conv" for reader in _readers(graph, user.output)):
            return user
    return None


def _rate(quantise: Node) -> float | None:
    """The constant steps per unit of all elements, if they are positive."""
    made = quantise.inputs[1].node
    rate = made.attributes["value"] if made is not None and made.op == "full" else None
    return rate if isinstance(rate, float) and rate > 0 else None


def _decoded(rewriter: Rewriter, quantise: Node) -> Value:
    """The numbers that the codes stand for."""
    builder, rate, zero_point = rewriter.builder, _rate(quantise), quantise.attributes["zero_point"]
    assert rate is not None
    assert isinstance(zero_point, int)
    codes = builder.add("quantise", *(rewriter[value] for value in quantise.inputs), attributes=quantise.attributes).output
    steps = builder.call("cast", codes, dtype=DType.FLOAT32)
    if zero_point:
        steps = builder.call("sub", steps, builder.call("full", shape=(), value=float(zero_point), dtype=DType.FLOAT32))
    return builder.call("mul", steps, builder.call("full", shape=(), value=1 / rate, dtype=DType.FLOAT32))


def _rounded(rewriter: Rewriter, value: Value) -> Value:
    """``value`` as a number of bfloat16."""
    half = rewriter.builder.call("cast", rewriter[value], dtype=DType.BFLOAT16)
    return rewriter.builder.call("cast", half, dtype=DType.FLOAT32)


def _readers(graph: Graph, value: Value) -> Sequence[Node]:
    return graph.users.get(value, ())


def _parallel_branch(graph: Graph, total: Node, ctx: Context) -> list[Value]:
    """Of a sum of two convolutions of narrow operands that nothing else reads, the result of the first: the second one's kernel adds it."""
    branches = [value for value in total.inputs if _is_narrow(value, ctx) and use_count(graph, value) == 1]
    return branches[:1] if len(branches) == 2 else []


def _is_narrow(value: Value, ctx: Context) -> bool:
    """Whether ``value`` is a convolution over bfloat16 that sums in fp32, or one over bytes whose sums become numbers that an instruction
    rounds."""
    if rounds_bf16(ctx.target) and value.op == "mul" and value.node is not None and value.node.inputs[0].op == "cast":
        scaled = value.node.inputs[0].node
        source = scaled.inputs[0].node if scaled is not None else None
        return source is not None and source.op == "conv" and source.attributes["dtype"] is DType.INT32
    conv = value.node if value.op == "conv" else None
    return conv is not None and conv.inputs[0].tensor.dtype is DType.BFLOAT16 and conv.attributes["dtype"] is DType.FLOAT32


def _is_activation(value: Value) -> bool:
    """Whether ``value`` is computed in fp32 by the program."""
    return value.node is not None and value.constant is None and isinstance(value.type, TensorType) and value.type.dtype is DType.FLOAT32
