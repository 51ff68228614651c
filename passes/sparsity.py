"""Sparsity: weights that hold enough zeros get a type that says how they can be stored without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..codegen.target import Kind, Target
from ..codegen.task import Task
from ..ir import (
    DENSE,
    Constant,
    DType,
    EncodedConstant,
    Encoding,
    Graph,
    GraphBuilder,
    Node,
    Rewriter,
    TensorType,
    Value,
    canonicalise,
)
from ..ir.sparse import is_nm_sparse, panel_entries
from ..ir.stored_size import stored_bytes
from .base import Context, Pass, register_pass
from .common_subexpressions import DeadCode
from .layout_choice import channels_last

_SAMPLES = 4096
"""Elements of a weight that are looked at before all are counted."""
_OVERHEAD = 0.5e-6
"""Seconds by which a sparse kernel has to be predicted faster at least."""
_EXPOSED = 0.6
"""Share of the time for reading a sparse weight from memory that its arithmetic, which is no less, does not hide (measured)."""
_CORE_BANDWIDTH = 20e9
"""Bytes a second that one core can read from memory."""
_CACHED_BYTES_PER_CYCLE = 20
"""Bytes that one core reads from the last-level cache."""
_GRID = 128
"""Sizes are rounded up to this fraction of the weight, so that layers of nearly the same density share their kernels."""
_PATTERNS = ((1, 4), (2, 4), (4, 8))
"""The N:M patterns that are looked for."""


@register_pass
@dataclass(frozen=True)
class Sparsity(Pass):
    """Gives the weights of linear layers, matrix products and convolutions without groups that hold zeros a sparse encoding, where the
    kernel for it is predicted to take at most ``gain`` times as long as the dense one.

    The weights stay what they are; only how they are stored changes: of weights that are held as codes the codes that are not zero, where
    a kernel reads them so. Weights with fewer than ``zeros`` zeros are not looked at closely.
    Nothing is changed where numbers need not be finite: a product of zero and an infinity that is left out would have been NaN.
    """

    name: ClassVar[str] = "sparsity"
    zeros: float = 0.4
    gain: float = 0.8

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        if not ctx.fast or ctx.target.kind is not Kind.CPU or ctx.nested:
            return graph
        streamed = _constant_bytes(graph) > ctx.target.l3_bytes
        chosen: dict[Node, TensorType] = {}
        for node in graph.nodes:
            if _is_candidate(graph, node, self.zeros) and (type := self._chosen(node, ctx, streamed)) is not None:
                chosen[node] = type
        if not chosen:
            return graph
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            if node in chosen and ctx.budget.spend():
                weight = node.inputs[1].constant
                assert weight is not None
                operands = [rewriter[value] for value in node.inputs]
                operands[1] = rewriter.builder.constant(weight, chosen[node])
                types = [value.type for value in node.outputs]
                new = rewriter.builder.append(Node(node.op, operands, node.attributes, types, (), node.location))
                rewriter.replace(node.output, new.output)
            else:
                rewriter.copy(node)
        return DeadCode().apply(rewriter.finish(), ctx)

    def _chosen(self, node: Node, ctx: Context, streamed: bool) -> TensorType | None:
        """The type of the weight with which ``node`` is predicted to be fastest; None where that is dense."""
        array = node.inputs[1].constant.array()  # type: ignore[union-attr]  # a candidate's weight is a constant
        type = node.inputs[1].tensor
        best, least = None, self.gain * _predicted(node, type, ctx, streamed) - _OVERHEAD
        rows = node.output.tensor.elements // type.static_shape[_output_axis(node)]
        for encoding in _encodings(array, _output_axis(node), rows, ctx.target):
            encoded, seconds = _fastest(node, [encoding.with_values(type.encoding), encoding], ctx, streamed)
            if seconds < least:
                best, least = encoded, seconds
        return best


def _fastest(node: Node, encodings: Sequence[Encoding], ctx: Context, streamed: bool) -> tuple[TensorType, float]:
    """The first of the types by ``encodings`` of a weight, the smallest first, that a kernel takes, and its seconds; infinite without."""
    for encoding in encodings:
        type = node.inputs[1].tensor.with_encoding(encoding)
        seconds = _predicted(node, type, ctx, streamed)
        if seconds < float("inf"):
            break
    return type, seconds


def _constant_bytes(graph: Graph) -> float:
    return sum(stored_bytes(node.output.tensor) for node in graph.nodes if node.op == "constant")


def _is_candidate(graph: Graph, node: Node, zeros: float) -> bool:
    """Whether ``node`` multiplies with a constant of which a sample has so many zeros."""
    if node.op not in ("linear", "matmul", "conv") or node.inputs[1].constant is None:
        return False
    weight, tensors = node.inputs[1].tensor, [value.tensor for value in (*node.inputs, node.output)]
    if weight.rank < 2 or not all(type.is_static and type.dtype is DType.FLOAT32 and not type.is_empty for type in tensors):
        return False
    if (
        weight.encoding.is_sparse
        or (node.op == "matmul" and weight.rank != 2)
        or (node.op == "conv" and node.attributes.get("groups", 1) != 1)
    ):
        return False
    flat = _zero_where_the_weight_is(node.inputs[1].constant).reshape(-1)
    # An odd step, so that a pattern of groups is seen at all of its places.
    sample = flat[:: max(1, flat.size // _SAMPLES) | 1]
    return bool(np.count_nonzero(sample) <= (1.0 - zeros) * sample.size)


def _zero_where_the_weight_is(constant: Constant) -> np.ndarray:
    """Its numbers, or the codes of those, which need not be decoded."""
    if isinstance(constant, EncodedConstant) and constant.scheme.signed and constant.zero_points is None and constant.table is None:
        return constant.codes
    return constant.array()


def _output_axis(node: Node) -> int:
    return 1 if node.op == "matmul" else 0


def _encodings(array: np.ndarray, axis: int, rows: int, target: Target) -> Iterator[Encoding]:
    """The ways to store the zeros of a weight for which there are kernels with so many rows."""
    from ..codegen.emit.expansion import expansion_lanes
    from ..codegen.templates.sparse_matvec import MOST_ROWS as MOST_BITMAP_ROWS

    matrix = array.reshape(array.shape[0], -1)
    matrix = matrix.T if axis else matrix
    lanes = target.vector_lanes
    for width in sorted({1, 2, 4, lanes, 2 * lanes, 4 * lanes}):
        if width == 1 or width * 2 <= matrix.shape[0]:
            entries = _rounded(panel_entries(matrix, width), -(-matrix.shape[0] // width) * matrix.shape[1])
            yield Encoding("block_sparse", (("width", width), ("entries", entries), ("axis", axis)))
    if rows > MOST_BITMAP_ROWS or not expansion_lanes(target):
        return
    for n, m in _PATTERNS:
        if is_nm_sparse(matrix, n, m):
            yield Encoding("nm_sparse", (("n", n), ("m", m), ("axis", 1 - axis)))
            break
    yield Encoding("bitmap", (("elements", _rounded(int(np.count_nonzero(matrix)), matrix.size)),))


def _rounded(count: int, whole: int) -> int:
    """``count`` rounded up, at least 1."""
    step = max(-(-whole // _GRID), 1)
    return max(-(-count // step) * step, 1)


def _predicted(node: Node, weight: TensorType, ctx: Context, streamed: bool) -> float:
    """Seconds of ``node`` alone with a weight of that type, infinite where no kernel takes it: its arithmetic as the template reckons it,
    or the bytes of the weight if those come from memory (``streamed``)."""
    from ..codegen.templates import template_for

    constants = frozenset(position for position, value in enumerate(node.inputs) if value.constant is not None)
    target = ctx.target if streamed else _cached(ctx.target)
    task = Task(canonicalise(_alone(node, weight)), constants, target, ctx.threads, ctx.numerics)
    template = template_for(task.graph, ctx.target.kind)
    if template is None:
        return float("inf")
    if not weight.encoding.is_dense and not template.reads_encoded(task.graph):
        return float("inf") if weight.encoding.is_sparse else _predicted(node, weight.with_encoding(DENSE), ctx, streamed)
    cycles = template.estimated_cycles(task, [template.space(task).default])
    if cycles is None:
        return float("inf")
    seconds = cycles[0] / ctx.target.frequency
    if not streamed:
        return seconds
    reading = stored_bytes(weight) / min(ctx.target.memory_bandwidth, ctx.threads * _CORE_BANDWIDTH)
    return max(seconds, reading) if not weight.encoding.is_sparse else max(seconds + _EXPOSED * reading, reading)


def _cached(target: Target) -> Target:
    """The target as kernels see it whose weights stay in the last-level cache."""
    return replace(target, memory_bandwidth=max(target.memory_bandwidth, target.threads * _CACHED_BYTES_PER_CYCLE * target.frequency))


def _alone(node: Node, weight: TensorType) -> Graph:
    """The region that computes ``node`` with a weight of another type, its images channels last."""
    builder = GraphBuilder(node.op)

    def placed(value: Value) -> TensorType:
        type = value.tensor
        return type.with_layout(channels_last(type.rank)) if node.op == "conv" and type.rank > 2 else type

    operands = [builder.input(weight if position == 1 else placed(value)) for position, value in enumerate(node.inputs)]
    return builder.finish([builder.append(Node(node.op, operands, node.attributes, [placed(node.output)])).output])
