"""What convolutions in bfloat16 hand to each other is stored in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..ir import DType, Graph, Node, Rewriter, TensorType, Value
from .base import Context, Pass, register_pass
from .facts import use_count


@register_pass
@dataclass(frozen=True)
class NarrowActivations(Pass):
    """Sums of activations read them in bfloat16 where convolutions multiply them so, or where they are sums of two such convolutions.

    The branch around the layers of a residual block otherwise keeps its activations in fp32 beside those that are multiplied: three times
    the bytes, and images are larger than caches. Sums are computed in fp32, and rounded where they are stored.
    """

    name: ClassVar[str] = "narrow-activations"
    rounds: ClassVar[bool] = True

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        def rule(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            narrow = [value for value in dict.fromkeys(node.inputs) if _is_multiplied(graph, value)] or _parallel_branch(graph, node)
            if node.output.tensor.dtype is not DType.FLOAT32 or not narrow or not ctx.budget.spend():
                return None
            builder = rewriter.builder
            operands = [
                builder.call("cast", builder.call("cast", rewriter[value], dtype=DType.BFLOAT16), dtype=DType.FLOAT32)
                if value in narrow
                else rewriter[value]
                for value in node.inputs
            ]
            return builder.add("add", *operands).outputs

        return Rewriter(graph).run({"add": rule})


def _is_multiplied(graph: Graph, value: Value) -> bool:
    """Whether a convolution reads ``value``, an fp32 activation, in bfloat16."""
    if not _is_activation(value):
        return False
    narrow = [user.output for user in _readers(graph, value) if user.op == "cast" and user.output.tensor.dtype is DType.BFLOAT16]
    readers = [reader for rounded in narrow for reader in _readers(graph, rounded)]
    # Those that multiply in fp32 all the same widen it first.
    widened = [reader for cast in readers if cast.op == "cast" for reader in _readers(graph, cast.output)]
    return any(reader.op == "conv" for reader in (*readers, *widened))


def _readers(graph: Graph, value: Value) -> Sequence[Node]:
    return graph.users.get(value, ())


def _parallel_branch(graph: Graph, total: Node) -> list[Value]:
    """Of a sum of two convolutions in bfloat16 that nothing else reads, the result of the first: the second one's kernel adds it."""
    branches = [value for value in total.inputs if value.node is not None and _is_narrow(value.node) and use_count(graph, value) == 1]
    return branches[:1] if len(branches) == 2 else []


def _is_narrow(node: Node) -> bool:
    """Whether ``node`` is a convolution over bfloat16 that sums in fp32."""
    return node.op == "conv" and node.inputs[0].tensor.dtype is DType.BFLOAT16 and node.attributes["dtype"] is DType.FLOAT32


def _is_activation(value: Value) -> bool:
    """Whether ``value`` is computed in fp32 by the program."""
    return value.node is not None and value.constant is None and isinstance(value.type, TensorType) and value.type.dtype is DType.FLOAT32
