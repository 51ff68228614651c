"""What a fused graph has to do, whatever the schedule: its dominating operation, arithmetic, and the bytes it must touch.

Figures here are *lower* limits, so that a bound built on them holds: taps of a convolution that fall on padding are not
counted, nor the rows of an embedding table that nothing reads. Of a sparse weight they are what its type has room for.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..codegen.winograd import OUTPUTS, WINDOW, products_share
from ..ir import Graph, Kind, Node, TensorType, Trait, lookup
from ..ir.ops.elementwise import TRANSCENDENTAL_FLOPS
from ..ir.stored_size import stored_share
from ..ir.touched import touched_bytes


class AnchorKind(enum.Enum):
    """The family of the operation that dominates a fused graph, the heaviest first."""

    MATMUL = "matmul"
    CONV = "conv"
    DEPTHWISE = "depthwise"
    ATTENTION = "attention"
    POOLING = "pooling"
    NORMALISATION = "normalisation"
    REDUCTION = "reduction"
    GATHER = "gather"
    ELEMENTWISE = "elementwise"
    MOVEMENT = "movement"


@dataclass(frozen=True)
class Anchor:
    """The dominating operation written as a batch of products [rows, depth] x [depth, columns].

    For a convolution rows are output positions, columns output channels of a group, depth input channels of a group times
    ``taps``, batch the groups; ``run`` is how many rows follow each other at equal distances in the operand (one line of an image
    where a window slides over it). For a reduction or normalisation depth is the reduced extent. Otherwise columns is the innermost
    stored extent, rows the rest.
    """

    kind: AnchorKind
    batch: int
    rows: int
    columns: int
    depth: int
    taps: int = 1
    stride: int = 1
    run: int = 0


@dataclass(frozen=True)
class Workload:
    """Work of a fused graph.

    ``operations`` counts fp32-equivalent arithmetic (a multiply-add is two; narrower types count for less, since a vector holds
    more of them). Bytes are touched ones: of inputs known at compile time, of other inputs, of outputs. ``transcendental``
    counts evaluations of exp and the like, ``nodes`` the operations that compute, ``inner`` is the innermost stored extent
    of the first output.
    """

    anchor: Anchor
    operations: float
    constant_bytes: int
    activation_bytes: int
    output_bytes: int
    transcendental: int
    nodes: int
    inner: int

    @property
    def nbytes(self) -> int:
        return self.constant_bytes + self.activation_bytes + self.output_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / max(self.nbytes, 1)


@lru_cache(maxsize=512)
def workload(graph: Graph, constant_inputs: frozenset[int] = frozenset()) -> Workload:
    """The work of the statically shaped ``graph`` (the region of a fusion, or any graph without nested regions)."""
    computing = [node for node in graph.nodes if node.op != "constant" and not lookup(node.op).has(Trait.VIEW)]
    touched = [touched_bytes(graph, value) for value in graph.inputs]
    constant_bytes = sum(nbytes for position, nbytes in enumerate(touched) if position in constant_inputs)
    first = graph.outputs[0].tensor if graph.outputs else None
    return Workload(
        anchor=_anchor(graph, computing),
        operations=sum(operations(node) for node in computing),
        constant_bytes=constant_bytes,
        activation_bytes=sum(touched) - constant_bytes,
        output_bytes=sum(value.tensor.nbytes for value in dict.fromkeys(graph.outputs)),
        transcendental=sum(_transcendental(node) for node in computing),
        nodes=len(computing),
        inner=first.physical_shape[-1] if first is not None and first.rank else 1,
    )


def operations(node: Node) -> float:
    """Arithmetic that every kernel for ``node`` has to do, in fp32 operations."""
    inputs = [value.tensor for value in node.inputs]
    outputs = [value.tensor for value in node.outputs]
    flops: float = lookup(node.op).flops(inputs, node.attributes, outputs)
    if node.op in ("conv", "window_reduce") and outputs[0].elements:
        flops *= _share_of_real_taps(node, inputs, outputs[0])
    if lookup(node.op).has(Trait.CONTRACTION) and inputs[1].encoding.is_sparse:
        flops *= stored_share(inputs[1])
    if sums_wide(node):
        # The instructions for narrow operands do the sums as well.
        return flops * max(type.dtype.nbytes for type in inputs[:2]) / 4
    widest = max((type.dtype for type in (*inputs, *outputs)), key=lambda dtype: dtype.nbytes, default=None)
    if widest is not None and widest.kind is not Kind.FLOAT and widest.nbytes < 4:
        flops *= widest.nbytes / 4
    return flops


def sums_wide(node: Node) -> bool:
    """Whether ``node`` is a contraction of narrow operands that is summed in 32 bits."""
    return lookup(node.op).has(Trait.CONTRACTION) and node.attributes.get("dtype") is not None


@lru_cache(maxsize=512)
def least_operations(graph: Graph) -> float:
    """Arithmetic of ``graph`` by the algorithms that need least: minimal filtering computes 3x3 windows that move by single pixels with
    (m + 2)**2 products instead of 9 m**2 (its transforms, which grow with a channel instead of a pair of them, are left out)."""
    total = 0.0
    for node in graph.nodes:
        if node.op == "constant" or lookup(node.op).has(Trait.VIEW):
            continue
        share = min(products_share(outputs) for outputs in OUTPUTS) if is_minimal_filtering(node) else 1.0
        total += share * operations(node)
    return total


def is_minimal_filtering(node: Node) -> bool:
    """Whether ``node`` is a convolution in fp32 that can be computed with fewer products (Winograd 1980): none that leaves out zeros."""
    if node.op != "conv" or node.attributes["groups"] != 1 or node.attributes["dtype"] is not None:
        return False
    if node.inputs[1].tensor.encoding.is_sparse:
        return False
    window = node.inputs[1].tensor.static_shape[2:]
    return window == (WINDOW, WINDOW) and node.integers("stride") == (1, 1) == node.integers("dilation")


def _share_of_real_taps(node: Node, inputs: Sequence[TensorType], output: TensorType) -> float:
    """The part of all (position, tap) pairs of a sliding window whose tap falls on data rather than padding."""
    window = inputs[1].static_shape[2:] if node.op == "conv" else node.integers("window")
    stride, dilation = node.integers("stride"), node.integers("dilation")
    padding = node.attributes["padding"]
    assert isinstance(padding, tuple)
    share = 1.0
    for axis, size in enumerate(window):
        extent, positions = inputs[0].static_shape[2 + axis], output.static_shape[2 + axis]
        pair = padding[axis]
        assert isinstance(pair, tuple)
        low = pair[0]
        assert isinstance(low, int)
        real = 0
        for tap in range(size):
            # 0 <= position * stride + tap * dilation - low < extent
            first = max(0, -(-(low - tap * dilation[axis]) // stride[axis]))
            last = min(positions - 1, (extent - 1 + low - tap * dilation[axis]) // stride[axis])
            real += max(0, last - first + 1)
        share *= real / (positions * size)
    return share


def _transcendental(node: Node) -> int:
    op = lookup(node.op)
    if op.has(Trait.CONTRACTION):
        return node.inputs[0].tensor.elements // max(node.inputs[0].tensor.static_shape[-1], 1) if node.op == "attention" else 0
    outputs = [value.tensor for value in node.outputs]
    elements = outputs[0].elements
    if not elements:
        return 0
    return elements if op.flops([value.tensor for value in node.inputs], node.attributes, outputs) >= TRANSCENDENTAL_FLOPS * elements else 0


def _anchor(graph: Graph, computing: Sequence[Node]) -> Anchor:
    """The heaviest computing node; a graph that only moves data is described by its first output."""
    if not computing:
        if not graph.outputs:
            return Anchor(AnchorKind.MOVEMENT, 1, 1, 1, 1)
        return _elementwise_anchor(AnchorKind.MOVEMENT, graph.outputs[0].tensor)
    order = {kind: position for position, kind in enumerate(AnchorKind)}
    anchors = [(node, _kind(node)) for node in computing]
    node, kind = min(anchors, key=lambda pair: (order[pair[1]], -operations(pair[0]), -pair[0].outputs[0].tensor.elements))
    return _describe(node, kind)


def _kind(node: Node) -> AnchorKind:
    op = lookup(node.op)
    if node.op in ("matmul", "linear", "grouped_matmul", "monarch"):
        return AnchorKind.MATMUL
    if node.op in ("conv", "conv_transpose"):
        groups = node.attributes["groups"]
        assert isinstance(groups, int)
        return AnchorKind.DEPTHWISE if groups > 1 and groups == node.inputs[0].tensor.static_shape[1] else AnchorKind.CONV
    if node.op == "attention":
        return AnchorKind.ATTENTION
    if node.op in ("window_reduce", "resample"):
        return AnchorKind.POOLING
    if op.has(Trait.NORMALISATION):
        return AnchorKind.NORMALISATION
    if op.has(Trait.REDUCTION) or node.op == "sort":
        return AnchorKind.REDUCTION
    if node.op in ("take", "take_along", "take_nd", "scatter_along", "scatter_nd"):
        return AnchorKind.GATHER
    return AnchorKind.ELEMENTWISE if op.has(Trait.ELEMENTWISE) else AnchorKind.MOVEMENT


def _describe(node: Node, kind: AnchorKind) -> Anchor:
    output = node.outputs[0].tensor
    shape = output.static_shape
    if kind is AnchorKind.MATMUL:
        depth = node.inputs[0].tensor.static_shape[-1]
        if node.op == "linear":
            return Anchor(kind, 1, math.prod(shape[:-1]), shape[-1], depth)
        if node.op == "monarch":
            # The dense product with the same arithmetic for each result.
            stored = sum(value.tensor.elements for value in node.inputs[1:])
            return Anchor(kind, 1, math.prod(shape[:-1]), shape[-1], max(stored // shape[-1], 1))
        return Anchor(kind, math.prod(shape[:-2]), shape[-2], shape[-1], depth)
    if kind in (AnchorKind.CONV, AnchorKind.DEPTHWISE):
        weight = node.inputs[1].tensor.static_shape
        groups = node.attributes["groups"]
        assert isinstance(groups, int)
        taps = math.prod(weight[2:])
        channels = shape[1] if kind is AnchorKind.DEPTHWISE else shape[1] // groups
        batch = 1 if kind is AnchorKind.DEPTHWISE else groups
        inside = 1 if kind is AnchorKind.DEPTHWISE else node.inputs[0].tensor.static_shape[1] // groups
        positions, stride = shape[0] * math.prod(shape[2:]), max(node.integers("stride"), default=1)
        run = shape[-1] if taps > 1 or stride > 1 else positions
        return Anchor(kind, batch, positions, channels, inside * taps, taps, stride, run)
    if kind is AnchorKind.ATTENTION:
        batch, heads, queries, width = shape
        return Anchor(kind, batch * heads, queries, node.inputs[1].tensor.static_shape[2], width)
    source = node.inputs[0].tensor if node.inputs else output
    if kind is AnchorKind.POOLING:
        taps = math.prod(node.integers("window")) if node.op == "window_reduce" else 1
        stride = max(node.integers("stride"), default=1) if node.op == "window_reduce" else 1
        return Anchor(kind, 1, max(output.elements // max(shape[1], 1), 1), shape[1], taps, taps, stride)
    if kind is AnchorKind.NORMALISATION:
        axis = node.attributes.get("axis")
        depth = source.static_shape[axis] if isinstance(axis, int) and source.rank else source.static_shape[-1] if source.rank else 1
        return Anchor(kind, 1, max(source.elements // max(depth, 1), 1), 1, depth)
    if kind is AnchorKind.REDUCTION:
        return Anchor(kind, 1, output.elements, 1, max(source.elements // max(output.elements, 1), 1))
    return _elementwise_anchor(kind, output)


def _elementwise_anchor(kind: AnchorKind, output: TensorType) -> Anchor:
    inner = output.physical_shape[-1] if output.rank else 1
    return Anchor(kind, 1, max(output.elements // max(inner, 1), 1), inner, 1)
