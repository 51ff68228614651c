"""The rows of activations as the kernels of encoded weights read them, in the workspace.

Rows are padded with zeros to whole spans. Beside them may lie their digits (see :mod:`.encoded_codes`), for each span the sum of the
activations and what the sums of products start from, and tables of the sums of some neighbouring activations, one for each subset of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm import tirx

from ..emit import Emitter, Expr, Kernel, spread
from ..target import Target
from ..weight_format import CHUNK
from ..weight_packing import PanelBlock
from .encoded_codes import digit_offsets, digit_weights
from .staging import copy_row, loop_kind
from .vectors import Vectors

_LINE = 16
_MOST = 0x7F7F7F - 1
"""The largest number of three signed bytes, less what rounding may add."""
_EVERY_SIGN = 0x808080
_LEAST_MAGNITUDE = 1e-30
"""What smaller magnitudes of a span are taken for."""


@dataclass(frozen=True)
class RowPlan:
    """What is staged of ``rows`` rows: padded copies, digits, sums of spans, tables of the sums of ``subset`` activations; with ``fixed``
    numbers of 24 bits, the unit of each span, and what the sums of its bytes start from.

    ``starts`` are the weights, one for each code of a chunk, of the sum that a span's products start from; none if all are 0. Places count
    fp32 numbers of the workspace.
    """

    rows: int
    block: PanelBlock
    digits: bool = False
    subset: int = 0
    fixed: bool = False

    @cached_property
    def starts(self) -> np.ndarray | None:
        form = self.block.format
        if self.fixed:
            return None
        constant = np.float32(0 if form.zero is None else form.zero)
        offsets = digit_offsets(form.bits) if self.digits else np.full(CHUNK, -form.least if self.subset else 0, np.float32)
        weights: np.ndarray = offsets - constant
        return weights if weights.any() else None

    @property
    def zero(self) -> int:
        """What is taken off each code by what the sums of bytes start from."""
        return self.block.format.zero or 0 if self.fixed else 0

    @property
    def sums(self) -> bool:
        return self.block.format.zero is None

    @property
    def depth(self) -> int:
        """Of a padded row."""
        return self.block.chunks * CHUNK

    @property
    def stride(self) -> int:
        """Between padded rows, each with a line of zeros behind it."""
        return self.depth + _LINE

    @property
    def lookups(self) -> int:
        """Tables for a chunk."""
        return -(-CHUNK // self.subset) if self.subset else 0

    @property
    def table_stride(self) -> int:
        """Entries of the tables of a row."""
        return self.block.chunks * self.lookups << self.subset

    @property
    def span_stride(self) -> int:
        return -(-self.block.spans // _LINE) * _LINE

    @property
    def digits_at(self) -> int:
        return self.rows * self.stride

    @property
    def starts_at(self) -> int:
        return self.digits_at + (self.rows * self.depth if self.digits or self.fixed else 0)

    @property
    def sums_at(self) -> int:
        each = 4 if self.zero else 1 if self.starts is not None else 0
        return self.starts_at + each * self.rows * self.span_stride

    @property
    def tables_at(self) -> int:
        return self.sums_at + (self.rows * self.span_stride if self.sums else 0)

    @property
    def units_at(self) -> int:
        return self.tables_at + self.rows * self.table_stride

    @property
    def size(self) -> int:
        return self.units_at + (self.rows * self.span_stride if self.fixed else 0)


class StagedRows:
    """Emits what a :class:`RowPlan` says, and reads it."""

    def __init__(self, kernel: Kernel, target: Target, plan: RowPlan) -> None:
        self.plan = plan
        self._emitter: Emitter = kernel.emitter
        self._vectors = Vectors(kernel.emitter, target)
        self._lanes = target.vector_lanes
        self._buffer = kernel.workspace(plan.size, "float32", 0, "rows")

    def stage(self, parallel: int, depth: int, element: Callable[[Expr, Expr], Expr]) -> None:
        """Stages every row, whose ``element(row, k)`` is known for k < ``depth``."""
        emitter, plan = self._emitter, self.plan
        factor = plan.block.format.factor

        def scaled(row: Expr, k: Expr) -> Expr:
            return element(row, k) * tirx.const(factor, "float32") if factor != 1 else element(row, k)

        with emitter.loop(plan.rows, loop_kind(parallel, plan.rows), "row") as row:
            start = emitter.bind(emitter.simplify(row * plan.stride), "start")
            copy_row(emitter, self._lanes, self._buffer, start, depth, lambda k: scaled(row, k))
            copy_row(emitter, self._lanes, self._buffer, start + depth, plan.stride - depth, lambda k: tirx.const(0.0, "float32"))
            if plan.fixed:
                self._stage_fixed(row, start)
            if plan.digits or plan.sums or plan.starts is not None:
                self._stage_spans(row, start)
            if plan.subset:
                self._stage_tables(row, start)

    def _stage_spans(self, row: Expr, start: Expr) -> None:
        """Digits, sums and starts of a row, span by span."""
        emitter, vectors, plan = self._emitter, self._vectors, self.plan
        weights = [*(digit_weights(plan.block.format.bits) if plan.digits else ()), *(() if plan.starts is None else (plan.starts,))]
        held = self._held(np.concatenate(weights)) if weights else None
        chunks = plan.block.span
        totals = emitter.allocate(2 * self._lanes, "float32", "totals")
        with emitter.loop(plan.block.spans, name="span") as span:
            for total in (0, self._lanes):
                vectors.store(totals, total, vectors.constant(0.0))
            with emitter.loop(chunks, name="chunk") as chunk:
                first = emitter.bind(emitter.simplify((span * chunks + chunk) * CHUNK), "k")
                for lane in range(0, CHUNK, self._lanes):
                    x = vectors.load(self._buffer, start + first + lane)
                    if plan.digits:
                        following = vectors.load(self._buffer, start + first + (lane + 1))
                        own = vectors.times(x, vectors.load(held, lane))
                        digit = vectors.subtract(own, vectors.times(following, vectors.load(held, CHUNK + lane)))
                        vectors.store(self._buffer, self._digit_place(row, first + lane), digit)
                    if plan.starts is not None:
                        weight = vectors.load(held, (2 * CHUNK if plan.digits else 0) + lane)
                        vectors.store(totals, 0, vectors.fused(x, weight, vectors.load(totals, 0)))
                    if plan.sums:
                        vectors.store(totals, self._lanes, vectors.add(x, vectors.load(totals, self._lanes)))
            place = row * plan.span_stride + span
            if plan.starts is not None:
                emitter.store(self._buffer, vectors.across(vectors.load(totals, 0)), plan.starts_at + place)
            if plan.sums:
                emitter.store(self._buffer, vectors.across(vectors.load(totals, self._lanes)), plan.sums_at + place)

    def _stage_fixed(self, row: Expr, start: Expr) -> None:
        """The activations of a row as multiples of a unit of their span, in three signed bytes; those of each four together, a word of the
        first bytes, one of the second and one of the third. The copies become what the multiples stand for."""
        emitter, vectors, plan = self._emitter, self._vectors, self.plan
        extent = plan.block.span * CHUNK
        totals = emitter.allocate(self._lanes, "int32", "totals")
        largest = emitter.allocate(self._lanes, "int32", "largest")
        with emitter.loop(plan.block.spans, name="span") as span:
            first = emitter.bind(emitter.simplify(start + span * extent), "first")
            vectors.store(largest, 0, tirx.Cast(f"int32x{self._lanes}", vectors.constant(0.0)))
            with emitter.loop(extent // self._lanes) as block:
                # Magnitudes are in the order of their bits.
                bits = vectors.reinterpreted(vectors.load(self._buffer, first + block * self._lanes), "int32")
                vectors.store(largest, 0, vectors.larger(vectors.masked(bits, 0x7FFFFFFF), vectors.load(largest, 0)))
            magnitude = tirx.reinterpret("float32", vectors.largest_across(vectors.load(largest, 0)))
            safe = emitter.bind(tirx.Max(magnitude, tirx.const(_LEAST_MAGNITUDE, "float32")))
            unit = emitter.bind(safe / tirx.const(float(_MOST), "float32"), "unit")
            emitter.store(self._buffer, unit, plan.units_at + row * plan.span_stride + span)
            inverse = emitter.bind(tirx.const(float(_MOST), "float32") / safe, "inverse")
            vectors.store(totals, 0, spread(tirx.const(0, "int32"), self._lanes))
            with emitter.loop(extent // self._lanes) as block:
                place = first + block * self._lanes
                number = vectors.rounded(vectors.times(vectors.load(self._buffer, place), spread(inverse, self._lanes)))
                vectors.store(self._buffer, place, vectors.times(vectors.converted(number), spread(unit, self._lanes)))
                # A carry for each byte that will be negative.
                digits = vectors.flipped(vectors.offset(number, _EVERY_SIGN), _EVERY_SIGN)
                words = vectors.quads_transposed(digits)
                place = self._digit_place(row, span * extent + block * self._lanes)
                vectors.store(self._buffer, place, vectors.reinterpreted(words, "float32"))
                if plan.zero:
                    vectors.store(totals, 0, vectors.add(vectors.load(totals, 0), vectors.quads_added(words)))
            if plan.zero:
                starts = vectors.reinterpreted(vectors.scaled(vectors.lanes_of_quads_added(vectors.load(totals, 0)), -plan.zero), "float32")
                vectors.store(self._buffer, plan.starts_at + 4 * (row * plan.span_stride + span), starts)

    def _stage_tables(self, row: Expr, start: Expr) -> None:
        """The tables of a row: entry e of a subset is the sum of those of its activations whose bits are set in e."""
        emitter, vectors, plan = self._emitter, self._vectors, self.plan
        entries = np.arange(1 << plan.subset)
        held = self._held(np.concatenate([entries >> bit & 1 for bit in range(plan.subset)]).astype(np.float32))
        with emitter.loop(plan.block.chunks, name="chunk") as chunk:
            place = self.table_place(row, chunk)
            for number in range(plan.lookups):
                table = vectors.constant(0.0)
                for bit in range(min(plan.subset, CHUNK - number * plan.subset)):
                    activation = vectors.everywhere(self._buffer, start + chunk * CHUNK + (number * plan.subset + bit))
                    table = vectors.fused(activation, vectors.load(held, bit << plan.subset), table)
                vectors.store(self._buffer, place + (number << plan.subset), table)

    def _held(self, numbers: np.ndarray) -> Any:
        """A buffer on the stack that holds constants."""
        held = self._emitter.allocate(len(numbers), "float32", "held")
        for position, number in enumerate(numbers):
            self._emitter.store(held, tirx.const(float(number), "float32"), position)
        return held

    def place(self, row: Expr, k: Expr) -> Expr:
        """Where the activation, or its digit, lies that code ``k`` of a column is multiplied with; the next ones lie behind."""
        return self._digit_place(row, k) if self.plan.digits else row * self.plan.stride + k

    def number(self, place: Expr, position: int) -> Expr:
        """What lies ``position`` behind ``place``, in every lane."""
        return self._vectors.everywhere(self._buffer, place + position)

    def four(self, row: Expr | int, k: Expr, byte: int) -> Expr:
        """Byte ``byte`` of the numbers of 24 bits from ``k`` on, four of them as a word in every lane."""
        return self._vectors.reinterpreted(self._vectors.everywhere(self._buffer, self._digit_place(row, k) + byte), "int32")

    def byte_start(self, row: Expr | int, span: Expr, byte: int) -> Expr:
        """What the sum of the products of a span and its bytes ``byte`` starts from, in every lane: int32."""
        place = self.plan.starts_at + 4 * (row * self.plan.span_stride + span) + byte
        return self._vectors.reinterpreted(self._vectors.everywhere(self._buffer, place), "int32")

    def unit(self, row: Expr | int, span: Expr) -> Expr:
        """What the numbers of 24 bits of a span are multiples of, in every lane."""
        return self._vectors.everywhere(self._buffer, self.plan.units_at + row * self.plan.span_stride + span)

    def start(self, row: Expr | int, span: Expr) -> Expr:
        """What the sum of a span's products starts from, in every lane."""
        return self._vectors.everywhere(self._buffer, self.plan.starts_at + row * self.plan.span_stride + span)

    def sum(self, row: Expr | int, span: Expr) -> Expr:
        """The sum of a span's activations, in every lane."""
        return self._vectors.everywhere(self._buffer, self.plan.sums_at + row * self.plan.span_stride + span)

    def table_place(self, row: Expr, chunk: Expr) -> Expr:
        """Where the tables of a chunk lie."""
        plan = self.plan
        place = plan.tables_at + row * plan.table_stride + chunk * (plan.lookups << plan.subset)
        return self._emitter.bind(self._emitter.simplify(place), "tables")

    def table(self, place: Expr, number: int) -> Expr:
        """The vector that is table ``number`` from ``place`` on."""
        return self._vectors.load(self._buffer, place + (number << self.plan.subset))

    def _digit_place(self, row: Expr | int, k: Expr) -> Expr:
        return self.plan.digits_at + row * self.plan.depth + k
