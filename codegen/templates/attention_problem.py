"""What the two ways of computing attention share: extents, access to the operands, the epilogue."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tvm import tirx

from ...ir import DType, Value
from ..emit import Emitter, Evaluator, Expr, Kernel, index
from ..emit.attributes import attributes_of
from ..emit.math import f32, select
from .region import AnchoredRegion

LOWEST = f32(-math.inf)


class AttentionProblem:
    """The anchor of ``region``; ``kernel`` is None while only the extents matter.

    ``queries`` x ``keys`` scores for each of ``batch`` x ``heads``; ``group`` query heads share a key head. Rows of q and k have
    ``width`` elements, rows of v ``value_width``.
    """

    def __init__(self, region: AnchoredRegion, kernel: Kernel | None) -> None:
        node = region.anchor
        self.region = region
        self.q, self.k, self.v = node.inputs[:3]
        self.mask = node.inputs[3] if len(node.inputs) > 3 else None
        self.batch, heads, self.queries, width = self.q.tensor.shape
        _, key_heads, self.keys, value_width = self.v.tensor.shape
        # Batch, queries and keys may be symbolic.
        self.heads, self.width, self.key_heads, self.value_width = int(heads), int(width), int(key_heads), int(value_width)
        self.group = self.heads // self.key_heads
        self.scale = float(attributes_of(node)["scale"])
        self.causal = bool(node.attributes["is_causal"])
        self._element: Expr = None
        bounds = Emitter()
        bounds.declare_symbols(region.graph.symbols)
        self.most_keys = bounds.most(self.keys)
        """What the keys never exceed; None when nothing bounds a symbolic number."""
        if kernel is not None:
            self.kernel = kernel
            self.emitter: Emitter = kernel.emitter
            self.evaluator = Evaluator(kernel, {node.output: lambda indices: self._element})

    def query(self, batch: Expr, head: Expr, row: Expr, column: Expr) -> Expr:
        """An element of q."""
        return self.evaluator.value_at(self.q, [batch, head, row, column])

    def key(self, batch: Expr, head: Expr, row: Expr, column: Expr) -> Expr:
        """An element of k; ``head`` is a key head."""
        return self.evaluator.value_at(self.k, [batch, head, row, column])

    def value(self, batch: Expr, head: Expr, row: Expr, column: Expr) -> Expr:
        """An element of v; ``head`` is a key head."""
        return self.evaluator.value_at(self.v, [batch, head, row, column])

    def stretches(self, value: Value, step: int) -> list[tuple[int, int]]:
        """(start, extent) of the parts of a row of ``value``, k or v, that are concatenated where they are decoded; one if they are no
        multiples of ``step``. What is known to lie within one needs no choice among them."""
        width = int(value.tensor.shape[-1])
        borders = {0, width, *_borders(value, width)}
        if any(border % step for border in borders):
            return [(0, width)]
        return [(low, high - low) for low, high in itertools.pairwise(sorted(borders))]

    @property
    def mask_varies_by_query(self) -> bool:
        """Whether queries have masks of their own."""
        if self.mask is None:
            return False
        shape = self.mask.tensor.shape
        return len(shape) >= 2 and shape[-2] != 1

    def bias(self, batch: Expr, head: Expr, row: Expr, key: Expr) -> Expr:
        """What the mask adds to a score: 0 or minus infinity for a boolean one."""
        assert self.mask is not None
        shape = self.mask.tensor.shape
        indices: Sequence[Expr] = [batch, head, row, key][4 - len(shape) :]
        place = [index(0) if extent == 1 else position for extent, position in zip(shape, indices, strict=True)]
        element = self.evaluator.value_at(self.mask, place)
        return select(element, f32(0.0), LOWEST) if self.mask.tensor.dtype is DType.BOOL else element

    def store(self, batch: Expr, head: Expr, row: Expr, column: Expr, element: Expr) -> None:
        """Stores what the outputs make of one element of the result."""
        self._element = self.emitter.bind(element)
        for position, output in enumerate(self.region.graph.outputs):
            self.evaluator.store_outputs(position, self.region.place(self.kernel, output, [batch, head, row, column]))


def _borders(value: Value, width: int) -> set[int]:
    """Where rows of ``width`` elements, from which ``value`` comes by views and elementwise, are made of parts."""
    if value.node is None:
        return set()
    found = set().union(*(_borders(operand, width) for operand in value.node.inputs))
    if value.op == "concat" and value.tensor.shape[-1] == width and attributes_of(value.node)["axis"] == value.tensor.rank - 1:
        found |= set(itertools.accumulate(int(operand.tensor.shape[-1]) for operand in value.node.inputs))
    return found


def safe_maximum(emitter: Emitter, highest: Expr) -> Expr:
    """The maximum to subtract: 0 where every score is minus infinity, whose difference would be NaN."""
    return emitter.bind(select(highest < f32(-3.0e38), f32(0.0), highest))


def safe_inverse(emitter: Emitter, total: Expr) -> Expr:
    """1 / total, and 0 for a row without any key."""
    positive = tirx.GT(total, f32(0.0))
    return emitter.bind(select(positive, f32(1.0) / select(positive, total, f32(1.0)), f32(0.0)))
